// What was asked of several devices at once: the list, and one of them as it goes on.

import { ApiError, call, pause, stream } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, el, say, show, sync, text } from "./dom.js";
import { ago, commandLine, counted, date, elapsed, list, number, object, percent, plain } from "./format.js";
import { fleet, keyOf as keyOfAgent } from "./store.js";

/** Members and batches on the screen. */
const MOST = 1000;
const MOST_BATCHES = 50;
/** Who runs is asked for at most this often. */
const AGAIN = 2000;
/** What is kept of a line. */
const LINE = 300;

const MOODS = {
  waiting: ["waiting", "waiting"],
  running: ["running", "running"],
  succeeded: ["good", "succeeded"],
  failed: ["bad", "failed"],
  "timed-out": ["odd", "timed out"],
  offline: ["odd", "offline"],
  cancelled: ["odd", "cancelled"],
  "not-started": ["odd", "not started"],
};
const STOPPED = {
  canary: "one of the first did not succeed",
  failures: "too many failed",
  cancelled: "cancelled",
};

const keyOf = ({ agent, instance }) => keyOfAgent({ name: agent, instance });

let route = null;
let batches = [];
let batch = null;
let members = new Map();
/** How many members have each name. */
let names = new Map();
let following = null;
let trouble = "";
let timer = 0;
let painting = false;

/** Wires the views up. */
export function setUp() {
  fleet.addEventListener("batch", ({ detail }) => news(detail));
  fleet.addEventListener("link", () => fleet.link === "connected" && route !== null && load());
  byId("batch-cancel").addEventListener("click", cancel);
  setInterval(() => route !== null && !document.hidden && render(), 1000);
}

/** Shows the list (""), a batch (its id), or nothing (`null`). */
export function open(next) {
  if (next === route) return;
  route = next;
  following?.abort();
  following = null;
  batch = null;
  members = new Map();
  trouble = "";
  clearTimeout(timer);
  timer = 0;
  if (route === null) return;
  render();
  void load();
  if (route !== "") {
    following = new AbortController();
    void follow(route, following.signal);
  }
}

/** What to call the page. */
export const title = () => (route ? "Batch" : "Batches");

async function load() {
  const asked = route;
  try {
    if (asked === "") {
      const answer = await call("GET", `/batches?limit=${MOST_BATCHES}`);
      if (route === asked) batches = list(answer.batches, MOST_BATCHES);
    } else {
      const answer = await call("GET", `/batches/${encodeURIComponent(asked)}`);
      if (route !== asked) return;
      batch = answer;
      for (const member of list(answer.members, 1e5)) put(member);
    }
  } catch (failure) {
    if (route === asked && failure.status === 404) trouble = plain(failure.message);
  }
  render();
}

// An answer may be older than what the stream has told: no member goes back.
function put(member) {
  const known = members.get(keyOf(member));
  if (known !== undefined && ended(known) && !ended(member)) return;
  members.set(keyOf(member), { ...member, line: known?.line ?? "", progress: known?.progress ?? "" });
}

const ended = ({ state }) => state !== "waiting" && state !== "running";

function news(next) {
  if (route === "") {
    const at = batches.findIndex(({ id }) => id === next.id);
    if (at >= 0) batches[at] = next;
    else batches = [next, ...batches].slice(0, MOST_BATCHES);
    ask();
  } else if (route === next.id) {
    batch = next;
    timer ||= setTimeout(() => {
      timer = 0;
      if (route === next.id) void load();
    }, AGAIN);
    ask();
  }
}

async function follow(id, signal) {
  let over = false;
  for (let wait = 500; ; wait = Math.min(5000, wait * 2)) {
    try {
      await stream(`/batches/${encodeURIComponent(id)}/output?follow=true`, {
        signal,
        opened: () => {
          trouble = "";
          wait = 500;
        },
        take: (event) => {
          over ||= event.type === "summary";
          take(event);
        },
      });
      if (over) return;
    } catch (failure) {
      if (signal.aborted || over) return;
      trouble = plain(failure.message);
      if (failure instanceof ApiError && failure.status >= 400 && failure.status < 500) return;
    }
    try {
      await pause(wait, signal);
    } catch {
      return;
    }
  }
}

function take(event) {
  if (event.type === "summary") {
    batch = event.batch;
    void load();
    return;
  }
  const key = keyOf(event);
  const member = members.get(key) ?? { agent: event.agent, instance: event.instance, state: "running", line: "", progress: "" };
  members.set(key, member);
  if (event.type === "ended") {
    Object.assign(member, event);
  } else if (event.type === "progress") {
    const value = number(event.percent);
    member.progress = [percent(value === null ? null : value / 100), plain(event.message)].filter(Boolean).join(" · ");
  } else if (event.type === "output") {
    member.job ??= event.job;
    if (!ended(member)) member.state = "running";
    member.line = lastLine(event) || member.line;
  }
  ask();
}

function lastLine({ data, encoding }) {
  let string = String(data);
  if (encoding === "base64") {
    try {
      string = new TextDecoder().decode(Uint8Array.from(atob(string), (c) => c.charCodeAt(0)));
    } catch {
      return "";
    }
  }
  return string.split(/[\r\n]/).findLast((line) => line.trim() !== "")?.slice(0, LINE) ?? "";
}

async function cancel() {
  try {
    await call("POST", `/batches/${encodeURIComponent(route)}/cancel`, {});
  } catch (failure) {
    trouble = `not cancelled: ${plain(failure.message)}`;
    render();
  }
}

function ask() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    render();
  });
}

const what = ({ type, request }) => {
  const { name, args, command } = object(request);
  if (type === "command") return commandLine(request);
  if (type === "script") return plain(["script", name, ...(Array.isArray(args) ? args : [])].join(" "), 2000);
  return plain([type, command].filter(Boolean).join(" "), 2000);
};

function counts(one) {
  const each = Object.entries(MOODS).map(([state, [, words]]) => [number(object(one.counts)[state]) ?? 0, words]);
  return each.filter(([n]) => n > 0).map(([n, words]) => `${n.toLocaleString("en")} ${words}`).join(" · ");
}

function mood(one) {
  if (one.state !== "ended") return { mood: "running", words: "running" };
  const good = object(one.counts).succeeded === one.total;
  return { mood: good ? "good" : "bad", words: good ? "succeeded" : "not all succeeded" };
}

function status(one) {
  const { mood: how, words } = mood(one);
  const why = STOPPED[one.stopped];
  return { how, words: why === undefined ? words : `${words} · stopped: ${why}` };
}

function render() {
  if (route === null) return;
  show(byId("batches-list"), route === "");
  show(byId("batch"), route !== "");
  if (route === "") renderList();
  else renderOne();
}

function renderList() {
  const time = now();
  sync(byId("batches-items"), batches, makeItem, (node, one) => {
    const link = node.firstElementChild;
    const [command, state, age] = link.children;
    attribute(link, "href", `#/batches/${encodeURIComponent(plain(one.id))}`);
    text(command, what(one));
    const { how, words } = status(one);
    text(state, `${words} · ${counts(one)}`);
    attribute(state, "data-mood", how);
    text(age, number(one.created) === null ? "" : ago(time - one.created));
    attribute(age, "title", date(one.created));
  });
  show(byId("batches-empty"), batches.length === 0);
}

function makeItem() {
  return el("li", {}, el("a", {}, el("code"), el("span", { class: "job-status" }), el("span", { class: "sub" })));
}

function renderOne() {
  say(byId("batch-trouble"), trouble);
  if (batch === null) return;
  text(byId("batch-command"), what(batch));
  const { how, words } = status(batch);
  text(byId("batch-status"), words);
  attribute(byId("batch-status"), "data-mood", how);
  show(byId("batch-cancel"), batch.state !== "ended");
  const parts = [counted(number(batch.total) ?? 0, "device"), counts(batch)];
  if (batch.on?.length) parts.push(`on ${plain(batch.on.join("  or  "))}`);
  parts.push(`${batch.concurrency} at a time`);
  if (batch.canary > 0) parts.push(`${batch.canary} first`);
  if (batch.stopOnFailures > 0) parts.push(`stops after ${counted(batch.stopOnFailures, "failure")}`);
  text(byId("batch-line"), parts.filter(Boolean).join(" · "));
  let shown = [...members.values()];
  if (shown.length > MOST) {
    const bad = ({ state }) => ended({ state }) && state !== "succeeded";
    shown = [...shown.filter(bad), ...shown.filter((member) => !bad(member))].slice(0, MOST);
  }
  names = new Map();
  for (const { agent } of members.values()) names.set(agent, (names.get(agent) ?? 0) + 1);
  sync(byId("batch-members").tBodies[0], shown, makeMember, fillMember);
  const more = members.size - shown.length;
  say(byId("batch-more"), more > 0 ? `${more.toLocaleString("en")} more are not shown here; “poseidon batch ${plain(batch.id)}” shows all.` : "");
}

function makeMember() {
  return el(
    "tr",
    {},
    el("td", {}, el("a")),
    el("td", {}, el("span", { class: "job-status" })),
    el("td", {}, el("code")),
    el("td", {}, el("a", {}, "job")),
  );
}

function fillMember(node, member) {
  const [name, state, last, job] = [...node.cells].map((cell) => cell.firstElementChild);
  const key = keyOf(member);
  const shared = names.get(member.agent) > 1;
  text(name, plain(shared ? `${member.agent}/${member.instance.slice(0, 8)}` : member.agent));
  attribute(name, "href", `#/agents/${key}`);
  const [how, words] = MOODS[member.state] ?? ["odd", plain(member.state)];
  const parts = [words];
  if (number(member.exitCode) !== null && member.exitCode !== 0) parts.push(`exit code ${member.exitCode}`);
  if (number(member.signal) !== null) parts.push(`signal ${member.signal}`);
  if (number(member.elapsedMs) !== null) parts.push(elapsed(member.elapsedMs));
  if (!ended(member) && member.progress) parts.push(member.progress);
  text(state, parts.join(" · "));
  attribute(state, "data-mood", how);
  const said = ended(member) ? (member.message ?? member.lastLine ?? member.line) : member.line;
  text(last, plain(said ?? ""));
  attribute(last, "title", plain(said ?? "") || null);
  attribute(job, "href", member.job ? `#/agents/${key}/jobs/${encodeURIComponent(plain(member.job))}` : null);
  show(job, Boolean(member.job));
}
