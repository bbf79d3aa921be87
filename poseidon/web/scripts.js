// The scripts of the device on the screen, and their revisions.

import { call } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, confirmed, el, say, show, sync, text } from "./dom.js";
import { ago, bytes, counted, date, list, number, plain } from "./format.js";
import * as editor from "./editor.js";
import { fleet } from "./store.js";

/** Files and revisions that are shown at most: as many as there can be. */
const MOST_FILES = 2000;
const MOST_REVISIONS = 200;

let name = null;
/** The current revision, and the one that is looked at, where that is another. */
let current = null;
let older = null;
let revisions = [];
/** Counts what was asked: answers to an earlier question are left out. */
let turn = 0;

const base = () => `/repositories/${encodeURIComponent(name)}`;
const filesOf = (repository) => list(repository?.files, MOST_FILES);

/** Wires the card up. */
export function setUp() {
  editor.setUp({ saved, reload });
  byId("scripts-new").addEventListener("click", () => editor.create(base(), current));
  byId("scripts-back").addEventListener("click", () => look(null));
  confirmed(byId("scripts-revert"), "Sure?", () => void revert());
  byId("revisions-box").addEventListener("toggle", () => void history());
  fleet.addEventListener("scripts", ({ detail }) => {
    if (name !== null && detail.name === name && detail.revision !== current?.revision) void reload();
  });
  setInterval(() => name !== null && !document.hidden && render(), 5000);
}

/** Takes the card to another device; `null` empties it. */
export function open(next) {
  const wanted = next === null ? null : plain(next.name);
  name = wanted === "" ? null : wanted;
  current = older = null;
  revisions = [];
  turn += 1;
  editor.close();
  byId("revisions-box").open = false;
  show(byId("scripts-card"), name !== null);
  render();
  void reload();
}

/** Reads the current revision; gives it, or null where that failed. */
export async function reload() {
  if (name === null) return null;
  turn += 1;
  const own = turn;
  const asked = name;
  let answer;
  try {
    answer = await call("GET", base());
  } catch (failure) {
    if (own === turn && current === null) say(byId("scripts-error"), plain(failure.message));
    return null;
  }
  if (asked !== name) return null;
  if (own === turn) {
    current = answer;
    say(byId("scripts-error"), "");
    render();
    void history();
  }
  return answer;
}

/** A new revision was made here. */
function saved(repository) {
  turn += 1;
  current = repository;
  older = null;
  render();
  void history();
}

async function history() {
  const asked = name;
  if (asked === null || !byId("revisions-box").open) return;
  try {
    const answer = await call("GET", `${base()}/history`);
    if (asked !== name) return;
    revisions = list(answer.revisions, MOST_REVISIONS);
    render();
  } catch (failure) {
    if (asked === name) say(byId("scripts-error"), plain(failure.message));
  }
}

/** Shows an older revision; `null` goes back to the current one. */
async function look(revision) {
  editor.close();
  older = null;
  if (revision !== null && revision.number !== current?.number) {
    turn += 1;
    const own = turn;
    try {
      const answer = await call("GET", `${base()}/revisions/${encodeURIComponent(revision.number)}`);
      if (own !== turn) return;
      older = answer;
      say(byId("scripts-error"), "");
    } catch (failure) {
      if (own === turn) say(byId("scripts-error"), plain(failure.message));
    }
  }
  render();
}

async function revert() {
  const asked = name;
  try {
    const body = { revision: String(older.number), parent: current?.revision ?? "" };
    const answer = await call("POST", `${base()}/revert`, body);
    if (asked !== name) return;
    editor.close();
    saved(answer.repository);
  } catch (failure) {
    if (asked === name) say(byId("scripts-error"), `Not reverted: ${plain(failure.message)}`);
  }
}

function render() {
  const time = now();
  const shown = older ?? current;
  const files = filesOf(shown);
  const at = number(shown?.created);
  const made = at === null ? "" : ` · ${ago(time - at)}`;
  const words = at === null ? "" : `Revision ${plain(shown.number)} · ${plain(shown.revision)}${made}`;
  text(byId("scripts-revision"), words);
  attribute(byId("scripts-revision"), "title", date(at));
  text(byId("scripts-comment"), plain(shown?.comment));
  show(byId("scripts-older"), older !== null);
  show(byId("scripts-new"), older === null && current !== null);
  show(byId("scripts-empty"), current !== null && files.length === 0);
  sync(byId("scripts"), files, makeFile, (node, file) => {
    node.file = file;
    const [path, mode, size] = node.firstElementChild.children;
    text(path, plain(file.path));
    attribute(path, "title", plain(file.path));
    text(mode, plain(file.mode));
    text(size, bytes(file.size));
    attribute(node.firstElementChild, "aria-current", editor.shownPath() === file.path ? "true" : null);
  });
  sync(byId("revisions"), revisions, makeRevision, (node, revision) => {
    node.revision = revision;
    const [comment, count, id, age] = node.firstElementChild.children;
    const made = number(revision.created);
    text(comment, plain(revision.comment) || "(no comment)");
    attribute(comment, "title", plain(revision.comment));
    text(count, counted(number(revision.files) ?? 0, "file"));
    text(id, `${plain(revision.number)} · ${plain(revision.revision).slice(0, 8)}`);
    text(age, made === null ? "" : ago(time - made));
    attribute(age, "title", date(made));
    attribute(node.firstElementChild, "aria-current", revision.number === shown?.number ? "true" : null);
  });
}

function makeFile() {
  const part = (name) => el("span", { class: name });
  const button = el("button", { type: "button" }, el("code"), part("sub mono"), part("sub"));
  const node = el("li", {}, button);
  button.addEventListener("click", async () => {
    await editor.open(base(), older ?? current, node.file, older !== null);
    render();
  });
  return node;
}

function makeRevision() {
  const part = (name) => el("span", { class: name });
  const button = el("button", { type: "button" }, part("what"), part("sub"), part("sub mono"), part("sub"));
  const node = el("li", {}, button);
  button.addEventListener("click", () => void look(node.revision));
  return node;
}
