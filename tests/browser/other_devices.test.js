// Covers changes by other devices: the page shows images that they upload, describe and delete, also after the event stream was
// lost.

import assert from "node:assert/strict";
import test from "node:test";
import { signUp, callApi, BASE, chooseFiles, findLoadedTiles, drawPhotos, signIn, waitUntil, upload, openContext } from "./harness.js";

/** Signs in on another device; resolves when its event stream is open. */
async function device(t, user, options) {
  const context = await openContext(t, options);
  const page = await context.newPage();
  const opened = page.waitForResponse((response) => response.url() === `${BASE}/api/events`);
  await signIn(page, user);
  await opened;
  return { context, page };
}

/** Returns the user's images. */
const gallery = async (user) => {
  const answer = await callApi("/api/images/gallery", user);
  return (await answer.json()).images;
};

/** Changes or deletes an image as another client of the user does. */
async function call(user, method, id, body) {
  const headers = { authorization: `Bearer ${user.token}`, ...(body && { "content-type": "application/json" }) };
  const answer = await fetch(`${BASE}/api/images/${id}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method}: ${answer.status}`);
}

test("images that another device uploads, describes and deletes are shown", async (t) => {
  const user = await signUp();
  const [{ page }, { page: phone }] = [await device(t, user), await device(t, user)];
  await upload(phone, await drawPhotos(phone, 2));
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 2, "both images");
  const [{ id }] = await gallery(user);
  await call(user, "PATCH", id, { caption: "The harbour" });
  await waitUntil(async () => (await page.getByAltText("The harbour").count()) === 1, "the caption");
  await call(user, "DELETE", id);
  await waitUntil(async () => (await page.locator(".tile").count()) === 1, "one image less");
  await waitUntil(async () => (await phone.locator(".tile").count()) === 1, "on the phone, too");
  // An upload of the page itself is shown once, although the stream reports it too.
  await chooseFiles(page, await drawPhotos(page, 1, { from: 7 }));
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 2 && (await findLoadedTiles(phone).count()) === 2, "both devices show both images");
  assert.equal(await page.locator(".tile").count(), 2);
});

test("changes are shown after the stream was lost, and a server without streams does no harm", async (t) => {
  const user = await signUp();
  const allowed = [/api\/events/, /ERR_FAILED/];
  const { page, context } = await device(t, user, { allowed });
  const { page: phone } = await device(t, user);
  await context.route("**/api/events", (route) => route.fulfill({ status: 404, contentType: "application/problem+json", body: '{"code":"not_found","status":404}' }));
  await page.reload();
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  // The page refreshes the gallery shortly after it is shown, which may be after the upload.
  let isBefore = true;
  await page.route("**/api/images/gallery*", (route) => (isBefore ? route.fulfill({ json: { images: [] } }) : route.fallback()));
  await upload(phone, await drawPhotos(phone, 1));
  assert.equal(await page.locator(".tile").count(), 0, "no stream announces the image");
  isBefore = false;
  await page.evaluate(() => dispatchEvent(new Event("focus")));
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 1, "the image, after a return to the page");
});
