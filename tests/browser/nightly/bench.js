// Measures the package beside bare `fetch` PUTs of the same files, and for how long it blocks the page: VALET_BENCH_FILES files of 3 MB,
// VALET_BENCH_ROUNDS times. Prints ratios and asserts none of them. The target is at most 1.3, and no task of more than 50 ms.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { signUp, callAtEnd, BASE, openContext } from "../harness.js";
import { servePackage } from "./pages.js";

const FILES = Number(process.env.VALET_BENCH_FILES ?? 200);
const ROUNDS = Number(process.env.VALET_BENCH_ROUNDS ?? 3);
const FILE_BYTES = 3_000_000;
/** Files that are sent at a time, as many as the package sends. */
const LANES = 3;
/** An image that Chromium does not decode, so that it has no preview. */
const HEIC = readFileSync(`${process.env.VALET_FIXTURES}/plain.heic`).toString("base64");

/**
 * Defines `make(kind, label)` in the page, which returns different files of the same size: pictures with bytes after their end, in
 * a box that decoders skip.
 */
const prepare = (page) => page.evaluate(async ({ heic, count, size }) => {
  const small = await (await fetch(`data:image/heic;base64,${heic}`)).blob();
  // 12 megapixels with soft shapes and some noise, as cameras make them.
  const canvas = new OffscreenCanvas(4000, 3000);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const { data } = pixels;
  for (let y = 0, i = 0; y < canvas.height; y += 1) {
    for (let x = 0; x < canvas.width; x += 1, i += 4) {
      const light = 128 + 90 * Math.sin(x / 310) * Math.cos(y / 270) + 12 * Math.random();
      data[i] = light;
      data[i + 1] = light * 0.8;
      data[i + 2] = 255 - light;
      data[i + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
  const photo = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
  const pictures = { heic: small, photos: photo };
  if (photo.size > size - 100) throw new Error(`the photo has ${photo.size} bytes`);
  globalThis.make = (kind, label) => Array.from({ length: count }, (_, n) => {
    const mark = `${label} ${n} `;
    const rest = size - pictures[kind].size;
    const box = new DataView(new ArrayBuffer(8));
    box.setUint32(0, rest);
    box.setUint32(4, 0x66726565); // "free"
    return new File([pictures[kind], box, mark, new Uint8Array(rest - mark.length - 8)], `${label}-${n}`, { type: pictures[kind].type });
  });
}, { heic: HEIC, count: FILES, size: FILE_BYTES });

/** Opens the uploads and sends their PUTs. Returns the milliseconds of the PUTs alone, and the ids. */
const barePuts = (page, { kind, label, token }) => page.evaluate(async ({ base, kind, label, token, lanes }) => {
  const files = make(kind, label);
  const tickets = [];
  for (let from = 0; from < files.length; from += 50) {
    const items = await Promise.all(files.slice(from, from + 50).map(async (file) => {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
      return { fileName: file.name, contentType: file.type, size: file.size, sha256: btoa(String.fromCharCode(...digest)) };
    }));
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const answer = await (await fetch(`${base}/api/images/upload/batch`, { method: "POST", headers, body: JSON.stringify({ items }) })).json();
    tickets.push(...answer.results.map(({ ticket }) => ticket));
  }
  const queue = files.map((file, n) => ({ file, ticket: tickets[n] }));
  const lane = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const { url, method, headers } = next.ticket.upload;
      const answer = await fetch(url, { method, headers, body: next.file });
      if (answer.status !== 200) throw new Error(`the store answered ${answer.status}`);
    }
  };
  const begin = performance.now();
  await Promise.all(Array.from({ length: lanes }, lane));
  return { ms: performance.now() - begin, ids: tickets.map(({ id }) => id) };
}, { base: BASE, kind, label, token, lanes: LANES });

/** Uploads by the package. Returns the milliseconds, the durations of the page's tasks of more than 50 ms, and the ids. */
const byPackage = (page, { kind, label, token, isStored }) => page.evaluate(async ({ base, kind, label, token, isStored }) => {
  const { createUploader } = await import("/src/index.js");
  const files = make(kind, label);
  await new Promise((done) => { setTimeout(done, 500); }); // Making them is not measured.
  const tasks = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration)));
  observer.observe({ type: "longtask" });
  const uploader = createUploader({ api: base, token, user: label, ...(!isStored && { store: null }) });
  const begin = performance.now();
  await Promise.all(uploader.add(files).map((item) => item.finished));
  const ms = performance.now() - begin;
  tasks.push(...observer.takeRecords().map(({ duration }) => duration));
  observer.disconnect();
  uploader.stop();
  return { ms, tasks, ids: uploader.items.map(({ id }) => id) };
}, { base: BASE, kind, label, token, isStored });

/** Deletes the files of a round, which would fill the disk. */
async function clear({ token }, ids) {
  for (let from = 0; from < ids.length; from += 50) {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const answer = await fetch(`${BASE}/api/images/delete`, { method: "POST", headers, body: JSON.stringify({ ids: ids.slice(from, from + 50) }) });
    assert.equal(answer.status, 200);
  }
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

test(`${FILES} files of 3 MB beside bare PUTs of the same`, { timeout: 3_600_000 }, async (t) => {
  const served = await servePackage();
  callAtEnd(t, () => served.close());
  for (const [label, kind, isStored] of [["no previews, no store", "heic", false], ["no previews", "heic", true], ["photos with previews", "photos", true]]) {
    // Files that pages make are in memory, 2 GB at most, until the page has collected them or the context is closed.
    const context = await openContext(t, {});
    const page = await context.newPage();
    page.setDefaultTimeout(1_200_000);
    await page.goto(served.address);
    await prepare(page);
    const session = await context.newCDPSession(page);
    const collect = () => session.send("HeapProfiler.collectGarbage");
    const [ratios, tasks, seconds] = [[], [], []];
    for (let round = 0; round < ROUNDS; round += 1) {
      const users = [await signUp(), await signUp()];
      const bare = await barePuts(page, { kind, label: `bare-${label}-${round}`, token: users[0].token });
      await clear(users[0], bare.ids);
      await collect();
      const { ms, tasks: long, ids } = await byPackage(page, { kind, label: `package-${label}-${round}`, token: users[1].token, isStored });
      await clear(users[1], ids);
      await collect();
      ratios.push(ms / bare.ms);
      seconds.push(`${(ms / 1000).toFixed(1)} / ${(bare.ms / 1000).toFixed(1)}`);
      tasks.push(...long);
    }
    assert.equal(ratios.length, ROUNDS);
    await context.close();
    console.log(`${label}: package / bare PUTs = ${median(ratios).toFixed(2)} (${seconds.join(", ")} s); tasks over 50 ms: ${tasks.length}, longest ${Math.round(Math.max(0, ...tasks))} ms`);
  }
});
