// Covers the package clients/js from a page of another origin, which loads its modules as they are: workers, previews,
// denied features, reloads, other tabs, lost networks, and refusals that the page cannot read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { signUp, callApi, BASE, drawPhotos, servePages, waitUntil, openContext } from "./harness.js";

const PAGE = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>App</title><input type="file" id="files" multiple>';

/** Opens a page of another origin with an uploader in `uploader`, signed in as `user`. `policy` is its Content Security Policy. */
async function app(t, context, user, policy = "") {
  const port = await servePages(t, (request, response) => {
    if (policy) response.setHeader("content-security-policy", policy);
    if (!request.url.startsWith("/src/")) return response.setHeader("content-type", "text/html").end(PAGE);
    return response.setHeader("content-type", "text/javascript").end(readFileSync(new URL(`../../clients/js${request.url}`, import.meta.url)));
  });
  const page = await context.newPage();
  await page.goto(`http://localhost:${port}/`);
  await start(page, user);
  return page;
}

/** Creates the uploader in a loaded page. */
const start = (page, user) => page.evaluate(async ({ base, token, id }) => {
  const { createUploader } = await import("/src/index.js");
  globalThis.uploader = createUploader({ api: base, token, user: id });
}, { base: BASE, token: user.token, id: user.user.id });

/** Returns the user's images. */
const gallery = async (user) => (await (await callApi("/api/images/gallery?limit=100", user)).json()).images;

/** Adds files as a user chooses them. */
async function add(page, files) {
  await page.locator("#files").setInputFiles(files);
  await page.evaluate(() => { uploader.add(document.querySelector("#files").files); });
}

test("the package uploads with previews from another origin, in workers", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const page = await app(t, context, user);
  await add(page, await drawPhotos(page, 3, { width: 900, height: 700, noise: 0.8 }));
  const done = await page.evaluate(async () => (await Promise.all(uploader.items.map((item) => item.finished))).map((image) => image.fileName));
  assert.equal(done.length, 3);
  assert.ok(page.workers().length > 0, "workers run");
  await waitUntil(async () => (await gallery(user)).every((image) => image.previewUrl && image.thumbHash), "previews");
  assert.equal((await gallery(user)).length, 3);
});

for (const [label, deny] of Object.entries({
  "workers are denied": () => { window.Worker = class { constructor() { throw new DOMException("Denied.", "SecurityError"); } }; },
  "storage is denied": () => { Object.defineProperty(window, "indexedDB", { get() { throw new DOMException("Denied.", "SecurityError"); } }); },
  "there is no crypto.subtle": () => { Object.defineProperty(crypto, "subtle", { value: undefined }); },
})) {
  test(`the package uploads where ${label}`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    await context.addInitScript(deny);
    const page = await app(t, context, user);
    await page.evaluate(() => uploader.restore());
    await add(page, await drawPhotos(page, 1));
    await page.evaluate(() => uploader.items[0].finished);
    assert.equal((await gallery(user)).length, 1);
  });
}

test("the package uploads where the page's policy denies workers, and makes the preview", async (t) => {
  const [context, user] = [await openContext(t, { allowed: [/Content Security Policy|policy violation: worker-src/] }), await signUp()];
  const page = await app(t, context, user, "worker-src 'none'");
  await add(page, await drawPhotos(page, 1, { width: 900, height: 700, noise: 0.8 }));
  await page.evaluate(() => uploader.items[0].finished);
  assert.deepEqual((await gallery(user)).map(({ previewUrl, thumbHash }) => Boolean(previewUrl && thumbHash)), [true]);
  assert.equal(page.workers().length, 0);
});

for (const [label, deny] of Object.entries({
  "has no memory": () => { OffscreenCanvas.prototype.getContext = () => null; },
  "is not encoded": () => { OffscreenCanvas.prototype.convertToBlob = () => Promise.reject(new DOMException("Failed.", "EncodingError")); },
  "of an older browser is not encoded": () => {
    delete window.OffscreenCanvas;
    HTMLCanvasElement.prototype.toBlob = (done) => done(null);
  },
})) {
  test(`a file is uploaded without a preview if a canvas ${label}`, async (t) => {
    const [file] = await drawPhotos(await (await openContext(t, {})).newPage(), 1, { width: 900, height: 700, noise: 0.8 });
    const [context, user] = [await openContext(t, {}), await signUp()];
    // Without workers the page makes the preview, with the canvas that this test breaks.
    await context.addInitScript(() => { delete window.Worker; });
    await context.addInitScript(deny);
    const page = await app(t, context, user);
    await add(page, [file]);
    await page.evaluate(() => uploader.items[0].finished);
    const [shown] = await gallery(user);
    assert.equal(shown.previewUrl, undefined);
  });
}

test("the app creates the worker where a bundler leaves it out, or a policy allows its address alone", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const page = await app(t, context, user, "require-trusted-types-for 'script'; trusted-types app");
  await page.evaluate(async ({ base, token }) => {
    const { createUploader } = await import("/src/index.js");
    const policy = trustedTypes.createPolicy("app", { createScriptURL: (url) => url });
    const worker = () => new Worker(policy.createScriptURL("/src/worker.js?own"), { type: "module" });
    globalThis.uploader = createUploader({ api: base, token, store: null, worker });
  }, { base: BASE, token: user.token });
  await add(page, await drawPhotos(page, 1, { width: 900, height: 700, noise: 0.8 }));
  const { previewUrl } = await page.evaluate(() => uploader.items[0].finished);
  assert.ok(previewUrl, "a preview");
  assert.deepEqual([...new Set(page.workers().map((worker) => new URL(worker.url()).search))], ["?own"]);
});

test("jobs of workers that are ended reject, and the pool works on", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const page = await app(t, context, user);
  const outcome = await page.evaluate(async () => {
    const { WorkerPool } = await import("/src/worker-pool.js");
    const [pool, blob] = [new WorkerPool(), new Blob([new Uint8Array(64 << 20)])];
    const jobs = [pool.digest(blob), pool.digest(blob), pool.inspect(blob, true)];
    pool.close();
    const ended = await Promise.all(jobs.map((job) => job.then(() => "done", (error) => error.name)));
    const digest = await pool.digest(new Blob(["abc"]));
    pool.close();
    return [ended, digest];
  });
  assert.deepEqual(outcome, [["AbortError", "AbortError", "AbortError"], "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="]);
});

/** Returns whether a URL is presigned: the package sends PUTs to these. */
const isPut = (url) => url.searchParams.has("X-Amz-Signature");

/** Waits until the browser has stored two files with the ids of their uploads. */
const untilStored = (page) => waitUntil(() => page.evaluate(async () => {
  const { indexedDbStore } = await import("/src/index.js");
  return (await indexedDbStore().all()).filter(({ id }) => id).length === 2;
}), "both files are stored");

/** Opens the app in a context of its own, with two uploads whose PUTs are held. */
async function withTwoUploads(t) {
  const context = await openContext(t, { allowed: [/ERR_|Failed to load resource/] });
  const user = await signUp();
  const page = await app(t, context, user);
  let held = 0;
  await page.route(isPut, () => { held += 1; });
  await add(page, await drawPhotos(page, 2));
  await waitUntil(() => held >= 2, "uploads under way");
  await untilStored(page);
  return { context, user, page };
}

/** Starts the app in a loaded page, and asserts that both uploads are restored and end in the gallery. */
async function assertContinued(page, user) {
  await start(page, user);
  await page.evaluate(() => uploader.restore());
  assert.equal(await page.evaluate(async () => (await Promise.all(uploader.items.map((item) => item.finished))).length), 2);
  assert.equal((await gallery(user)).length, 2);
}

test("the package continues uploads after a reload", async (t) => {
  const { user, page } = await withTwoUploads(t);
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.reload();
  await assertContinued(page, user);
});

test("a tab that is opened after another one was killed continues its uploads", async (t) => {
  const { context, user, page } = await withTwoUploads(t);
  const [address, cdp] = [page.url(), await context.newCDPSession(page)];
  const killed = page.waitForEvent("crash");
  cdp.send("Page.crash").catch(() => {});
  await killed;
  const other = await context.newPage();
  await other.goto(address);
  await assertContinued(other, user);
});

test("a tab leaves the uploads alone that another tab has taken over from a closed one", async (t) => {
  const { context, user, page } = await withTwoUploads(t);
  const address = page.url();
  await page.close();
  const heir = await context.newPage();
  await heir.route(isPut, () => {});
  await heir.goto(address);
  await start(heir, user);
  await heir.evaluate(() => uploader.restore());
  const owners = async () => {
    const { indexedDbStore } = await import("/src/index.js");
    return (await indexedDbStore().all()).filter(({ id }) => id).map(({ tab }) => tab === sessionStorage.getItem("valet.tab"));
  };
  await waitUntil(async () => (await heir.evaluate(owners)).join() === "true,true", "the records name the second tab");
  const third = await context.newPage();
  await third.goto(address);
  await start(third, user);
  await third.evaluate(() => uploader.restore());
  assert.equal(await third.evaluate(() => uploader.items.length), 0);
  await heir.unrouteAll({ behavior: "ignoreErrors" });
  await heir.reload();
  await assertContinued(heir, user);
});

test("a duplicated tab, which has a copy of sessionStorage, leaves the uploads of the first one alone", async (t) => {
  const { context, user, page } = await withTwoUploads(t);
  const id = await page.evaluate(() => sessionStorage.getItem("valet.tab"));
  const duplicate = await context.newPage();
  await duplicate.addInitScript((id) => { sessionStorage.setItem("valet.tab", sessionStorage.getItem("valet.tab") ?? id); }, id);
  await duplicate.goto(page.url());
  await start(duplicate, user);
  await duplicate.evaluate(() => uploader.restore());
  assert.equal(await duplicate.evaluate(() => uploader.items.length), 0);
  assert.notEqual(await duplicate.evaluate(() => sessionStorage.getItem("valet.tab")), id);
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.reload();
  assert.equal(await page.evaluate(() => sessionStorage.getItem("valet.tab")), id);
  await assertContinued(page, user);
});

test("another tab can delete the database, and later files are stored in a new one", async (t) => {
  const { context, page } = await withTwoUploads(t);
  const other = await context.newPage();
  await other.goto(page.url());
  const deleted = await other.evaluate(() => new Promise((resolve) => {
    const request = indexedDB.deleteDatabase("valet");
    request.onsuccess = () => resolve("deleted");
    request.onerror = () => resolve("failed");
    request.onblocked = () => resolve("blocked");
  }));
  assert.equal(deleted, "deleted");
  await add(page, await drawPhotos(page, 2));
  await untilStored(page);
});

test("without locks, a new tab continues the uploads of a closed one after a quarter of an hour", async (t) => {
  const context = await openContext(t, { allowed: [/ERR_|Failed to load resource/] });
  await context.addInitScript(() => { Object.defineProperty(navigator, "locks", { value: undefined }); });
  const user = await signUp();
  const page = await app(t, context, user);
  let held = 0;
  await page.route(isPut, () => { held += 1; });
  await add(page, await drawPhotos(page, 2));
  await waitUntil(() => held >= 2, "uploads under way");
  await untilStored(page);
  const address = page.url();
  await page.close();
  const early = await context.newPage();
  await early.goto(address);
  await start(early, user);
  await early.evaluate(() => uploader.restore());
  assert.deepEqual(await early.evaluate(() => uploader.items), [], "the other tab may still run");
  const late = await context.newPage();
  await late.addInitScript(() => {
    const now = Date.now;
    Date.now = () => now() + 16 * 60_000;
  });
  await late.goto(address);
  await assertContinued(late, user);
  assert.equal(await late.evaluate(async () => (await (await import("/src/index.js")).indexedDbStore().all()).length), 0, "nothing is kept longer");
});

test("an upload waits for an hour without a network, then gets another URL with another token", async (t) => {
  const context = await openContext(t, { allowed: [/ERR_|Failed to load resource/] });
  const user = await signUp();
  await context.clock.install();
  const page = await app(t, context, user);
  await page.evaluate(async ({ base, token }) => {
    const { createUploader } = await import("/src/index.js");
    Object.assign(globalThis, { isExpired: false, refreshes: 0 });
    const current = (stale) => {
      if (stale) globalThis.refreshes += 1;
      return isExpired && !refreshes ? "expired.and.wrong" : token;
    };
    globalThis.uploader = createUploader({ api: base, token: current, store: null });
  }, { base: BASE, token: user.token });
  const routes = [];
  await page.route(isPut, (route) => (routes.push(route) > 1 ? route.continue() : undefined));
  await add(page, await drawPhotos(page, 1));
  await waitUntil(() => routes.length === 1, "the upload is sent");
  await context.setOffline(true);
  await routes[0].abort("internetdisconnected");
  await page.waitForFunction(() => uploader.items[0].waitReason === "offline");
  const calls = [];
  page.on("request", (request) => { if (request.method() !== "OPTIONS") calls.push(`${request.method()} ${new URL(request.url()).pathname.replace(/[0-9a-f-]{36}/g, "ID")}`); });
  await context.clock.fastForward("01:00:01");
  await page.evaluate(() => { globalThis.isExpired = true; });
  assert.deepEqual([calls, await page.evaluate(() => uploader.items[0].state)], [[], "sending"], "it waits, and nothing is tried");
  await context.setOffline(false);
  await page.evaluate(() => uploader.items[0].finished);
  const confirm = "POST /api/images/ID/confirm";
  // The first confirm is rejected for its token, the second because the bytes have not arrived. Then the upload gets a new URL.
  assert.deepEqual(calls, [confirm, confirm, "POST /api/images/upload", "PUT /valet/u/ID/ID", confirm]);
  assert.equal(await page.evaluate(() => refreshes), 1);
  assert.equal((await gallery(user)).length, 1);
});

test("a 403 that the page cannot read leads to another URL", async (t) => {
  const context = await openContext(t, { allowed: [/ERR_|CORS policy|Failed to load resource/] });
  const user = await signUp();
  const page = await app(t, context, user);
  const urls = [];
  await page.route(isPut, (route) => {
    urls.push(route.request().url());
    return route.request().url() === urls[0] ? route.fulfill({ status: 403, headers: { "access-control-allow-origin": "http://elsewhere.example" } }) : route.continue();
  });
  let reads = 0;
  page.on("console", (message) => { reads += Number(/CORS policy/.test(message.text())); });
  await add(page, await drawPhotos(page, 1));
  await page.evaluate(() => uploader.items[0].finished);
  assert.ok(reads > 0, "the page cannot read the answer");
  assert.ok(urls.length <= 4, `${urls.length} PUTs`);
  assert.equal((await gallery(user)).length, 1);
});
