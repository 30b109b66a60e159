// ThumbHash (https://evanw.github.io/thumbhash/): an image in about 25 bytes, for a placeholder. Implements the published algorithm:
// the colours as luminance, two differences and alpha, each as the lowest frequencies of a cosine transform, four bits a coefficient.

const { PI, abs, cos, max, round } = Math;

/** Returns the numbers of frequencies of the luminance, across and down. */
function extent(w, h, hasAlpha) {
  const most = hasAlpha ? 5 : 7;
  return [max(1, round((most * w) / max(w, h))), max(1, round((most * h) / max(w, h)))];
}

/** Yields the frequencies of a channel of nx by ny in the order of the hash: the upper left triangle, row by row. */
function* frequencies(nx, ny) {
  for (let cy = 0; cy < ny; cy += 1) {
    for (let cx = cy ? 0 : 1; cx * ny < nx * (ny - cy); cx += 1) yield [cx, cy];
  }
}

/** Returns the hash of an image of at most 100 by 100 pixels; `rgba` is not premultiplied. */
export function encode(w, h, rgba) {
  const n = w * h;
  let [r, g, b, a] = [0, 0, 0, 0];
  for (let i = 0; i < n; i += 1) {
    const alpha = rgba[i * 4 + 3] / 255;
    r += (alpha / 255) * rgba[i * 4];
    g += (alpha / 255) * rgba[i * 4 + 1];
    b += (alpha / 255) * rgba[i * 4 + 2];
    a += alpha;
  }
  if (a) [r, g, b] = [r / a, g / a, b / a];
  const hasAlpha = a < n;
  // Transparent pixels get the mean colour, so that they add no edges.
  const [l, p, q, alphas] = [0, 1, 2, 3].map(() => new Float64Array(n));
  for (let i = 0; i < n; i += 1) {
    const alpha = rgba[i * 4 + 3] / 255;
    const red = r * (1 - alpha) + (alpha / 255) * rgba[i * 4];
    const green = g * (1 - alpha) + (alpha / 255) * rgba[i * 4 + 1];
    const blue = b * (1 - alpha) + (alpha / 255) * rgba[i * 4 + 2];
    l[i] = (red + green + blue) / 3;
    p[i] = (red + green) / 2 - blue;
    q[i] = red - green;
    alphas[i] = alpha;
  }
  const [lx, ly] = extent(w, h, hasAlpha);
  const L = transform(l, w, h, max(3, lx), max(3, ly));
  const P = transform(p, w, h, 3, 3);
  const Q = transform(q, w, h, 3, 3);
  const A = hasAlpha && transform(alphas, w, h, 5, 5);

  const landscape = w > h;
  const head = round(63 * L.dc) | (round(31.5 + 31.5 * P.dc) << 6) | (round(31.5 + 31.5 * Q.dc) << 12)
    | (round(31 * L.scale) << 18) | (hasAlpha << 23);
  const shape = (landscape ? ly : lx) | (round(63 * P.scale) << 3) | (round(63 * Q.scale) << 9) | (landscape << 15);
  const hash = [head & 255, (head >> 8) & 255, head >> 16, shape & 255, shape >> 8];
  if (hasAlpha) hash.push(round(15 * A.dc) | (round(15 * A.scale) << 4));
  const start = hash.length;
  let index = 0;
  for (const channel of hasAlpha ? [L, P, Q, A] : [L, P, Q]) {
    for (const f of channel.ac) {
      const byte = start + (index >> 1);
      hash[byte] = (hash[byte] ?? 0) | (round(15 * f) << ((index & 1) * 4));
      index += 1;
    }
  }
  return new Uint8Array(hash);
}

/** Returns a channel's mean (`dc`), and the other frequencies (`ac`) with their scale. */
function transform(channel, w, h, nx, ny) {
  const row = new Float64Array(w);
  const coefficient = (cx, cy) => {
    let f = 0;
    for (let x = 0; x < w; x += 1) row[x] = cos((PI / w) * cx * (x + 0.5));
    for (let y = 0; y < h; y += 1) {
      const fy = cos((PI / h) * cy * (y + 0.5));
      for (let x = 0; x < w; x += 1) f += channel[x + y * w] * row[x] * fy;
    }
    return f / (w * h);
  };
  const dc = coefficient(0, 0);
  const ac = [...frequencies(nx, ny)].map(([cx, cy]) => coefficient(cx, cy));
  const scale = max(0, ...ac.map(abs));
  return { dc, scale, ac: scale ? ac.map((f) => 0.5 + (0.5 / scale) * f) : ac };
}

/** Returns the placeholder: `{w, h, rgba}`, at most 32 pixels on its longer side. */
export function decode(hash) {
  const head = hash[0] | (hash[1] << 8) | (hash[2] << 16);
  const shape = hash[3] | (hash[4] << 8);
  const hasAlpha = head >> 23;
  const landscape = shape >> 15;
  const most = hasAlpha ? 5 : 7;
  const lx = max(3, landscape ? most : shape & 7);
  const ly = max(3, landscape ? shape & 7 : most);
  let index = 0;
  const start = hasAlpha ? 6 : 5;
  const channel = (nx, ny, dc, scale) => {
    const terms = [];
    for (const [cx, cy] of frequencies(nx, ny)) {
      const nibble = (hash[start + (index >> 1)] >> ((index & 1) * 4)) & 15;
      index += 1;
      terms.push([cx, cy, (nibble / 7.5 - 1) * scale]);
    }
    return { dc, terms };
  };
  // The published algorithm saturates the differences by 1.25.
  const L = channel(lx, ly, (head & 63) / 63, ((head >> 18) & 31) / 31);
  const P = channel(3, 3, ((head >> 6) & 63) / 31.5 - 1, (((shape >> 3) & 63) / 63) * 1.25);
  const Q = channel(3, 3, ((head >> 12) & 63) / 31.5 - 1, (((shape >> 9) & 63) / 63) * 1.25);
  const A = hasAlpha ? channel(5, 5, (hash[5] & 15) / 15, (hash[5] >> 4) / 15) : { dc: 1, terms: [] };

  const ratio = ratioOf(hash);
  const w = round(ratio > 1 ? 32 : 32 * ratio);
  const h = round(ratio > 1 ? 32 / ratio : 32);
  const rgba = new Uint8ClampedArray(w * h * 4);
  const waves = (size) => Array.from({ length: 7 }, (_, c) => Float32Array.from({ length: size }, (_, i) => cos((PI / size) * (i + 0.5) * c)));
  const [across, down] = [waves(w), waves(h)];
  const plane = ({ dc, terms }) => {
    const values = new Float32Array(w * h).fill(dc);
    for (const [cx, cy, f] of terms) {
      const row = across[cx];
      for (let y = 0, i = 0; y < h; y += 1) {
        const fy = 2 * f * down[cy][y];
        for (let x = 0; x < w; x += 1, i += 1) values[i] += fy * row[x];
      }
    }
    return values;
  };
  const [l, p, q, a] = [L, P, Q, A].map(plane);
  for (let i = 0; i < w * h; i += 1) {
    const blue = l[i] - (2 / 3) * p[i];
    const red = (3 * l[i] - blue + q[i]) / 2;
    rgba[i * 4] = 255 * red;
    rgba[i * 4 + 1] = 255 * (red - q[i]);
    rgba[i * 4 + 2] = 255 * blue;
    rgba[i * 4 + 3] = 255 * a[i];
  }
  return { w, h, rgba };
}

export function ratioOf(hash) {
  const hasAlpha = hash[2] & 0x80;
  const landscape = hash[4] & 0x80;
  const most = hasAlpha ? 5 : 7;
  return landscape ? most / (hash[3] & 7) : (hash[3] & 7) / most;
}
