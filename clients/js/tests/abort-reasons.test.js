// Covers abort-reasons.js: Node without `signal.reason` and `signal.throwIfAborted()`, as React Native is, and Node as it is.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader } from "valet-upload";
import { signUp, BASE, makeImage, intercept, neverAnswer, waitUntil } from "./harness.js";

/** Returns the members that the module may add or replace. */
const members = () => [Object.getOwnPropertyDescriptor(AbortSignal.prototype, "reason"), AbortSignal.prototype.throwIfAborted, AbortController.prototype.abort];

/** Removes the members, and has the module add its own, for one test. */
async function asInReactNative(t) {
  const [reason, throwIfAborted, abort] = members();
  delete AbortSignal.prototype.reason;
  delete AbortSignal.prototype.throwIfAborted;
  t.after(() => {
    Object.defineProperty(AbortSignal.prototype, "reason", reason);
    Object.assign(AbortSignal.prototype, { throwIfAborted });
    AbortController.prototype.abort = abort;
  });
  assert.equal(new AbortController().signal.throwIfAborted, undefined);
  // Another address is another module, which runs again.
  await import(`../src/abort-reasons.js?${encodeURIComponent(t.name)}`);
}

test("nothing changes where the members exist", async () => {
  const before = members();
  await import("../src/abort-reasons.js");
  assert.deepEqual(members(), before);
});

test("the reason of the first abort is kept, and listeners can read it", async (t) => {
  await asInReactNative(t);
  const [controller, seen] = [new AbortController(), []];
  const { signal } = controller;
  signal.addEventListener("abort", () => seen.push(signal.reason));
  assert.equal(signal.reason, undefined);
  signal.throwIfAborted();
  controller.abort("first");
  controller.abort("second");
  assert.deepEqual([signal.aborted, signal.reason, seen], [true, "first", ["first"]]);
  assert.throws(() => signal.throwIfAborted(), (thrown) => thrown === "first");
});

test("an abort without a reason has an AbortError", async (t) => {
  await asInReactNative(t);
  const controller = new AbortController();
  controller.abort();
  assert.throws(() => controller.signal.throwIfAborted(), { name: "AbortError" });
});

test("uploads are paused, resumed and cancelled with these members", async (t) => {
  await asInReactNative(t);
  const user = await signUp();
  const uploader = createUploader({ api: BASE, token: user.token });
  let isHeld = true;
  intercept(t, ({ kind, options }) => (kind === "put" && isHeld ? neverAnswer(options) : undefined));
  const [kept, dropped] = uploader.add([makeImage("kept.png"), makeImage("dropped.png")]);
  await waitUntil(() => kept.state === "sending" && dropped.state === "sending", "both uploads are sent");
  dropped.cancel();
  await assert.rejects(dropped.finished, { name: "AbortError" });
  kept.pause();
  await waitUntil(() => kept.state === "paused", "the upload is paused");
  isHeld = false;
  kept.resume();
  await kept.finished;
  const shown = await fetch(`${BASE}/api/images/gallery`, { headers: { authorization: `Bearer ${user.token}` } });
  assert.deepEqual((await shown.json()).images.map(({ fileName }) => fileName), ["kept.png"]);
});
