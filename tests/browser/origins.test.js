// Covers pages of other origins, a page without a secure context (as a phone opens it in the local network), and a page without
// workers.

import assert from "node:assert/strict";
import test from "node:test";
import { BASE, openContextWithFakeHosts, newEmail, PASSWORD, drawPhotos, reload, servePages, openSignedInPage, waitUntil, openContext } from "./harness.js";

/** Serves an empty page on another port, which is another origin. `valet dev` allows every port of localhost. */
async function serveOtherOrigin(t) {
  return servePages(t, (_, response) => response.setHeader("content-type", "text/html").end("<!doctype html><title>Elsewhere</title>"));
}

/** Runs in a page of another origin: makes every call from sign-up to the image, with the headers that CORS exposes. */
const uploadAsOtherOrigin = async ({ base, email, password, base64 }) => {
  const call = async (path, body, token) => {
    const response = await fetch(base + path, { method: "POST", body: body && JSON.stringify(body), headers: { ...(body && { "content-type": "application/json" }), ...(token && { authorization: `Bearer ${token}` }) } });
    return [response, await response.json()];
  };
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const sha256 = btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))));
  const [signedUp, { token }] = await call("/api/auth/signup", { email, password });
  const [, ticket] = await call("/api/images/upload", { fileName: "cors.jpg", contentType: "image/jpeg", size: bytes.length, sha256 }, token);
  const { url, method, headers } = ticket.upload;
  const put = await fetch(url, { method, headers, body: bytes });
  const [confirmed, image] = await call(`/api/images/${ticket.id}/confirm`, undefined, token);
  const read = new Uint8Array(await (await fetch(image.url)).arrayBuffer());
  return { requestId: signedUp.headers.get("x-request-id"), put: put.status, etag: put.headers.get("etag"), confirmed: confirmed.status, isSame: read.length === bytes.length && read.every((b, i) => b === bytes[i]) };
};

test("a page of an allowed origin can make every call", async (t) => {
  const port = await serveOtherOrigin(t);
  const context = await openContext(t, {});
  const page = await context.newPage();
  await page.goto(`http://localhost:${port}/`);
  const [photo] = await drawPhotos(page, 1);
  const upload = await page.evaluate(uploadAsOtherOrigin, { base: BASE, email: newEmail(), password: PASSWORD, base64: photo.buffer.toString("base64") });
  assert.ok(upload.requestId && upload.etag, JSON.stringify(upload));
  assert.deepEqual([upload.put, upload.confirmed, upload.isSame], [200, 200, true]);
});

test("a page of another origin can read no answer", async (t) => {
  const port = await serveOtherOrigin(t);
  const page = await (await openContextWithFakeHosts(t)).newPage();
  await page.goto(`http://stranger.test:${port}/`);
  const outcomes = await page.evaluate(async (base) => {
    const requests = [["GET", "/livez"], ["GET", "/api/auth/me"], ["POST", "/api/auth/login"]];
    return Promise.all(requests.map(([method, path]) => fetch(base + path, { method, headers: { "content-type": "application/json" } }).then(() => "read", () => "blocked")));
  }, BASE);
  assert.deepEqual(outcomes, Array(3).fill("blocked"));
});

test("uploads work without a secure context, that is, without crypto.subtle and locks", async (t) => {
  const context = await openContextWithFakeHosts(t, { viewport: { width: 1000, height: 700 } });
  const page = await context.newPage();
  const consoleErrors = [];
  page.on("console", (message) => { if (message.type() === "error") consoleErrors.push(message.text()); });
  page.on("pageerror", (error) => consoleErrors.push(error.stack));
  await page.goto(`http://valet.test:${new URL(BASE).port}/`);
  assert.deepEqual(await page.evaluate(() => [isSecureContext, typeof crypto.subtle, typeof navigator.locks]), [false, "undefined", "undefined"]);
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Email address").fill(newEmail());
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  await page.locator("#files").setInputFiles(await drawPhotos(page, 4));
  await page.getByRole("heading", { name: "4 images uploaded" }).waitFor();
  await reload(page);
  await waitUntil(async () => (await page.locator(".tile.loaded").count()) === 4, "the gallery after a reload");
  assert.deepEqual(consoleErrors, []);
});

test("the page does the work itself if no worker starts", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: [/worker\.js/, /Failed to load resource/, /Failed to fetch a worker script/] });
  await page.route("**/worker.js", (route) => route.fulfill({ status: 404 }));
  await page.locator("#files").setInputFiles(await drawPhotos(page, 2));
  await page.getByRole("heading", { name: "2 images uploaded" }).waitFor();
});
