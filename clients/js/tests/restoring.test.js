// Covers `restore()` in Node against a real server while requests fail: stored files do not wait for the list of open uploads.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, memoryStore, NetworkProblem } from "valet-upload";
import { signUp, assertGallery, BASE, makeImage, intercept, loseConnection, speedUpTimers, neverAnswer, waitUntil } from "./harness.js";

/** Returns the options of an uploader whose store has a file of an earlier visit. Another upload is open, without a stored file. */
async function visited(t, file) {
  const user = await signUp();
  const options = { api: BASE, token: user.token, user: user.user.id, store: memoryStore(new Map()) };
  const [before, elsewhere] = [createUploader(options), createUploader({ ...options, store: null })];
  let isHeld = true;
  intercept(t, ({ kind, options: { signal } }) => (kind === "put" && isHeld ? neverAnswer({ signal }) : undefined));
  const items = [before.add(file)[0], elsewhere.add(makeImage("open.png"))[0]];
  await waitUntil(() => items.every(({ state }) => state === "sending"), "both uploads are open");
  before.stop();
  elsewhere.stop();
  isHeld = false;
  return { user, options };
}

test("stored files are uploaded while the open uploads cannot be listed, which is repeated", async (t) => {
  const file = makeImage("stored.png");
  const { user, options } = await visited(t, file);
  const uploader = createUploader(options);
  let canList = false;
  intercept(t, ({ kind }) => (kind === "pending" && !canList ? loseConnection() : undefined));
  const restoring = uploader.restore();
  await waitUntil(() => uploader.items.length === 1, "the stored file is restored");
  await uploader.items[0].finished;
  canList = true;
  await restoring;
  assert.deepEqual(uploader.items.map(({ name, state }) => [name, state]), [["stored.png", "done"], ["open.png", "needs-file"]]);
  await assertGallery(user, [file]);
});

test("the open uploads are listed when the network is back, if they could not be listed before", async (t) => {
  const { options } = await visited(t, makeImage("stored.png"));
  const uploader = createUploader({ ...options, store: null });
  let isBack = false;
  intercept(t, ({ kind }) => (kind === "pending" && !isBack ? loseConnection() : undefined));
  const undo = speedUpTimers(t);
  await assert.rejects(uploader.restore(), NetworkProblem);
  undo();
  isBack = true;
  uploader.online();
  await waitUntil(() => uploader.items.length === 2, "both uploads are listed");
  uploader.online();
  await uploader.restore();
  assert.equal(uploader.items.length, 2);
});

test("restore() ends with the uploader", async (t) => {
  const { options } = await visited(t, makeImage("stored.png"));
  const uploader = createUploader({ ...options, store: null });
  let listing;
  intercept(t, ({ kind, options: { signal } }) => {
    if (kind !== "pending") return undefined;
    listing = signal;
    return neverAnswer({ signal });
  });
  const restoring = uploader.restore();
  await waitUntil(() => listing, "the list is requested");
  uploader.stop();
  await restoring;
  await waitUntil(() => listing.aborted, "the request ends", 10);
  assert.deepEqual(uploader.items, []);
});

test("a file that is cancelled while the store is slow does not come back", async (t) => {
  const user = await signUp();
  const records = new Map();
  const store = memoryStore(records);
  let puts = 0;
  const put = async (record) => {
    puts += 1;
    await new Promise((done) => { setTimeout(done, 200); });
    return store.put(record);
  };
  const uploader = createUploader({ api: BASE, token: user.token, store: { ...store, put } });
  intercept(t, ({ kind, options }) => (kind === "put" ? neverAnswer(options) : undefined));
  const [item] = uploader.add(makeImage("one.png"));
  await waitUntil(() => item.state === "sending", "the upload is open");
  await waitUntil(() => puts === 2, "the file is stored, and the upload's id is being stored");
  item.cancel();
  await new Promise((done) => { setTimeout(done, 700); });
  assert.deepEqual([...records.keys()], []);
});

test("a tab that restores files takes them over, with the id of their upload", async (t) => {
  const file = makeImage("stored.png");
  const { options } = await visited(t, file);
  const { store } = options;
  const [claims, files] = [() => store.all().then((all) => all.filter(({ id }) => id)), () => store.all().then((all) => all.filter(({ size }) => size))];
  // As a tab leaves it that was closed before its upload was open.
  const [[{ id, key }], [left]] = [await claims(), await files()];
  await store.delete(key);
  await store.put({ ...left, tab: "closed" });
  const uploader = createUploader(options);
  intercept(t, ({ kind, options: { signal } }) => (kind === "put" ? neverAnswer({ signal }) : undefined));
  await uploader.restore();
  await waitUntil(async () => (await claims()).length === 1, "the id is stored");
  const [[claim], [record]] = [await claims(), await files()];
  assert.ok(id && claim.id === id && claim.tab && claim.tab !== "closed", JSON.stringify(claim));
  assert.equal(record.file.size, file.size);
  uploader.stop();
});
