// A device's health and what it said about itself, in tiles and cards that are updated in place.

import { attribute, byId, el, level, meter, setMeter, show, sync, text } from "./dom.js";
import { bytes, counted, date, list, longSpan, number, numbers, object, percent, plain } from "./format.js";
import { fileSystems, fullest, hottest, load, memory, ofTotal, swap, temperatures } from "./health.js";

/** The few numbers at the top. */
export function tiles(agent) {
  const { health } = agent;
  const cpu = load(health);
  const ram = memory(health);
  const disk = fullest(health);
  const hot = hottest(health);
  const uptime = number(health.uptime);
  const averages = cpu.averages.map((v) => v.toFixed(2)).join(" ");
  const all = [
    { label: "Load", value: percent(cpu.share), share: cpu.share, note: averages && `avg ${averages}` },
    { label: "Memory", value: percent(ram.share), share: ram.share, note: ofTotal(ram) },
    { label: "Disk", value: percent(disk?.share ?? null), share: disk?.share ?? null,
      note: disk && `${disk.mount} · ${bytes(disk.available)} free` },
    { label: "Uptime", value: uptime === null ? "–" : longSpan(uptime), share: null, note: booted(agent, uptime) },
  ];
  if (hot) all.push({ label: "Temperature", value: `${hot.celsius.toFixed(0)} °C`, share: null, note: hot.label });
  sync(byId("tiles"), all, makeTile, (node, tile) => {
    const [label, value, bar, note] = node.children;
    text(label, tile.label);
    text(value, tile.value);
    setMeter(bar, tile.share);
    text(note, tile.note || "");
    attribute(note, "title", tile.note || null);
  });
}

// When it started, by Poseidon's clock: the device's own may be wrong.
function booted(agent, uptime) {
  const at = number(agent.healthAt) ?? number(agent.lastSeen);
  return uptime === null || at === null ? "" : `since ${date(at - uptime, "short")}`;
}

function makeTile() {
  const part = (name) => el("span", { class: name });
  return el("div", { class: "tile card" }, part("label"), part("figure"), meter(), part("sub"));
}

/** The cards beside the command box. */
export function cards(agent) {
  const { health, hello } = agent;
  bars("Processors and memory", measured(health));
  table("File systems", ["Mount", "Used", "Free", "Size"], fileSystems(health).map((fs) => ({
    title: [fs.name, fs.type].filter(Boolean).join(" · "),
    cells: [fs.mount, percent(fs.share), bytes(fs.available), bytes(fs.total)],
    level: fs.fixed || fs.share === null ? null : level(fs.share),
  })));
  table("Interfaces", ["Name", "State", "Received", "Sent"], list(health.interfaces).flatMap((one) => {
    const addresses = (Array.isArray(one.addresses) ? one.addresses.slice(0, 32) : []).map((a) => plain(a));
    const errors = (number(one.rxErrors) ?? 0) + (number(one.txErrors) ?? 0);
    const cells = [plain(one.name), one.up === true ? "up" : "down", bytes(one.rxBytes), bytes(one.txBytes)];
    const notes = [...addresses, ...(errors > 0 ? [counted(errors, "error")] : [])];
    return [{ cells, note: notes.join(" · ") }];
  }));
  table("Temperatures", ["Sensor", "Value"], temperatures(health).map((one) => ({
    cells: [one.label, `${one.celsius.toFixed(1)} °C`],
  })));
  pairs("System", system(agent));
  pairs("Attributes", Object.entries(object(agent.attributes)).map(([k, v]) => [plain(k), plain(v)]));
  pairs("Labels", Object.entries(object(hello.labels)).map(([k, v]) => [plain(k), plain(v)]));
  pairs("Agent", agentFacts(agent));
}

function measured(health) {
  const ram = memory(health);
  const virtual = swap(health);
  const found = numbers(health.processorLoad).map((share, i) => ({ label: `CPU ${i}`, share, note: "" }));
  if (ram.share !== null) found.push({ label: "Memory", share: ram.share, note: ofTotal(ram) });
  if (virtual.share !== null) found.push({ label: "Swap", share: virtual.share, note: ofTotal(virtual) });
  return found;
}

function system({ health, hello }) {
  const used = number(health.fileDescriptorUsed);
  return known([
    ["Hostname", plain(hello.hostname)],
    ["System", plain(hello.os)],
    ["Kernel", plain(hello.kernel)],
    ["Architecture", plain(hello.arch)],
    ["Clock", hello.clockSynced === undefined ? "" : hello.clockSynced ? "synchronised" : "not synchronised"],
    ["Processes", number(health.processes) === null ? "" : health.processes.toLocaleString("en")],
    ["Open files", used === null ? "" : `${used.toLocaleString("en")} of ${number(health.fileDescriptorTotal)?.toLocaleString("en") ?? "–"}`],
  ]);
}

function agentFacts(agent) {
  const { hello, health } = agent;
  const version = object(hello.agent);
  const own = object(health.agent);
  const count = (value) => (number(value) === null ? "" : value.toLocaleString("en"));
  const plugins = list(hello.plugins).map((p) => [plain(p.name), plain(p.version), plain(p.state)].filter(Boolean).join(" "));
  return known([
    ["Version", plain(version.version) || (agent.plain ? "a plain Triton: it says nothing of itself" : "")],
    ["Address", plain(agent.address)],
    ["Through", plain(hello.through)],
    ["Instance", plain(agent.instance)],
    ["Identifier", plain(agent.identifier)],
    ["Heartbeat", number(agent.heartbeatSeconds) === null ? "" : `every ${agent.heartbeatSeconds} s`],
    ["Last heartbeat", date(agent.healthAt)],
    ["Memory", number(own.rss) === null ? "" : bytes(own.rss)],
    ["Jobs", count(own.jobs)],
    ["Queue", count(own.queue)],
    ["Reconnects", count(own.reconnects)],
    ["Can do", (Array.isArray(hello.capabilities) ? hello.capabilities.slice(0, 64) : []).map((c) => plain(c)).join(", ")],
    ["Plugins", plugins.join(", ")],
  ]);
}

const known = (entries) => entries.filter(([, value]) => value !== "");

const made = new Map();

// A card by its title, made at first need and hidden while it has nothing to say.
function card(title, make, filled) {
  let found = made.get(title);
  if (found === undefined) {
    found = make();
    found.section = el("section", { class: "card facts" }, el("h2", {}, title), found.content);
    made.set(title, found);
    byId("facts").append(found.section);
  }
  show(found.section, filled);
  return found;
}

function bars(title, entries) {
  const make = () => ({ content: el("div", { class: "bars" }) });
  const { content } = card(title, make, entries.length > 0);
  const part = (name) => el("span", { class: name });
  const makeRow = () => el("div", {}, part("label"), meter("wide"), part("value"), part("sub"));
  sync(content, entries, makeRow, (node, entry) => {
    const [label, bar, value, detail] = node.children;
    text(label, entry.label);
    setMeter(bar, entry.share);
    text(value, percent(entry.share));
    text(detail, entry.note);
  });
}

function pairs(title, entries) {
  const make = () => ({ content: el("dl") });
  const { content } = card(title, make, entries.length > 0);
  sync(content, entries, () => el("div", {}, el("dt"), el("dd")), (node, [name, value]) => {
    text(node.firstElementChild, name);
    text(node.lastElementChild, value);
  });
}

function table(title, heads, rows) {
  const make = () => {
    const body = el("tbody");
    const head = el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)));
    return { body, content: el("table", {}, el("thead", {}, head), body) };
  };
  const { body } = card(title, make, rows.length > 0);
  const makeRow = () => el("tr", {}, ...heads.map(() => el("td", {}, el("span"))));
  sync(body, rows, makeRow, (node, row) => {
    attribute(node, "title", row.title ?? null);
    attribute(node, "data-level", row.level ?? null);
    row.cells.forEach((value, i) => text(node.children[i].firstElementChild, value));
    note(node.firstElementChild, row.note ?? "");
  });
}

// A second, quieter line in the first cell.
function note(cell, value) {
  let node = cell.children[1];
  if (value === "") {
    node?.remove();
    return;
  }
  if (node === undefined) {
    node = el("span", { class: "sub wrap" });
    cell.append(node);
  }
  text(node, value);
}
