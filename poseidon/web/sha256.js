// SHA-256 of a file, a piece at a time. The browser's own takes all of it at once, and only on secure pages.

const PIECE = 4 << 20;
const K = new Uint32Array(64);
const START = new Uint32Array(8);

// The fractions of the roots of the first primes.
{
  const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32);
  let found = 0;
  for (let n = 2; found < 64; n += 1) {
    let prime = true;
    for (let d = 2; d * d <= n; d += 1) if (n % d === 0) prime = false;
    if (!prime) continue;
    if (found < 8) START[found] = fraction(Math.sqrt(n));
    K[found] = fraction(Math.cbrt(n));
    found += 1;
  }
}

/** SHA-256 of a Blob in hex digits; `step` is told how many bytes are done. */
export async function sha256(blob, step, signal) {
  const state = START.slice();
  const words = new Uint32Array(64);
  for (let at = 0; at < blob.size; at += PIECE) {
    signal?.throwIfAborted();
    const end = Math.min(at + PIECE, blob.size);
    const bytes = new Uint8Array(await blob.slice(at, end).arrayBuffer());
    blocks(state, words, bytes.byteLength === PIECE ? bytes : padded(bytes, blob.size));
    step?.(end);
  }
  if (blob.size % PIECE === 0) blocks(state, words, padded(new Uint8Array(0), blob.size));
  return [...state].map((word) => word.toString(16).padStart(8, "0")).join("");
}

/** The last bytes, a one bit, and the length in bits. */
function padded(bytes, length) {
  const whole = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  whole.set(bytes);
  whole[bytes.length] = 0x80;
  const view = new DataView(whole.buffer);
  view.setUint32(whole.length - 8, Math.floor(length / 2 ** 29));
  view.setUint32(whole.length - 4, (length << 3) >>> 0);
  return whole;
}

function blocks(state, w, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block < bytes.length; block += 64) {
    for (let i = 0; i < 16; i += 1) w[i] = view.getUint32(block + 4 * i);
    for (let i = 16; i < 64; i += 1) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const one = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] += value));
  }
}
