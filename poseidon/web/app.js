// The page: signing in, the address bar, and the state of the connection.

import { may, signIn, signOut as endSession, takeToken, who, whoAmI } from "./api.js";
import * as audit from "./audit.js";
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
  const token = takeToken();
  if (token !== null) void enter(token, true);
  const log = location.hash === "#/audit";
  const batch = readBatch();
  const { device: key, job } = readRoute();
  const events = readEvents();
  const next = log ? "audit" : events !== null ? "events" : batch === null ? key : `batches/${batch}`;
  const signedIn = who() !== null;
  show(byId("login"), !signedIn);
  show(byId("fleet"), signedIn && next === "");
  show(byId("device"), signedIn && key !== "");
  show(byId("batches"), signedIn && batch !== null);
  list.setActive(signedIn && next === "");
  device.open(signedIn && key !== "" ? key : null, job);
  batches.open(signedIn ? batch : null);
  show(byId("events"), signedIn && events !== null);
  cef.open(signedIn ? events : null);
  show(byId("audit"), signedIn && log);
  audit.open(signedIn && log);
  if (next !== route) {
    const before = route;
    route = next;
    if (next === "") {
      scrollTo(0, scrolled);
      if (before) list.focusRow(before);
    } else {
      scrollTo(0, 0);
      const heading = batch === null ? "device-name" : "batches-title";
      byId(log ? "audit-title" : events === null ? heading : "events-title").focus({ preventScroll: true });
    }
  }
  retitle();
}

function retitle() {
  const down = fleet.down ? `${counted(fleet.down, "device")} down · ` : "";
  const other = readEvents() === null ? device.title() : cef.title();
  const shown = route === "audit" ? "Audit log" : readBatch() === null ? other : batches.title();
  const title = route ? `${shown} · Poseidon` : `${down}Poseidon`;
  if (document.title !== title) document.title = title;
}

function showLink() {
  if (fleet.link === "refused") {
    // The session ended, or its token was removed.
    signedOut("The session is over. Sign in again.");
    return;
  }
  const words = { connecting: "connecting…", connected: "live", lost: "not connected" };
  text(byId("link-state"), words[fleet.link]);
  attribute(byId("link-state"), "data-link", fleet.link);
  attribute(document.body, "data-link", fleet.link);
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

/** Signs in with a token, which is forgotten at once. A link signs nobody out: somebody else may have made it. */
async function enter(token, link = false) {
  try {
    await signIn(token, link);
  } catch (error) {
    if (link && error.status === 409) {
      if (who() === null) await begin();
      notice(`The link was not used: ${error.message}.`);
      return;
    }
    const words = error.status === 401 ? "Poseidon does not accept this token." : `Not signed in: ${error.message}.`;
    signedOut(words);
    return;
  }
  signedIn();
}

/** Shows who is signed in and what they may. */
function signedIn() {
  const { name, role, on } = who();
  const only = on.length > 0 ? ` · ${on.join(" or ")}` : "";
  text(byId("who"), `${name} · ${role}${only}`);
  attribute(byId("who"), "title", `${name} · ${role}${only}`);
  attribute(document.body, "data-role", role);
  for (const node of document.querySelectorAll("[data-may]")) {
    attribute(node, "data-denied", !may(node.dataset.may));
  }
  show(byId("who"), true);
  show(byId("sign-out"), true);
  say(byId("login-error"), "");
  byId("token").value = "";
  connect();
  go();
}

/** Asks for a token. */
function signedOut(message) {
  // What the session could see must not stay on the page. The call is under way before its streams are ended here.
  void endSession();
  fleet.stop();
  fleet.link = "refused";
  lostAt = 0;
  text(byId("link-state"), "");
  attribute(document.body, "data-link", "refused");
  attribute(document.body, "data-role", null);
  show(byId("who"), false);
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
  void enter(given);
});
byId("sign-out").addEventListener("click", () => signedOut(""));

list.setUp();
many.setUp();
batches.setUp();
cef.setUp();
audit.setUp();
pending.setUp(notice);
device.setUp(notice);
fleet.addEventListener("link", showLink);
fleet.addEventListener("agents", retitle);
addEventListener("hashchange", go);
addEventListener("scroll", () => {
  if (route === "" && !byId("fleet").hidden) scrolled = scrollY;
});
setInterval(banner, 500);

/** At the beginning: with the token of the link, else with the cookie. Poseidon may be away for a moment. */
async function begin() {
  const token = takeToken();
  if (token !== null) {
    await enter(token, true);
    return;
  }
  for (;;) {
    try {
      await whoAmI();
      break;
    } catch (error) {
      if (error.status === 401) {
        signedOut("");
        return;
      }
      text(byId("banner"), "Not connected to Poseidon: trying again.");
      show(byId("banner"), true);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  signedIn();
}

void begin();
