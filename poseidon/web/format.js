// Numbers, times and foreign text, made readable. Nothing here trusts what it gets.

/** A finite number, or null. */
export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** A list of at most `limit` objects. */
export const list = (value, limit = 256) =>
  Array.isArray(value) ? value.filter((v) => v !== null && typeof v === "object").slice(0, limit) : [];

/** A list of at most 256 finite numbers. */
export const numbers = (value) => (Array.isArray(value) ? value.slice(0, 256).map(number) : []).filter((v) => v !== null);

/** An object, or an empty one. */
export const object = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};

// Control characters, and those that turn the direction of text around.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Foreign text for one line: unseen characters become visible, and it is never very long. */
export function plain(value, limit = 300) {
  if (value === null || value === undefined) return "";
  let string = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  if (string.length > limit) string = `${string.slice(0, limit)}…`;
  return string.replace(UNSEEN, "\ufffd");
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Bytes with three digits at most: `1.46 GiB`. */
export function bytes(value) {
  let rest = number(value);
  if (rest === null) return "–";
  let unit = 0;
  while (Math.abs(rest) >= 999.5 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)} ${UNITS[unit]}`;
}

/** A share of 0..1 as `42 %`. */
export const percent = (share) => (share === null ? "–" : `${Math.round(share * 100)} %`);

/** `n` with a word: `1 line`, `2 lines`. */
export const counted = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/** A span of seconds by its greatest unit: `12 s`, `4 min`, `3 h`, `5 d`. */
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** How long ago: `just now`, `12 s ago`. */
export const ago = (seconds) => (seconds < 1 ? "just now" : `${span(seconds)} ago`);

/** A span of seconds by its two greatest units: `5 d 3 h`. */
export function longSpan(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  if (m) return `${m} min ${s % 60} s`;
  return `${s} s`;
}

/** A job's duration from milliseconds. */
export function elapsed(ms) {
  const value = number(ms);
  if (value === null) return "";
  if (value < 1000) return `${Math.round(value)} ms`;
  return value < 60000 ? `${(value / 1000).toFixed(1)} s` : longSpan(value / 1000);
}

/** A Unix time as a date in the reader's time zone. */
export function date(seconds, time = "medium") {
  const value = number(seconds);
  if (value === null || Math.abs(value) > 8e12) return "";
  return new Date(value * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: time });
}

/** A job's request as one line. */
export function commandLine({ request, type }) {
  const { shell, argv, path, name } = object(request);
  if (typeof shell === "string") return plain(shell, 2000);
  if (Array.isArray(argv)) return plain(argv.map(quoted).join(" "), 2000);
  return [type, path ?? name].map((word) => plain(word, 1000)).filter(Boolean).join(" ");
}

function quoted(word) {
  const string = String(word);
  return /^[\w@%+=:,./-]+$/.test(string) ? string : `'${string.replaceAll("'", "'\\''")}'`;
}
