// Covers deletions that wait for "Undo": they are sent before the session ends and before the page closes, or at once if they are too many.

import assert from "node:assert/strict";
import test from "node:test";
import { signUp, callApi, BASE, openPageWithList, LONG_UNDO, PASSWORD, drawPhotos, openSignedInPage, signIn, waitUntil, upload, openContext } from "./harness.js";

/** Returns the names of the user's images. Signs in again, because the page's session may have ended. */
async function gallery(user) {
  const body = JSON.stringify({ email: user.email, password: PASSWORD });
  const { token } = await (await fetch(`${BASE}/api/auth/login`, { method: "POST", headers: { "content-type": "application/json" }, body })).json();
  const { images } = await (await callApi("/api/images/gallery", { token })).json();
  return images.map(({ fileName }) => fileName).sort();
}

/** Deletes an image, which waits for "Undo". */
async function remove(page, name) {
  await page.getByRole("checkbox", { name: `Select ${name}` }).check({ force: true });
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Undo" }).waitFor();
}

/**
 * Selects all images and presses Delete. Accepts or dismisses the page's question, if it asks one. Returns the text of the question,
 * or null.
 */
async function removeAll(page, { isAccepted }) {
  let asked = null;
  page.once("dialog", (dialog) => {
    asked = dialog.message();
    return isAccepted ? dialog.accept() : dialog.dismiss();
  });
  await page.locator(".open").first().focus();
  await page.keyboard.press("Control+a");
  await page.waitForFunction(() => /^[\d,]+ images? selected/.test(document.querySelector("#selection-words").textContent));
  await page.keyboard.press("Delete");
  return asked;
}

/** Answers deletions in place of the server; returns the list of their ids, which grows. */
async function recordDeletions(page) {
  const ids = [];
  await page.route("**/api/images/delete", (route) => {
    const requested = route.request().postDataJSON().ids;
    ids.push(...requested);
    return route.fulfill({ json: { results: requested.map((id) => ({ id, status: 204 })) } });
  });
  return ids;
}

test("deletions that wait are sent before the session ends, in every tab", async (t) => {
  // The page gives its other tabs 300 ms, and 5 s for all deletions, which are not enough on a busy machine.
  const context = await openContext(t, { timers: { ...LONG_UNDO, 300: 10_000, 5000: 60_000 } });
  const [page, other, user] = [await context.newPage(), await context.newPage(), await signUp()];
  await signIn(page, user);
  await upload(page, await drawPhotos(page, 3));
  await other.goto("/");
  await other.locator(".tile.loaded").nth(2).waitFor();
  await remove(other, "photo-001.jpg");
  await remove(page, "photo-000.jpg");
  await page.locator(".menu summary").click();
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  for (const tab of [page, other]) await tab.locator("#sign-in").waitFor();
  assert.deepEqual(await gallery(user), ["photo-002.jpg"]);
});

test("a server that does not answer does not prevent signing out", async (t) => {
  const { page, user } = await openSignedInPage(t, {});
  await upload(page, await drawPhotos(page, 1));
  await page.route("**/api/images/delete", () => {});
  await remove(page, "photo-000.jpg");
  await page.locator(".menu summary").click();
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await page.locator("#sign-in").waitFor();
  assert.deepEqual(await gallery(user), ["photo-000.jpg"]);
});

test("more deletions than a closing page can send are sent at once, after a question", async (t) => {
  const { page } = await openPageWithList(t, 1700);
  const ids = await recordDeletions(page);
  assert.equal(await removeAll(page, { isAccepted: false }), "Delete 1,700 images? This cannot be undone.");
  await page.getByText(/^1,700 images selected/).waitFor();
  assert.deepEqual(ids, []);
  await removeAll(page, { isAccepted: true });
  await waitUntil(() => ids.length === 1700, "all are deleted, long before undo ends");
  assert.equal(new Set(ids).size, 1700);
  assert.equal(await page.getByRole("button", { name: "Undo" }).count(), 0);
});

test("if deletions together are too many for a closing page, the earlier ones are sent", async (t) => {
  const { page } = await openPageWithList(t, 1501, { timers: LONG_UNDO });
  const ids = await recordDeletions(page);
  await page.getByRole("checkbox", { name: "Select 0.jpg", exact: true }).check({ force: true });
  await page.keyboard.press("Delete");
  await page.getByText("1 image deleted").waitFor();
  assert.deepEqual(ids, []);
  assert.equal(await removeAll(page, { isAccepted: true }), null, "1,500 can be undone");
  await page.getByText("1,500 images deleted").waitFor();
  await waitUntil(() => ids.join() === "picture-0", "the earlier one is deleted");
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByText("1,500 images deleted").waitFor({ state: "detached" });
  assert.deepEqual(ids, ["picture-0"]);
});

test("deletions that wait or are under way when the page closes are sent", async (t) => {
  const { page, user } = await openSignedInPage(t, {});
  await upload(page, await drawPhotos(page, 3));
  let isHeld = false;
  await page.route("**/api/images/delete", (route) => {
    if (isHeld) return route.continue();
    isHeld = true;
    return undefined;
  });
  await remove(page, "photo-000.jpg");
  await waitUntil(() => isHeld, "undo ended, and the server does not answer");
  await remove(page, "photo-001.jpg");
  await page.goto("about:blank");
  await waitUntil(async () => (await gallery(user)).join() === "photo-002.jpg", "both images are deleted");
});
