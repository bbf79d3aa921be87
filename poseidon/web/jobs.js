// The last jobs of the device on the screen.

import { agentName, call } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, el, show, sync, text } from "./dom.js";
import { ago, commandLine, date, number, object } from "./format.js";
import { latest, news, outcome, remember, shownJob, showJob } from "./run.js";

const MOST = 25;
let agent = null;
let jobs = [];

/** Takes the list to another device. */
export async function open(next) {
  agent = next;
  jobs = [];
  render();
  await reload();
}

/** Reads the list again, such as after the connection was gone. */
export async function reload() {
  const asked = agent;
  if (asked === null) return;
  let answer;
  try {
    answer = await call("GET", `/jobs?agent=${encodeURIComponent(agentName(asked))}&limit=${MOST}`);
  } catch {
    return; // The stream of events brings what comes, and the banner says that Poseidon is away.
  }
  if (agent !== asked) return;
  const known = new Map(jobs.map((job) => [job.id, job]));
  for (const job of answer.jobs) known.set(job.id, latest(known.get(job.id), job));
  jobs = sorted([...known.values()]);
  remember(jobs.map(({ request }) => object(request).shell).filter((line) => typeof line === "string").reverse());
  jobs.forEach(news);
  render();
}

/** A job was started or has changed; gives what is known of it now. */
export function take(job) {
  if (agent === null || job.agent !== agent.name || (job.instance ?? "") !== (agent.instance ?? "")) return job;
  const at = jobs.findIndex(({ id }) => id === job.id);
  const current = latest(jobs[at], job);
  if (at >= 0) jobs[at] = current;
  else jobs = sorted([current, ...jobs]);
  news(current);
  render();
  return current;
}

const sorted = (all) => all.sort((a, b) => (number(b.created) ?? 0) - (number(a.created) ?? 0)).slice(0, MOST);

/** Brings the list's text up to date. */
export function render() {
  const time = now();
  sync(byId("jobs"), jobs, makeItem, (node, job) => {
    node.job = job;
    const { mood, words } = outcome(job);
    const [command, status, age] = node.firstElementChild.children;
    text(command, commandLine(job));
    text(status, words);
    attribute(status, "data-mood", mood);
    text(age, number(job.created) === null ? "" : ago(time - job.created));
    attribute(age, "title", date(job.created));
    attribute(node.firstElementChild, "aria-current", job.id === shownJob() ? "true" : null);
  });
  show(byId("jobs-empty"), jobs.length === 0);
}

function makeItem() {
  const button = el(
    "button",
    { type: "button" },
    el("code"),
    el("span", { class: "job-status" }),
    el("span", { class: "sub" }),
  );
  const node = el("li", {}, button);
  button.addEventListener("click", () => {
    showJob(node.job);
    render();
    byId("job").scrollIntoView({ block: "nearest" });
  });
  return node;
}
