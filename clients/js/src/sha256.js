// SHA-256 (FIPS 180-4) in plain JavaScript, for pages without crypto.subtle: browsers disable it on plain http except localhost,
// which is how a phone opens a development server in the local network. About 200 MB/s.

const K = new Uint32Array(64);
const START = new Uint32Array(8);

// The constants are the fractions of the cube and square roots of the first primes.
for (let n = 2, found = 0; found < 64; n += 1) {
  let prime = true;
  for (let d = 2; d * d <= n; d += 1) if (n % d === 0) prime = false;
  if (!prime) continue;
  const fraction = (x) => (x - Math.floor(x)) * 2 ** 32;
  if (found < 8) START[found] = fraction(Math.sqrt(n));
  K[found] = fraction(Math.cbrt(n));
  found += 1;
}

/** A digest of bytes that are read piece by piece. */
export class Sha256 {
  #state = START.slice();
  #words = new Uint32Array(64);
  /** Bytes after the last whole block, fewer than 64. */
  #rest = new Uint8Array(0);
  #length = 0;

  update(bytes) {
    this.#length += bytes.length;
    const all = this.#rest.length ? new Uint8Array(this.#rest.length + bytes.length) : bytes;
    if (all !== bytes) {
      all.set(this.#rest);
      all.set(bytes, this.#rest.length);
    }
    const whole = all.length - (all.length % 64);
    blocks(all, 0, whole, this.#state, this.#words);
    this.#rest = all.slice(whole);
  }

  /** Returns the 32 bytes of the digest, once. */
  digest() {
    // The rest, a one bit, zeros, and the length in bits.
    const rest = this.#rest.length;
    const tail = new Uint8Array(rest < 56 ? 64 : 128);
    tail.set(this.#rest);
    tail[rest] = 0x80;
    const view = new DataView(tail.buffer);
    view.setUint32(tail.length - 8, Math.floor(this.#length / 2 ** 29));
    view.setUint32(tail.length - 4, (this.#length * 8) >>> 0);
    blocks(tail, 0, tail.length, this.#state, this.#words);
    const out = new DataView(new ArrayBuffer(32));
    this.#state.forEach((word, i) => out.setUint32(i * 4, word));
    return new Uint8Array(out.buffer);
  }
}

export function sha256(bytes) {
  const hash = new Sha256();
  hash.update(bytes);
  return hash.digest();
}

/** Updates `state` with the blocks from `from` to `to`; `w` is scratch space. */
function blocks(bytes, from, to, state, w) {
  for (let at = from; at < to; at += 64) {
    for (let i = 0, p = at; i < 16; i += 1, p += 4) {
      w[i] = (bytes[p] << 24) | (bytes[p + 1] << 16) | (bytes[p + 2] << 8) | bytes[p + 3];
    }
    for (let i = 16; i < 64; i += 1) {
      const x = w[i - 15], y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0;
      d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }
}
