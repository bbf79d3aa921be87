// What the device on the screen runs by its own clock: what Poseidon has set, and what the device says of it.

import { agentPath, call, may } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, confirmed, el, say, show, sync, text } from "./dom.js";
import { ago, date, list, number, object, plain, span } from "./format.js";
import { fleet, keyOf } from "./store.js";

/** Entries that are shown at most: as many as Poseidon may set, and as the device's configuration may have. */
const MOST = 512;
/** How often the device is asked for its times, while somebody looks. */
const POLL = 20_000;

let agent = null;
/** What Poseidon has set, what the device says, and why it says nothing. */
let stored = null;
let told = null;
let failure = "";
/** The revision that the box was filled with. */
let parent = null;
/** Counts what was asked: answers to an earlier question are left out. */
let turn = 0;

const base = () => `/schedules/${encodeURIComponent(plain(agent.name, 500))}`;

/** Wires the card up. */
export function setUp() {
  byId("schedule-edit").addEventListener("click", edit);
  byId("schedule-close").addEventListener("click", close);
  byId("schedule-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void save();
  });
  confirmed(byId("schedule-remove"), "Sure?", () => void remove());
  fleet.addEventListener("schedule", ({ detail }) => {
    if (agent !== null && detail.name === agent.name) void reload();
  });
  setInterval(() => {
    if (agent !== null && !document.hidden && fleet.link === "connected") void reload();
  }, POLL);
  setInterval(() => agent !== null && !document.hidden && render(), 5000);
}

/** Takes the card to another device; `null` empties it. */
export function open(next) {
  // What runs, with its words and variables, is nothing for who only looks.
  agent = next !== null && plain(next.name) !== "" && may("operator") ? next : null;
  stored = told = null;
  failure = "";
  turn += 1;
  close();
  show(byId("schedule-card"), agent !== null);
  render();
  void reload();
}

/** The device on the screen as it is now: one that came is asked. */
export function update(next) {
  const came = agent !== null && next.state !== agent.state;
  if (agent !== null) agent = next;
  if (came) void reload();
}

/** Reads what is set, and what the device says. */
export async function reload() {
  if (agent === null || !(await read())) return;
  const own = turn;
  if (agent.state !== "up" || standing()?.revision == null) {
    told = null;
    render();
    return;
  }
  try {
    const answer = await call("GET", `${agentPath(agent)}/schedule`);
    if (own !== turn) return;
    told = object(answer);
  } catch (error) {
    if (own !== turn) return;
    told = null;
    failure = `The device does not say what it runs: ${plain(error.message)}`;
  }
  render();
}

/** Reads what is set; false where something else was asked meanwhile. */
async function read() {
  turn += 1;
  const own = turn;
  try {
    const answer = await call("GET", base());
    if (own !== turn) return false;
    stored = answer;
    failure = "";
  } catch (error) {
    if (own !== turn) return false;
    failure = plain(error.message);
  }
  render();
  return true;
}

/** What Poseidon knows of this instance. */
const standing = () => list(stored?.devices, 1000).find(({ instance }) => instance === agent?.instance);

function edit() {
  parent = plain(stored?.revision ?? "");
  byId("schedule-text").value = JSON.stringify(list(stored?.entries, MOST), null, 2);
  note("");
  show(byId("schedule-form"), true);
  byId("schedule-text").focus();
}

function close() {
  show(byId("schedule-form"), false);
  byId("schedule-text").value = "";
}

function note(message) {
  say(byId("schedule-note"), message);
}

async function save() {
  let entries;
  try {
    entries = JSON.parse(byId("schedule-text").value);
  } catch (error) {
    note(`Not saved: this is no JSON: ${plain(error.message)}`);
    return;
  }
  await change("PUT", base(), { entries, parent });
}

async function remove() {
  const query = new URLSearchParams({ parent });
  await change("DELETE", `${base()}?${query}`);
}

async function change(method, path, body) {
  const asked = keyOf(agent);
  const current = () => agent !== null && keyOf(agent) === asked;
  try {
    const answer = await call(method, path, body);
    if (!current()) return;
    stored = answer.schedule;
    close();
    void reload();
  } catch (error) {
    if (!current()) return;
    note(`Not saved: ${plain(error.message)}`);
    if (error.code !== "conflict") return;
    // Another reading may have been faster: that is as new.
    await read();
    if (!current()) return;
    parent = plain(stored?.revision ?? "");
    note("Not saved: somebody else has changed the schedule meanwhile. What you wrote is still here; saving again replaces theirs.");
  }
}

/** The entries on the screen: those that are set with what the device says of them, and the device's own. */
function shown() {
  const said = list(told?.entries, MOST);
  const set = list(stored?.entries, MOST).map((entry) => {
    const of = said.find(({ name, source }) => source === "poseidon" && name === entry.name);
    return { entry, said: of ?? null, source: "poseidon" };
  });
  const known = new Set(set.map(({ said }) => said));
  const rest = said.filter((entry) => !known.has(entry)).map((entry) => ({ entry, said: entry, source: entry.source }));
  return [...set, ...rest];
}

function render() {
  const entries = shown();
  const at = number(stored?.changed);
  const words = at === null ? "" : `Revision ${plain(stored.revision)} · ${ago(now() - at)}`;
  text(byId("schedule-revision"), words);
  attribute(byId("schedule-revision"), "title", date(at));
  show(byId("schedule-edit"), stored !== null);
  show(byId("schedule-remove"), list(stored?.entries, 1).length > 0);
  show(byId("schedule-empty"), stored !== null && entries.length === 0);
  say(byId("schedule-error"), failure);
  say(byId("schedule-state"), state());
  sync(byId("schedule"), entries, makeEntry, draw);
}

/** Whether the device has what is set. */
function state() {
  const own = standing();
  if (stored === null || own === undefined) return "";
  const problem = told?.problem ? `The device says: ${plain(told.problem)}` : "";
  if (stored.revision === null) return problem;
  if (own.state !== "up") return "The device is down: it runs what it had, and gets this when it comes.";
  if (own.problem) return `The device did not take this: ${plain(own.problem, 1000)}`;
  if (own.revision !== stored.revision) return "The device is about to get this.";
  return problem;
}

function makeEntry() {
  const part = (name) => el("span", { class: name });
  return el("li", {}, el("code"), part("sub mono cron"), part("what"), part("job-status"), part("sub next"));
}

function draw(node, { entry, said, source }) {
  const [name, cron, what, status, next] = node.children;
  text(name, plain(entry.name));
  text(cron, [plain(entry.cron), plain(entry.timeZone)].filter(Boolean).join(" "));
  const own = source === "poseidon" ? "" : "the device’s own";
  text(what, runs(entry) || own);
  attribute(what, "title", runs(entry) || null);
  const { words, mood } = ended(said);
  text(status, words);
  attribute(status, "data-mood", mood);
  const last = number(object(said?.last).time);
  attribute(status, "title", last === null ? null : date(last));
  show(status, words !== "");
  const at = number(said?.next);
  const off = (said ?? entry).enabled === false;
  const left = at === null ? 0 : at - now();
  text(next, off ? "off" : at === null ? "" : left > 0 ? `next in ${span(left)}` : "next now");
  attribute(next, "title", at === null ? null : date(at));
}

/** What an entry of `schedule.set` runs. */
function runs(entry) {
  const words = (value) => (Array.isArray(value) ? value.map((word) => plain(word)).join(" ") : "");
  if (typeof entry.script === "string") return `${plain(entry.script)} ${words(entry.args)}`.trim();
  return typeof entry.shell === "string" ? plain(entry.shell) : words(entry.command);
}

/** How the last run ended, or what is wrong. */
function ended(said) {
  if (said === null) return { words: "", mood: null };
  if (said.problem) return { words: plain(said.problem), mood: "odd" };
  if (number(said.running) > 0) return { words: "running", mood: "running" };
  if (said.waiting === true) return { words: "waiting", mood: "waiting" };
  const { status, time } = object(said.last);
  if (!status) return { words: "", mood: null };
  const when = number(time) === null ? "" : ` ${ago(now() - time)}`;
  return { words: `${plain(status)}${when}`, mood: status === "succeeded" ? "good" : "bad" };
}
