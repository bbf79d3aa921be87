// The fleet: a table whose rows are kept by key and updated in place.

import { now } from "./clock.js";
import { arrange, attribute, byId, el, meter, say, setMeter, show, text } from "./dom.js";
import { ago, counted, date, span } from "./format.js";
import { summary } from "./health.js";
import { fleet } from "./store.js";

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const byText = (field) => (a, b) => collator.compare(a[field], b[field]);
const byShare = (field) => (a, b) => (a[field].share ?? -1) - (b[field].share ?? -1);

/** How each column compares, and which way it is sorted at the first press. */
const SORTS = {
  state: { compare: (a, b) => a.up - b.up || (b.since ?? 0) - (a.since ?? 0), descending: false },
  name: { compare: byText("name"), descending: false },
  address: { compare: byText("address"), descending: false },
  system: { compare: (a, b) => collator.compare(a.system, b.system) || byText("hostname")(a, b), descending: false },
  load: { compare: byShare("load"), descending: true, moving: true },
  memory: { compare: byShare("memory"), descending: true, moving: true },
  disk: { compare: byShare("disk"), descending: true, moving: true },
  seen: { compare: (a, b) => (a.seen ?? 0) - (b.seen ?? 0), descending: true, moving: true },
};

// A table sorted by what changes all the time is put in order this often, and never under the reader's hand.
const RESORT = 3000;

const table = byId("agents");
const body = table.tBodies[0];
const rows = new Map();
let sort = { by: "name", descending: false };
let state = "";
let needle = "";
let sortedAt = 0;
let untidy = false;
let active = false;

/** Wires the table up. */
export function setUp() {
  for (const head of table.querySelectorAll("th")) {
    head.querySelector("button").addEventListener("click", () => sortBy(head.dataset.sort));
  }
  for (const chip of document.querySelectorAll("#fleet .chip")) {
    chip.addEventListener("click", () => {
      state = chip.dataset.state;
      for (const other of document.querySelectorAll("#fleet .chip")) {
        attribute(other, "aria-pressed", String(other === chip));
      }
      order();
    });
  }
  byId("filter").addEventListener("input", (event) => {
    needle = event.target.value.trim().toLowerCase();
    order();
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a, label") && getSelection().isCollapsed) row.querySelector("a").click();
  });
  fleet.addEventListener("agents", ({ detail }) => update(detail));
  fleet.addEventListener("pending", () => active && order());
  setInterval(() => {
    if (!active || document.hidden) return;
    tick();
    if (untidy) tidy();
  }, 1000);
  showSort();
}

/** Says whether the fleet is what is on the screen. */
export function setActive(value) {
  active = value;
  if (active) {
    tick();
    order();
  }
}

/** Puts the focus on the row of this agent. */
export function focusRow(key) {
  rows.get(key)?.node.querySelector("a").focus({ preventScroll: true });
}

function sortBy(column) {
  const { descending } = SORTS[column];
  sort = { by: column, descending: sort.by === column ? !sort.descending : descending };
  showSort();
  order();
}

function showSort() {
  for (const head of table.querySelectorAll("th")) {
    const sorted = head.dataset.sort === sort.by;
    attribute(head, "aria-sort", sorted ? (sort.descending ? "descending" : "ascending") : null);
  }
}

function update({ keys, replaced }) {
  let added = false;
  if (replaced) {
    for (const key of [...rows.keys()]) {
      if (!fleet.agents.has(key)) rows.delete(key);
    }
  }
  for (const key of replaced ? fleet.agents.keys() : keys) {
    const agent = fleet.agents.get(key);
    if (agent === undefined) continue;
    const found = summary(agent);
    let row = rows.get(key);
    if (row === undefined) {
      row = { key, ...makeRow(key) };
      rows.set(key, row);
      added = true;
    } else if (row.data.up !== found.up || row.data.haystack !== found.haystack || row.data.name !== found.name) {
      added = true;
    }
    found.shared = row.data?.shared ?? false;
    row.data = found;
    fill(row);
  }
  count();
  if (!active) return;
  if (added || replaced) {
    order();
  } else if (SORTS[sort.by].moving || sort.by === "state") {
    untidy = true;
  }
}

function makeRow(key) {
  const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
  const measured = (name, label) => {
    const value = el("span", { class: "value" });
    const bar = meter();
    return { value, bar, cell: cell(name, el("span", { class: "label" }, label), value, bar) };
  };
  const parts = {
    // Shown while several devices are being chosen (many.js).
    pick: el("input", { type: "checkbox", class: "pick", value: key }),
    state: el("span", { class: "state" }),
    since: el("span", { class: "sub" }),
    link: el("a", { href: `#/agents/${key}` }),
    instance: el("span", { class: "sub mono" }),
    collision: el("span", { class: "badge", hidden: true }, "collision"),
    address: el("span"),
    hostname: el("span", { class: "line" }),
    system: el("span", { class: "sub" }),
    load: measured("load", "Load"),
    memory: measured("memory", "Memory"),
    disk: measured("disk", "Disk"),
    seen: el("span", { class: "value" }),
  };
  const node = el(
    "tr",
    { role: "row" },
    cell("state", el("label", { class: "picker" }, parts.pick, el("span", { class: "sr-only" }, "Select")), parts.state, parts.since),
    cell("name", parts.link, parts.instance, parts.collision),
    cell("address", parts.address),
    cell("system", parts.hostname, parts.system),
    parts.load.cell,
    parts.memory.cell,
    parts.disk.cell,
    cell("seen", el("span", { class: "label" }, "Last seen"), parts.seen),
  );
  return { node, parts };
}

function fill({ node, parts, data }) {
  attribute(node, "data-state", data.up ? "up" : "down");
  text(parts.state, data.up ? "Up" : "Down");
  attribute(parts.state, "data-state", data.up ? "up" : "down");
  text(parts.link, data.name || "(no name)");
  attribute(parts.link, "title", data.name);
  attribute(parts.pick, "aria-label", `Select ${data.name}`);
  text(parts.instance, data.shared ? data.instance.slice(0, 8) : "");
  text(parts.collision, data.warning);
  show(parts.collision, data.collision !== "");
  attribute(parts.collision, "title", data.collision || null);
  text(parts.address, data.host);
  attribute(parts.address, "title", data.address);
  text(parts.hostname, data.hostname || "–");
  attribute(parts.hostname, "title", data.hostname || null);
  text(parts.system, data.system);
  attribute(parts.system, "title", data.system || null);
  for (const field of ["load", "memory", "disk"]) {
    const { value, bar, cell } = parts[field];
    text(value, data[field].text);
    attribute(cell, "title", data[field].title);
    setMeter(bar, data[field].share);
  }
  attribute(parts.seen, "title", date(data.seen));
  ages({ parts, data }, now());
}

function ages({ parts, data }, time) {
  text(parts.since, data.since === null ? "" : `for ${span(time - data.since)}`);
  text(parts.seen, data.seen === null ? "never" : ago(time - data.seen));
}

function tick() {
  const time = now();
  for (const row of rows.values()) {
    if (row.node.isConnected) ages(row, time);
  }
}

function count() {
  let up = 0;
  const names = new Map();
  for (const { data } of rows.values()) {
    if (data.up) up += 1;
    names.set(data.name, (names.get(data.name) ?? 0) + 1);
  }
  for (const { parts, data } of rows.values()) {
    const shared = names.get(data.name) > 1;
    if (shared !== data.shared) {
      data.shared = shared;
      text(parts.instance, shared ? data.instance.slice(0, 8) : "");
    }
  }
  const down = rows.size - up;
  text(byId("count-all"), rows.size.toLocaleString("en"));
  text(byId("count-word"), rows.size === 1 ? "device" : "devices");
  text(byId("count-up"), up.toLocaleString("en"));
  text(byId("count-down"), down.toLocaleString("en"));
  fleet.down = down;
}

// Rows do not move while a pointer, the focus or a selection is on them.
function tidy() {
  if (performance.now() - sortedAt < RESORT) return;
  const selection = getSelection();
  const held =
    body.matches(":hover") ||
    body.contains(document.activeElement) ||
    (!selection.isCollapsed && body.contains(selection.anchorNode));
  if (!held) order();
}

function order() {
  sortedAt = performance.now();
  untidy = false;
  const { compare } = SORTS[sort.by];
  const sign = sort.descending ? -1 : 1;
  const shown = [...rows.values()].filter(
    ({ data }) => (state === "" || (state === "up") === data.up) && data.haystack.includes(needle),
  );
  shown.sort(
    (a, b) =>
      sign * compare(a.data, b.data) ||
      collator.compare(a.data.name, b.data.name) ||
      collator.compare(a.data.instance, b.data.instance),
  );
  const time = now();
  for (const row of shown) if (!row.node.isConnected) ages(row, time);
  keepingFocus(() => arrange(body, shown.map(({ node }) => node)));
  show(table, shown.length > 0);
  say(byId("empty"), emptiness(shown.length));
}

// A row that moves would lose the focus.
function keepingFocus(move) {
  const focused = document.activeElement;
  move();
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
}

function emptiness(shown) {
  if (shown > 0) return "";
  if (rows.size > 0) return `None of ${counted(rows.size, "device")} matches.`;
  if (fleet.link !== "connected") return "";
  return fleet.pending.length > 0
    ? "No device yet. Approve the one above to let it in."
    : "No device yet. Start Triton on one with this Poseidon’s address: it appears here and waits for your approval.";
}
