// Covers the pictures that a worker makes: the page shows them as soon as they are made, and does not load the file. `.ci/browser`
// runs these tests with a second server; the server of the other tests has no worker, because its pictures would change URLs at any time.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader } from "../../../clients/js/src/index.js";
import { signUp, callApi, BASE, findLoadedTiles, drawPhotos, reload, signIn, waitUntil, openContext } from "../harness.js";

/** Uploads a photo by a client that makes no preview, because Node has no canvas. Returns the image's id. */
async function uploadWithoutPreview(page, user) {
  // Little larger than the largest picture: a debug build that decodes more reaches the worker's limit of processor time.
  const [photo] = await drawPhotos(page, 1, { width: 1700, height: 1275, noise: 0.6 });
  const [item] = createUploader({ api: BASE, token: user.token }).add(new File([photo.buffer], photo.name, { type: photo.mimeType }));
  return (await item.finished).id;
}

/** Waits until the worker has made the image's pictures, and returns the image. */
const waitForPictures = (user, id) => waitUntil(async () => {
  const answer = await callApi(`/api/images/${id}`, user);
  const image = await answer.json();
  return image.previews?.length === 2 && image;
}, "the pictures");

const urls = (image) => image.previews.map(({ url }) => url);
/** Returns the URL that the only tile displays. */
const findDisplayedUrl = (page) => page.locator(".tile img").evaluate((img) => img.currentSrc);

test("an image without a preview of its client is shown by the pictures of the worker", async (t) => {
  const user = await signUp();
  const page = await (await openContext(t, {})).newPage();
  await signIn(page, user);
  const image = await waitForPictures(user, await uploadWithoutPreview(page, user));
  assert.deepEqual(image.previews.map(({ width, height }) => Math.max(width, height)), [640, 1600]);
  const requested = [];
  page.on("request", (request) => requested.push(request.url()));
  await reload(page);
  await findLoadedTiles(page).waitFor();
  assert.ok(urls(image).includes(await findDisplayedUrl(page)));
  assert.ok(!requested.includes(image.url), "the file is not loaded");
});

test("a file that the browser cannot display is shown as soon as the worker has made its pictures", async (t) => {
  const user = await signUp();
  const context = await openContext(t, { allowed: [/Failed to load resource/] });
  const page = await context.newPage();
  await signIn(page, user);
  // Responses about the image have no pictures until the tile shows that the browser cannot display the file.
  let isHidden = true;
  const hidePictures = async (route) => {
    const answer = await route.fetch();
    const text = await answer.text();
    return route.fulfill({ response: answer, body: isHidden ? text.replaceAll('"previews":', '"later":').replaceAll('"previewUrl":', '"laterUrl":') : text });
  };
  await page.route("**/api/images/read", hidePictures);
  await page.route("**/api/images/gallery*", hidePictures);
  // The keys of pictures end in -w640 and -w1600.
  await page.route((url) => url.searchParams.has("X-Amz-Signature") && !url.pathname.includes("-w"), (route) => route.fulfill({ status: 200, contentType: "image/heic", body: "x" }));
  const id = await uploadWithoutPreview(page, user);
  const image = await waitForPictures(user, id);
  await page.locator(".tile.undrawable").waitFor();
  isHidden = false;
  const answer = await callApi(`/api/images/${id}`, user, { method: "PATCH", body: { caption: "The harbour" } });
  assert.ok(answer.ok);
  await page.locator(".tile.loaded:not(.undrawable)").waitFor();
  assert.ok(urls(image).includes(await findDisplayedUrl(page)));
  await page.locator(".open").click();
  await page.locator(".frame.loaded").waitFor();
  assert.equal(await page.locator(".frame img:not(.under)").evaluate((img) => img.currentSrc), urls(image).at(-1));
});
