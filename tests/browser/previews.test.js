// Covers previews: the grid shows previews that the page makes instead of the files, and works if none can be made.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chooseFiles, drawPhotos, takeScreenshot, reload, openSignedInPage, waitUntil, upload } from "./harness.js";

test("a large photo is shown by its preview, and before that by its ThumbHash", async (t) => {
  const { page } = await openSignedInPage(t, {});
  const [photo] = await drawPhotos(page, 1, { width: 2400, height: 1800, noise: 0.6 });
  await upload(page, [photo]);
  let image;
  page.on("response", async (response) => { if (response.url().includes("/api/images/gallery")) [image] = (await response.json()).images; });
  // The preview is held back, so that the placeholder is visible.
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route((url) => url.searchParams.has("X-Amz-Signature"), async (route) => { await released; await route.continue(); });
  await reload(page);
  const canvas = page.locator(".tile canvas");
  await canvas.waitFor();
  assert.ok((await canvas.evaluate((c) => c.getContext("2d").getImageData(0, 0, 1, 1).data[3])) === 255);
  assert.equal(await page.locator(".tile.loaded").count(), 0);
  release();
  await page.locator(".tile.loaded").waitFor();
  const shown = page.locator(".tile img");
  assert.equal(await shown.getAttribute("src"), image.previewUrl);
  assert.ok(image.thumbHash.length <= 44);
  const preview = Buffer.from(await (await fetch(image.previewUrl)).arrayBuffer());
  console.log(`a photo of ${photo.buffer.length} bytes has a preview of ${preview.length}`);
  assert.ok(preview.length <= 256 * 1024 && preview.length < photo.buffer.length / 3);
  assert.deepEqual(Buffer.from(await (await fetch(image.url)).arrayBuffer()), photo.buffer, "the photo itself, byte for byte");
  assert.ok(await shown.evaluate((img) => img.naturalHeight >= 480), "sharp at the size it is shown");
  // The large view shows the preview at once, and then the photo.
  await page.locator(".open").click();
  assert.equal(await page.locator(".frame .under").getAttribute("src"), image.previewUrl);
  await page.locator(".frame.loaded").waitFor();
});

test("every accepted format is uploaded, even if this browser cannot draw it", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: [/Failed to load resource/] });
  const fixtures = process.env.VALET_FIXTURES;
  const names = ["orientation-6.jpg", "alpha.webp", "animated.gif", "plain.avif", "plain.png", "iphone.heic"];
  await chooseFiles(page, names.map((name) => ({ name, mimeType: "", buffer: readFileSync(`${fixtures}/${name}`) })));
  await page.getByRole("heading", { name: "6 images uploaded" }).waitFor();
  await reload(page);
  await waitUntil(async () => (await page.locator(".tile.loaded").count()) === 5, "five that are drawn");
  await page.locator(".tile.undrawable").filter({ hasText: "HEIC" }).waitFor();
  await takeScreenshot(page, "formats");
  const shape = (name) => page.locator(".tile", { has: page.getByAltText(name) }).evaluate((tile) => tile.clientWidth / tile.clientHeight);
  assert.ok(Math.abs((await shape("orientation-6.jpg")) - 80 / 120) < 0.02, "upright");
  await page.getByRole("button", { name: "iphone.heic" }).click();
  await page.getByText("This browser cannot show HEIC files.").waitFor();
});
