// Covers uploaders in the hands of apps, frameworks and bundlers, in Node against a real server: handlers, proxies, loops, files of frames,
// calls after the end, runtimes with workers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import Uppy from "@uppy/core";
import { createUploader, memoryStore } from "valet-upload";
import ValetUpload from "valet-upload/uppy";
import { signUp, assertGallery, BASE, call, makeImage, intercept, loseConnection, MIB, neverAnswer, waitUntil } from "./harness.js";

/** Returns a new account, an uploader for it, and a function that lets PUTs pass: they are held at first. */
async function held(t) {
  const user = await signUp();
  let isHeld = true;
  intercept(t, ({ kind, options }) => (kind === "put" && isHeld ? neverAnswer(options) : undefined));
  return { user, uploader: createUploader({ api: BASE, token: user.token, concurrency: 5 }), pass: () => { isHeld = false; } };
}

test("the functions of an upload can be passed as handlers, and be called on a proxy or a copy", async (t) => {
  const { user, uploader, pass } = await held(t);
  const files = ["one.png", "two.png", "three.png", "four.png", "five.png"].map((name) => makeImage(name));
  const [one, two, three, four, five] = uploader.add(files).map((item, i) => (i < 3 ? new Proxy(item, {}) : { ...item }));
  await waitUntil(() => uploader.items.every((item) => item.state === "sending"), "all uploads are sent");
  const { pause, resume } = one;
  pause();
  assert.deepEqual(uploader.items.map(({ state }) => state), ["paused", "sending", "sending", "sending", "sending"]);
  two.cancel();
  uploader.cancel(three);
  four.cancel();
  uploader.cancel(five);
  assert.deepEqual(uploader.items.map(({ key }) => key), [one.key]);
  for (const { finished } of [two, three, four, five]) await assert.rejects(finished, { name: "AbortError" });
  pass();
  resume();
  await one.finished;
  await assertGallery(user, [files[0]]);
});

test("a loop over the list can cancel all uploads", async (t) => {
  const { user, uploader } = await held(t);
  uploader.add(Array.from({ length: 5 }, (_, i) => makeImage(`${i}.png`)));
  await waitUntil(() => uploader.items.some((item) => item.state === "sending"), "an upload is sent");
  for (const item of uploader.items) item.cancel();
  assert.deepEqual(uploader.items, []);
  await waitUntil(async () => !(await call("GET", "/api/images/pending", user)).uploads.length, "no upload is open");
});

test("a file that occurs twice in one call is queued once", async () => {
  const user = await signUp();
  const uploader = createUploader({ api: BASE, token: user.token });
  const [file, other] = [makeImage("one.png"), makeImage("other.png")];
  const items = uploader.add([file, other, file]);
  assert.deepEqual(items.map(({ name }) => name), ["one.png", "other.png"]);
  await Promise.all(items.map((item) => item.finished));
  await assertGallery(user, [file, other]);
});

/** Returns the file as a page sees one of a frame: with the same methods, but of no class of this page. */
function ofFrame(file) {
  const members = [Blob, File].map(({ prototype }) => Object.getOwnPropertyDescriptors(prototype));
  Object.setPrototypeOf(file, Object.create(null, Object.assign({}, ...members)));
  assert.ok(!(file instanceof Blob));
  return file;
}

test("files of another frame are uploaded, whole and in parts", async () => {
  const user = await signUp();
  const uploader = createUploader({ api: BASE, token: user.token, store: memoryStore() });
  const files = [makeImage("small.png"), makeImage("large.png", 17 * MIB), makeImage("captioned.png")];
  const items = [ofFrame(files[0]), [ofFrame(files[1])]].flatMap((input) => uploader.add(input));
  items.push(...uploader.add(ofFrame(files[2]), { caption: "A boat" }));
  await Promise.all(items.map((item) => item.finished));
  await assertGallery(user, files);
});

test("a file without a name gets the one that is given", async () => {
  const user = await signUp();
  const [item] = createUploader({ api: BASE, token: user.token }).add(new File([makeImage("one.png")], "", { type: "image/png" }), { name: "given.png" });
  assert.equal((await item.finished).fileName, "given.png");
});

test("a paused upload does not say that it waits for the network", async (t) => {
  const user = await signUp();
  let isBroken = true;
  intercept(t, ({ kind }) => (kind === "put" && isBroken ? loseConnection() : undefined));
  const [item] = createUploader({ api: BASE, token: user.token }).add(makeImage("one.png"));
  await waitUntil(() => item.waitReason === "again", "the upload waits");
  item.pause();
  assert.deepEqual([item.state, item.waitReason], ["paused", null]);
  isBroken = false;
  item.resume();
  await item.finished;
});

test("after stop(), nothing is retried or restored", async (t) => {
  const user = await signUp();
  const record = { key: "key", user: "", tab: "1", name: "kept.png", size: 9, type: "image/png", lastModified: 1, file: makeImage("kept.png") };
  const uploader = createUploader({ api: BASE, token: user.token, store: memoryStore(new Map([["key", record]])) });
  const seen = intercept(t, ({ kind }) => (kind === "put" ? new Response(null, { status: 413 }) : undefined));
  const [item] = uploader.add(makeImage("one.png"));
  await assert.rejects(item.finished);
  uploader.stop();
  const before = seen.length;
  item.retry();
  await uploader.restore();
  assert.deepEqual([item.state, uploader.items.length, seen.length], ["failed", 1, before]);
});

test("no Web Worker is started outside of browsers, where it would keep a script alive", async (t) => {
  const user = await signUp();
  let started = 0;
  globalThis.Worker = class { constructor() { started += 1; } postMessage() {} };
  t.after(() => { delete globalThis.Worker; });
  await createUploader({ api: BASE, token: user.token }).add(makeImage("one.png"))[0].finished;
  assert.equal(started, 0);
});

test("bundlers that read `main` and `alias` find the entries that others find by `exports`", () => {
  const { main, alias, exports, sideEffects, typesVersions } = JSON.parse(readFileSync(new URL(import.meta.resolve("valet-upload/package.json"))));
  const entries = Object.fromEntries(Object.entries(exports).filter(([, target]) => target.default).map(([name, target]) => [name, target.default]));
  assert.deepEqual({ ".": main, ...alias }, entries);
  // TypeScript with `moduleResolution: "node"` does not read `exports`.
  const types = Object.keys(alias).map((name) => [name.replace("./", ""), [exports[name].types]]);
  assert.deepEqual(typesVersions, { "*": Object.fromEntries(types) });
  for (const path of [...Object.values(entries), ...sideEffects]) assert.ok(readFileSync(new URL(`../${path}`, import.meta.url)).length, path);
});

test("uppy: a file that a listener removes at the start does not fail the others", async () => {
  const user = await signUp();
  const uppy = new Uppy().use(ValetUpload, { api: BASE, token: user.token });
  const [removed, kept] = [makeImage("removed.png"), makeImage("kept.png")];
  for (const file of [removed, kept]) uppy.addFile({ name: file.name, type: file.type, data: file });
  uppy.on("upload-start", ([first]) => uppy.removeFile(first.id));
  const { successful, failed } = await uppy.upload();
  assert.deepEqual([successful.map(({ name }) => name), failed], [["kept.png"], []]);
  await assertGallery(user, [kept]);
  uppy.destroy();
});

test("uppy: a listener that throws fails no file", async (t) => {
  const user = await signUp();
  const logged = t.mock.method(console, "error", () => {});
  const uppy = new Uppy().use(ValetUpload, { api: BASE, token: user.token });
  const files = ["one.png", "two.png", "three.png"].map((name) => makeImage(name));
  for (const file of files) uppy.addFile({ name: file.name, type: file.type, data: file });
  for (const event of ["upload-progress", "upload-success"]) uppy.on(event, () => { throw new Error("a fault of the app"); });
  const { successful, failed } = await uppy.upload();
  assert.deepEqual([successful.length, failed], [3, []]);
  assert.ok(logged.mock.callCount() >= 3, "the faults are logged");
  await assertGallery(user, files);
  uppy.destroy();
});

test("uppy: an upload ends with uppy.clear(), and the next one runs", async (t) => {
  const { user, pass } = await held(t);
  const uppy = new Uppy().use(ValetUpload, { api: BASE, token: user.token });
  const [cleared, next] = [makeImage("cleared.png"), makeImage("next.png")];
  uppy.addFile({ name: cleared.name, type: cleared.type, data: cleared });
  const uploading = uppy.upload();
  await waitUntil(async () => (await call("GET", "/api/images/pending", user)).uploads.length === 1, "its upload is open");
  uppy.clear();
  const { successful, failed } = await uploading;
  assert.deepEqual([successful, failed, uppy.getState().currentUploads], [[], [], {}]);
  await waitUntil(async () => (await call("GET", "/api/images/pending", user)).uploads.length === 0, "its upload is discarded");
  pass();
  uppy.addFile({ name: next.name, type: next.type, data: next });
  assert.equal((await uppy.upload()).successful.length, 1);
  await assertGallery(user, [next]);
  uppy.destroy();
});
