// Covers batches of requests: requests of about the same time are sent together.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader } from "valet-upload";
import { account, assertGallery, BASE, image, intercept, unanswered, until } from "./harness.js";

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

test("requests gather while one is under way, but do not wait for an answer that does not come", async (t) => {
  const user = await account();
  // The first, and six that may be opened while it is not answered.
  const uploader = createUploader({ api: BASE, token: user.token, concurrency: 7 });
  let first;
  const seen = intercept(t, ({ kind, n }) => (kind === "upload" && n === 1 ? new Promise((resolve) => { first = resolve; }) : undefined));
  const [one] = uploader.add(image("one.png"));
  await until(() => first, "the first is being opened");
  const files = Array.from({ length: 6 }, (_, i) => image(`${i}.png`));
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
