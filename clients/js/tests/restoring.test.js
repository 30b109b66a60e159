// Covers `restore()` in Node against a real server while requests fail: stored files do not wait for the list of open uploads.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, memoryStore, NetworkProblem } from "valet-upload";
import { account, assertGallery, BASE, image, intercept, lost, quick, unanswered, until } from "./harness.js";

/** Returns the options of an uploader whose store has a file of an earlier visit. Another upload is open, without a stored file. */
async function visited(t, file) {
  const user = await account();
  const options = { api: BASE, token: user.token, user: user.user.id, store: memoryStore(new Map()) };
  const [before, elsewhere] = [createUploader(options), createUploader({ ...options, store: null })];
  let isHeld = true;
  intercept(t, ({ kind, options: { signal } }) => (kind === "put" && isHeld ? unanswered({ signal }) : undefined));
  const items = [before.add(file)[0], elsewhere.add(image("open.png"))[0]];
  await until(() => items.every(({ state }) => state === "sending"), "both uploads are open");
  before.stop();
  elsewhere.stop();
  isHeld = false;
  return { user, options };
}

test("stored files are uploaded while the open uploads cannot be listed, which is repeated", async (t) => {
  const file = image("stored.png");
  const { user, options } = await visited(t, file);
  const uploader = createUploader(options);
  let canList = false;
  intercept(t, ({ kind }) => (kind === "pending" && !canList ? lost() : undefined));
  const restoring = uploader.restore();
  await until(() => uploader.items.length === 1, "the stored file is restored");
  await uploader.items[0].finished;
  canList = true;
  await restoring;
  assert.deepEqual(uploader.items.map(({ name, state }) => [name, state]), [["stored.png", "done"], ["open.png", "needs-file"]]);
  await assertGallery(user, [file]);
});

test("the open uploads are listed when the network is back, if they could not be listed before", async (t) => {
  const { options } = await visited(t, image("stored.png"));
  const uploader = createUploader({ ...options, store: null });
  let isBack = false;
  intercept(t, ({ kind }) => (kind === "pending" && !isBack ? lost() : undefined));
  const undo = quick(t);
  await assert.rejects(uploader.restore(), NetworkProblem);
  undo();
  isBack = true;
  uploader.online();
  await until(() => uploader.items.length === 2, "both uploads are listed");
  uploader.online();
  await uploader.restore();
  assert.equal(uploader.items.length, 2);
});

test("restore() ends with the uploader", async (t) => {
  const { options } = await visited(t, image("stored.png"));
  const uploader = createUploader({ ...options, store: null });
  const seen = intercept(t, ({ kind, options: { signal } }) => (kind === "pending" ? unanswered({ signal }) : undefined));
  const restoring = uploader.restore();
  await until(() => seen.includes("pending"), "the list is requested");
  uploader.stop();
  await restoring;
  assert.deepEqual(uploader.items, []);
});
