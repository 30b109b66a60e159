// Covers the limits of repeats in Node against a real server: pauses that a server asks for, and uploads that end again and again.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader } from "valet-upload";
import { signUp, assertGallery, BASE, makeImage, intercept, MIB, speedUpTimers, makeResponse } from "./harness.js";

for (const [label, header] of Object.entries({ seconds: () => "3", "a date": () => new Date(Date.now() + 4000).toUTCString() })) {
  test(`a Retry-After in ${label} is waited for`, async (t) => {
    const user = await signUp();
    const times = [];
    intercept(t, ({ kind, n }) => {
      if (kind !== "upload") return undefined;
      times.push(Date.now());
      return n === 1 ? new Response(JSON.stringify({ code: "unavailable" }), { status: 503, headers: { "retry-after": header() } }) : undefined;
    });
    const file = makeImage("one.png");
    await createUploader({ api: BASE, token: user.token }).add(file)[0].finished;
    await assertGallery(user, [file]);
    // A date has whole seconds. Without the header the pause is less than a second.
    assert.ok(times[1] - times[0] >= 2900, String(times[1] - times[0]));
  });
}

test("a Retry-After that cannot be read or has passed does not matter", async (t) => {
  const user = await signUp();
  const values = ["soon", "0", new Date(0).toUTCString()];
  intercept(t, ({ kind, n }) => (kind === "upload" && values[n - 1]
    ? new Response(JSON.stringify({ code: "unavailable" }), { status: 503, headers: { "retry-after": values[n - 1] } })
    : undefined));
  const file = makeImage("one.png");
  await createUploader({ api: BASE, token: user.token }).add(file)[0].finished;
  await assertGallery(user, [file]);
});

for (const [label, size] of [["one PUT", 100_000], ["parts", 17 * MIB]]) {
  test(`an upload in ${label} that has ended at each confirm fails after a few repeats, and can be retried`, async (t) => {
    const user = await signUp();
    let isEnding = true;
    const seen = intercept(t, ({ kind }) => (kind === "confirm" && isEnding ? makeResponse(410, { code: "upload_expired" }) : undefined));
    const undo = speedUpTimers(t);
    const file = makeImage("one.png", size);
    const [item] = createUploader({ api: BASE, token: user.token }).add(file);
    await assert.rejects(item.finished, (problem) => problem.code === "upload_expired");
    undo();
    const confirms = seen.filter((kind) => kind === "confirm").length;
    assert.ok(confirms > 1 && confirms <= 7, String(seen));
    isEnding = false;
    item.retry();
    await item.finished;
    await assertGallery(user, [file]);
  });
}
