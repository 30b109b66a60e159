// Covers the package's Uppy plugin (docs/uppy.md) in Uppy 6.3 and 5.2, unmodified, from a page of another origin: single PUTs and parts,
// pause, retry, cancel, refusals, editors, and a reload with Golden Retriever.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { signUp, BASE, drawPhotos, takeScreenshot, waitUntil, openContext } from "./harness.js";
import { addFiles, callAsUser, CHANGES, readEvents, readGallery, makeImage, makeLargeImage, MIB, openUppyPage, waitForParts, openReactPage, reloadUppyPage, retryInDashboard, rotateInDashboard, assertStored, uploadAdded, uploadChanged, readUsage, watchRequests } from "./uppy.js";

const MARK = "uppy-plugin";
const unchanged = (code) => code;
/** Returns the PUTs of parts, sorted. */
const parts = (seen) => seen.filter((call) => call.startsWith("S3 PUT part")).sort();
/** Returns the number of PUTs of whole files. */
const singles = (seen) => seen.filter((call) => call === "S3 PUT").length;

/** Routes the requests to the bucket; preflights pass. `decide` returns whether the request with this URL was handled. */
const onBucket = (opened, decide) => opened.route((url) => url.searchParams.has("X-Amz-Signature"), async (route) => {
  if (route.request().method() !== "PUT" || !(await decide(route, new URL(route.request().url())))) await route.fallback();
});

/** Answers 403 in place of the bucket. */
const refuse = (route) => route.fulfill({ status: 403, headers: { "access-control-allow-origin": "*" } }).then(() => true);

/** Runs in the page: returns the state that Golden Retriever has stored, version 5 in localStorage, 6 in IndexedDB. */
const storedState = () => localStorage.getItem("uppyState:uppy") ?? new Promise((resolve, reject) => {
  const request = indexedDB.open("uppy-blobs");
  request.onerror = () => reject(request.error);
  request.onsuccess = () => {
    const reading = request.result.transaction("metadata").objectStore("metadata").getAll();
    reading.onsuccess = () => resolve(JSON.stringify(reading.result));
    reading.onerror = () => reject(reading.error);
    request.result.close();
  };
});

for (const version of ["6", "5"]) {
  const name = `uppy-${version} plugin`;
  const openApp = (t, context, user, change = unchanged) => openUppyPage(t, context, MARK, user, change, version);

  test(`${name}: files become images, each sent once, and the image is the response`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user);
    const seen = watchRequests(opened);
    await opened.evaluate(() => {
      globalThis.most = {};
      app.uppy.setMeta({ caption: "A boat" });
      app.uppy.on("upload-progress", (file) => { most[file.name] = Math.max(most[file.name] ?? 0, app.uppy.getFile(file.id).progress.percentage); });
    });
    const files = [makeImage("one.png"), makeImage("two, with a comma & ümläut.png"), makeImage("three.png", 3 * MIB), makeLargeImage("large.png")];
    await addFiles(opened, files);
    assert.deepEqual(await uploadAdded(opened), { successful: 4, failed: [] });
    assert.deepEqual([singles(seen), parts(seen)], [4, [1, 2, 3].map((n) => `S3 PUT part ${n}`)], "three files, a preview, three parts");
    assert.ok(!seen.some((call) => call.includes("uppy")), String(seen));
    for (const file of files) assert.equal((await assertStored(user, file)).caption, "A boat");
    const images = await readGallery(user);
    for (const { name, id, url } of await readEvents(opened)) {
      assert.equal(id, images[name].id);
      assert.equal((await fetch(url)).status, 200);
    }
    const states = await opened.evaluate(() => app.uppy.getFiles().map(({ name, response, progress }) => [name, response.body.width, progress.percentage, most[name] < 100]));
    assert.deepEqual(states, files.map((file) => [file.name, images[file.name].width, 100, true]), "100 % at the end alone");
    assert.equal(await opened.evaluate(() => shown.length), 4, "the recipe shows each image");
    assert.equal((await readUsage(user)).pending, 0);
    // Removing a file from the list does not touch its image.
    await opened.evaluate(() => { app.uppy.removeFile(app.uppy.getFiles()[0].id); app.uppy.cancelAll(); });
    assert.equal(seen.filter((call) => call.startsWith("DELETE")).length, 0);
  });

  test(`${name}: files can be paused and resumed, one or all`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user);
    const seen = watchRequests(opened);
    let isHeld = true;
    await onBucket(opened, (_, url) => isHeld && url.searchParams.get("partNumber") !== "1");
    const [big, small] = [makeLargeImage("large.png"), makeImage("small.png")];
    await addFiles(opened, [big, small]);
    const uploading = uploadAdded(opened);
    await waitUntil(() => parts(seen).length === 3 && singles(seen) === 1, "all uploads are under way");
    await opened.waitForFunction(() => app.uppy.getFiles()[0].progress.bytesUploaded >= 8 * 1024 * 1024);
    await waitForParts(user, 1);
    await opened.evaluate(() => app.uppy.pauseAll());
    isHeld = false;
    const before = seen.length;
    await new Promise((done) => { setTimeout(done, 700); });
    assert.equal(seen.length, before, `nothing is sent meanwhile: ${seen.slice(before)}`);
    await opened.evaluate(() => app.uppy.pauseResume(app.uppy.getFiles()[0].id));
    await opened.waitForFunction(() => app.uppy.getFiles()[0].progress.uploadComplete);
    assert.deepEqual(parts(seen.slice(before)), ["S3 PUT part 2", "S3 PUT part 3"], "the part that arrived is not sent again");
    assert.equal(await opened.evaluate(() => app.uppy.getFiles()[1].progress.uploadComplete), false);
    await opened.evaluate(() => app.uppy.resumeAll());
    assert.deepEqual(await uploading, { successful: 2, failed: [] });
    for (const file of [big, small]) await assertStored(user, file);
  });

  test(`${name}: a refused file is retried, with the bytes that it has then`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 403 /] });
    const user = await signUp();
    const opened = await openApp(t, context, user);
    let isBroken = true;
    await onBucket(opened, (route) => isBroken && refuse(route));
    const drawn = await drawPhotos(opened, 2, { width: 400, height: 300 });
    await addFiles(opened, drawn);
    const { successful, failed } = await uploadAdded(opened);
    assert.deepEqual([successful, failed.length], [0, 2]);
    for (const text of failed) assert.match(text, /^The storage refused the file\. Try again/);
    assert.equal((await readUsage(user)).pending, 2);
    await CHANGES["grown in an editor"](opened);
    isBroken = false;
    assert.deepEqual(await uploadAdded(opened, "retryAll"), { successful: 2, failed: [] });
    const [edited] = await opened.evaluate(() => app.uppy.getFiles().map((file) => file.data.size));
    assert.equal((await readGallery(user))[drawn[0].name].size, edited);
    await assertStored(user, drawn[1]);
    await waitUntil(async () => (await readUsage(user)).pending === 0, "the upload of the earlier bytes is discarded");
  });

  test(`${name}: refusals are sentences for the user, and the other files arrive`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 4\d\d /] });
    const user = await signUp();
    const opened = await openApp(t, context, user);
    await opened.evaluate(() => {
      const valid = accessToken();
      globalThis.refreshes = 0;
      globalThis.accessToken = () => (refreshes ? valid : "an.expired.token");
      globalThis.refreshedToken = () => { refreshes += 1; return valid; };
    });
    const good = makeImage("good.png");
    const bad = [
      { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") },
      { name: "fake.png", mimeType: "image/png", buffer: randomBytes(60_000) },
    ];
    await addFiles(opened, [bad[0], good, bad[1]]);
    const { successful, failed } = await uploadAdded(opened);
    assert.equal(successful, 1);
    assert.match(failed[0], /^Files of this kind are not accepted\. Choose a photo or a picture\. It must be /);
    assert.match(failed[1], /^The file is damaged or is not a valid image\. Check it, then choose it again\.$/);
    assert.equal(await opened.evaluate(() => refreshes), 1, "one refresh for all files");
    await assertStored(user, good);
    assert.equal((await readUsage(user)).pending, 0);
    await opened.evaluate(() => app.uppy.getPlugin("ValetUpload").setOptions({ explain: ({ code, status }) => `${code}, ${status}` }));
    assert.deepEqual((await uploadAdded(opened, "retryAll")).failed, ["type_not_allowed, 422", "content_mismatch, 422"]);
  });

  test(`${name}: options that are changed later have an effect on the files that are sent then`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user, (code) => code.replace('api: "https://api.example.com"', 'limit: 1, api: "https://api.invalid"'));
    const seen = watchRequests(opened);
    const [held, release] = [[], () => held.shift().fallback()];
    await onBucket(opened, (route) => held.push(route));
    const setOptions = (options) => opened.evaluate((options) => app.uppy.getPlugin("ValetUpload").setOptions(options), options);
    await setOptions({ api: BASE });
    const files = Array.from({ length: 5 }, (_, i) => makeImage(`${i}.png`));
    await addFiles(opened, files);
    const uploading = uploadAdded(opened);
    await waitUntil(() => held.length === 1, "one file is sent");
    await setOptions({ limit: 3 });
    await waitUntil(() => held.length === 3, "three files are sent");
    await setOptions({ limit: 1 });
    for (let left = 3; left; left -= 1) {
      assert.equal(held.length, left);
      await release();
      if (left === 1) break;
      const done = files.length - left - 1;
      await opened.waitForFunction((done) => app.uppy.getFiles().filter((file) => file.progress.uploadComplete).length === done, done);
      await new Promise((later) => { setTimeout(later, 300); });
    }
    await waitUntil(() => held.length === 1, "the next one takes its turn");
    await setOptions({ limit: 0 });
    await waitUntil(() => held.length === 2, "without a limit, all files are sent");
    await release();
    await release();
    assert.deepEqual(await uploading, { successful: 5, failed: [] });
    assert.equal(singles(seen), 5);
    for (const file of files) await assertStored(user, file);
  });

  test(`${name}: a removed file and a cancelled batch leave nothing behind`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user, (code) => code.replace("api:", "limit: 2, api:"));
    const seen = watchRequests(opened);
    await onBucket(opened, () => true);
    // Two files have the same bytes, which are one upload. The third file has other bytes, and waits for its turn.
    const [one, last] = [makeImage("one.png"), makeImage("last.png")];
    await addFiles(opened, [one, { ...one, name: "copy.png" }]);
    const uploading = [uploadAdded(opened).catch(() => {})];
    await waitUntil(() => singles(seen) === 2, "two files are sent");
    // Added later, because files are sent in the order in which their uploads are open.
    await addFiles(opened, [last]);
    uploading.push(uploadAdded(opened).catch(() => {}));
    await opened.evaluate(() => app.uppy.removeFile(app.uppy.getFiles()[1].id));
    await waitUntil(() => singles(seen) === 3, "the third takes its turn");
    assert.equal((await readUsage(user)).pending, 2, "the upload is the first file's too");
    await opened.evaluate(() => app.uppy.cancelAll());
    await waitUntil(async () => (await readUsage(user)).pending === 0, "no upload is open");
    await Promise.all(uploading);
    assert.deepEqual(seen.filter((call) => call.startsWith("DELETE")), ["DELETE /api/images/ID", "DELETE /api/images/ID"]);
    assert.deepEqual(await readEvents(opened), []);
  });

  test(`${name}: a file that is removed while its upload is opened or confirmed leaves no open upload, and no image is deleted`, async (t) => {
    const [context, user] = [await openContext(t, { allowed: [/ 409 /] }), await signUp()];
    const opened = await openApp(t, context, user);
    const seen = watchRequests(opened);
    let goOn;
    const released = new Promise((resolve) => { goOn = resolve; });
    const held = [];
    // Holds the server's responses to these requests.
    const hold = (pattern) => opened.route(pattern, async (route) => {
      if (route.request().method() !== "POST") return route.fallback();
      const response = await route.fetch();
      held.push(pattern);
      await released;
      return route.fulfill({ response }).catch(() => {});
    });
    const kept = makeImage("kept.png");
    await hold("**/api/images/*/confirm");
    await addFiles(opened, [kept]);
    const confirming = uploadAdded(opened).catch(() => {});
    await waitUntil(() => held.length === 1, "the server has confirmed it");
    await hold("**/api/images/upload");
    await addFiles(opened, [makeImage("open.png")]);
    const opening = uploadAdded(opened).catch(() => {});
    await waitUntil(() => held.length === 2, "the server has opened the other");
    await opened.evaluate(() => app.uppy.cancelAll());
    goOn();
    await Promise.all([confirming, opening]);
    await waitUntil(() => seen.filter((call) => call.startsWith("DELETE")).length === 2, "both are deleted, if they are open");
    await waitUntil(async () => (await readUsage(user)).pending === 0, "no upload is open");
    await assertStored(user, kept);
  });

  test(`${name}: bytes that change after a file was added are uploaded`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user);
    const drawn = await drawPhotos(opened, Object.keys(CHANGES).length, { width: 400, height: 300, noise: 0.8 });
    const sent = await uploadChanged(opened, drawn);
    const sizes = Object.fromEntries(Object.entries(await readGallery(user)).map(([name, { size }]) => [name, size]).sort());
    assert.deepEqual(sizes, sent);
    assert.equal((await readUsage(user)).pending, 0);
  });

  test(`${name}: with Golden Retriever, uploads continue after a reload`, async (t) => {
    const context = await openContext(t, { allowed: [/ERR_|Failed to load resource/] });
    const user = await signUp();
    const opened = await openApp(t, context, user);
    const seen = watchRequests(opened);
    let isHeld = true;
    await onBucket(opened, (_, url) => isHeld && ["3", null].includes(url.searchParams.get("partNumber")));
    const retrieve = () => opened.evaluate(() => { app.uppy.use(app.GoldenRetriever); });
    await retrieve();
    const [small, big] = [makeImage("small.png", MIB), makeLargeImage("large.png")];
    await addFiles(opened, [small, big]);
    opened.evaluate(() => { app.uppy.upload(); }).catch(() => {});
    await opened.waitForFunction(() => app.uppy.getFiles()[1].progress.bytesUploaded >= 16 * 1024 * 1024);
    await waitForParts(user, 2);
    // Golden Retriever stores the state at most every half second.
    await waitUntil(async () => ((await opened.evaluate(storedState)).match(/valet\W+[0-9a-f-]{36}/g) ?? []).length === 2, "both uploads are stored");
    isHeld = false;
    const before = seen.length;
    await reloadUppyPage(opened, version, user);
    await retrieve();
    await opened.waitForFunction(() => app.uppy.getFiles().length === 2);
    assert.deepEqual(await opened.evaluate(() => app.uppy.getFiles().map((file) => file.isGhost)), [false, true]);
    await addFiles(opened, [big]);
    await opened.evaluate(() => { app.uppy.emit("restore-confirmed"); });
    await opened.waitForFunction(() => app.uppy.getFiles().every((file) => file.progress.uploadComplete));
    assert.deepEqual(parts(seen.slice(before)), ["S3 PUT part 3"], String(seen.slice(before)));
    for (const file of [small, big]) await assertStored(user, file);
    const { images, pending } = await readUsage(user);
    assert.deepEqual([images, pending], [2, 0]);
  });

  test(`${name}: uppy.clear() ends the uploads, and the open ones are deleted`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user);
    const seen = watchRequests(opened);
    await onBucket(opened, () => true);
    await addFiles(opened, [makeImage("one.png")]);
    const uploading = uploadAdded(opened).catch(() => {}); // Uppy reads files that it has cleared.
    await waitUntil(() => singles(seen) === 1, "the upload is sent");
    await opened.evaluate(() => app.uppy.clear());
    await uploading;
    await waitUntil(async () => (await readUsage(user)).pending === 0, "no upload is open");
    assert.equal(seen.filter((call) => call.endsWith("/confirm")).length, 0, String(seen));
  });

  test(`${name}: files of a plugin that is removed have failed, and another plugin uploads them`, async (t) => {
    const [context, user] = [await openContext(t, { allowed: [/^\[Uppy\]/] }), await signUp()];
    const opened = await openApp(t, context, user, (code) => code.replace("export const uppy", 'export { ValetUpload };\nexport const uppy'));
    const seen = watchRequests(opened);
    let isHeld = true;
    await onBucket(opened, () => isHeld);
    await addFiles(opened, [makeImage("one.png")]);
    const uploading = uploadAdded(opened);
    await waitUntil(() => singles(seen) === 1, "the upload is sent");
    const opts = await opened.evaluateHandle(() => app.uppy.getPlugin("ValetUpload").opts);
    await opened.evaluate(() => app.uppy.removePlugin(app.uppy.getPlugin("ValetUpload")));
    const { successful, failed } = await uploading;
    assert.deepEqual([successful, failed.length], [0, 1], "no file without an image is successful");
    isHeld = false;
    await opened.evaluate((opts) => { app.uppy.use(app.ValetUpload, opts); }, opts);
    assert.deepEqual(await uploadAdded(opened, "retryAll"), { successful: 1, failed: [] });
    assert.deepEqual(Object.keys(await readGallery(user)), ["one.png"]);
  });

  test(`${name}: an image has the name that the app or the user has changed`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, user);
    await opened.evaluate(() => app.uppy.setOptions({
      // As in Uppy's example.
      onBeforeUpload: (files) => Object.fromEntries(Object.entries(files).map(([id, file]) => [id, { ...file, name: `app ${file.name}` }])),
    }));
    await addFiles(opened, [makeImage("one.png"), makeImage("two.png")]);
    await opened.evaluate(() => app.uppy.setFileMeta(app.uppy.getFiles()[1].id, { name: "user two.png" }));
    assert.deepEqual(await uploadAdded(opened), { successful: 2, failed: [] });
    assert.deepEqual(Object.keys(await readGallery(user)).sort(), ["app one.png", "user two.png"]);
  });

  test(`${name}: the React Dashboard uploads a rotated image, and its button retries`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 403 /] });
    const user = await signUp();
    const opened = await openReactPage(t, context, MARK, user, unchanged, version);
    const [photo, second] = await drawPhotos(opened, 2, { width: 1200, height: 800, noise: 0.8 });
    await rotateInDashboard(opened, photo);
    await opened.getByRole("button", { name: "Upload 1 file" }).click();
    const shown = await waitUntil(async () => (await readGallery(user))[photo.name], "the image");
    assert.ok(shown.height > shown.width && shown.previewUrl && shown.thumbHash, "it is turned, with a preview");
    await takeScreenshot(opened, `${MARK}-${version}-react`);
    let isBroken = true;
    await onBucket(opened, (route) => isBroken && refuse(route));
    await retryInDashboard(opened, second, () => { isBroken = false; });
    await waitUntil(async () => (await readGallery(user))[second.name], "the second image");
  });
}

test("the plugin ends with Uppy: its uploads are aborted, and the open ones are deleted", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const opened = await openUppyPage(t, context, MARK, user, unchanged, "6");
  const seen = watchRequests(opened);
  await onBucket(opened, () => true);
  await addFiles(opened, [makeImage("one.png")]);
  const uploading = uploadAdded(opened).catch(() => {});
  await waitUntil(() => singles(seen) === 1, "the upload is sent");
  await opened.evaluate(() => app.uppy.destroy());
  await uploading;
  await waitUntil(async () => (await callAsUser(user, "GET", "/api/images/pending")).uploads.length === 0, "no upload is open");
});
