// Covers browsers that deny storage, wholly or in part: the page works, and shows a notice about the data that it cannot store.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { chromium } from "playwright-core";
import { waitForAnnouncement, callAtEnd, BASE, chooseFiles, newEmail, LAUNCH, PASSWORD, drawPhotos, takeScreenshot, readAccessibilityTree, waitUntil, openContext } from "./harness.js";

const SESSION = "You stay signed in only in this tab, until it is closed or reloaded.";
const UPLOADS = "Unfinished uploads do not continue by themselves after a reload: their files have to be chosen again.";

/** Ways to deny storage: the notices that the page then shows, and a function that runs in the page before its own scripts. */
const DENIALS = {
  "localStorage and sessionStorage throw": [[SESSION], () => {
    for (const area of ["localStorage", "sessionStorage"]) {
      Object.defineProperty(window, area, { get() { throw new DOMException("Access is denied for this document.", "SecurityError"); } });
    }
  }],
  "no room is left in them": [[SESSION], () => {
    Storage.prototype.setItem = () => { throw new DOMException("The quota has been exceeded.", "QuotaExceededError"); };
  }],
  "they are null": [[SESSION], () => {
    for (const area of ["localStorage", "sessionStorage"]) Object.defineProperty(window, area, { get: () => null });
  }],
  "IndexedDB throws": [[UPLOADS], () => {
    Object.defineProperty(window, "indexedDB", { get() { throw new DOMException("Denied.", "SecurityError"); } });
  }],
  "IndexedDB fails, there are no locks and no channel": [[UPLOADS], () => {
    IDBFactory.prototype.open = () => {
      const request = Object.assign(new EventTarget(), { error: new DOMException("Denied.", "InvalidStateError") });
      setTimeout(() => request.onerror?.(new Event("error")));
      return request;
    };
    if (globalThis.LockManager) LockManager.prototype.request = LockManager.prototype.query = () => Promise.reject(new DOMException("Denied.", "SecurityError"));
    window.BroadcastChannel = class { constructor() { throw new DOMException("Denied.", "SecurityError"); } };
  }],
  "no worker may start": [[], () => {
    window.Worker = class { constructor() { throw new DOMException("Denied.", "SecurityError"); } };
  }],
};

/** Asserts that the page works: signs up, uploads, views and signs out. `notStored` are the expected notices. */
async function assertWorks(page, notStored, label) {
  await page.goto(BASE);
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  const note = page.locator("#not-kept");
  if (notStored.length) await waitForAnnouncement(page, /does not let the page store data/);
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Email address").fill(newEmail());
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  for (const sentence of [SESSION, UPLOADS]) assert.equal((await note.textContent()).includes(sentence), notStored.includes(sentence), `${label}: ${sentence}`);
  await chooseFiles(page, await drawPhotos(page, 2, { width: 320, height: 240 }));
  await page.getByRole("heading", { name: "2 images uploaded" }).waitFor();
  await waitUntil(async () => (await page.locator(".tile.loaded").count()) === 2, "two tiles");
  await page.locator("summary").click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
}

for (const [label, [notStored, deny]] of Object.entries(DENIALS)) {
  test(`the page works where ${label}`, async (t) => {
    const context = await openContext(t, {});
    await context.addInitScript(deny);
    await assertWorks(await context.newPage(), notStored, label);
  });
}

test("the page works where the user has blocked all cookies and site data", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "valet-blocked-"));
  mkdirSync(join(folder, "Default"));
  writeFileSync(join(folder, "Default", "Preferences"), JSON.stringify({ profile: { default_content_setting_values: { cookies: 2 } } }));
  const context = await chromium.launchPersistentContext(folder, { ...LAUNCH, viewport: { width: 1000, height: 700 } });
  callAtEnd(t, async () => { await context.close(); rmSync(folder, { recursive: true, force: true }); });
  const pageErrors = [];
  context.on("weberror", (error) => pageErrors.push(String(error.error().stack)));
  const page = await context.newPage();
  await page.goto(BASE);
  assert.equal(await page.evaluate(() => { try { return String(localStorage); } catch (error) { return error.name; } }), "SecurityError", "storage is blocked");
  await assertWorks(page, [SESSION, UPLOADS], "blocked");
  await takeScreenshot(page, "blocked");
  assert.ok((await readAccessibilityTree(page)).some((node) => node.text.includes(SESSION)));
  assert.deepEqual(pageErrors, []);
});
