// Calls to Poseidon. The session's cookie vouches for them; those that change something carry the session's CSRF token.

import { learn, stamp } from "./clock.js";

const ROOT = "/api/v1";

/** An answer that is an error, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Who is signed in, as `/me` says: name, role, on, csrfToken; `null` is nobody. */
let me = null;

export const who = () => me;

const RANKS = ["viewer", "operator", "admin"];

/** Whether who is signed in may do what is for this role; Poseidon decides in any case. */
export const may = (role) => RANKS.indexOf(me?.role) >= RANKS.indexOf(role);

/** Takes the token out of the address, if one is there. It is kept nowhere. */
export function takeToken() {
  const match = /^#token=([^&]*)/.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, "", `${location.pathname}#/`);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    // Not URL-encoded: as it stands.
    return match[1];
  }
}

/** Signs in: Poseidon sets a cookie that no script can read. By a link only where nobody is signed in (else 409). */
export async function signIn(token, link) {
  const told = await call("POST", "/login", link ? { token: token.trim(), link } : { token: token.trim() });
  me = told;
}

/** Asks who is signed in by the cookie. */
export async function whoAmI() {
  me = await call("GET", "/me");
}

/** Ends the session; it is over for this page whatever the answer is. */
export async function signOut() {
  if (me === null) return;
  const ended = call("POST", "/logout", {});
  me = null;
  try {
    await ended;
  } catch {
    // It is over already, or ends by itself.
  }
}

/** Path of one instance: `…/agents/NAME%2FINSTANCE`. */
export const agentPath = (agent) => `/agents/${encodeURIComponent(agentName(agent))}`;

/** `NAME/INSTANCE`, which means this instance and no other. */
export const agentName = ({ name, instance }) => (instance ? `${name}/${instance}` : name);

async function request(method, path, body, signal) {
  const headers = {};
  if (me?.csrfToken && method !== "GET" && method !== "HEAD") headers["X-CSRF-Token"] = me.csrfToken;
  const raw = body instanceof Uint8Array;
  if (body !== undefined && !raw) headers["Content-Type"] = "application/json";
  const asked = stamp();
  let response;
  try {
    response = await fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined || raw ? body : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      // Signing out goes on where the page is left at once.
      keepalive: path === "/logout",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "Poseidon does not answer");
  }
  learn(response, asked);
  if (response.ok) return response;
  let answer = {};
  try {
    answer = (await response.json()).error ?? {};
  } catch {
    // Not from Poseidon, such as a proxy's page: the status says enough.
  }
  const message = answer.message ?? `HTTP ${response.status} ${response.statusText}`;
  throw new ApiError(response.status, answer.code ?? "http", message);
}

/** A call with a JSON answer. */
export async function call(method, path, body, signal) {
  const response = await request(method, path, body, signal);
  const answer = await response.text();
  return answer === "" ? {} : JSON.parse(answer);
}

/** A call with content as it is, in bytes: sent, answered, or both. */
export async function content(method, path, body, signal) {
  const response = await request(method, path, body, signal);
  return response.arrayBuffer();
}

/** An answer that is no JSON; its body has not been read. */
export const open = (path, signal) => request("GET", path, undefined, signal);

/** Sends a file; `step` is told how many bytes have gone, which `fetch` does not know. */
export function send(path, file, step, signal) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    http.open("PUT", ROOT + path);
    http.setRequestHeader("X-CSRF-Token", me?.csrfToken ?? "");
    http.upload.onprogress = ({ loaded }) => step(loaded);
    http.onerror = () => reject(new ApiError(0, "unreachable", "the connection to Poseidon broke"));
    http.onabort = () => reject(signal.reason);
    http.onload = () => {
      if (http.status >= 200 && http.status < 300) return resolve();
      let answer = {};
      try {
        answer = JSON.parse(http.responseText).error ?? {};
      } catch {
        // Not from Poseidon: the status says enough.
      }
      reject(new ApiError(http.status, answer.code ?? "http", answer.message ?? `HTTP ${http.status}`));
    };
    signal?.addEventListener("abort", () => http.abort());
    http.send(file);
  });
}

/**
 * Reads newline-delimited JSON and gives each object to `take`, until the stream ends. `opened` is called
 * when the answer begins, `alive` whenever bytes arrive.
 */
export async function stream(path, { take, opened, alive, signal }) {
  const response = await request("GET", path, undefined, signal);
  opened?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = [];
  let rested = performance.now();
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "unreachable", "the connection to Poseidon broke");
    }
    if (part.done) return;
    alive?.();
    const lines = part.value.split("\n");
    begun.push(lines[0]);
    for (let i = 1; i < lines.length; i += 1) {
      const line = begun.join("");
      begun = [lines[i]];
      if (line.trim() !== "") take(JSON.parse(line));
      if (performance.now() - rested > 12) {
        // Much came at once: let the page paint and answer to keys.
        await new Promise((resolve) => setTimeout(resolve));
        signal?.throwIfAborted();
        rested = performance.now();
      }
    }
  }
}

/** Waits, unless aborted. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
