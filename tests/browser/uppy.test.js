// Covers `@uppy/aws-s3` 6.3 and 5.1, unmodified, from a page of another origin: forms, parts, lost connections, and images at the
// end.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { signUp, BASE, drawPhotos, takeScreenshot, waitUntil, openContext } from "./harness.js";
import { addFiles, CHANGES, readEvents, readGallery, makeImage, MIB, openUppyPage, openReactPage, retryInDashboard, rotateInDashboard, assertStored, uploadAdded, uploadChanged, readUsage, watchRequests } from "./uppy.js";

/** Makes Uppy upload every file in parts of 5 MiB. */
const inParts = (code) => code.replace(/shouldUseMultipart: .*/, "shouldUseMultipart: true, getChunkSize: () => 5 * 1024 * 1024,");

for (const mark of ["uppy-6", "uppy-6-signing", "uppy-5"]) {
  test(`${mark}: single files become images in the gallery`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    // Without the recipe's own confirm: the server confirms without a request of the page.
    const opened = await openUppyPage(t, context, mark, user, (code) => code.replace(/\n\/\/ For pages that show[\s\S]*$/, ""));
    const seen = watchRequests(opened);
    const files = [makeImage("one.png"), makeImage("two, with a comma & ümläut.png"), makeImage("three.png", 3 * MIB)];
    await addFiles(opened, files);
    assert.deepEqual(await uploadAdded(opened), { successful: 3, failed: [] });
    assert.equal(seen.filter((call) => call === "S3 POST").length, 3, `forms: ${seen}`);
    assert.ok(!seen.some((call) => call.includes("confirm")) && !seen.includes("credentials were sent"), String(seen));
    await waitUntil(async () => Object.keys(await readGallery(user)).length === 3, "three images, by the server alone");
    for (const file of files) await assertStored(user, file);
    const keys = (await readEvents(opened)).map((event) => event.key.split("/").pop());
    const ids = Object.values(await readGallery(user)).map((shown) => shown.id);
    assert.deepEqual(keys.sort(), ids.sort(), "the key ends in the image's id");
    assert.deepEqual(await readUsage(user), { bytes: files.reduce((sum, file) => sum + file.buffer.length, 0), quotaBytes: 10 * 1024 * MIB, images: 3, pending: 0 });
  });

  test(`${mark}: a file in parts becomes an image in the gallery`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openUppyPage(t, context, mark, user, inParts);
    const seen = watchRequests(opened);
    const file = makeImage("large.png", 11 * MIB);
    await addFiles(opened, [file]);
    assert.deepEqual(await uploadAdded(opened), { successful: 1, failed: [] });
    assert.deepEqual(seen.filter((call) => call.startsWith("S3 PUT")).sort(), ["S3 PUT part 1", "S3 PUT part 2", "S3 PUT part 3"]);
    await waitUntil(async () => (await readGallery(user))["large.png"], "the image");
    await assertStored(user, file);
    assert.equal((await readUsage(user)).bytes, file.buffer.length);
  });

  test(`${mark}: a retry after a lost connection sends the missing parts`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, /ERR_FAILED|ERR_INTERNET_DISCONNECTED|Failed to load resource/] });
    const user = await signUp();
    const opened = await openUppyPage(t, context, mark, user, inParts);
    const seen = watchRequests(opened);
    let lostPuts = 0;
    const isSecond = (url) => url.searchParams.get("partNumber") === "2" && url.searchParams.has("X-Amz-Signature");
    await opened.route(isSecond, (route) => { if (route.request().method() === "OPTIONS") return route.continue(); lostPuts += 1; return route.abort("failed"); });
    const file = makeImage("lost.png", 11 * MIB);
    await addFiles(opened, [file]);
    const first = await uploadAdded(opened);
    assert.equal(first.failed.length, 1, JSON.stringify(first));
    assert.ok(lostPuts >= 4, `${lostPuts} attempts`);
    await opened.unroute(isSecond);
    const before = seen.length;
    assert.deepEqual(await uploadAdded(opened, "retryAll"), { successful: 1, failed: [] });
    const again = seen.slice(before).filter((call) => call.startsWith("S3 PUT"));
    // Uppy 5 abandons a failed upload and starts again.
    assert.deepEqual(again.sort(), mark === "uppy-5" ? ["S3 PUT part 1", "S3 PUT part 2", "S3 PUT part 3"] : ["S3 PUT part 2", "S3 PUT part 3"]);
    await waitUntil(async () => (await readGallery(user))["lost.png"], "the image");
    await assertStored(user, file);
    await waitUntil(async () => (await readUsage(user)).pending === 0, "nothing is left open");
    const given = mark === "uppy-5" ? file.buffer.length : 0;
    assert.equal((await readUsage(user)).bytes, file.buffer.length + given, "an abandoned upload counts until its URLs expire");
  });
}

for (const mark of ["uppy-6", "uppy-6-signing", "uppy-5"]) {
  for (const [way, change] of [["as a form", (code) => code], ["in parts", inParts]]) {
    test(`${mark}: bytes that change after a file was added are uploaded: ${way}`, async (t) => {
      const [context, user] = [await openContext(t, {}), await signUp()];
      const opened = await openUppyPage(t, context, mark, user, change);
      const drawn = await drawPhotos(opened, Object.keys(CHANGES).length, { width: 400, height: 300, noise: 0.8 });
      const sent = await uploadChanged(opened, drawn);
      const sizes = async () => Object.fromEntries(Object.entries(await readGallery(user)).map(([name, { size }]) => [name, size]).sort());
      await waitUntil(async () => Object.keys(await sizes()).length === Object.keys(CHANGES).length, "the images");
      assert.deepEqual(await sizes(), sent);
      await waitUntil(async () => (await readUsage(user)).pending === 0, "nothing is left open");
      assert.equal((await readUsage(user)).bytes, Object.values(sent).reduce((sum, size) => sum + size), "no more is reserved than was sent");
    });
  }

  test(`${mark}: the React Dashboard of docs/uppy.md uploads an image rotated in its editor`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 403 /, /ERR_FAILED|Failed to load resource|unsafe header/] });
    const user = await signUp();
    const opened = await openReactPage(t, context, mark, user);
    const [photo] = await drawPhotos(opened, 1, { width: 1200, height: 800, noise: 0.8 });
    const edited = await rotateInDashboard(opened, photo);
    await opened.getByRole("button", { name: "Upload 1 file" }).click();
    const shown = await waitUntil(async () => (await readGallery(user))[photo.name], "the image");
    assert.ok(shown.height > shown.width, "the image is turned");
    const sent = await opened.evaluate(() => app.uppy.getFiles()[0].data.size);
    assert.equal(shown.size, sent);
    assert.ok(sent < edited, "and it was compressed on the way");
    await takeScreenshot(opened, `${mark}-react`);
    // After a refusal, the Dashboard's own button repeats the upload.
    const [second] = await drawPhotos(opened, 1, { width: 300, height: 200, from: 1 });
    let broken = true;
    await opened.route((url) => url.origin !== new URL(BASE).origin && url.port !== new URL(opened.url()).port, (route) => (broken ? route.fulfill({ status: 403 }) : route.continue()));
    await retryInDashboard(opened, second, () => { broken = false; });
    await waitUntil(async () => (await readGallery(user))[second.name], "the second image");
  });
}

test("uppy-5: after pause and resume it lists the parts and sends the others", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const opened = await openUppyPage(t, context, "uppy-5", user, (code) => inParts(code).replace("{ endpoint: API }", "{ endpoint: API, limit: 1 }"));
  const seen = watchRequests(opened);
  await opened.evaluate(() => app.uppy.once("s3-multipart:part-uploaded", () => { app.uppy.pauseAll(); globalThis.paused = true; }));
  const file = makeImage("paused.png", 11 * MIB);
  await addFiles(opened, [file]);
  const uploading = uploadAdded(opened);
  await opened.waitForFunction(() => globalThis.paused);
  await new Promise((done) => { setTimeout(done, 500); });
  assert.ok(!seen.some((call) => call.endsWith("/complete")), String(seen));
  await opened.evaluate(() => app.uppy.resumeAll());
  assert.deepEqual(await uploading, { successful: 1, failed: [] });
  assert.ok(seen.includes("GET /uppy/…/s3/multipart/ID"), String(seen));
  assert.equal(seen.filter((call) => call === "S3 PUT part 1").length, 1, String(seen));
  await assertStored(user, file);
});

test("uppy-6: an upload continues after a reload and with another session", async (t) => {
  const context = await openContext(t, { allowed: [/^\[Uppy\]/, /ERR_FAILED|Failed to load resource/] });
  const user = await signUp();
  const file = makeImage("reloaded.png", 11 * MIB);
  const opened = await openUppyPage(t, context, "uppy-6", user, inParts);
  const isThird = (url) => url.searchParams.get("partNumber") === "3";
  await opened.route(isThird, (route) => route.abort("failed"));
  await addFiles(opened, [file]);
  assert.equal((await uploadAdded(opened)).failed.length, 1);
  // The data that Golden Retriever stores for a file.
  const kept = await opened.evaluate(() => app.uppy.getFiles()[0].s3Multipart);
  assert.ok(kept.uploadId && kept.key, JSON.stringify(kept));
  await opened.close();
  const after = await openUppyPage(t, context, "uppy-6", user, inParts);
  const seen = watchRequests(after);
  await addFiles(after, [file]);
  await after.evaluate((kept) => app.uppy.setFileState(app.uppy.getFiles()[0].id, { s3Multipart: kept }), kept);
  assert.deepEqual(await uploadAdded(after), { successful: 1, failed: [] });
  assert.deepEqual(seen.filter((call) => call.startsWith("S3 ")), ["S3 PUT part 3"]);
  const shown = await assertStored(user, file);
  assert.equal(shown.id, kept.uploadId);
});

test("uppy-6: the recipe's confirm shows the image at once", async (t) => {
  const [context, user] = [await openContext(t, {}), await signUp()];
  const opened = await openUppyPage(t, context, "uppy-6", user);
  await addFiles(opened, [makeImage("now.png")]);
  assert.deepEqual(await uploadAdded(opened), { successful: 1, failed: [] });
  const shown = await opened.waitForFunction(() => app.uppy.getFiles()[0].image, undefined);
  assert.equal((await shown.jsonValue()).fileName, "now.png");
});

for (const mark of ["uppy-6", "uppy-5"]) {
  test(`${mark}: a cancelled upload is abandoned`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, /ERR_FAILED|ERR_ABORTED|Failed to load resource/] });
    const user = await signUp();
    const opened = await openUppyPage(t, context, mark, user, inParts);
    const seen = watchRequests(opened);
    let held;
    const reached = new Promise((done) => { held = done; });
    await opened.route((url) => url.searchParams.get("partNumber") === "2", () => held());
    await addFiles(opened, [makeImage("cancelled.png", 11 * MIB)]);
    const uploading = uploadAdded(opened).catch(() => {});
    await reached;
    assert.equal((await readUsage(user)).pending, 1);
    await opened.evaluate(() => app.uppy.cancelAll());
    await waitUntil(async () => (await readUsage(user)).pending === 0, "no upload is open");
    assert.equal((await readUsage(user)).bytes, 11 * MIB, "it counts until its URLs expire");
    assert.ok(seen.includes("DELETE /uppy/…/s3/multipart/ID"), String(seen));
    await Promise.race([uploading, new Promise((done) => { setTimeout(done, 1000); })]);
  });

  test(`${mark}: a refusal is shown to the user`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 4\d\d /] });
    const user = await signUp();
    // Without the restrictions, which prevent adding such a file.
    const opened = await openUppyPage(t, context, mark, user, (code) => code.replace(/ *uppy\.setOptions\({ restrictions.*\n/, ""));
    await addFiles(opened, [{ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") }]);
    const { failed } = await uploadAdded(opened);
    assert.equal(failed.length, 1);
    // Uppy 6 shows only the status text.
    assert.match(failed[0], mark === "uppy-5" ? /Media type not accepted: type must be one of/ : /Unprocessable/i);
    await opened.evaluate(() => { app.uppy.cancelAll(); });
    assert.equal((await readUsage(user)).pending, 0);
  });

  test(`${mark}: a file that is not an image is refused with a message`, async (t) => {
    const context = await openContext(t, { allowed: [/^\[Uppy\]/, / 4\d\d /] });
    const user = await signUp();
    const opened = await openUppyPage(t, context, mark, user, inParts);
    await addFiles(opened, [{ name: "fake.png", mimeType: "image/png", buffer: randomBytes(6 * MIB) }]);
    const { successful, failed } = await uploadAdded(opened);
    assert.deepEqual([successful, failed.length], [0, 1]);
    const { pending, images } = await readUsage(user);
    assert.deepEqual([pending, images], [0, 0]);
  });
}
