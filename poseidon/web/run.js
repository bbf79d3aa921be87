// The box that runs a command on the device, and the job whose output is on the screen.

import { ApiError, agentName, call, pause, stream } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, say, setMeter, show, text } from "./dom.js";
import { bytes, commandLine, elapsed, longSpan, number, object, percent, plain, span } from "./format.js";
import { OutputView } from "./output.js";

const HISTORY = "poseidon.history";
/** How long a job waits for a device that is down, as the label of its box says. */
const EXPIRES = 24 * 3600;
const view = new OutputView(byId("job-output"), byId("job-dropped"));
const input = byId("command");

let agent = null;
let down = false;
let job = null;
let following = null;
let trouble = "";
let streaming = false;
let past = [];
let place = 0;
let draft = "";

/** Wires the box up; `started` is told of each new job and gives what is known of it. */
export function setUp(started) {
  try {
    past = JSON.parse(sessionStorage.getItem(HISTORY) ?? "[]");
  } catch {
    past = [];
  }
  byId("run").addEventListener("submit", (event) => {
    event.preventDefault();
    void run(started);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      recall(event.key === "ArrowUp" ? -1 : 1);
    }
  });
  byId("job-cancel").addEventListener("click", cancel);
  for (const stream of ["stdout", "stderr"]) {
    byId(`show-${stream}`).addEventListener("change", (event) => {
      byId("job-output").classList.toggle(`no-${stream}`, !event.target.checked);
    });
  }
  setInterval(() => job !== null && job.state !== "ended" && !document.hidden && describe(), 1000);
}

/** News of the device itself. */
export function update(next) {
  down = next.state !== "up";
  show(byId("queue").parentElement, down);
}

/** Takes the box to another device. */
export function open(next) {
  agent = next;
  job = null;
  following?.abort();
  following = null;
  view.clear();
  say(byId("run-error"), "");
  show(byId("job"), false);
  input.value = "";
  place = past.length;
}

/** Commands of earlier jobs, oldest first, go before what this tab has run. */
export function remember(commands) {
  past = [...new Set([...commands, ...past].reverse())].reverse().slice(-200);
  place = past.length;
}

/** The job on the screen. */
export const shownJob = () => job?.id ?? null;

// What was sent may wait again, where the device had no room for it.
const COURSE = { queued: 0, sent: 0, accepted: 1, ended: 2 };

/** What is known of a job after more news: the stream of events may be ahead of an answer, and no job goes back. */
export function latest(known, news) {
  return known !== undefined && COURSE[known.state] > COURSE[news.state] ? known : news;
}

/** News of a job from the fleet's stream. */
export function news(next) {
  if (job?.id !== next.id) return;
  job = latest(job, next);
  describe();
}

/** Shows a job and its output as it comes. */
export function showJob(next) {
  following?.abort();
  job = next;
  trouble = "";
  view.clear();
  show(byId("job"), true);
  show(byId("job-progress"), false);
  describe();
  following = new AbortController();
  void follow(next.id, following.signal);
}

/** Reads the job's output over another connection: the one that there is may be dead. */
export function again() {
  if (job === null || !streaming) return;
  following?.abort();
  following = new AbortController();
  void follow(job.id, following.signal);
}

async function run(started) {
  const shell = input.value;
  const target = agent;
  if (shell.trim() === "" || target === null) return;
  const timeout = byId("timeout").valueAsNumber;
  const command = { shell };
  if (Number.isFinite(timeout)) command.timeoutSeconds = timeout;
  const body = { agents: [agentName(target)], command };
  if (down && byId("queue").checked) Object.assign(body, { queue: true, expiresSeconds: EXPIRES });
  say(byId("run-error"), "");
  try {
    const { jobs } = await call("POST", "/jobs", body);
    remember([]);
    past = [...past.filter((line) => line !== shell), shell].slice(-200);
    place = past.length;
    sessionStorage.setItem(HISTORY, JSON.stringify(past.slice(-100)));
    if (agent !== target) return;
    input.value = "";
    showJob(jobs.map(started)[0]);
  } catch (failure) {
    if (agent === target) say(byId("run-error"), `Not started: ${plain(failure.message)}`);
  }
}

function recall(step) {
  const next = place + step;
  if (next < 0 || next > past.length) return;
  if (place === past.length) draft = input.value;
  place = next;
  input.value = next === past.length ? draft : past[next];
  input.setSelectionRange(input.value.length, input.value.length);
}

async function cancel() {
  const id = job?.id;
  try {
    const answer = await call("POST", `/jobs/${encodeURIComponent(id)}/cancel`, {});
    if (answer.job) news(answer.job);
  } catch (failure) {
    trouble = `not cancelled: ${plain(failure.message)}`;
    describe();
  }
}

async function follow(id, signal) {
  let ended = false;
  streaming = true;
  for (let wait = 500; ; wait = Math.min(5_000, wait * 2)) {
    try {
      await stream(`/jobs/${encodeURIComponent(id)}/output?follow=true`, {
        signal,
        // Each time from the beginning: the view leaves out what it has.
        opened: () => {
          trouble = "";
          wait = 500;
          describe();
        },
        take: (event) => {
          ended ||= event.type === "end";
          take(event);
        },
      });
      if (ended) return;
      trouble = "Poseidon ended the stream of its output";
    } catch (failure) {
      // After its last line a connection may break as it likes.
      if (signal.aborted || ended) return;
      trouble = plain(failure.message);
      if (failure instanceof ApiError && failure.status >= 400 && failure.status < 500) {
        describe();
        return;
      }
    }
    describe();
    try {
      await pause(wait, signal);
    } catch {
      return;
    }
  }
}

function take(event) {
  switch (event.type) {
    case "output":
    case "gap":
      view.take(event);
      sizes();
      break;
    case "progress": {
      const value = number(event.percent);
      const share = value === null ? null : value / 100;
      setMeter(byId("job-progress").querySelector(".meter"), share);
      text(byId("job-progress-text"), [percent(share), plain(event.message)].filter(Boolean).join(" · "));
      show(byId("job-progress"), true);
      break;
    }
    case "end":
      view.end();
      streaming = false;
      job = event.job;
      describe();
      break;
    default: // Of a newer Poseidon.
  }
}

/** A job in a few words, and how it went: `waiting`, `running`, `good`, `bad` or `odd`. */
export function outcome({ state, created, expires, result, error }) {
  if (state === "queued") {
    const left = number(expires) === null ? null : expires - now();
    const until = left === null ? "" : left > 0 ? ` · expires in ${span(left)}` : " · expired";
    return { mood: "waiting", words: `queued until the device is back${until}` };
  }
  if (state !== "ended") {
    const since = number(created) === null ? "" : ` for ${longSpan(now() - created)}`;
    return { mood: "running", words: state === "sent" ? `sent${since}` : `running${since}` };
  }
  if (error) return { mood: "bad", words: `${plain(error.code)}: ${plain(error.message)}` };
  const { status, exitCode, signal, elapsedMs } = object(result);
  const words = [plain(status) || "ended"];
  if (number(exitCode) !== null) words.push(`exit code ${exitCode}`);
  if (number(signal) !== null) words.push(`signal ${signal}`);
  if (elapsed(elapsedMs)) words.push(elapsed(elapsedMs));
  const mood = status === "succeeded" ? "good" : status === "failed" ? "bad" : "odd";
  return { mood, words: words.join(" · ") };
}

function describe() {
  const { mood, words } = outcome(job);
  text(byId("job-command"), commandLine(job));
  attribute(byId("job-command"), "title", commandLine(job));
  const more = trouble || (job.state === "ended" && streaming ? "its output still comes" : "");
  text(byId("job-status"), more ? `${words} (${more})` : words);
  attribute(byId("job-status"), "data-mood", mood);
  show(byId("job-cancel"), job.state !== "ended");
  if (job.state === "ended") show(byId("job-progress"), false);
  attribute(byId("job-output"), "data-mood", mood);
  sizes();
}

function sizes() {
  const { dropped } = object(job.result);
  const parts = ["stdout", "stderr"].map((name) => `${name} ${bytes(view.bytes(name))}`);
  if (number(dropped) > 0) parts.push(`${bytes(dropped)} never reached Poseidon`);
  text(byId("job-bytes"), parts.join(" · "));
}
