// CEF events of devices: search, what comes, and how they go to the SIEM.

import { call, pause } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, el, say, show, sync, text } from "./dom.js";
import { ago, bytes, counted, date, list, number, object, plain } from "./format.js";
import { fleet, keyOf } from "./store.js";

/** Events that are asked for at a time, and most on the screen. */
const PAGE = 100;
const MOST = 1000;
/** Seconds for which Poseidon waits for events to come. */
const WAIT = 25;
/** How long after the last key a filter counts, and how often the SIEM is asked for, in milliseconds. */
const SETTLE = 300;
const STATE = 10_000;
/** Pause after a failure, in milliseconds. */
const AGAIN = 3000;

const FIELDS = ["text", "severity", "vendor", "product", "on", "since"];
const SPANS = { "1h": 3600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000 };

let shown = false;
/** The filters that are shown, as they stand in the address. */
let route = "";
let events = [];
/** Where older ones begin; `null` where there are none. */
let older = null;
let loading = false;
let trouble = "";
/** What was opened or filtered last: answers to an earlier question are left out. */
let current = null;
let stateTimer = 0;

/** Wires the view up. */
export function setUp() {
  let timer = 0;
  byId("events-form").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => shown && (location.hash = address()), SETTLE);
  });
  byId("events-form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    if (location.hash === address()) reload();
    else location.hash = address();
  });
  byId("events-older").addEventListener("click", () => void loadOlder());
  setInterval(() => shown && !document.hidden && render(), 1000);
}

/** Shows the view with the filters of an address, or leaves it (`null`). */
export function open(query) {
  if (query === null) {
    shown = false;
    current?.abort();
    current = null;
    clearTimeout(stateTimer);
    return;
  }
  const wanted = new URLSearchParams(query);
  const same = shown && route === query;
  route = query;
  // Who types is not disturbed.
  for (const field of FIELDS) if (value(field) !== (wanted.get(field) ?? "")) byId(`events-${field}`).value = wanted.get(field) ?? "";
  if (same && current !== null) return;
  shown = true;
  reload();
  clearTimeout(stateTimer);
  void loadState();
}

/** What to call the page. */
export const title = () => "Events";

const value = (field) => byId(`events-${field}`).value.trim();

function address() {
  const query = new URLSearchParams(FIELDS.map((field) => [field, value(field)]).filter(([, wanted]) => wanted !== ""));
  return `#/events${query.size ? `?${query}` : ""}`;
}

/** The question to Poseidon. */
function question(more) {
  const query = new URLSearchParams(more);
  for (const field of FIELDS) {
    const wanted = value(field);
    if (wanted === "") continue;
    query.set(field, field === "since" ? String(Math.floor(now() - (SPANS[wanted] ?? 0))) : wanted);
  }
  return `/cef?${query}`;
}

function reload() {
  current?.abort();
  current = new AbortController();
  events = [];
  older = null;
  trouble = "";
  void run(current.signal);
}

// First what is there, then what comes: one question after the other, each answered when there is something.
async function run(signal) {
  let after = null;
  loading = true;
  render();
  while (!signal.aborted) {
    try {
      if (after === null) {
        const { newest } = await call("GET", "/cef/state", undefined, signal);
        const answer = await call("GET", question({ limit: PAGE, before: newest + 1 }), undefined, signal);
        after = newest;
        events = list(answer.events, PAGE);
        older = number(answer.next);
      } else {
        const answer = await call("GET", question({ limit: PAGE, after, wait: WAIT }), undefined, signal);
        after = number(answer.next) ?? after;
        add(list(answer.events, PAGE).reverse());
      }
      trouble = "";
    } catch (failure) {
      if (signal.aborted) return;
      trouble = plain(failure.message);
      if (failure.status >= 400 && failure.status < 500) {
        // What was asked for makes no sense.
        loading = false;
        render();
        return;
      }
      await pause(AGAIN, signal).catch(() => {});
    }
    if (signal.aborted) return;
    loading = false;
    render();
  }
}

function add(fresh) {
  events = [...fresh, ...events];
  if (events.length > MOST) {
    events.length = MOST;
    older = events.at(-1).row;
  }
}

async function loadOlder() {
  if (older === null || loading || current === null) return;
  const { signal } = current;
  loading = true;
  render();
  try {
    const answer = await call("GET", question({ limit: PAGE, before: older }), undefined, signal);
    if (signal.aborted) return;
    const room = MOST - events.length;
    const found = list(answer.events, PAGE).slice(0, Math.max(0, room));
    events.push(...found);
    older = events.length >= MOST ? null : number(answer.next);
    trouble = events.length >= MOST ? "Older ones: poseidon events, on the command line, or narrow the search." : "";
  } catch (failure) {
    if (signal.aborted) return;
    trouble = plain(failure.message);
  }
  loading = false;
  render();
}

async function loadState() {
  try {
    const state = object(await call("GET", "/cef/state"));
    // Who sees some devices only is told nothing of all.
    text(byId("events-kept"), state.bytes === undefined ? "" : `${bytes(state.bytes)} of ${bytes(state.limitBytes)} kept`);
    sayForwarding((state.forwarding ?? null) === null ? null : object(state.forwarding));
  } catch {
    // The page says elsewhere that Poseidon is away.
  }
  if (shown) stateTimer = setTimeout(() => void loadState(), STATE);
}

function sayForwarding(siem) {
  const node = byId("events-siem");
  show(node, siem !== null);
  if (siem === null) return;
  const parts = [`SIEM ${plain(siem.target)}: ${plain(siem.state)}`, `${counted(number(siem.waiting) ?? 0, "event")} waiting`];
  const lost = number(siem.prunedUnsent) ?? 0;
  if (lost > 0) parts.push(`${counted(lost, "event")} deleted before it got them`);
  if (siem.state !== "connected" && siem.error) parts.push(plain(siem.error));
  text(node, parts.join(" · "));
  attribute(node, "data-mood", siem.state === "connected" && lost === 0 ? "good" : "bad");
}

const mood = (severity) => (severity === null ? "odd" : severity >= 9 ? "bad" : severity >= 7 ? "odd" : severity >= 4 ? "running" : "waiting");

function render() {
  const time = now();
  sync(byId("events-list"), events, makeItem, (node, event) => {
    const severity = number(event.severity);
    const [level, what, device, age, line] = node.firstElementChild.children;
    text(level, severity === null ? "?" : String(severity));
    attribute(level, "data-mood", mood(severity));
    attribute(level, "title", severity === null ? "Severity unknown" : `Severity ${severity}`);
    const named = typeof event.name === "string";
    text(what, named ? `${plain(event.vendor, 100)} ${plain(event.product, 100)}: ${plain(event.name)}` : plain(event.line, 500));
    const name = plain(event.agent, 500);
    text(device, name);
    attribute(device, "href", `#/agents/${keyOf({ name, instance: event.instance })}`);
    const at = number(event.time);
    text(age, at === null ? "" : ago(time - at));
    attribute(age, "title", date(at));
    text(line, plain(event.line, 70_000));
    attribute(line, "title", [event.host, event.source].map((part) => plain(part)).filter(Boolean).join(" · "));
  });
  const filtered = FIELDS.some((field) => value(field) !== "");
  show(byId("events-older"), older !== null);
  attribute(byId("events-older"), "disabled", loading);
  const none = filtered ? (older === null ? "Nothing fits." : "Nothing yet among the newest.") : "No events yet.";
  text(byId("events-note"), loading ? "Looking…" : events.length === 0 && trouble === "" ? none : "");
  say(byId("events-trouble"), trouble);
}

// A press opens the whole line.
function makeItem() {
  const level = el("span", { class: "level" });
  const line = el("code", { class: "line", hidden: true });
  const device = el("a", { class: "device" });
  const what = el("button", { class: "what", type: "button", "aria-expanded": "false" });
  what.addEventListener("click", () => {
    show(line, line.hidden);
    attribute(what, "aria-expanded", String(!line.hidden));
  });
  return el("li", {}, el("div", { class: "event" }, level, what, device, el("span", { class: "sub" }), line));
}
