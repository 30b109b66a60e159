// Covers the cost of many files: their requests are sent in batches, each is stored once, and each is compared with the list once.

import assert from "node:assert/strict";
import test from "node:test";
import Uppy from "@uppy/core";
import { createUploader, memoryStore } from "valet-upload";
import ValetUpload from "valet-upload/uppy";
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

test("many files in Uppy are opened and confirmed in batches, and change its state a few times each", async (t) => {
  const user = await signUp();
  const uppy = new Uppy().use(ValetUpload, { api: BASE, token: user.token });
  const seen = intercept(t, async ({ kind }) => { if (kind === "put") await pause(20); });
  const files = Array.from({ length: 60 }, (_, i) => makeImage(`${String(i).padStart(2, "0")}.png`));
  uppy.addFiles(files.map((data) => ({ name: data.name, type: data.type, data })));
  let updates = 0;
  uppy.on("state-update", () => { updates += 1; });
  const { successful, failed } = await uppy.upload();
  assert.deepEqual([successful.length, failed.length], [60, 0]);
  const requests = seen.filter((kind) => kind !== "put").length;
  assert.ok(requests < 60, `${requests} requests besides ${files.length} PUTs`);
  // Progress, success, and what several files share: each update copies the list of all files.
  assert.ok(updates < 3 * files.length, `${updates} updates of ${files.length} files`);
  await assertGallery(user, files);
  uppy.destroy();
});

test("files that are added are compared with the list once each, not with each other", () => {
  let reads = 0;
  class CountingFile extends File {
    get name() {
      reads += 1;
      return super.name;
    }
  }
  const uploader = createUploader({ api: BASE, token: "unused", store: null });
  uploader.pause();
  const files = Array.from({ length: 500 }, (_, i) => new CountingFile([String(i)], `${i}.png`, { lastModified: i }));
  assert.equal(uploader.add(files).length, 500);
  assert.equal(uploader.add(files).length, 0, "they are queued already");
  assert.ok(reads < 10 * files.length, `${reads} reads of 500 names`);
  uploader.stop();
});
