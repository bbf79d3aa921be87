// The page of one device.

import { agentPath, call } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, confirmed, say, show, text } from "./dom.js";
import { ago, date, longSpan, number, plain } from "./format.js";
import * as data from "./data.js";
import { cards, tiles } from "./facts.js";
import { collision, untrusted } from "./health.js";
import * as files from "./files.js";
import * as history from "./history.js";
import * as jobs from "./jobs.js";
import * as plots from "./plots.js";
import * as run from "./run.js";
import * as schedule from "./schedule.js";
import * as scripts from "./scripts.js";
import { fleet, keyOf } from "./store.js";

let key = null;
let agent = null;
let lost = false;
/** A job that the address names. */
let wanted = null;

/** Wires the page up; `notice` tells the operator what happened. */
export function setUp(notice) {
  run.setUp((job) => jobs.take(job));
  history.setUp();
  plots.setUp();
  files.setUp();
  scripts.setUp();
  schedule.setUp();
  data.setUp();
  fleet.addEventListener("agents", ({ detail }) => {
    if (key !== null && (detail.replaced || detail.keys.has(key))) render();
  });
  fleet.addEventListener("job", ({ detail }) => jobs.take(detail));
  fleet.addEventListener("link", () => {
    if (fleet.link === "lost") lost = true;
    if (fleet.link !== "connected") return;
    void jobs.reload();
    void history.catchUp();
    void scripts.reload();
    void schedule.reload();
    void data.reload();
    // The output may hang on a connection that is as dead as this one was.
    if (lost) run.again();
    lost = false;
  });
  confirmed(byId("forget"), "Sure?", async () => {
    const gone = agent;
    try {
      await call("DELETE", agentPath(gone));
      notice(`${plain(gone.name)} is forgotten. It appears again if it connects.`);
      if (gone === agent) location.hash = "#/";
    } catch (failure) {
      notice(`Not forgotten: ${plain(failure.message)}`);
    }
  });
  setInterval(() => {
    if (key === null || document.hidden) return;
    if (agent !== null) ages();
    jobs.render();
  }, 1000);
}

/** Shows the device with this key, and one of its jobs where `job` names it; `null` leaves the page. */
export function open(next, job = null) {
  const other = job !== null && job !== wanted;
  wanted = job;
  if (next === key) {
    if (other && agent !== null) void showWanted();
    return;
  }
  key = next;
  agent = null;
  run.open(null);
  void jobs.open(null);
  history.open(null);
  plots.open(null);
  files.open(null);
  scripts.open(null);
  schedule.open(null);
  data.open(null);
  byId("command").value = "";
  if (key !== null) render();
}

async function showWanted() {
  const [asked, device] = [wanted, key];
  try {
    const job = await call("GET", `/jobs/${encodeURIComponent(asked)}`);
    if (wanted === asked && key === device) run.showJob(jobs.take(job));
  } catch {
    // It was pruned: the device is on the screen all the same.
  }
}

/** The name of the device on the screen. */
export const title = () => (agent === null ? "Device" : plain(agent.name));

function render() {
  const found = fleet.agents.get(key);
  if (found === undefined) {
    // While the connection is down what was known stays on the screen.
    show(byId("device-missing"), fleet.link === "connected");
    if (fleet.link === "connected" || agent === null) show(byId("device-body"), false);
    return;
  }
  show(byId("device-missing"), false);
  show(byId("device-body"), true);
  const isNew = agent === null || keyOf(agent) !== keyOf(found);
  agent = found;
  if (isNew) {
    run.open(agent);
    void jobs.open(agent);
    history.open(agent);
    plots.open(agent);
    const device = new URLSearchParams({ on: `${plain(agent.name)}/${plain(agent.instance)}` });
    attribute(byId("plots-events"), "href", `#/events?${device}`);
    files.open(agent);
    scripts.open(agent);
    schedule.open(agent);
    data.open(agent);
    if (wanted !== null) void showWanted();
  }
  run.update(agent);
  schedule.update(agent);
  text(byId("device-name"), plain(agent.name) || "(no name)");
  const up = agent.state === "up";
  text(byId("device-state"), up ? "Up" : "Down");
  attribute(byId("device-state"), "data-state", up ? "up" : "down");
  attribute(byId("device-state"), "title", date(agent.since));
  attribute(byId("device-body"), "data-state", up ? "up" : "down");
  show(byId("forget"), !up);
  say(byId("device-collision"), collision(agent) || untrusted(agent));
  ages();
  tiles(agent);
  cards(agent);
}

function ages() {
  const time = now();
  const since = number(agent.since);
  const seen = number(agent.lastSeen);
  const parts = [];
  if (since !== null) parts.push(`for ${longSpan(time - since)}`);
  if (seen !== null) parts.push(`last seen ${ago(time - seen)}`);
  parts.push(plain(agent.address), plain(agent.hello.hostname));
  text(byId("device-line"), parts.filter(Boolean).join(" · "));
}
