// Covers one session in many tabs (one refresh and one sign-out for all, shared changes), and a session that is ended elsewhere.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { BASE, chooseFiles, PASSWORD, drawPhotos, reload, openSignedInPage, waitUntil, upload } from "./harness.js";

/** Console errors of refused requests. */
const REFUSED = [/ 401 /];

/** Replaces the token of the page's next gallery request by an invalid one. */
const spoilToken = (page) => page.route("**/api/images/gallery*", (route) => route.continue({ headers: { ...route.request().headers(), authorization: "Bearer spoilt" } }), { times: 1 });
/** Returns the list of requests to a path, which grows. */
const requestsTo = (context, path) => {
  const seen = [];
  context.on("request", (request) => { if (new URL(request.url()).pathname === path) seen.push(request); });
  return seen;
};

test("a refused token is refreshed without a message", async (t) => {
  const { page, context } = await openSignedInPage(t, { allowed: REFUSED });
  await upload(page, await drawPhotos(page, 2));
  const refreshes = requestsTo(context, "/api/auth/refresh");
  await spoilToken(page);
  await reload(page); // Causes another refresh, because a loaded page has no access token.
  await waitUntil(async () => (await page.locator(".tile.loaded").count()) === 2, "the gallery");
  assert.equal(refreshes.length, 2);
  assert.equal(await page.locator("#sign-in").isVisible(), false);
});

test("two tabs whose token ends at once refresh once, and sign out together", async (t) => {
  const { page, context, user } = await openSignedInPage(t, { allowed: REFUSED });
  await upload(page, await drawPhotos(page, 1));
  const other = await context.newPage();
  await other.goto("/");
  await other.locator(".tile.loaded").waitFor();
  // The second tab refreshes when it opens, and sends the new session to the first one.
  const known = (tab) => tab.evaluate(async () => (await import(document.querySelector("link[href$='session.js']").href)).session.tokenNow);
  await waitUntil(async () => (await known(page)) === (await known(other)), "the second tab's refresh reached the first");
  const refreshes = requestsTo(context, "/api/auth/refresh");
  // Both tabs report a refused token at the same moment, to the module that the page itself uses.
  const token = (tab) => tab.evaluate(async () => {
    const { session } = await import(document.querySelector("link[href$='session.js']").href);
    const stale = session.tokenNow;
    return [stale, await session.token(stale)];
  });
  const [[staleA, freshA], [staleB, freshB]] = await Promise.all([token(page), token(other)]);
  assert.equal(staleA, staleB);
  assert.equal(refreshes.length, 1, "one refresh for both");
  assert.equal(freshA, freshB);
  assert.notEqual(freshA, staleA);

  await page.locator("summary").click();
  await page.getByRole("button", { name: "Sign out" }).click();
  for (const tab of [page, other]) await tab.getByRole("heading", { name: "Sign in" }).waitFor();
  const readAccount = () => fetch(`${BASE}/api/auth/me`, { headers: { authorization: `Bearer ${freshA}` } });
  await waitUntil(async () => (await readAccount()).status === 401, "the server knows too");

  await other.getByLabel("Email address").fill(user.email);
  await other.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await other.getByRole("button", { name: "Sign in" }).click();
  for (const tab of [page, other]) await tab.locator(".tile.loaded").waitFor();
});

test("five tabs that open at the same time are all signed in", async (t) => {
  const { page, context } = await openSignedInPage(t, {});
  await upload(page, await drawPhotos(page, 1));
  const tabs = await Promise.all(Array.from({ length: 5 }, () => context.newPage()));
  const refreshes = requestsTo(context, "/api/auth/refresh");
  await Promise.all(tabs.map((tab) => tab.goto("/")));
  await Promise.all(tabs.map((tab) => tab.locator(".tile.loaded").waitFor()));
  console.log(`five tabs: ${refreshes.length} refreshes`);
  assert.ok(refreshes.length <= 5, `${refreshes.length}`);
});

test("changes by another tab or device appear without a reload", async (t) => {
  const { page, context, user } = await openSignedInPage(t, {});
  const files = await drawPhotos(page, 5);
  await upload(page, files.slice(0, 2));
  const other = await context.newPage();
  await other.goto("/");
  const names = (tab) => tab.locator(".tile img").evaluateAll((all) => all.map((image) => image.alt));
  await waitUntil(async () => (await names(other)).length === 2, "two images");
  // Another tab reports its changes.
  await chooseFiles(page, files[2]);
  await waitUntil(async () => (await names(other)).sort().join() === (await names(page)).sort().join() && (await names(other)).length === 3, "uploaded there, shown here");
  await page.locator(".open").first().press("Enter");
  await page.getByLabel("Caption").fill("Said there");
  await page.keyboard.press("Enter");
  await other.getByRole("button", { name: "Said there" }).waitFor();
  await page.keyboard.press("Escape");
  // Another device does not: the tab reloads the list when it becomes visible again.
  const call = async (method, path, body) => {
    const headers = { authorization: `Bearer ${user.token}`, "content-type": "application/json" };
    const answer = await fetch(`${BASE}${path}`, { method, headers, body: body && JSON.stringify(body) });
    return answer.status === 204 ? undefined : answer.json();
  };
  const buffer = files[3].buffer;
  const sha256 = createHash("sha256").update(buffer).digest("base64");
  const ticket = await call("POST", "/api/images/upload", { fileName: "device.jpg", contentType: "image/jpeg", size: buffer.length, sha256 });
  assert.equal((await fetch(ticket.upload.url, { method: "PUT", headers: ticket.upload.headers, body: buffer })).status, 200);
  const added = await call("POST", `/api/images/${ticket.id}/confirm`);
  const { images } = await call("GET", "/api/images/gallery");
  await call("PATCH", `/api/images/${images[1].id}`, { caption: "Said elsewhere" });
  await call("DELETE", `/api/images/${images[2].id}`);
  for (const [tab, event] of [[page, "focus"], [other, "visibilitychange"]]) {
    await tab.evaluate((event) => (event === "focus" ? window : document).dispatchEvent(new Event(event)), event);
    await waitUntil(async () => (await names(tab)).join() === [added.fileName, "Said elsewhere", images[3].fileName].join(), `${event}: ${await names(tab)}`);
  }
  // An image that is deleted in one tab disappears in the other when "Undo" has expired.
  await page.getByRole("checkbox", { name: "Select device.jpg" }).check({ force: true });
  await page.getByRole("button", { name: "Delete" }).click();
  await waitUntil(async () => (await names(page)).length === 2, "two images in this tab");
  await waitUntil(async () => (await names(other)).length === 2, "two images in the other tab");
});

test("a session that was ended elsewhere ends here with a message", async (t) => {
  const { page, user } = await openSignedInPage(t, { allowed: [...REFUSED, / 503 /] });
  // Without another event stream, which would find the end first.
  await page.route("**/api/events", (route) => route.fulfill({ status: 503 }));
  const here = (await (await fetch(`${BASE}/api/auth/login`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ email: user.email, password: PASSWORD }),
  })).json()).token;
  const call = (method, path) => fetch(`${BASE}${path}`, { method, headers: { authorization: `Bearer ${here}` } });
  const { sessions } = await (await call("GET", "/api/auth/sessions")).json();
  // The file is chosen before the session ends: any other call of the page may find the end before the upload does.
  const held = new Promise((hold) => { page.route("**/api/images/upload", hold, { times: 1 }); });
  const [file] = await drawPhotos(page, 1);
  await page.locator("#files").setInputFiles(file);
  const opening = await held;
  for (const session of sessions.filter((session) => !session.current)) await call("DELETE", `/api/auth/sessions/${session.id}`);
  await opening.continue();
  await page.getByText("Your session has ended.").waitFor();
  await page.getByLabel("Email address").fill(user.email);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".tile.loaded").waitFor();
});
