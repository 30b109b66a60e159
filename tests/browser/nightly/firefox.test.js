// Covers the package in Firefox, unmodified, from a page of another origin, which loads its modules as they are: workers, previews, parts,
// lost connections, and a reload. A proxy reads the requests and breaks some of them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import test, { after, before } from "node:test";
import puppeteer from "puppeteer-core";
import { signUp, BASE, waitUntil } from "../harness.js";
import { readGallery, waitForParts, readUsage } from "../uppy.js";
import { startProxy } from "./faulty_proxy.js";
import { servePackage } from "./pages.js";

const PNG = readFileSync(`${process.env.VALET_FIXTURES}/plain.png`);
const MIB = 1024 * 1024;

let firefox, proxy, served;
/** Rule of the current test for the nth PUT to the store, of a part or a file; returns what a rule of faulty_proxy.js returns. */
let onPut = () => undefined;
/** PUTs that reached the proxy: "PUT", or the number of a part. */
let puts = [];

before(async () => {
  served = await servePackage();
  proxy = await startProxy((request) => {
    const { searchParams } = new URL(request.url);
    if (request.method !== "PUT" || !searchParams.has("X-Amz-Signature")) return undefined;
    const part = searchParams.get("partNumber") ?? "PUT";
    puts.push(part);
    return onPut(part, puts.length);
  });
  firefox = await puppeteer.launch({
    browser: "firefox", executablePath: process.env.FIREFOX, headless: true, protocolTimeout: 120_000,
    extraPrefsFirefox: {
      "network.proxy.type": 1, "network.proxy.http": "127.0.0.1", "network.proxy.http_port": Number(new URL(proxy.address).port),
      "network.proxy.allow_hijacking_localhost": true,
    },
  });
});
after(async () => {
  await firefox?.close();
  proxy.close();
  served.close();
});

/** Opens the app's page, signed in as `user`; the test fails if the page has an exception. */
async function openPage(t, user) {
  [onPut, puts] = [() => undefined, []];
  const context = await firefox.createBrowserContext();
  const page = await context.newPage();
  const pageErrors = [];
  // Firefox reports refused and broken requests as errors too.
  page.on("pageerror", ({ message }) => { if (!/^Cross-Origin Request Blocked/.test(message)) pageErrors.push(message); });
  t.after(async () => {
    await context.close();
    assert.deepEqual(pageErrors, [], "no exception in the page");
  });
  await page.goto(served.address);
  await start(page, user);
  return page;
}

/** Starts an uploader in a page that was loaded; `answers` counts the results of workers. */
const start = (page, user) => page.evaluate(async ({ base, token, id, png }) => {
  globalThis.answers = 0;
  globalThis.Worker = class extends Worker {
    constructor(...options) {
      super(...options);
      this.addEventListener("message", () => { answers += 1; });
    }
  };
  const { createUploader } = await import("/src/index.js");
  globalThis.uploader = createUploader({ api: base, token, user: id });
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  /** Returns an image of this many bytes, the same one each time. */
  globalThis.image = (name, size, label) => new File([bytes, label, new Uint8Array(size - bytes.length - label.length)], name, { type: "image/png", lastModified: 1 });
}, { base: BASE, token: user.token, id: user.user.id, png: PNG.toString("base64") });

/** Returns random text, which makes the bytes of an image unique. */
const label = () => randomBytes(8).toString("hex");
const add = (page, name, size, mark) => page.evaluate((name, size, mark) => { uploader.add(image(name, size, mark)); }, name, size, mark);
/** Waits until all uploads are done, and returns their number. */
const finished = (page) => page.evaluate(async () => (await Promise.all(uploader.items.map((item) => item.finished))).length);

test("Firefox: files are uploaded from another origin, in workers, with previews, whole and in parts", async (t) => {
  const user = await signUp();
  const page = await openPage(t, user);
  const large = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(900, 700);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(900, 700);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([Math.random() * 255, Math.random() * 255, 90, 255], i);
    context.putImageData(pixels, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
    uploader.add(new File([blob], "noise.jpg", { type: "image/jpeg" }));
    return blob.size;
  });
  assert.ok(large > 128 * 1024, `${large} bytes`);
  await add(page, "small.png", 5000, label());
  await add(page, "parts.png", 17 * MIB, label());
  assert.equal(await finished(page), 3);
  assert.ok((await page.evaluate(() => answers)) >= 3, "workers answer");
  assert.deepEqual([...puts].sort(), ["1", "2", "3", "PUT", "PUT", "PUT"], "three parts, two files, a preview");
  const images = await waitUntil(async () => {
    const shown = await readGallery(user);
    return shown["noise.jpg"]?.previewUrl && shown;
  }, "the preview");
  assert.ok(images["noise.jpg"].thumbHash);
  assert.deepEqual(Object.values(images).map(({ size }) => size).sort((a, b) => a - b), [5000, large, 17 * MIB]);
  assert.equal((await readUsage(user)).pending, 0);
});

test("Firefox: broken connections, refusals and lost answers are repeated, and the gallery has the image once", async (t) => {
  const user = await signUp();
  const page = await openPage(t, user);
  const readable = { "access-control-allow-origin": "*" };
  const answers = ["drop", "cut", { status: 503, headers: readable }, { status: 409, headers: readable }, { status: 403, headers: readable }, "lose"];
  onPut = (_, n) => answers[n - 1];
  await add(page, "one.png", 100_000, label());
  assert.equal(await finished(page), 1);
  assert.ok(puts.length >= answers.length, `${puts.length} PUTs`);
  assert.deepEqual(Object.keys(await readGallery(user)), ["one.png"]);
  assert.equal((await readUsage(user)).pending, 0);
});

test("Firefox: a reload continues uploads, and a large file that is chosen again sends the missing part", async (t) => {
  const user = await signUp();
  const page = await openPage(t, user);
  onPut = (part) => (["PUT", "3"].includes(part) ? "hold" : undefined);
  const [small, large] = [label(), label()];
  await add(page, "small.png", 5000, small);
  await add(page, "large.png", 17 * MIB, large);
  await waitUntil(() => puts.includes("PUT") && puts.includes("3"), "the uploads are held");
  await waitForParts(user, 2);
  [onPut, puts] = [() => undefined, []];
  await page.reload();
  await start(page, user);
  await page.evaluate(() => uploader.restore());
  const states = await page.evaluate(() => uploader.items.map(({ name, state }) => [name, state === "needs-file"]));
  assert.deepEqual(states, [["small.png", false], ["large.png", true]]);
  await add(page, "large.png", 17 * MIB, large);
  assert.equal(await page.evaluate(async () => (await Promise.all(uploader.items.filter((item) => item.state !== "needs-file").map((item) => item.finished))).length), 2);
  assert.deepEqual([...puts].sort(), ["3", "PUT"], "only the missing part is sent");
  assert.deepEqual(Object.keys(await readGallery(user)).sort(), ["large.png", "small.png"]);
  assert.equal((await readUsage(user)).pending, 0);
});
