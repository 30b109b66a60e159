// Covers connections that are open but dead, in Node against a real server: requests without an answer end, and are repeated.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader } from "valet-upload";
import { signUp, assertGallery, BASE, makeImage, intercept, MIB, speedUpTimers } from "./harness.js";

/** Calls `act` when the request's signal, if it has one, is aborted. */
const onAbort = ({ signal }, act) => { signal?.addEventListener("abort", () => act(signal.reason)); };
// Divides deadlines until the dead request has ended. Later requests have their whole deadlines: a busy machine may need seconds.
const FACTOR = 10;

// Three files are opened by one call, if they are inspected at about the same time.
for (const [kind, sizes] of Object.entries({ upload: [100_000, 100_001, 100_002], confirm: [100_000], multipart: [17 * MIB], parts: [17 * MIB] })) {
  test(`${kind} without an answer is repeated`, async (t) => {
    const user = await signUp();
    let calls = 0;
    const undo = speedUpTimers(t, FACTOR);
    // Never answers; rejects when the request is aborted, and then restores the timers.
    const dead = (options) => new Promise((_, reject) => { onAbort(options, (reason) => { undo(); reject(reason); }); });
    intercept(t, ({ kind: asked, options }) => (asked.startsWith(kind) && (calls += 1) === 1 ? dead(options) : undefined));
    const files = sizes.map((size, i) => makeImage(`${i}.png`, size));
    await Promise.all(createUploader({ api: BASE, token: user.token }).add(files).map((item) => item.finished));
    assert.ok(calls > 1, String(calls));
    await assertGallery(user, files);
  });
}

test("an answer whose body does not end is repeated", async (t) => {
  const user = await signUp();
  const undo = speedUpTimers(t, FACTOR);
  intercept(t, ({ kind, options, n }) => {
    if (kind !== "upload" || n > 1) return undefined;
    return new Response(new ReadableStream({ start: (body) => onAbort(options, (reason) => { undo(); body.error(reason); }) }));
  });
  await createUploader({ api: BASE, token: user.token }).add(makeImage("one.png"))[0].finished;
});
