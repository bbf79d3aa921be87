// Poseidon's clock. The browser's may be wrong, so that ages are never computed from it: each answer's `Date` header says,
// to the second, what time it was between sending the question and reading the answer. Several narrow it down.

let lowest = -Infinity;
let highest = Infinity;

const monotonic = () => performance.now() / 1000;

/** Learns from an answer; `asked` is what `stamp()` gave before the question was sent. */
export function learn(response, asked) {
  const header = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(header)) return;
  const time = header / 1000;
  const low = time - monotonic();
  const high = time + 1 - asked;
  if (low > highest || high < lowest) {
    // A clock was set, or this machine slept: begin anew.
    lowest = low;
    highest = high;
  } else {
    lowest = Math.max(lowest, low);
    highest = Math.min(highest, high);
  }
}

/** The moment before a question is sent. */
export const stamp = monotonic;

/** Something happened at `time` by Poseidon's clock and is known here: it is not earlier than that. */
export function atLeast(time) {
  if (typeof time !== "number") return;
  const low = time - monotonic();
  // A slip of a second comes from rounding; more than that is a time that makes no sense.
  if (low > lowest && low < lowest + 2) {
    lowest = low;
    highest = Math.max(highest, low);
  }
}

/** What time it is for Poseidon, in Unix seconds. */
export function now() {
  if (lowest === -Infinity) return Date.now() / 1000;
  return monotonic() + (highest === Infinity ? lowest : (lowest + highest) / 2);
}
