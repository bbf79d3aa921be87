// What the device on the screen has recorded, newest first.

import { agentName, call } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, el, show, sync, text } from "./dom.js";
import { ago, bytes, date, list, number, object, plain } from "./format.js";
import { outcome } from "./run.js";
import { fleet } from "./store.js";

/** Records that are asked for at a time, and most on the screen. */
const PAGE = 50;
const MOST = 200;
/** How often more is asked for, and how long after the last key a filter counts. */
const POLL = 3000;
const SETTLE = 300;

const CODES = { 0: "accepted", 1: "ok", 2: "failed", 101: "event", 102: "dropped", 103: "skipped" };
const MOODS = { 0: "running", 1: "good", 2: "bad", 102: "odd", 103: "odd" };

const filter = byId("history-filter");
let agent = null;
let records = [];
let more = false;
/** Whether the newest records are there: then only those behind them are asked for. */
let loaded = false;
let asking = false;
/** Counts what was opened or filtered: answers to an earlier question are left out. */
let turn = 0;

/** Wires the card up. */
export function setUp() {
  let timer = 0;
  filter.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(reload, SETTLE);
  });
  setInterval(() => {
    if (agent === null || document.hidden) return;
    render();
    if (fleet.link === "connected") void catchUp();
  }, POLL);
}

/** Takes the card to another device. One without a journal has no history. */
export function open(next) {
  agent = next !== null && object(next.hello).journal ? next : null;
  filter.value = "";
  show(byId("history-card"), agent !== null);
  reload();
}

function reload() {
  turn += 1;
  records = [];
  loaded = asking = more = false;
  if (agent === null) {
    render();
  } else {
    void catchUp();
  }
}

/** Asks for what is new. */
export async function catchUp() {
  if (agent === null || asking) return;
  const own = turn;
  asking = true;
  try {
    for (let round = 0; round < MOST / PAGE; round += 1) {
      const answer = await call("GET", `/history?${query()}`);
      if (own !== turn) return;
      const fresh = list(answer.records, PAGE).filter(({ row }) => number(row) !== null);
      const known = new Set(records.map(({ row }) => row));
      records.push(...fresh.filter(({ row }) => !known.has(row)));
      records.sort((a, b) => b.row - a.row);
      const goOn = loaded && answer.more === true && fresh.length > 0;
      if (!loaded) more = answer.more === true;
      more ||= records.length > MOST;
      records.length = Math.min(records.length, MOST);
      loaded = true;
      if (!goOn) break;
    }
    render();
  } catch (failure) {
    if (own === turn && !loaded) text(byId("history-note"), plain(failure.message));
  } finally {
    if (own === turn) asking = false;
  }
}

function query() {
  const query = new URLSearchParams({ agent: agentName(agent), limit: PAGE });
  const wanted = filter.value.trim();
  const code = Object.keys(CODES).find((code) => CODES[code] === wanted.toLowerCase());
  if (code !== undefined) query.set("code", code);
  else if (/^\d{1,9}$/.test(wanted)) query.set("code", wanted);
  else if (wanted !== "") query.set("token", wanted);
  if (loaded) query.set("after", records[0]?.row ?? 0);
  return query;
}

function render() {
  const time = now();
  sync(byId("history"), records, makeItem, (node, record) => {
    node.token = plain(record.token);
    const [what, code, id, age] = node.firstElementChild.children;
    text(what, summary(record));
    attribute(what, "title", summary(record));
    text(code, CODES[record.code] ?? `value ${plain(record.code)}`);
    attribute(code, "data-mood", MOODS[record.code] ?? null);
    text(id, `${plain(record.id)} · ${node.token.slice(0, 8)}`);
    attribute(id, "title", `Token ${node.token}`);
    const at = number(record.etime);
    text(age, at === null ? "" : ago(time - at));
    attribute(age, "title", date(at));
  });
  const rest = more ? "Older ones: poseidon history, on the command line." : "";
  const none = filter.value.trim() === "" ? "Nothing yet." : "Nothing with this token or code.";
  text(byId("history-note"), loaded && records.length === 0 ? none : rest);
}

// A press shows all records about the same thing.
function makeItem() {
  const part = (name) => el("span", { class: name });
  const button = el("button", { type: "button" }, el("code"), part("job-status"), part("sub mono"), part("sub"));
  const node = el("li", {}, button);
  button.addEventListener("click", () => {
    filter.value = node.token;
    reload();
  });
  return node;
}

/** What a record says, in a few words. */
function summary({ code, data }) {
  const said = object(data);
  switch (code) {
    case 0:
      return `${plain(said.what)} for ${plain(said.origin)}`;
    case 1:
    case 2: {
      const { words } = outcome({ state: "ended", ...(said.status ? { result: said } : { error: said }) });
      const sizes = number(said.stdoutBytes) > 0 ? ` · stdout ${bytes(said.stdoutBytes)}` : "";
      return words + sizes + (said.status && said.message ? ` · ${plain(said.message)}` : "");
    }
    case 102:
      return `${plain(said.events)} events, for want of room`;
    case 103: {
      const count = number(said.count);
      const times = count === 1 ? "once" : count >= 1000 ? "1000 times or more" : `${plain(said.count)} times`;
      return `${plain(said.name)} did not run ${times} from ${date(number(said.at))}: ${plain(said.reason)}`;
    }
    default:
      return plain(data);
  }
}
