// The output of a job: bytes to text, text without escape sequences, and a view of bounded size.

import { attribute, el, say, text } from "./dom.js";
import { bytes, number } from "./format.js";

/** What the view keeps; older output goes. */
const MOST_CHARACTERS = 1 << 20;
const MOST_LINES = 10_000;
const BLOCK = 4096;
// A string sequence that is never ended (OSC, DCS, …) swallows this much at most.
const LONGEST_SEQUENCE = 4096;

// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

/** Takes terminal escape sequences out of a text that comes in pieces, and makes other control characters visible. */
export class Cleaner {
  #state = "ground";
  #taken = 0;

  clean(piece) {
    if (this.#state === "ground" && !CONTROL.test(piece)) return piece;
    let kept = "";
    for (const c of piece) kept += this.#one(c);
    return kept;
  }

  #one(c) {
    switch (this.#state) {
      case "escape":
        if (c === "[") this.#enter("control");
        else if ("]PX^_".includes(c)) this.#enter("string");
        else if (!(c >= " " && c <= "/")) this.#state = "ground";
        return "";
      case "control": // ESC [ parameters and intermediates, then one final character.
        if (c >= " " && c <= "?") return this.#swallow();
        this.#state = "ground";
        return c >= "@" && c <= "~" ? "" : this.#one(c);
      case "string": // Ends with BEL or ESC \.
        if (c === "\u0007") this.#state = "ground";
        else if (c === "\u001b") this.#state = "escape";
        else return this.#swallow();
        return "";
      case "return":
        this.#state = "ground";
        return c === "\n" ? "\n" : `\n${this.#one(c)}`;
      default:
        return this.#plain(c);
    }
  }

  #plain(c) {
    if (c === "\u001b") this.#state = "escape";
    else if (c === "\r") this.#state = "return"; // Progress bars become lines.
    else if (c === "\u009b") this.#enter("control");
    else if (c !== "\n" && c !== "\t" && CONTROL.test(c)) return visible(c);
    else return c;
    return "";
  }

  #enter(state) {
    this.#state = state;
    this.#taken = 0;
  }

  #swallow() {
    this.#taken += 1;
    if (this.#taken > LONGEST_SEQUENCE) this.#state = "ground";
    return "";
  }
}

function visible(c) {
  const code = c.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "\u2421" : "\ufffd";
}

/** One of the two streams: counts, decodes and cleans. */
class Source {
  bytes = 0;
  /** How far into the stream it has come, with what is missing. */
  position = 0;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #cleaner = new Cleaner();
  #open = false;

  /** Text of a piece; of one that was partly there before, as after a broken connection, what is new. */
  decode({ data, encoding, offset }) {
    const base64 = encoding === "base64";
    const raw = base64 ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : new TextEncoder().encode(data);
    const start = number(offset) ?? this.position;
    const known = Math.max(0, this.position - start);
    if (known > 0 && known >= raw.length) return "";
    this.position = start + raw.length;
    this.bytes += raw.length - known;
    if (!base64 && known === 0) return this.flush() + this.#cleaner.clean(data);
    this.#open = true;
    return this.#cleaner.clean(this.#decoder.decode(raw.subarray(known), { stream: true }));
  }

  /** Bytes of a gap that are not told yet. */
  skip(offset, length) {
    const end = (number(offset) ?? this.position) + (number(length) ?? 0);
    const missing = Math.min(number(length) ?? 0, end - this.position);
    this.position = Math.max(this.position, end);
    return missing;
  }

  /** What is left of a character that never became whole. */
  flush() {
    if (!this.#open) return "";
    this.#open = false;
    return this.#cleaner.clean(this.#decoder.decode());
  }
}

/** The view of one job's output in `node`; `dropped` is the paragraph that says what is not shown. */
export class OutputView {
  #node;
  #dropped;
  #sources = {};
  #waiting = [];
  #waitingLength = 0;
  #blocks = [];
  #characters = 0;
  #lines = 0;
  #gone = 0;
  #asked = false;
  #run = 0;

  constructor(node, dropped) {
    this.#node = node;
    this.#dropped = dropped;
    this.clear();
  }

  clear() {
    this.#run += 1;
    this.#sources = { stdout: new Source(), stderr: new Source() };
    this.#waiting = [];
    this.#blocks = [];
    this.#waitingLength = this.#characters = this.#lines = this.#gone = 0;
    this.#asked = false;
    this.#node.replaceChildren();
    say(this.#dropped, "");
  }

  /** A line of the job's stream: `output` or `gap`. */
  take(event) {
    const stream = event.stream === "stderr" ? "stderr" : "stdout";
    const source = this.#sources[stream];
    if (event.type === "gap") {
      const missing = source.skip(event.offset, event.length);
      if (missing <= 0) return;
      this.#add(stream, source.flush());
      this.#add("gap", `${bytes(missing)} of ${stream} missing here: not stored, or lost with a connection`);
      return;
    }
    let piece;
    try {
      piece = source.decode({ ...event, data: String(event.data) });
    } catch {
      this.#add("gap", `a piece of ${stream} that is not base64`);
      return;
    }
    this.#add(stream, piece);
  }

  /** The stream is over. */
  end() {
    for (const stream of ["stdout", "stderr"]) this.#add(stream, this.#sources[stream].flush());
  }

  /** Bytes taken of a stream. */
  bytes(stream) {
    return this.#sources[stream].bytes;
  }

  #add(kind, piece) {
    if (piece === "") return;
    this.#waiting.push({ kind, piece });
    this.#waitingLength += piece.length;
    // Where nothing is painted (a hidden tab), what waits must not grow either.
    while (this.#waitingLength > 2 * MOST_CHARACTERS) {
      const { piece: old } = this.#waiting.shift();
      this.#waitingLength -= old.length;
      this.#gone += old.length;
    }
    if (this.#asked) return;
    this.#asked = true;
    const run = this.#run;
    requestAnimationFrame(() => {
      if (run === this.#run) this.#paint();
    });
  }

  #paint() {
    this.#asked = false;
    const node = this.#node;
    const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 24;
    for (const { kind, piece } of this.#waiting) this.#append(kind, piece);
    this.#waiting = [];
    this.#waitingLength = 0;
    this.#trim();
    if (atEnd) node.scrollTop = node.scrollHeight;
  }

  #append(kind, piece) {
    for (let at = 0; at < piece.length; ) {
      let last = this.#blocks.at(-1);
      if (kind === "gap" || last?.kind !== kind || last.length >= BLOCK) {
        last = { kind, length: 0, lines: 0, node: el("span", { class: kind }, "") };
        this.#blocks.push(last);
        this.#node.append(last.node);
      }
      const room = kind === "gap" ? piece.length : BLOCK - last.length;
      const part = cut(piece, at, room);
      const lines = part.split("\n").length - 1;
      last.node.append(part);
      last.length += part.length;
      last.lines += lines;
      this.#characters += part.length;
      this.#lines += lines;
      at += part.length;
    }
  }

  #trim() {
    let first = 0;
    while (this.#characters > MOST_CHARACTERS || this.#lines > MOST_LINES) {
      const block = this.#blocks[first];
      first += 1;
      block.node.remove();
      this.#characters -= block.length;
      this.#lines -= block.lines;
      this.#gone += block.length;
    }
    this.#blocks.splice(0, first);
    if (this.#gone > 0) {
      say(this.#dropped, `The end of the output. ${bytes(this.#gone)} before it are not shown here; Poseidon keeps more.`);
      attribute(this.#dropped, "data-gone", this.#gone);
    } else {
      text(this.#dropped, "");
    }
  }
}

// Never between the two halves of a character above U+FFFF.
function cut(piece, at, room) {
  let end = Math.min(piece.length, at + Math.max(1, room));
  const code = piece.charCodeAt(end - 1);
  if (end < piece.length && code >= 0xd800 && code < 0xdc00) end += 1;
  return piece.slice(at, end);
}
