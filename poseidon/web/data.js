// What the device on the screen was given besides its scripts. The content of a secret never comes here.

import { call, content } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, confirmed, el, say, show, sync, text } from "./dom.js";
import { ago, bytes, date, list, number, plain } from "./format.js";

/** Entries of an identifier at most. */
const MOST = 256;
/** What is longer is not shown in the box. */
const LONGEST = 65_536;
/** As the server has it. The browser would take `..` for steps in the address, and ask for something else. */
const KEY = /^(?!(?:.*\/)?\.{1,2}(?:\/|$))[\w.-]+(?:\/[\w.-]+)*$/;

let name = null;
let entries = null;
/** Counts what was asked: answers to an earlier question are left out. */
let turn = 0;
let looks = 0;

const base = () => `/data/${encodeURIComponent(name)}`;
const address = (key) => `${base()}/${key.split("/").map(encodeURIComponent).join("/")}`;

/** Wires the card up. */
export function setUp() {
  byId("data-new").addEventListener("click", () => fill("", "", false));
  byId("data-close").addEventListener("click", close);
  byId("data-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void put();
  });
  byId("data-file").addEventListener("change", () => {
    const [file] = byId("data-file").files;
    byId("data-text").disabled = file !== undefined;
    note(file === undefined ? "" : `${plain(file.name)} (${bytes(file.size)}) is given.`);
  });
  confirmed(byId("data-remove"), "Sure?", () => void remove());
  setInterval(() => name !== null && !document.hidden && render(), 5000);
}

/** Takes the card to another device; `null` empties it. */
export function open(next) {
  const wanted = next === null ? "" : plain(next.name, 500);
  name = wanted === "" ? null : wanted;
  entries = null;
  turn += 1;
  close();
  show(byId("data-card"), name !== null);
  render();
  void reload();
}

/** Reads the list. */
export async function reload() {
  if (name === null) return;
  turn += 1;
  const own = turn;
  try {
    const answer = await call("GET", base());
    if (own !== turn) return;
    entries = list(answer.data, MOST);
    say(byId("data-error"), "");
  } catch (failure) {
    if (own !== turn) return;
    say(byId("data-error"), plain(failure.message));
  }
  render();
}

function close() {
  looks += 1;
  show(byId("data-form"), false);
  // Nothing that was typed stays in the page.
  byId("data-text").value = "";
  byId("data-key").value = "";
  byId("data-file").value = "";
}

function fill(key, written, secret) {
  close();
  byId("data-key").value = key;
  byId("data-key").readOnly = key !== "";
  byId("data-text").value = written;
  byId("data-text").disabled = false;
  byId("data-secret").checked = secret;
  // A secret stays one.
  byId("data-secret").disabled = secret;
  show(byId("data-remove"), key !== "");
  note(secret ? "A secret is not shown. What you write here takes its place." : "");
  show(byId("data-form"), true);
  byId(key === "" ? "data-key" : "data-text").focus();
}

function note(message) {
  say(byId("data-note"), message);
}

/** Opens an entry; what is no short text can be replaced or removed only. */
async function look({ key, secret, size }) {
  if (!KEY.test(key)) return;
  if (secret !== false) {
    fill(key, "", true);
    return;
  }
  looks += 1;
  const own = looks;
  let written = null;
  if (number(size) !== null && size <= LONGEST) {
    try {
      const raw = await content("GET", address(key));
      written = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
      // The box would change these.
      if (/[\r\0]/.test(written)) written = null;
    } catch (failure) {
      if (own === looks && !(failure instanceof TypeError)) {
        say(byId("data-error"), plain(failure.message));
        return;
      }
    }
  }
  if (own !== looks) return;
  fill(key, written ?? "", false);
  if (written === null) note(`This is no short text (${bytes(size)}): see it with poseidon data show.`);
}

async function put() {
  const key = byId("data-key").value.trim();
  if (!KEY.test(key)) {
    note("Not given: a name has letters, digits, “.”, “_”, “-” and “/”, and no part of it is “.” or “..”.");
    return;
  }
  const [file] = byId("data-file").files;
  const body = file ?? new TextEncoder().encode(byId("data-text").value);
  const query = new URLSearchParams({ secret: byId("data-secret").checked });
  await change(`Not given`, () => content("PUT", `${address(key)}?${query}`, body));
}

async function remove() {
  await change("Not removed", () => call("DELETE", address(byId("data-key").value)));
}

async function change(failed, ask) {
  const asked = name;
  looks += 1;
  try {
    await ask();
    if (asked !== name) return;
    close();
    void reload();
  } catch (failure) {
    if (asked === name) note(`${failed}: ${plain(failure.message)}`);
  }
}

function render() {
  const time = now();
  show(byId("data-new"), entries !== null);
  show(byId("data-empty"), entries !== null && entries.length === 0);
  sync(byId("data"), entries ?? [], makeEntry, (node, entry) => {
    node.entry = entry;
    const [key, kind, size, age] = node.firstElementChild.children;
    text(key, plain(entry.key));
    text(kind, entry.secret === false ? plain(entry.sha256).slice(0, 12) : "secret");
    text(size, bytes(entry.size));
    const at = number(entry.changed);
    text(age, at === null ? "" : ago(time - at));
    attribute(age, "title", date(at));
  });
}

function makeEntry() {
  const part = (name) => el("span", { class: name });
  const button = el("button", { type: "button" }, el("code"), part("sub mono"), part("sub"), part("sub"));
  const node = el("li", {}, button);
  button.addEventListener("click", () => void look(node.entry));
  return node;
}
