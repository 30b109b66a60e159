// Covers interrupted uploads: broken PUTs, lost networks, closed pages, lost parts.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { waitForAnnouncement, callAtEnd, chooseFiles, drawPhotos, takeScreenshot, reload, openSignedInPage, findUploadListTitle, waitUntil, upload } from "./harness.js";
import { waitForParts } from "./uppy.js";

/** Returns whether a request is a PUT to the bucket. */
const isPut = (request) => request.method() === "PUT" && !request.url().includes("/api/");
/** Console errors of broken and refused requests. */
const BROKEN = [/Failed to load resource/, /ERR_/];

/** Writes a photo that is larger than 16 MiB, so that it is sent in parts, and returns its path: bytes after the end of a JPEG are legal. */
function largeFile(t, { name, buffer }, bytes = 17 << 20) {
  const folder = mkdtempSync(join(tmpdir(), "valet-long-"));
  callAtEnd(t, () => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, name), Buffer.concat([buffer, Buffer.alloc(bytes, "valet")]));
  return join(folder, name);
}

/** Calls `act(route, n)` for the nth PUT to the bucket. */
async function onPut(page, act) {
  let n = 0;
  await page.route((url) => url.searchParams.has("X-Amz-Signature"), (route) => (isPut(route.request()) ? act(route, (n += 1)) : route.fallback()));
}

test("progress is shown, and uploads can be paused and resumed", async (t) => {
  const { page, context } = await openSignedInPage(t, { allowed: BROKEN });
  const files = await drawPhotos(page, 2, { width: 1500, height: 1200, noise: 0.9 });
  const size = files.reduce((sum, file) => sum + file.buffer.length, 0);
  assert.ok(size > 2_000_000, `${size}`);
  const cdp = await context.newCDPSession(page);
  const slow = (upload) => cdp.send("Network.emulateNetworkConditions", { offline: false, latency: 5, downloadThroughput: -1, uploadThroughput: upload });
  // 2 MB take at least twenty seconds.
  await slow(100_000);
  await chooseFiles(page, files);
  const total = page.getByRole("progressbar", { name: "Progress of all uploads" });
  const seen = new Set();
  await waitUntil(async () => { seen.add(await total.evaluate((bar) => bar.position)); return [...seen].filter((part) => part > 0 && part < 1).length >= 4; }, "steps of the total");
  const own = page.getByRole("progressbar", { name: "Progress of photo-000.jpg" });
  await waitUntil(async () => (await own.evaluate((bar) => bar.position)) > 0.1, "progress of a file");
  await page.getByText(/ left$/).waitFor();
  await takeScreenshot(page, "uploading");
  await page.getByRole("button", { name: "Pause" }).click();
  await findUploadListTitle(page).filter({ hasText: /^Paused/ }).waitFor();
  await page.getByText("Paused", { exact: true }).first().waitFor();
  let puts = 0;
  page.on("request", (request) => { if (isPut(request)) puts += 1; });
  await page.waitForTimeout(400);
  assert.equal(puts, 0, "no PUT while paused");
  await slow(-1);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("heading", { name: "2 images uploaded" }).waitFor();
});

test("a broken PUT is repeated, a refused one renewed, and a lost answer recovered", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: BROKEN });
  const [file] = await drawPhotos(page, 1);
  const calls = [];
  page.on("request", (request) => calls.push(`${request.method()} ${new URL(request.url()).pathname.replace(/[0-9a-f-]{36}/g, "ID")}`));
  await onPut(page, async (route, n) => {
    if (n === 1) await route.abort("connectionreset");
    else if (n === 2) await route.fulfill({ status: 503 });
    else if (n === 3) await route.fulfill({ status: 403 });
    // It arrives, but its answer does not: the next one is a 412.
    else if (n === 4) { await route.fetch(); await route.abort("connectionreset"); }
    else await route.continue();
  });
  await upload(page, [file]);
  assert.equal(calls.filter((call) => call === "POST /api/images/ID/renew").length, 1, calls.join("\n"));
  assert.equal(calls.filter((call) => call.startsWith("PUT ")).length, 5);
  assert.equal(calls.filter((call) => call === "POST /api/images/ID/confirm").length, 1);
});

/** Refuses each PUT to the first URL. */
const refuseFirst = (route, urls) => (route.request().url() === urls[0] ? route.abort("failed") : route.continue());

// A store may send errors without CORS headers: then a page cannot distinguish a refusal from a lost connection.
for (const { label, inParts = false, answer } of [
  { label: "a URL that is refused for good", answer: refuseFirst },
  { label: "a URL that is refused for good, in parts", inParts: true, answer: refuseFirst },
  { label: "bytes that have arrived", answer: async (route, urls) => { if (urls.length === 1) await route.fetch(); await route.abort("failed"); } },
]) {
  test(`an unreadable answer is retried: ${label}`, async (t) => {
    const { page } = await openSignedInPage(t, { allowed: BROKEN });
    const [file] = await drawPhotos(page, 1);
    const urls = [];
    await onPut(page, (route) => { urls.push(route.request().url()); return answer(route, urls); });
    await upload(page, [inParts ? largeFile(t, file) : file]);
    // Four tries, and a part that was being sent when the first one was refused may be sent once more.
    assert.ok(urls.length <= (inParts ? 6 : 4), `${urls.length} requests`);
  });
}

test("a URL that reports its own expiry is not used again, whatever this device's clock", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: BROKEN });
  const [file] = await drawPhotos(page, 1);
  await page.clock.install({ time: "2031-01-01T00:00:00Z" });
  await page.clock.resume();
  const urls = [];
  await page.route("**/api/images/upload", async (route) => {
    const response = await route.fetch();
    const ticket = await response.json();
    if (!urls.length) ticket.upload.expiresIn = 0;
    await route.fulfill({ response, json: ticket });
  });
  await onPut(page, (route, n) => { urls.push(route.request().url()); return n === 1 ? route.abort("failed") : route.continue(); });
  await upload(page, [file]);
  assert.equal(urls.length, 2);
});

test("a blocked store with a reachable server is reported, and retries end", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: BROKEN });
  const files = await drawPhotos(page, 2);
  // Shortens the pauses between attempts.
  await page.evaluate(() => { const later = window.setTimeout; window.setTimeout = (work, ms, ...rest) => later(work, ms / 50, ...rest); });
  let puts = 0;
  await onPut(page, (route) => { puts += 1; return route.abort("failed"); });
  await chooseFiles(page, files[0]);
  await chooseFiles(page, largeFile(t, files[1]));
  await page.getByRole("heading", { name: "2 uploads failed" }).waitFor();
  assert.equal(await page.getByText("The storage cannot be reached from this browser.").count(), 2);
  // Each file and part is tried several times, but not without end.
  assert.ok(puts <= 35, `${puts} requests`);
});

test("an existing file is reported as such, and a deleted one can be uploaded again", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: [/ 412 /] });
  const [one, two, three] = await drawPhotos(page, 3);
  const line = (name) => page.getByRole("listitem").filter({ hasText: name });
  // Twice at the same time, under two names.
  await chooseFiles(page, [one, { ...one, name: "copy.jpg" }]);
  await page.getByRole("heading", { name: "1 image uploaded, 1 already in your gallery" }).waitFor();
  assert.equal(await page.getByText("Already in your gallery", { exact: true }).count(), 1);
  await page.getByRole("button", { name: "Clear" }).click();
  await chooseFiles(page, one);
  await page.getByRole("heading", { name: /^1 image already in your gallery$/ }).waitFor();
  await waitForAnnouncement(page, /1 image already in your gallery/);
  await chooseFiles(page, [two, three]);
  await page.getByRole("heading", { name: "2 images uploaded, 1 already in your gallery" }).waitFor();
  assert.equal(await page.locator(".tile").count(), 3);
  await page.getByRole("button", { name: "List of uploads" }).click();
  assert.ok(await line("photo-001.jpg").getByText("Uploaded").isVisible());
  // In parts, too.
  await page.getByRole("button", { name: "Clear" }).click();
  const big = largeFile(t, (await drawPhotos(page, 1, { from: 7 }))[0]);
  await upload(page, [big]);
  await page.getByRole("button", { name: "Clear" }).click();
  await chooseFiles(page, big);
  await page.getByRole("heading", { name: /^1 image already in your gallery$/ }).waitFor();
  assert.equal(await page.locator(".tile").count(), 4);
  // Deleted, and uploaded again while the delete can still be undone.
  await page.getByRole("button", { name: "Clear" }).click();
  const name = await page.locator(".tile img").nth(1).getAttribute("alt");
  await page.getByRole("checkbox").nth(1).check({ force: true });
  await page.getByRole("button", { name: "Delete" }).click();
  await waitUntil(async () => (await page.locator(".tile").count()) === 3, "three tiles");
  await chooseFiles(page, [one, two, three].find((file) => file.name === name));
  await waitUntil(async () => (await page.locator(".tile").count()) === 4, "four tiles");
  await waitUntil(async () => !(await page.getByText("1 image deleted").isVisible()), "nothing is left to undo");
  await reload(page);
  await waitUntil(async () => (await page.locator(".tile").count()) === 4, "four tiles, also on the server");
});

test("a failed upload shows the reason and can be retried", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: BROKEN });
  const files = await drawPhotos(page, 2);
  let broken = true;
  await onPut(page, (route) => (broken ? route.fulfill({ status: 403 }) : route.continue()));
  await chooseFiles(page, files);
  await page.getByRole("heading", { name: "2 uploads failed" }).waitFor();
  await page.getByText("The storage refused the file.").first().waitFor();
  await takeScreenshot(page, "failed");
  broken = false;
  await page.getByRole("button", { name: "Try photo-000.jpg again" }).click();
  await page.getByRole("heading", { name: "1 upload failed" }).waitFor();
  const discarded = page.waitForResponse((response) => response.request().method() === "DELETE");
  await page.getByRole("button", { name: "Discard photo-001.jpg" }).click();
  await page.getByRole("heading", { name: "1 image uploaded" }).waitFor();
  await waitUntil(async () => (await page.locator(".tile").count()) === 1, "one tile");
  // A discarded upload is not left open on the server, once its DELETE has been answered.
  await discarded;
  await reload(page);
  await page.locator(".tile").first().waitFor();
  await page.waitForTimeout(500);
  assert.equal(await page.locator("#upload-list").isVisible(), false);
});

test("uploads continue after a reload", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: BROKEN });
  const files = await drawPhotos(page, 5);
  let held = 0;
  await onPut(page, async (route, n) => { if (n <= 2) await route.continue(); else held += 1; });
  await chooseFiles(page, files);
  await waitUntil(() => held >= 3, "uploads under way");
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await reload(page);
  await waitUntil(async () => (await page.locator(".tile").count()) === 5, "all five, without choosing them again");
  await waitUntil(async () => (await page.evaluate(() => new Promise((done) => {
    const open = indexedDB.open("valet", 1);
    open.onsuccess = () => { open.result.transaction("files").objectStore("files").count().onsuccess = (event) => done(event.target.result); };
  }))) === 0, "nothing is kept longer than it is needed");
});

test("uploads wait while offline and continue online", async (t) => {
  const { page, context } = await openSignedInPage(t, { allowed: BROKEN });
  const files = await drawPhotos(page, 3);
  await context.setOffline(true);
  await chooseFiles(page, files);
  await findUploadListTitle(page).filter({ hasText: "Offline" }).waitFor();
  await page.getByText("Waiting for the network").first().waitFor();
  await takeScreenshot(page, "offline");
  await page.waitForTimeout(1500);
  await context.setOffline(false);
  await page.getByRole("heading", { name: "3 images uploaded" }).waitFor();
});

test("a large file is sent in parts; a lost part is sent again, and a reload keeps the others", async (t) => {
  const { page, user } = await openSignedInPage(t, { allowed: BROKEN });
  const [small] = await drawPhotos(page, 1);
  const big = largeFile(t, small, 26 << 20);
  const parts = [];
  let lost;
  const lose = async (route, n) => {
    const number = new URL(route.request().url()).searchParams.get("partNumber");
    if (number === lost) return; // Never answered: the page is reloaded while it is pending.
    parts.push(number);
    if (n === 2) {
      lost = number;
      await route.abort("connectionreset");
    } else await route.continue();
  };
  await onPut(page, lose);
  await chooseFiles(page, big);
  await waitUntil(() => parts.length >= 4, "four parts on their way");
  await waitUntil(async () => (await page.locator("#total").evaluate((bar) => bar.position)) > 0.65, "parts that arrived");
  await waitForParts(user, 3);
  page.on("dialog", (dialog) => dialog.accept());
  await reload(page);
  await page.getByText("Unfinished. Choose the file again").waitFor();
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await takeScreenshot(page, "unfinished");
  const again = [];
  await onPut(page, async (route) => { again.push(new URL(route.request().url()).searchParams.get("partNumber")); await route.continue(); });
  await chooseFiles(page, big);
  await page.getByRole("heading", { name: "1 image uploaded" }).waitFor();
  assert.deepEqual(parts.toSorted(), ["1", "2", "3", "4"]);
  assert.deepEqual(again, [lost], "the part that was lost, and no other");
  await waitUntil(async () => (await page.locator(".tile.loaded").count()) === 1, "its tile");
});
