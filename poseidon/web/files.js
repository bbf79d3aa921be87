// Files of the device on the screen: a listing, download, upload.

import { agentName, agentPath, ApiError, call, open as ask, send, stream } from "./api.js";
import { byId, el, say, setMeter, show, sync, text } from "./dom.js";
import { bytes, counted, date, number, plain } from "./format.js";
import { sha256 } from "./sha256.js";

/** Entries that are shown; the device sends no more. */
const MOST = 2000;

let agent = null;
let folder = "/";
let entries = [];
/** Ends what is under way when another device is shown. */
let leave = new AbortController();

/** Wires the card up. */
export function setUp() {
  byId("files-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void list(byId("files-path").value.trim());
  });
  byId("files-up").addEventListener("click", () => void list(parent(folder)));
  byId("files-choose").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file !== undefined) byId("files-target").value = join(folder, file.name);
    show(byId("files-send"), file !== undefined);
  });
  byId("files-send").addEventListener("submit", (event) => {
    event.preventDefault();
    const [file] = byId("files-choose").files;
    if (file !== undefined) void upload(file, byId("files-target").value.trim());
  });
}

/** Takes the card to another device. */
export function open(next) {
  leave.abort();
  leave = new AbortController();
  agent = next;
  folder = "/";
  entries = [];
  byId("files-path").value = "/";
  byId("files-choose").value = "";
  for (const id of ["files-send", "files-progress", "files-box"]) show(byId(id), false);
  say(byId("files-error"), null);
  text(byId("files-note"), "");
}

const join = (path, name) => (path.endsWith("/") ? path : `${path}/`) + name;
const parent = (path) => path.replace(/\/+$/, "").replace(/[^/]*$/, "") || "/";
const trimmed = (path) => path.replace(/\/+$/, "") || "/";

/** What came to nothing is said, unless the operator has gone elsewhere. */
async function attempt(act) {
  const { signal } = leave;
  say(byId("files-error"), null);
  try {
    await act(signal);
  } catch (failure) {
    if (!signal.aborted) say(byId("files-error"), plain(failure.message));
  } finally {
    if (!signal.aborted) show(byId("files-progress"), false);
  }
}

/** Follows a job to its end, which must be a good one. */
async function ended(job, signal, { progress, output }) {
  let end = null;
  const take = (line) => {
    if (line.type === "output" && line.stream === "stdout") output?.(line);
    if (line.type === "gap") throw new ApiError(0, "gap", "a part of the answer was lost with a connection: try again");
    if (line.type === "progress") progress?.(line);
    if (line.type === "end") end = line.job;
  };
  await stream(`/jobs/${encodeURIComponent(job.id)}/output?follow=true`, { take, signal });
  if (end === null) throw new ApiError(0, "unreachable", "the connection to Poseidon broke");
  if (end.error) throw new ApiError(0, end.error.code, plain(end.error.message));
  if (end.result?.status !== "succeeded") throw new ApiError(0, "failed", `it ended as ${plain(end.result?.status)}`);
  return end.result.data ?? {};
}

async function start(type, payload, signal) {
  const { jobs } = await call("POST", "/jobs", { agents: [agentName(agent)], type, payload }, signal);
  return jobs[0];
}

function list(path) {
  return attempt(async (signal) => {
    const wanted = trimmed(path);
    say(byId("files-note"), "Asking the device…");
    try {
      let lines = "";
      const output = (line) => {
        lines += line.encoding === "base64" ? decoded(line.data) : line.data;
      };
      const job = await start("file.list", { path: wanted, limit: MOST }, signal);
      const data = await ended(job, signal, { output });
      entries = lines.split("\n").filter(Boolean).map((line) => JSON.parse(line)).slice(0, MOST);
      entries.sort((a, b) => (a.name < b.name ? -1 : 1));
      // A file lists itself.
      const [only] = entries;
      const isFile = entries.length === 1 && only.type !== "directory" && wanted.endsWith(`/${only.name}`);
      folder = isFile ? parent(wanted) : wanted;
      byId("files-path").value = wanted;
      say(byId("files-note"), counted(entries.length, "entry").replace("entrys", "entries") + (data.more ? ", and there are more" : ""));
    } catch (failure) {
      if (!signal.aborted) text(byId("files-note"), "");
      throw failure;
    }
    render();
  });
}

const decoded = (data) => new TextDecoder().decode(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)));

function render() {
  show(byId("files-box"), true);
  byId("files-up").disabled = folder === "/";
  sync(byId("files"), entries, makeRow, (row, entry) => {
    row.entry = entry;
    const [name, size, mode, owner, time, act] = row.children;
    const isFolder = entry.type === "directory";
    const link = entry.type === "symlink" ? ` → ${plain(entry.target)}` : "";
    text(name.firstElementChild, plain(entry.name) + (isFolder ? "/" : link));
    name.firstElementChild.disabled = !isFolder;
    text(size, entry.type === "file" && number(entry.size) !== null ? bytes(entry.size) : "");
    text(mode, plain(entry.mode));
    text(owner, `${plain(entry.owner)}:${plain(entry.group)}`);
    text(time, number(entry.mtime) === null ? "" : date(entry.mtime));
    show(act.firstElementChild, entry.type === "file");
  });
}

function makeRow() {
  const name = el("button", { type: "button", class: "link" });
  const load = el("button", { type: "button" }, "Download");
  const cells = ["", "size", "mode", "owner", "time", ""].map((kind) => el("td", { class: kind }));
  cells[0].append(name);
  cells[5].append(load);
  const row = el("tr", {}, ...cells);
  name.addEventListener("click", () => void list(join(folder, row.entry.name)));
  load.addEventListener("click", () => void download(join(folder, row.entry.name), row.entry.name));
  return row;
}

function meter(words, done, total) {
  show(byId("files-progress"), true);
  const share = total > 0 ? done / total : 1;
  setMeter(byId("files-progress").firstElementChild, share);
  text(byId("files-progress-text"), `${words} ${Math.floor(share * 100)} %`);
}

function download(path, name) {
  return attempt(async (signal) => {
    const response = await ask(`${agentPath(agent)}/file?path=${encodeURIComponent(path)}`, signal);
    const size = Number(response.headers.get("Triton-Size"));
    const pieces = [];
    let done = 0;
    const reader = response.body.getReader();
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (failure) {
        signal.throwIfAborted();
        throw await brokenOff(response, failure);
      }
      if (part.done) break;
      pieces.push(part.value);
      done += part.value.length;
      meter("From the device", done, size);
    }
    const url = URL.createObjectURL(new Blob(pieces, { type: "application/octet-stream" }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say(byId("files-note"), `${plain(name)} is saved, ${bytes(done)}.`);
  });
}

/** Why a file broke off: its job knows. */
async function brokenOff(response) {
  const words = "the file broke off, nothing is saved";
  try {
    const job = await call("GET", `/jobs/${encodeURIComponent(response.headers.get("Triton-Job"))}`);
    return new ApiError(0, "broken", job.error ? `${words}: ${plain(job.error.message)}` : words);
  } catch {
    return new ApiError(0, "broken", words);
  }
}

function upload(file, target) {
  return attempt(async (signal) => {
    const path = target.endsWith("/") ? target + file.name : target;
    const hash = await sha256(file, (done) => meter("Reading", done, file.size), signal);
    const blob = `/blobs/${hash}`;
    if (!(await known(blob, signal))) {
      await send(blob, file, (done) => meter("To Poseidon", done, file.size), signal);
    }
    meter("To the device", 0, 1);
    const payload = { path, ref: `sha256:${hash}`, size: file.size, sha256: hash };
    const job = await start("file.put", payload, signal);
    const progress = ({ percent }) => meter("To the device", number(percent) ?? 0, 100);
    const data = await ended(job, signal, { progress });
    byId("files-choose").value = "";
    show(byId("files-send"), false);
    await list(folder);
    say(byId("files-note"), `${plain(data.path ?? path)} is written, ${bytes(file.size)}.`);
  });
}

async function known(blob, signal) {
  try {
    await call("HEAD", blob, undefined, signal);
    return true;
  } catch (failure) {
    if (failure.status === 404) return false;
    throw failure;
  }
}
