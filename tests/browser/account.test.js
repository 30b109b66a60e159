// Covers the account dialog: sessions, password, and deletion of the account.

import assert from "node:assert/strict";
import test from "node:test";
import { BASE, PASSWORD, findLoadedTiles, drawPhotos, takeScreenshot, openSignedInPage, waitUntil, upload } from "./harness.js";

/** Console errors of refused requests. */
const REFUSED = [/ 401 /, / 422 /];
const NEW_PASSWORD = "five slow green lamps";

/** Signs in on a device with this user agent; returns the status and the members of the response. */
const logIn = async (email, password, agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") => {
  const headers = { "content-type": "application/json", "user-agent": agent };
  const answer = await fetch(`${BASE}/api/auth/login`, { method: "POST", headers, body: JSON.stringify({ email, password }) });
  return { status: answer.status, ...(await answer.json()) };
};
/** Requests the account with a token; returns the response. */
const readAccount = (token) => fetch(`${BASE}/api/auth/me`, { headers: { authorization: `Bearer ${token}` } });

/** Opens the account dialog. */
async function open(page) {
  await page.locator("summary").click();
  await page.getByRole("button", { name: "Account and devices" }).click();
  return page.getByRole("dialog", { name: "Account" });
}

test("a lost device can be signed out", async (t) => {
  const { page, user } = await openSignedInPage(t, {});
  const lost = await logIn(user.email, PASSWORD);
  const phone = await logIn(user.email, PASSWORD, "Gallery/3.1 (iPhone)");
  const dialog = await open(page);
  // The sign-up created a session, too.
  await waitUntil(async () => (await dialog.getByRole("listitem").count()) === 4, "four sessions");
  assert.equal(await dialog.getByText("This device").count(), 1);
  await takeScreenshot(page, "account");
  await dialog.getByRole("button", { name: "Sign out Firefox on Linux" }).click();
  await waitUntil(async () => (await dialog.getByRole("listitem").count()) === 3, "three sessions");
  assert.equal((await readAccount(lost.token)).status, 401);
  assert.equal((await readAccount(phone.token)).status, 200);
  await dialog.getByText("Gallery/3.1 (iPhone)").waitFor();

  await dialog.getByRole("button", { name: "Sign out everywhere else" }).click();
  await waitUntil(async () => (await dialog.getByRole("listitem").count()) === 1, "this session alone");
  assert.equal((await readAccount(phone.token)).status, 401);
  assert.equal(await dialog.getByRole("button", { name: "Sign out everywhere else" }).isVisible(), false);
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
});

test("a password change shows errors at their fields", async (t) => {
  const { page, user } = await openSignedInPage(t, { allowed: REFUSED });
  const other = await logIn(user.email, PASSWORD);
  const dialog = await open(page);
  const [current, fresh] = [dialog.getByLabel("Current password"), dialog.getByLabel("New password")];
  const change = dialog.getByRole("button", { name: "Change the password" });
  await change.click();
  await dialog.getByText("Enter your password.").waitFor();
  await current.fill("another three boats");
  await fresh.fill(NEW_PASSWORD);
  let refreshes = 0;
  page.on("request", (request) => { refreshes += request.url().endsWith("/api/auth/refresh"); });
  await change.click();
  await dialog.getByText("The password is wrong.").waitFor();
  assert.equal(await current.getAttribute("aria-invalid"), "true");
  assert.equal(refreshes, 0, "a wrong password makes the page refresh no token");
  await current.fill(PASSWORD);
  await fresh.fill("short");
  await change.click();
  await waitUntil(async () => (await fresh.getAttribute("aria-invalid")) === "true", "the new password is the invalid field");
  await fresh.fill(NEW_PASSWORD);
  await change.click();
  await page.getByText("The password is changed.").waitFor();
  assert.equal(await dialog.isVisible(), false);
  assert.equal((await readAccount(other.token)).status, 401, "all other sessions have ended");
  assert.equal((await logIn(user.email, PASSWORD)).status, 401);
  assert.equal((await logIn(user.email, NEW_PASSWORD)).status, 200);
  // This session stays active.
  await upload(page, await drawPhotos(page, 1));
});

test("deleting the account requires only the password", async (t) => {
  const { page, context, user } = await openSignedInPage(t, { allowed: REFUSED });
  await upload(page, await drawPhotos(page, 2));
  const other = await context.newPage();
  await other.goto("/");
  await waitUntil(async () => (await findLoadedTiles(other).count()) === 2, "the other tab's gallery");
  const dialog = await open(page);
  const [password, remove] = [dialog.locator("#delete-password"), dialog.getByRole("button", { name: "Delete the account" })];
  await password.fill("another three boats");
  await remove.click();
  await dialog.getByText("The password is wrong.").waitFor();
  assert.equal((await logIn(user.email, PASSWORD)).status, 200);
  await password.fill(PASSWORD);
  await remove.click();
  for (const tab of [page, other]) await tab.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.getByText("The account and its images are deleted.").waitFor();
  assert.equal((await logIn(user.email, PASSWORD)).status, 401);
});
