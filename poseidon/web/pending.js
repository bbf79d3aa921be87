// Identifiers that wait for approval: a list kept by key, so that a name being typed stays.

import { now } from "./clock.js";
import { arrange, byId, confirmed, el, say, show, text } from "./dom.js";
import { ago, counted, number, plain } from "./format.js";
import { fleet } from "./store.js";

const items = new Map();

/** Wires the list up; `notice` tells the operator what happened. */
export function setUp(notice) {
  fleet.addEventListener("pending", () => update(notice));
  fleet.addEventListener("link", () => update(notice));
  setInterval(() => document.hidden || items.forEach(describe), 1000);
}

function update(notice) {
  const nodes = [];
  const seen = new Set();
  for (const entry of fleet.pending) {
    const id = plain(entry.id);
    seen.add(id);
    if (!items.has(id)) items.set(id, makeItem(id, notice));
    const item = items.get(id);
    item.entry = entry;
    describe(item);
    nodes.push(item.node);
  }
  for (const id of items.keys()) {
    if (!seen.has(id)) items.delete(id);
  }
  arrange(byId("pending-list"), nodes);
  text(byId("pending-count"), String(nodes.length));
  show(byId("pending"), nodes.length > 0);
}

function makeItem(id, notice) {
  const about = el("span", { class: "sub" });
  const error = el("p", { class: "error", role: "alert", hidden: true });
  const input = el("input", {
    type: "text",
    placeholder: "Name",
    "aria-label": `Name for ${id}`,
    maxlength: 64,
    autocomplete: "off",
    spellcheck: "false",
  });
  const approve = el("button", { class: "primary", type: "submit" }, "Approve");
  const refuse = el("button", { class: "danger", type: "button" }, "Refuse");
  const act = async (call, done) => {
    approve.disabled = refuse.disabled = true;
    say(error, "");
    try {
      await call;
      notice(done);
    } catch (failure) {
      say(error, `Not done: ${plain(failure.message)}`);
    } finally {
      approve.disabled = refuse.disabled = false;
    }
  };
  const form = el("form", {}, input, approve, refuse);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    void act(fleet.approve(id, name), `${name || id} is approved and gets in at its next try.`);
  });
  confirmed(refuse, "Sure?", () => act(fleet.refuse(id), `${id} is refused and stays out.`));
  const node = el("li", {}, el("div", { class: "who" }, el("code", {}, id), about), form, error);
  return { node, about, entry: {} };
}

function describe({ about, entry }) {
  const [first, last] = [number(entry.firstSeen), number(entry.lastSeen)];
  const parts = [plain(entry.agent), plain(entry.address)];
  if (number(entry.attempts) !== null) parts.push(counted(entry.attempts, "try").replace("trys", "tries"));
  if (last !== null) parts.push(`last seen ${ago(now() - last)}`);
  const keys = Array.isArray(entry.keyIds) ? entry.keyIds.map(plain) : [];
  if (keys.length > 0) parts.push(`${keys.length > 1 ? "keys" : "key"} ${keys.join(", ")}`);
  if (first !== null && last - first >= 60) parts.push(`first seen ${ago(now() - first)}`);
  text(about, parts.filter(Boolean).join(" · "));
}
