// One script in a box: read, changed, saved as a new revision.

import { ApiError, content } from "./api.js";
import { byId, confirmed, say, show } from "./dom.js";
import { bytes, list, plain } from "./format.js";

let tell = null;
/** What is in the box: `{ base, path, parent, sha256, crlf, locked }`; a new script has no path and no hash. */
let shown = null;
/** Counts what was opened: content that comes later than another is left out. */
let turn = 0;

const address = (base, path) => `${base}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

/** Wires the box up: `saved` gets the repository as it is then, `reload` reads it. */
export function setUp(callbacks) {
  tell = callbacks;
  byId("editor").addEventListener("submit", (event) => {
    event.preventDefault();
    void save();
  });
  byId("editor-close").addEventListener("click", close);
  confirmed(byId("editor-delete"), "Sure?", () => void remove());
}

/** The path of the script in the box. */
export const shownPath = () => shown?.path ?? null;

/** Empties the box. */
export function close() {
  turn += 1;
  shown = null;
  show(byId("editor"), false);
  byId("editor-text").value = "";
}

/** Begins a new script. */
export function create(base, repository) {
  turn += 1;
  fill({ base, path: null, parent: repository?.revision ?? "", sha256: null, crlf: false, locked: false }, "", "0755");
  byId("editor-path").focus();
}

/** Shows a script of a revision, one that is `old` for reading only. */
export async function open(base, repository, file, old) {
  turn += 1;
  const own = turn;
  const path = plain(file.path, 1000);
  let raw;
  try {
    raw = await content("GET", `${address(base, path)}?revision=${encodeURIComponent(repository.number)}`);
  } catch (failure) {
    if (own === turn) say(byId("scripts-error"), `${path}: ${plain(failure.message)}`);
    return;
  }
  if (own !== turn) return;
  say(byId("scripts-error"), "");
  const next = { base, path, parent: repository.revision, sha256: file.sha256, crlf: false, locked: old };
  let written = "";
  try {
    written = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  } catch {
    next.locked = true;
  }
  // The box has one kind of line end only: a script with several would be saved as another.
  next.crlf = written.includes("\r\n");
  const plainEnds = written.replaceAll("\r\n", "\n");
  const mixed = plainEnds.includes("\r") || (next.crlf && plainEnds.replaceAll("\n", "\r\n") !== written);
  const odd = mixed || written.includes("\0");
  if (odd) next.locked = true;
  fill(next, plainEnds, plain(file.mode));
  if (next.locked && !old) {
    const why = odd ? "It has several kinds of line ends" : "It is no text";
    note(`${why} (${bytes(file.size)}): change it with poseidon scripts put.`);
  }
}

function fill(next, written, mode) {
  shown = next;
  byId("editor-path").value = next.path ?? "";
  byId("editor-path").readOnly = next.path !== null;
  byId("editor-text").value = written;
  byId("editor-text").readOnly = next.locked;
  byId("editor-exec").checked = (parseInt(mode, 8) & 0o111) !== 0;
  byId("editor-exec").disabled = next.locked;
  byId("editor-comment").value = "";
  shown.mode = mode;
  shown.wasExec = byId("editor-exec").checked;
  for (const id of ["editor-save", "editor-comment"]) show(byId(id), !next.locked);
  show(byId("editor-delete"), next.path !== null && !next.locked);
  note("");
  show(byId("editor"), true);
}

function note(message) {
  say(byId("editor-note"), message);
}

async function save() {
  const target = shown;
  if (target === null || target.locked) return;
  const path = target.path ?? byId("editor-path").value.trim();
  const written = byId("editor-text").value;
  const raw = new TextEncoder().encode(target.crlf ? written.replaceAll("\n", "\r\n") : written);
  const exec = byId("editor-exec").checked;
  // Other bits of a mode that nobody touched stay.
  const mode = target.path !== null && exec === target.wasExec ? target.mode : exec ? "0755" : "0644";
  const query = { mode, comment: byId("editor-comment").value };
  await change(target, path, (parent) =>
    content("PUT", `${address(target.base, path)}?${new URLSearchParams({ ...query, parent })}`, raw),
  );
}

async function remove() {
  const target = shown;
  if (target === null || target.path === null || target.locked) return;
  const query = { comment: byId("editor-comment").value };
  const done = await change(target, target.path, (parent) =>
    content("DELETE", `${address(target.base, target.path)}?${new URLSearchParams({ ...query, parent })}`),
  );
  if (done && shown === target) close();
}

/** Makes a change on top of what was read, or of what came since, where that is not about this script. */
async function change(target, path, ask) {
  for (let left = 3; left > 0; left -= 1) {
    try {
      const answer = JSON.parse(new TextDecoder().decode(await ask(target.parent)));
      if (shown !== target) return true;
      const file = list(answer.repository.files, 2000).find((one) => one.path === path);
      Object.assign(target, { path, parent: answer.repository.revision, sha256: file?.sha256 ?? null });
      byId("editor-path").readOnly = true;
      target.mode = plain(file?.mode);
      target.wasExec = byId("editor-exec").checked;
      byId("editor-comment").value = "";
      show(byId("editor-delete"), true);
      note(answer.changed ? `Saved as revision ${plain(answer.repository.number)}.` : "Nothing has changed.");
      tell.saved(answer.repository);
      return true;
    } catch (failure) {
      if (shown !== target) return false;
      if (!(failure instanceof ApiError) || failure.code !== "conflict") {
        note(`Not saved: ${plain(failure.message)}`);
        return false;
      }
      const current = await tell.reload();
      if (shown !== target) return false;
      if (current === null) {
        note("Not saved: somebody else has changed the scripts, and Poseidon does not say how.");
        return false;
      }
      const file = list(current.files, 2000).find((one) => one.path === path);
      const same = (file?.sha256 ?? null) === target.sha256;
      target.parent = current.revision ?? "";
      target.sha256 = file?.sha256 ?? null;
      if (!same) {
        note("Not saved: somebody else has changed this script meanwhile. What you wrote is still here; saving again replaces theirs.");
        return false;
      }
    }
  }
  note("Not saved: the scripts change all the time. Try again.");
  return false;
}
