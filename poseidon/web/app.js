// The page: signing in, the address bar, and the state of the connection.

import { loadToken, setToken } from "./api.js";
import * as batches from "./batches.js";
import * as cef from "./cef.js";
import * as device from "./device.js";
import { attribute, byId, say, show, text } from "./dom.js";
import { counted } from "./format.js";
import * as list from "./fleet.js";
import * as many from "./many.js";
import * as pending from "./pending.js";
import { fleet } from "./store.js";

let route = null;
let scrolled = 0;
let noticeTimer = 0;
let lostAt = 0;

function notice(message) {
  clearTimeout(noticeTimer);
  say(byId("notice"), message);
  noticeTimer = setTimeout(() => say(byId("notice"), ""), 8000);
}

/** `#/` is the fleet, `#/agents/NAME/INSTANCE` a device, with `/jobs/ID` behind it one of its jobs. */
function readRoute() {
  const match = /^#\/agents\/([^/]*\/[^/]*)(?:\/jobs\/([^/]+))?$/.exec(location.hash);
  return match ? { device: match[1], job: match[2] ?? null } : { device: "", job: null };
}

/** `#/batches` are all batches, `#/batches/ID` is one; `null` is neither. */
function readBatch() {
  const match = /^#\/batches(?:\/([^/]+))?$/.exec(location.hash);
  return match ? (match[1] ?? "") : null;
}

/** `#/events` are all events, with what is looked for behind a question mark; `null` is neither. */
function readEvents() {
  const match = /^#\/events(?:\?(.*))?$/.exec(location.hash);
  return match ? (match[1] ?? "") : null;
}

function go() {
  if (/^#token=/.test(location.hash)) {
    loadToken();
    connect();
  }
  const batch = readBatch();
  const { device: key, job } = readRoute();
  const events = readEvents();
  const next = events !== null ? "events" : batch === null ? key : `batches/${batch}`;
  const signedIn = fleet.link !== "refused";
  show(byId("login"), !signedIn);
  show(byId("fleet"), signedIn && next === "");
  show(byId("device"), signedIn && key !== "");
  show(byId("batches"), signedIn && batch !== null);
  list.setActive(signedIn && next === "");
  device.open(signedIn && key !== "" ? key : null, job);
  batches.open(signedIn ? batch : null);
  show(byId("events"), signedIn && events !== null);
  cef.open(signedIn ? events : null);
  if (next !== route) {
    const before = route;
    route = next;
    if (next === "") {
      scrollTo(0, scrolled);
      if (before) list.focusRow(before);
    } else {
      scrollTo(0, 0);
      const heading = batch === null ? "device-name" : "batches-title";
      byId(events === null ? heading : "events-title").focus({ preventScroll: true });
    }
  }
  retitle();
}

function retitle() {
  const down = fleet.down ? `${counted(fleet.down, "device")} down · ` : "";
  const other = readEvents() === null ? device.title() : cef.title();
  const shown = readBatch() === null ? other : batches.title();
  const title = route ? `${shown} · Poseidon` : `${down}Poseidon`;
  if (document.title !== title) document.title = title;
}

function showLink() {
  if (fleet.link === "refused") {
    signOut("Poseidon does not accept this token.");
    return;
  }
  const words = { connecting: "connecting…", connected: "live", lost: "not connected" };
  text(byId("link-state"), words[fleet.link]);
  attribute(byId("link-state"), "data-link", fleet.link);
  attribute(document.body, "data-link", fleet.link);
  show(byId("sign-out"), true);
  if (fleet.link === "lost") {
    lostAt = lostAt || performance.now();
  } else if (fleet.link === "connected") {
    lostAt = 0;
    go();
  }
  banner();
}

function banner() {
  if (!lostAt) {
    show(byId("banner"), false);
    return;
  }
  const left = Math.ceil((fleet.retryAt - performance.now()) / 1000);
  const ago = Math.floor((performance.now() - lostAt) / 1000);
  const retry = left > 0 ? `trying again in ${left} s` : "trying again";
  const stale = fleet.agents.size > 0 ? ` What you see is ${ago} s old.` : "";
  text(byId("banner"), `Not connected to Poseidon: ${retry}.${stale}`);
  show(byId("banner"), true);
}

function connect() {
  lostAt = 0;
  void fleet.start();
}

/** Forgets the token and asks for one. */
function signOut(message) {
  setToken(null);
  fleet.stop();
  fleet.link = "refused";
  lostAt = 0;
  text(byId("link-state"), "");
  attribute(document.body, "data-link", "refused");
  show(byId("sign-out"), false);
  say(byId("login-error"), message);
  byId("token").value = "";
  banner();
  go();
  byId("token").focus();
}

byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = byId("token").value.trim();
  if (given === "") return;
  setToken(given);
  connect();
  go();
});
byId("sign-out").addEventListener("click", () => signOut(""));

list.setUp();
many.setUp();
batches.setUp();
cef.setUp();
pending.setUp(notice);
device.setUp(notice);
fleet.addEventListener("link", showLink);
fleet.addEventListener("agents", retitle);
addEventListener("hashchange", go);
addEventListener("scroll", () => {
  if (route === "" && !byId("fleet").hidden) scrolled = scrollY;
});
setInterval(banner, 500);

if (loadToken()) {
  connect();
  go();
} else {
  signOut("");
}
