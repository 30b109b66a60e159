// Covers cancelling in Node against a real server: it ends open uploads, and never deletes an image.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, memoryStore } from "valet-upload";
import { signUp, assertGallery, BASE, call, makeImage, intercept, MIB, neverAnswer, waitUntil } from "./harness.js";

/** Returns the user's open uploads. */
const pending = async (user) => (await call("GET", "/api/images/pending", user)).uploads;

/** Holds the first PUT, and records the statuses of deletions. */
function holdFirstPut(t) {
  const deletions = [];
  intercept(t, async ({ kind, method, options, n }, send) => {
    if (kind === "put" && n === 1) return neverAnswer(options);
    const answer = method === "DELETE" ? await send() : undefined;
    if (answer) deletions.push(answer.status);
    return answer;
  });
  return deletions;
}

for (const [label, size] of [["one PUT", 100_000], ["parts", 17 * MIB]]) {
  test(`cancelling an upload in ${label} keeps the image that another device made of it`, async (t) => {
    const user = await signUp();
    const [uploader, otherDevice, laterVisit] = [1, 2, 3].map(() => createUploader({ api: BASE, token: user.token }));
    const deletions = holdFirstPut(t);
    const file = makeImage("one.png", size);
    const [item] = uploader.add(file);
    await waitUntil(() => item.state === "sending", "the upload is sent");
    await laterVisit.restore();
    assert.deepEqual(laterVisit.items.map(({ state }) => state), ["needs-file"]);
    await otherDevice.add(file)[0].finished;
    item.cancel();
    laterVisit.items[0].cancel();
    await waitUntil(() => deletions.length === 2, "both responses");
    assert.deepEqual(deletions, [409, 409]);
    await assertGallery(user, [file]);
  });
}

test("a file that is added while the open uploads are listed is one upload", async (t) => {
  const user = await signUp();
  const [before, uploader] = [1, 2].map(() => createUploader({ api: BASE, token: user.token }));
  const file = makeImage("one.png");
  let goOn;
  const listed = new Promise((resolve) => { goOn = resolve; });
  intercept(t, async ({ kind, options }, send) => {
    if (kind === "put") return neverAnswer(options);
    const answer = kind === "pending" ? await send() : undefined;
    if (answer) await listed;
    return answer;
  });
  const [old] = before.add(file);
  await waitUntil(() => old.state === "sending", "the upload is open");
  const restoring = uploader.restore();
  const [item] = uploader.add(file);
  await waitUntil(() => item.id, "the file has the same upload");
  goOn();
  await restoring;
  assert.deepEqual(uploader.items, [item]);
  item.cancel();
  before.stop();
});

/**
 * Holds the responses to calls that open uploads, after the server has opened them. Returns the kinds of these calls and of all
 * requests, and a function that releases the responses.
 */
function holdOpening(t) {
  const held = [];
  let goOn;
  const released = new Promise((resolve) => { goOn = resolve; });
  const seen = intercept(t, async ({ kind, options }, send) => {
    if (kind === "put") return neverAnswer(options);
    if (!["upload", "upload/batch", "multipart"].includes(kind)) return undefined;
    const answer = await send();
    held.push(kind);
    await released;
    return answer;
  });
  return { held, seen, goOn: () => goOn() };
}

/** Lets the next digests end together, so that their files are opened by one call: calls gather for 10 ms only. */
function digestTogether(t, count) {
  const digest = crypto.subtle.digest.bind(crypto.subtle);
  let left = count;
  let open;
  const opened = new Promise((resolve) => { open = resolve; });
  t.mock.method(crypto.subtle, "digest", async (...input) => {
    const hash = await digest(...input);
    if ((left -= 1) <= 0) open();
    await opened;
    return hash;
  });
}

for (const [kind, sizes] of Object.entries({ upload: [100_000], "upload/batch": [100_000, 100_001], multipart: [17 * MIB] })) {
  test(`an upload that is cancelled while ${kind} is answered does not stay open`, async (t) => {
    const user = await signUp();
    const uploader = createUploader({ api: BASE, token: user.token });
    const { held, seen, goOn } = holdOpening(t);
    digestTogether(t, sizes.length);
    const items = uploader.add(sizes.map((size, i) => makeImage(`${i}.png`, size)));
    await waitUntil(() => held.length, "the server has opened it");
    assert.deepEqual([held, (await pending(user)).length], [[kind], sizes.length]);
    for (const item of items) item.cancel();
    for (const item of items) await assert.rejects(item.finished, { name: "AbortError" });
    goOn();
    await waitUntil(async () => !(await pending(user)).length, "no upload is open");
    assert.ok(!seen.includes("put"), "nothing is sent");
  });
}

test("an upload that is paused while it is opened goes on as the same one, and is deleted if it is cancelled", async (t) => {
  const user = await signUp();
  const uploader = createUploader({ api: BASE, token: user.token });
  const { held, goOn } = holdOpening(t);
  digestTogether(t, 2);
  const items = uploader.add([makeImage("one.png"), makeImage("two.png")]);
  await waitUntil(() => held.length, "the server has opened them");
  items.forEach((item) => item.pause());
  goOn();
  await waitUntil(() => items.every(({ id, state }) => id && state === "paused"), "both uploads have ids");
  const [{ id }] = items;
  items[0].resume();
  await waitUntil(() => items[0].state === "sending", "the upload goes on");
  items[1].cancel();
  await waitUntil(async () => (await pending(user)).length === 1, "the other upload is deleted");
  assert.deepEqual((await pending(user)).map((open) => open.id), [id]);
  items[0].cancel();
});

test("stop() ends every open upload with an AbortError, and keeps the stored files", async (t) => {
  const user = await signUp();
  const records = new Map();
  const uploader = createUploader({ api: BASE, token: user.token, store: memoryStore(records), concurrency: 2 });
  let isHeld = false;
  intercept(t, ({ kind, options }) => (kind === "put" && isHeld ? neverAnswer(options) : undefined));
  const [done] = uploader.add(makeImage("done.png"));
  await done.finished;
  isHeld = true;
  const items = uploader.add(Array.from({ length: 20 }, (_, i) => makeImage(`${i}.png`)));
  items[19].pause();
  await waitUntil(() => ["sending", "waiting", "paused"].every((state) => items.some((item) => item.state === state)), "an upload in each state");
  uploader.stop();
  for (const item of items) await assert.rejects(item.finished, { name: "AbortError" });
  assert.equal((await done.finished).fileName, "done.png");
  assert.deepEqual([...records.values()].filter(({ file }) => file).map(({ name }) => name).sort(), items.map(({ name }) => name).sort());
  const [late] = uploader.add(makeImage("late.png"));
  await assert.rejects(late.finished, { name: "AbortError" });
  // A stopped attempt ends after it has computed its digest.
  await waitUntil(() => items.every((item) => !item.isRunning), "every attempt has ended");
  uploader.resume();
  assert.deepEqual(items.filter((item) => item.active && item.isRunning), [], "nothing starts again");
});
