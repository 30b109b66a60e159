// Covers uploads by the package in Node against a real server: every rule for the responses to a PUT and a confirm, pause, resume,
// cancel, batches, tokens.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { createUploader, FileProblem, memoryStore, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "valet-upload";
import { signUp, assertGallery, BASE, call, readGallery, makeImage, intercept, loseConnection, MIB, speedUpTimers, makeResponse, neverAnswer, waitUntil } from "./harness.js";

/** Returns a new account and an uploader for it. */
async function started(options) {
  const user = await signUp();
  return { user, uploader: createUploader({ api: BASE, token: user.token, ...options }) };
}

test("files, blobs and streams become images", async (t) => {
  const { user, uploader } = await started();
  const [file, bytes, streamed] = [makeImage("file.png"), makeImage("blob.png"), makeImage("stream.png", 2 * MIB)];
  const seen = intercept(t);
  const changes = [];
  uploader.addEventListener("change", ({ detail }) => detail && changes.push(detail.state));
  const [one] = uploader.add(file, { caption: "A boat" });
  const [two] = uploader.add(new Blob([bytes], { type: "image/png" }), { name: "blob.png" });
  const [three] = uploader.add({ stream: streamed.stream(), size: streamed.size, name: "stream.png", type: "image/png" });
  const images = await Promise.all([one.finished, two.finished, three.finished]);
  assert.equal(images[0].caption, "A boat");
  assert.ok(changes.includes("sending") && changes.includes("confirming") && changes.includes("done"));
  const { sent, size, done, count } = uploader.progress;
  assert.deepEqual([sent, done, count], [size, 3, 3]);
  await assertGallery(user, [file, bytes, streamed]);
  assert.equal(seen.filter((kind) => kind === "put").length, 3);
  const [again] = uploader.add(makeImage("other.png"));
  await again.finished;
  const [same] = uploader.add(new File([file], "copy.png", { type: "image/png" }));
  assert.equal((await same.finished).id, images[0].id);
  assert.ok(same.duplicate && !one.duplicate);
});

test("a stream of another length fails, and a repeat is not offered", async () => {
  const { uploader } = await started();
  const [item] = uploader.add({ stream: makeImage("x.png").stream(), size: 7, name: "x.png" });
  await assert.rejects(item.finished, (problem) => problem instanceof FileProblem && problem.code === "file_unreadable" && /Choose it again/.test(problem.userMessage));
  assert.equal(item.isRetryable, false);
});

/** Each answer of the store to the first PUT, with the numbers of calls after which the upload succeeds. */
const ANSWERS = {
  "no answer": [loseConnection, { put: 2 }],
  "an answer that is lost after the bytes arrived": [async (send) => { await send(); loseConnection(); }, { put: 2 }],
  "409": [() => makeResponse(409), { put: 2 }],
  "503": [() => makeResponse(503), { put: 2 }],
  "412 although nothing is there": [() => makeResponse(412), { put: 2, confirm: 2 }],
  "403": [() => makeResponse(403), { put: 2, renew: 1 }],
  "400": [() => makeResponse(400), { put: 2, upload: 2 }],
};
for (const [label, [answer, calls]] of Object.entries(ANSWERS)) {
  test(`PUT answered with ${label}: one image in the end`, async (t) => {
    const { user, uploader } = await started();
    const seen = intercept(t, ({ kind, n }, send) => (kind === "put" && n === 1 ? answer(send) : undefined));
    const file = makeImage("one.png");
    await uploader.add(file)[0].finished;
    await assertGallery(user, [file]);
    for (const [kind, count] of Object.entries({ upload: 1, confirm: 1, renew: 0, ...calls })) {
      assert.equal(seen.filter((one) => one === kind).length, count, `${kind} in ${seen}`);
    }
  });
}

test("a URL whose refusals cannot be read is replaced", async (t) => {
  const { user, uploader } = await started();
  let dead;
  const seen = intercept(t, ({ kind, url }) => {
    if (kind !== "put") return undefined;
    dead ??= url;
    return url === dead ? loseConnection() : undefined;
  });
  const file = makeImage("one.png");
  // Renewals within the same second sign the same URL again, so there may be more than two PUTs.
  await uploader.add(file)[0].finished;
  await assertGallery(user, [file]);
  assert.ok(seen.filter((kind) => kind === "put").length <= 4, String(seen));
});

test("a store that refuses for good fails the upload, and a retry succeeds", async (t) => {
  const { user, uploader } = await started();
  let broken = true;
  intercept(t, ({ kind }) => (kind === "put" && broken ? makeResponse(413) : undefined));
  const file = makeImage("one.png");
  const [item] = uploader.add(file);
  await assert.rejects(item.finished, (problem) => problem instanceof StorageProblem && problem.status === 413);
  broken = false;
  item.retry();
  await item.finished;
  await assertGallery(user, [file]);
});

test("confirm answered with 503 or nothing is repeated", async (t) => {
  const { user, uploader } = await started();
  const seen = intercept(t, async ({ kind, n }, send) => {
    if (kind !== "confirm" || n > 3) return undefined;
    if (n === 1) return makeResponse(503, { code: "unavailable" });
    if (n === 2) loseConnection();
    await send();
    return loseConnection();
  });
  const file = makeImage("one.png");
  await uploader.add(file)[0].finished;
  await assertGallery(user, [file]);
  assert.equal(seen.filter((kind) => kind === "confirm").length, 4);
});

test("refusals are problems of a class, with a message for the user", async () => {
  const { uploader } = await started();
  const [text] = uploader.add(new File(["no image"], "notes.txt", { type: "text/plain" }));
  await assert.rejects(text.finished, (problem) => problem instanceof FileProblem && problem instanceof Problem && problem.code === "type_not_allowed" && /not accepted/.test(problem.userMessage));
  assert.equal(text.isRetryable, false);
  const [fake] = uploader.add(new File(["\x89PNG\r\n\x1a\n and no more"].map((part) => Buffer.from(part, "latin1")), "fake.png", { type: "image/png" }));
  await assert.rejects(fake.finished, (problem) => problem instanceof FileProblem && problem.code === "content_mismatch");
});

test("other problems have their class too", async (t) => {
  const { uploader } = await started();
  let answer = makeResponse(409, { code: "quota_exceeded", status: 409 });
  intercept(t, ({ kind }) => (kind === "upload" ? answer : undefined));
  await assert.rejects(uploader.add(makeImage("one.png"))[0].finished, (problem) => problem instanceof QuotaProblem && /full/.test(problem.userMessage));
  answer = makeResponse(418, { code: "a_new_code", requestId: "r1" });
  await assert.rejects(uploader.add(makeImage("two.png"))[0].finished, (problem) => problem.constructor === Problem && /a_new_code.*r1/.test(problem.userMessage));
});

test("an upload for which there is no quota fails before it is sent", async (t) => {
  const { user, uploader } = await started();
  const seen = intercept(t);
  // Open uploads count, so the quota is filled without sending bytes.
  const { quotaBytes } = (await call("GET", "/api/auth/me", user)).usage;
  const sizes = [];
  for (let left = quotaBytes; left > 0; left -= sizes.at(-1)) sizes.push(Math.min(left, 50 * MIB));
  for (let from = 0; from < sizes.length; from += 50) {
    const items = sizes.slice(from, from + 50).map((size, i) => ({ fileName: `${from + i}.png`, contentType: "image/png", size, sha256: randomBytes(32).toString("base64") }));
    const { results } = await call("POST", "/api/images/upload/batch", { token: user.token, body: { items } });
    assert.deepEqual([...new Set(results.map(({ status }) => status))], [201]);
  }
  const [item] = uploader.add(makeImage("one.png"));
  await assert.rejects(item.finished, (problem) => problem instanceof QuotaProblem && problem.code === "quota_exceeded" && /full/.test(problem.userMessage));
  assert.deepEqual([item.isRetryable, seen], [true, ["upload"]], "it can be retried when there is room");
});

test("a refused token is exchanged once for all uploads", async (t) => {
  const user = await signUp();
  const stale = [];
  let current = "expired.and.wrong";
  const token = async (refused) => {
    if (!refused) return current;
    stale.push(refused);
    await new Promise((done) => { setTimeout(done, 100); });
    return (current = user.token);
  };
  const uploader = createUploader({ api: BASE, token, concurrency: 6 });
  intercept(t);
  const files = Array.from({ length: 8 }, (_, i) => makeImage(`${i}.png`, 50_000 + i));
  await Promise.all(uploader.add(files).map((item) => item.finished));
  assert.deepEqual(stale, ["expired.and.wrong"]);
  await assertGallery(user, files);
});

test("a token that the app does not renew fails with SessionProblem, and a later retry works", async () => {
  const user = await signUp();
  let current = "wrong";
  const uploader = createUploader({ api: BASE, token: () => current });
  const [item] = uploader.add(makeImage("one.png"));
  await assert.rejects(item.finished, SessionProblem);
  current = user.token;
  item.retry();
  await item.finished;
});

test("hundreds of files are opened and confirmed in batches", async (t) => {
  const { user, uploader } = await started({ concurrency: 20 });
  const seen = intercept(t);
  const files = Array.from({ length: 60 }, (_, i) => makeImage(`${i}.png`));
  const items = uploader.add(files);
  assert.equal(uploader.add(files).length, 0, "files that are queued are not added twice");
  await Promise.all(items.map((item) => item.finished));
  assert.equal((await call("GET", "/api/auth/me", user)).usage.images, 60);
  assert.equal(seen.filter((kind) => kind === "put").length, 60);
  const calls = seen.length - 60;
  assert.ok(calls < 60, `${calls} calls for 60 files`);
});

test("three files are sent at a time, while 24 at most are open", async (t) => {
  const { user, uploader } = await started();
  let [sending, most, release] = [0, 0];
  const released = new Promise((done) => { release = done; });
  const seen = intercept(t, async ({ kind }, send) => {
    if (kind !== "put") return undefined;
    most = Math.max(most, (sending += 1));
    await released;
    await new Promise((done) => { setTimeout(done, 100); });
    return send().finally(() => { sending -= 1; });
  });
  const files = Array.from({ length: 27 }, (_, i) => makeImage(`${i}.png`));
  const items = uploader.add(files);
  await waitUntil(() => sending === 3 && items.filter((item) => item.id).length === 24, "21 more are open");
  await new Promise((done) => { setTimeout(done, 300); });
  assert.equal(items.filter((item) => item.state === "waiting").length, 3);
  release();
  await Promise.all(items.map((item) => item.finished));
  assert.deepEqual([most, seen.filter((kind) => kind === "put").length], [3, 27]);
  await assertGallery(user, files);
});

test("a listener that adds files starts no upload twice", async (t) => {
  const { user, uploader } = await started();
  const seen = intercept(t);
  const files = Array.from({ length: 6 }, (_, i) => makeImage(`${i}.png`));
  const later = files.slice(3);
  uploader.addEventListener("change", () => { if (later.length) uploader.add(later.shift()); });
  uploader.add(files.slice(0, 3));
  await waitUntil(() => uploader.items.length === 6 && uploader.items.every((item) => item.state === "done"), "all uploads are done");
  assert.equal(seen.filter((kind) => kind === "put").length, 6);
  await assertGallery(user, files);
});

test("a problem in a batch belongs to its own file", async () => {
  const { user, uploader } = await started();
  const [good, bad, other] = [makeImage("good.png"), new File(["text"], "bad.txt", { type: "text/plain" }), makeImage("other.png")];
  const settled = await Promise.allSettled(uploader.add([good, bad, other]).map((item) => item.finished));
  assert.deepEqual(settled.map((one) => one.status), ["fulfilled", "rejected", "fulfilled"]);
  await assertGallery(user, [good, other]);
});

test("one upload and the whole queue can be paused and resumed", async (t) => {
  const { user, uploader } = await started();
  let hold = true;
  intercept(t, ({ kind, options }) => (kind === "put" && hold ? neverAnswer(options) : undefined));
  const files = [makeImage("one.png"), makeImage("two.png")];
  const [one, two] = uploader.add(files);
  await waitUntil(() => one.state === "sending" && two.state === "sending", "both uploads are sent");
  one.pause();
  await waitUntil(() => one.state === "paused", "the upload is paused");
  uploader.pause();
  await waitUntil(() => two.state === "waiting", "the other upload waits");
  hold = false;
  uploader.resume();
  await two.finished;
  assert.equal(one.state, "paused");
  one.resume();
  await one.finished;
  await assertGallery(user, files);
});

test("a cancelled upload leaves nothing behind, by method and by signal", async (t) => {
  const { user, uploader } = await started();
  intercept(t, ({ kind, options }) => (kind === "put" ? neverAnswer(options) : undefined));
  const controller = new AbortController();
  const [one] = uploader.add(makeImage("one.png"));
  const [two] = uploader.add(makeImage("two.png"), { signal: controller.signal });
  await waitUntil(() => one.state === "sending" && two.state === "sending", "both uploads are sent");
  one.cancel();
  controller.abort();
  await assert.rejects(one.finished, { name: "AbortError" });
  await assert.rejects(two.finished, { name: "AbortError" });
  assert.equal(uploader.items.length, 0);
  await waitUntil(async () => (await call("GET", "/api/images/pending", user)).uploads.length === 0, "no upload is open");
});

test("cancelling one of two files of the same bytes keeps the other's image", async (t) => {
  const { user, uploader } = await started();
  intercept(t, ({ kind, n, options }) => (kind === "put" && n === 2 ? neverAnswer(options) : undefined));
  const file = makeImage("one.png");
  const [one, two] = uploader.add([file, new File([file], "copy.png", { type: "image/png" })]);
  await Promise.race([one.finished, two.finished]);
  const sending = one.state === "done" ? two : one;
  assert.deepEqual([one.id, sending.state], [two.id, "sending"]);
  sending.cancel();
  // Long enough for a request that would delete the image.
  await new Promise((done) => { setTimeout(done, 300); });
  assert.equal((await call("GET", "/api/auth/me", user)).usage.images, 1);
});

test("a large file is sent in parts; a lost part is repeated, and a restart sends only the others", async (t) => {
  const user = await signUp();
  const file = makeImage("large.png", 26 * MIB);
  const first = createUploader({ api: BASE, token: user.token });
  const part = (url) => new URL(url).searchParams.get("partNumber");
  let [lostPart, held, isRestarted] = [null, null, false];
  const sent = [];
  intercept(t, async ({ kind, url, options, n }, send) => {
    if (kind !== "put") return undefined;
    if (n === 1) {
      lostPart = part(url);
      loseConnection();
    }
    if (part(url) !== lostPart) held ??= part(url);
    if (part(url) === held && !isRestarted) return neverAnswer(options);
    const answer = await send();
    if (answer.ok) sent.push(part(url));
    return answer;
  });
  first.add(file);
  await waitUntil(() => sent.length === 3, "all parts but one, with the lost one");
  first.stop();
  isRestarted = true;
  await new Promise((done) => { setTimeout(done, 300); });
  const before = sent.length;
  const second = createUploader({ api: BASE, token: user.token });
  await second.restore();
  assert.deepEqual(second.items.map((item) => [item.state, item.name]), [["needs-file", "large.png"]]);
  const [item] = second.add(file);
  await item.finished;
  assert.equal(second.items.length, 1, "the upload that needed its file is this one");
  assert.equal(new Set(sent).size, sent.length, `no part twice: ${sent}`);
  assert.deepEqual([before, sent.slice(3)], [3, [held]], String(sent));
  await assertGallery(user, [file]);
});

test("after a restart the store's files are uploaded without being chosen again", async (t) => {
  const user = await signUp();
  const records = new Map();
  const open = () => createUploader({ api: BASE, token: user.token, store: memoryStore(records), user: user.user.id });
  const first = open();
  let isHeld = true;
  intercept(t, ({ kind, options }) => (kind === "put" && isHeld ? neverAnswer(options) : undefined));
  const files = [makeImage("one.png"), makeImage("two.png")];
  const items = first.add(files, { caption: "kept" });
  await waitUntil(() => items.every((item) => item.state === "sending"), "the uploads are sent");
  first.stop();
  isHeld = false;
  const stranger = createUploader({ api: BASE, token: (await signUp()).token, store: memoryStore(records), user: "someone else" });
  await stranger.restore();
  assert.equal(stranger.items.length, 0, "files of another user are left alone");
  const second = open();
  await second.restore();
  assert.equal(second.items.length, 2);
  const images = await Promise.all(second.items.map((item) => item.finished));
  assert.deepEqual(images.map((one) => one.caption), ["kept", "kept"]);
  await assertGallery(user, files);
  await waitUntil(() => records.size === 0, "nothing is kept longer than it is needed");
});

test("a store that fails does not stop an upload", async () => {
  const denied = () => Promise.reject(new Error("denied"));
  const { user, uploader } = await started({ store: { all: denied, get: denied, put: denied, delete: denied, clear: denied } });
  await uploader.restore();
  const file = makeImage("one.png");
  await uploader.add(file)[0].finished;
  await assertGallery(user, [file]);
});

test("a server that cannot be reached fails with NetworkProblem after a while", async (t) => {
  const { uploader } = await started();
  speedUpTimers(t);
  intercept(t, loseConnection);
  await assert.rejects(uploader.add(makeImage("one.png"))[0].finished, (problem) => problem instanceof NetworkProblem && problem.code === "no_answer");
});

test("a file that is paused and resumed while it is read is sent once, and a cancelled one does not come back", async (t) => {
  const { user, uploader } = await started();
  const seen = intercept(t);
  const file = makeImage("large.png", 12 * MIB);
  let uploaded = 0;
  uploader.addEventListener("uploaded", () => { uploaded += 1; });
  const [item] = uploader.add(file);
  for (let i = 0; i < 3; i += 1) {
    item.pause();
    item.resume();
    await new Promise((done) => { setTimeout(done, 5); });
  }
  await item.finished;
  assert.deepEqual([uploaded, seen.filter((kind) => kind === "put").length], [1, 1]);
  await assertGallery(user, [file]);

  const [cancelled] = uploader.add(makeImage("cancelled.png", 12 * MIB));
  cancelled.finished.catch(() => {});
  cancelled.pause();
  cancelled.resume();
  cancelled.cancel();
  const [last] = uploader.add(makeImage("last.png", 12 * MIB));
  await last.finished;
  assert.deepEqual((await readGallery(user)).map(({ fileName }) => fileName).sort(), ["large.png", "last.png"]);
});

test("a text that was cut in an emoji is repaired, and one item that is refused as malformed fails alone", async (t) => {
  const { user, uploader } = await started();
  intercept(t);
  const files = ["a.png", "b.png", "\ud83d.png"].map((name) => makeImage(name));
  const items = [uploader.add(files[0]), uploader.add(files[1], { caption: "the sea \ud83d" }), uploader.add(files[2])].flat();
  await Promise.all(items.map((item) => item.finished));
  const shown = await readGallery(user);
  assert.deepEqual(shown.map(({ fileName, caption }) => `${fileName} ${caption}`).sort(), ["a.png undefined", "b.png the sea \ufffd", "\ufffd.png undefined"]);

  // A declaration of another shape makes the whole batch malformed.
  const broken = makeImage("broken.png");
  Object.defineProperty(broken, "size", { value: 1.5 });
  const more = uploader.add([makeImage("c.png"), broken, makeImage("d.png")]);
  const settled = await Promise.allSettled(more.map((item) => item.finished));
  assert.deepEqual(settled.map(({ status: outcome }) => outcome), ["fulfilled", "rejected", "fulfilled"]);
  assert.equal((await readGallery(user)).length, 5);
});
