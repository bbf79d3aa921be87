// The audit log: who did what, newest first.

import { call } from "./api.js";
import { byId, el, say, show, text } from "./dom.js";
import { plain } from "./format.js";

const PAGE = 100;
let isOpen = false;
let oldest = null;

/** Shows the log, or forgets it. */
export function open(shown) {
  if (shown === isOpen) return;
  isOpen = shown;
  byId("audit-rows").replaceChildren();
  oldest = null;
  if (shown) void more();
}

/** Wires it up. */
export function setUp() {
  byId("audit-more").addEventListener("click", () => void more());
}

async function more() {
  const before = oldest === null ? "" : `&before=${oldest}`;
  say(byId("audit-error"), "");
  let acts;
  try {
    ({ acts } = await call("GET", `/audit?limit=${PAGE}${before}`));
  } catch (error) {
    say(byId("audit-error"), plain(error.message));
    return;
  }
  if (!isOpen) return;
  byId("audit-rows").append(...acts.map(row));
  if (acts.length > 0) oldest = acts.at(-1).seq;
  show(byId("audit-more"), acts.length === PAGE);
  text(byId("audit-count"), acts.length === 0 && oldest === null ? "Nothing yet." : "");
}

function row(act) {
  const time = new Date(act.time * 1000).toISOString().replace("T", " ").slice(0, 19);
  const end = act.status === null ? "no end known" : `${act.allowed ? "" : "denied "}${act.status}`;
  const cell = (content) => el("td", {}, plain(content, 4000));
  return el(
    "tr",
    { class: act.allowed ? "" : "denied" },
    cell(`${time} UTC`),
    cell(act.who || "nobody known"),
    cell(act.address),
    cell(act.act),
    cell(act.target),
    cell(act.detail),
    cell(end),
  );
}
