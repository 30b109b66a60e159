// Covers what many files cost: requests of about the same time are sent together, and each file is stored once.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, memoryStore } from "valet-upload";
import { signUp, assertGallery, BASE, makeImage, intercept, waitUntil } from "./harness.js";

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

test("requests gather while one is under way, but do not wait for an answer that does not come", async (t) => {
  const user = await signUp();
  // The first, and six that may be opened while it is not answered.
  const uploader = createUploader({ api: BASE, token: user.token, concurrency: 7 });
  let first;
  const seen = intercept(t, ({ kind, n }) => (kind === "upload" && n === 1 ? new Promise((resolve) => { first = resolve; }) : undefined));
  const [one] = uploader.add(makeImage("one.png"));
  await waitUntil(() => first, "the first is being opened");
  const files = Array.from({ length: 6 }, (_, i) => makeImage(`${i}.png`));
  const rest = [];
  for (const file of files) {
    rest.push(...uploader.add(file));
    await pause(50); // Longer than requests wait for each other otherwise.
  }
  await Promise.all(rest.map((item) => item.finished));
  const openings = seen.filter((kind) => kind === "upload" || kind === "upload/batch").length;
  assert.ok(openings < 5, `${openings} requests for 7 files`);
  one.cancel();
  first(new Response("{}"));
  await assertGallery(user, files);
});

test("many files are opened and confirmed in batches, and their bytes are stored once", async (t) => {
  const user = await signUp();
  const stored = [];
  const store = memoryStore();
  const put = async (record) => {
    if (record.file) stored.push(record.name);
    return store.put(record);
  };
  const uploader = createUploader({ api: BASE, token: user.token, store: { ...store, put } });
  // As long as a PUT over a network takes.
  const seen = intercept(t, async ({ kind }) => { if (kind === "put") await pause(100); });
  const files = Array.from({ length: 60 }, (_, i) => makeImage(`${String(i).padStart(2, "0")}.png`));
  await Promise.all(uploader.add(files).map((item) => item.finished));
  const requests = seen.filter((kind) => kind !== "put").length;
  assert.ok(requests < 60, `${requests} requests besides ${files.length} PUTs`);
  assert.deepEqual(stored.sort(), files.map(({ name }) => name));
  await assertGallery(user, files);
});
