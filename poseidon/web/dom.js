// Small helpers for the document. Text from devices only ever goes in as text nodes.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Makes an element: `el("td", { class: "c-name", title: "…" }, child, "text")`. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else {
      attribute(node, name, value);
    }
  }
  node.append(...children);
  return node;
}

/** Sets the text of an element that holds nothing but text; unchanged text costs nothing. */
export function text(node, value) {
  const first = node.firstChild;
  if (first === null) {
    if (value !== "") node.append(value);
  } else if (first.nodeType === Node.TEXT_NODE && first.nextSibling === null) {
    if (first.data !== value) first.data = value;
  } else {
    node.textContent = value;
  }
}

/** Sets an attribute where it differs; `null` and `false` remove it. */
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value === true ? "" : value);
  }
}

/** Shows or hides. */
export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** Shows `message` in a paragraph, or hides the paragraph where there is none. */
export function say(node, message) {
  text(node, message ?? "");
  show(node, Boolean(message));
}

/**
 * Brings `parent`'s children in line with `items`, in place: existing children are kept and updated,
 * so that scroll, focus and selection stay.
 */
export function sync(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, i) => {
    let node = parent.children[i];
    if (node === undefined) {
      node = make();
      parent.append(node);
    }
    update(node, item);
  });
}

/** Puts `nodes` in this order into `parent` with few moves; other children go. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) {
    if (!wanted.has(child)) child.remove();
  }
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (at === node) {
      at = at.nextElementSibling;
    } else if (at !== null && at.nextElementSibling === node) {
      // One row went down: move that one, not all below it.
      const next = node.nextElementSibling;
      parent.append(at);
      at = next;
      if (at === null) at = parent.lastElementChild;
    } else {
      parent.insertBefore(node, at);
    }
  }
}

/** A bar for a share of 0..1. */
export function meter(extra = "") {
  return el("div", { class: `meter ${extra}`, "aria-hidden": "true" }, el("div", { class: "fill" }));
}

/** Sets a bar; `null` empties it. */
export function setMeter(node, share) {
  const clamped = share === null ? 0 : Math.min(1, Math.max(0, share));
  const scale = `scaleX(${clamped.toFixed(3)})`;
  const fill = node.firstElementChild;
  if (fill.style.transform !== scale) fill.style.transform = scale;
  attribute(node, "data-level", share === null ? "none" : level(share));
}

/** How serious a share of 0..1 is. */
export function level(share) {
  if (share >= 0.9) return "high";
  return share >= 0.75 ? "raised" : "fine";
}

/** A button that acts at the second press within four seconds. */
export function confirmed(button, question, act) {
  const label = button.textContent;
  let timer = 0;
  const disarm = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = label;
    button.classList.remove("armed");
  };
  button.addEventListener("click", () => {
    if (timer) {
      disarm();
      act();
    } else {
      button.style.minWidth = `${button.offsetWidth}px`; // Nothing moves under the pointer.
      button.textContent = question;
      button.classList.add("armed");
      timer = setTimeout(disarm, 4000);
    }
  });
  button.addEventListener("blur", () => timer && disarm());
}
