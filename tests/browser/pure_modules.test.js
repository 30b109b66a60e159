// Covers the page's pure modules in Node: SHA-256 and ThumbHash beside other implementations, the layout of the grid, and sizes in
// words. Checks the compressed size of the page.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";
import { gzipSync } from "node:zlib";
import { readdirSync } from "node:fs";
import * as reference from "thumbhash";

const WEB = new URL("../../src/web/", import.meta.url);
const CLIENT = new URL("../../clients/js/src/", import.meta.url);
// Imports a module as text: without a package.json beside them, Node would load the page's modules as CommonJS.
const load = (name, folder = WEB) => import(`data:text/javascript;base64,${readFileSync(new URL(name, folder)).toString("base64")}`);

test("SHA-256 equals node's", async () => {
  const { sha256 } = await load("sha256.js", CLIENT);
  for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 100_003]) {
    const bytes = randomBytes(length);
    assert.equal(Buffer.from(sha256(bytes)).toString("hex"), createHash("sha256").update(bytes).digest("hex"), `${length} bytes`);
  }
});

test("ThumbHash equals the published implementation", async () => {
  const own = await load("thumbhash.js", CLIENT);
  const shapes = [[100, 100], [100, 31], [17, 100], [1, 1], [3, 80], [99, 98]];
  for (const [w, h] of shapes) {
    for (const alpha of [false, true]) {
      const rgba = new Uint8Array(w * h * 4);
      for (let i = 0; i < w * h; i += 1) {
        const [x, y] = [i % w, Math.floor(i / w)];
        rgba.set([(x * 255) / w, (y * 255) / h, 128 + 100 * Math.sin((x * y) / 300), alpha ? (x * 251 + y) % 256 : 255], i * 4);
      }
      const [a, b] = [own.encode(w, h, rgba), reference.rgbaToThumbHash(w, h, rgba)];
      assert.equal(Buffer.from(a).toString("hex"), Buffer.from(b).toString("hex"), `${w}x${h} ${alpha}`);
      const [drawn, wanted] = [own.decode(a), reference.thumbHashToRGBA(b)];
      assert.deepEqual([drawn.w, drawn.h], [wanted.w, wanted.h]);
      const worst = Math.max(...drawn.rgba.map((value, i) => Math.abs(value - wanted.rgba[i])));
      assert.ok(worst <= 1, `${w}x${h} ${alpha}: off by ${worst}`);
    }
  }
});

/** Options of `justify`. */
const LAYOUT = { width: 1200, maxHeight: 250, gap: 6 };

test("rows fill the width, keep the order, and are found", async () => {
  const { HEADING, justify, rowAt, ratioOf } = await load("justified-layout.js");
  const images = Array.from({ length: 10_000 }, (_, i) => ({ width: 300 + ((i * 7919) % 3700), height: 300 + ((i * 104_729) % 2100) }));
  const began = performance.now();
  const { rows, height } = justify(images, LAYOUT);
  const took = performance.now() - began;
  assert.deepEqual(rows.flatMap((row) => Array.from({ length: row.to - row.from }, (_, i) => row.from + i)), images.map((_, i) => i));
  for (const row of rows.slice(0, -1)) {
    assert.ok(row.height <= 250);
    assert.ok(Math.abs(row.lefts.at(-1) + row.widths.at(-1) - 1200) < 0.01);
    assert.ok(Math.abs(row.widths[0] / row.height - ratioOf(images[row.from])) < 0.001);
  }
  assert.equal(height, rows.at(-1).top + rows.at(-1).height);
  for (const at of [0, 1, 777, rows.length - 1]) assert.equal(rowAt(rows, rows[at].top + 1), at);
  assert.equal(rowAt(rows, -50), 0);
  const some = images.slice(0, rows[3].to - 1);
  assert.deepEqual(justify(some, { ...LAYOUT, complete: false }).rows, rows.slice(0, 3), "the last row of an incomplete list is left out");
  assert.equal(justify(some, LAYOUT).rows.length, 4);
  assert.deepEqual(justify([], LAYOUT), { rows: [], height: 0 });
  const months = images.slice(0, 100).map((image, i) => ({ ...image, month: i < 37 ? "2024-12" : "2024-11" }));
  const grouped = justify(months, { ...LAYOUT, complete: false }).rows;
  const second = grouped.find((row) => row.from === 37);
  for (const row of grouped) assert.equal(row.head, row.from < 37 ? grouped[0] : second, "a row belongs to the first row of its month");
  assert.equal(grouped[0].top, HEADING);
  const above = grouped[grouped.indexOf(second) - 1];
  assert.ok(Math.abs(second.top - (above.top + above.height + 6 + HEADING)) < 0.01, "a month has room for its heading");
  console.log(`10,000 images laid out in ${took.toFixed(1)} ms`);
});

test("sizes are shown in the units of the limits", async () => {
  const { bytes } = await load("messages.js", CLIENT);
  const sizes = { 0: "0 bytes", 1: "1 byte", 1023: "1,023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 1_048_575: "1 MiB", [50 << 20]: "50 MiB", [10 * 2 ** 30]: "10 GiB", [2 ** 50]: "1,024 TiB" };
  for (const [size, words] of Object.entries(sizes)) assert.equal(bytes(Number(size)), words);
});

test("the page stays below its size limit", () => {
  // Entry points and types of the client package, which the page does not load.
  const unused = ["abort-reasons.js", "capacitor.js", "expo.js", "index.js", "native.js", "react.js", "types.js", "uppy.js"];
  const sizes = [WEB, CLIENT].flatMap((folder) => readdirSync(folder).filter((name) => /\.(js|css)$/.test(name) && !unused.includes(name)).map((name) => gzipSync(readFileSync(new URL(name, folder)), { level: 9 }).length));
  const sum = sizes.reduce((a, b) => a + b);
  console.log(`script and style: ${(sum / 1024).toFixed(1)} KiB compressed, ${sizes.length} files`);
  assert.ok(sum < 69 * 1024);
});
