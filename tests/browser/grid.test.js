// Covers the grid for keyboards and screen readers: one Tab stop and the reading order after every change, and selecting all
// images.

import assert from "node:assert/strict";
import test from "node:test";
import { waitForAnnouncement, readFocusedName, openPageWithList, LONG_UNDO, drawPhotos, takeScreenshot, openSignedInPage, readAccessibilityTree, waitUntil, upload } from "./harness.js";

/** Returns the names of the tiles in the order of screen readers. */
const readTiles = async (page) => (await readAccessibilityTree(page)).filter((node) => node.role === "button" && node.path.some((above) => above === "list Images")).map((node) => node.name);

/** Runs in the page: returns whether the rows are as wide as the grid, and the tiles the same, in two frames. */
async function isLaidOut() {
  const grid = document.querySelector("#grid");
  const looks = [];
  for (let i = 0; i < 2; i += 1) {
    await new Promise(requestAnimationFrame);
    const boxes = [...grid.querySelectorAll(".tile")].map((tile) => tile.getBoundingClientRect());
    looks.push(String(boxes.map(({ left, right }) => [left, right])));
    if (Math.abs(Math.max(...boxes.map(({ right }) => right)) - grid.getBoundingClientRect().right) > 1) return false;
  }
  return looks[0] === looks[1];
}

/** Asserts that the grid has one reachable Tab stop, and that its reading order is the order of the images. */
async function assertOrder(page, label) {
  const { stops, order } = await page.evaluate(() => ({
    stops: [...document.querySelectorAll("#grid .open")].filter((open) => open.tabIndex === 0).length,
    order: [...document.querySelectorAll("#grid > .tile")].map((tile) => [tile.ariaPosInSet, tile.querySelector("img").alt]),
  }));
  const inOrder = order.toSorted((a, b) => a[0] - b[0]).map(([, name]) => name);
  assert.deepEqual(order.map(([, name]) => name), inOrder, `${label}: elements in the order of the images`);
  assert.deepEqual(await readTiles(page), inOrder, `${label}: read in the order of the images`);
  assert.equal(stops, inOrder.length ? 1 : 0, `${label}: one stop for the Tab key`);
  if (!inOrder.length) return;
  // From any focus, Tab reaches a tile; the page has fewer than 16 other stops.
  for (let i = 0; i < 16; i += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement.matches("#grid .open"))) return;
  }
  assert.fail(`${label}: Tab reaches no tile`);
}

test("after every change one tile is the Tab stop, and tiles are read in order", async (t) => {
  const { page } = await openPageWithList(t, 250, { viewport: { width: 1000, height: 700 }, timers: LONG_UNDO });
  await assertOrder(page, "at first");
  const pick = async (names) => { for (const name of names) await page.getByRole("checkbox", { name: `Select ${name}.jpg`, exact: true }).check({ force: true }); };
  const shown = (name) => page.getByAltText(`${name}.jpg`, { exact: true }).count();
  // The first ones, including the Tab stop.
  await pick([0, 1, 2, 5]);
  await page.keyboard.press("Delete");
  await waitUntil(async () => (await shown(0)) === 0, "deleted");
  assert.equal(await readFocusedName(page), "6.jpg", "the focus moves to the tile in its place");
  await assertOrder(page, "deleted by the key");
  await page.keyboard.press("Control+z");
  await waitUntil(async () => (await shown(0)) === 1, "restored");
  await assertOrder(page, "restored");
  await pick([3, 4]);
  await page.getByRole("button", { name: "Delete" }).click();
  await waitUntil(async () => (await shown(3)) === 0, "deleted");
  await assertOrder(page, "deleted by the button");
  await page.getByRole("button", { name: "Undo" }).click();
  await waitUntil(async () => (await shown(3)) === 1, "restored");
  await assertOrder(page, "restored by the button");
  // The Tab stop is far outside of the view.
  await page.getByAltText("0.jpg", { exact: true }).locator("..").focus();
  await page.evaluate(() => scrollTo(0, 3000));
  await waitUntil(async () => (await page.locator(".tile").nth(20).count()) > 0 && (await shown(60)) > 0, "scrolled");
  const names = await readTiles(page);
  assert.equal(names[0], "0.jpg", "the focused tile is kept outside of the view, and read first");
  await page.setViewportSize({ width: 700, height: 700 });
  await waitUntil(() => page.evaluate(isLaidOut), "laid out for its new width");
  await assertOrder(page, "resized");
  await page.keyboard.press("Control+a");
  await page.getByText(/^250 images selected/).waitFor();
  await page.locator("#delete-selected").click();
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  assert.notEqual(await readFocusedName(page), null);
  await page.keyboard.press("Control+z");
  await waitUntil(async () => (await shown(0)) === 1, "restored");
  await assertOrder(page, "all of them restored");
});

test("uploads into an empty gallery, and into a full one, are read in order", async (t) => {
  const { page } = await openSignedInPage(t, {});
  await upload(page, await drawPhotos(page, 14, { width: 320, height: 240 }));
  await waitUntil(async () => (await page.locator(".tile").count()) === 14, "fourteen tiles");
  await assertOrder(page, "uploaded");
  await page.getByRole("button", { name: "Clear" }).click();
  await upload(page, await drawPhotos(page, 4, { width: 320, height: 240, from: 14 }));
  await waitUntil(async () => (await page.locator(".tile").count()) === 18, "eighteen tiles");
  await assertOrder(page, "uploaded once more");
  // The caption becomes the image's name.
  await page.locator(".open").nth(2).press("Enter");
  await page.getByLabel("Caption").fill("A name");
  await page.keyboard.press("Enter");
  await waitForAnnouncement(page, /Caption saved/);
  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("checkbox", { name: "Select A name" }).waitFor();
  await assertOrder(page, "described");
});

test("select all includes images that are not loaded", async (t) => {
  const { page } = await openPageWithList(t, 450, { viewport: { width: 1000, height: 700 } });
  await page.locator(".open").first().focus();
  await page.keyboard.press("Control+a");
  await page.getByText(/^450 images selected/).waitFor();
  await waitForAnnouncement(page, /450 images selected/);
  assert.equal(await page.getByRole("button", { name: "Select all" }).isVisible(), false);
  await page.keyboard.press("Escape");
  await page.locator("#selection").waitFor({ state: "hidden" });
});

test("select all works on a touch screen, and End scrolls to the end", async (t) => {
  const { page } = await openPageWithList(t, 450, { viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true });
  await page.getByRole("checkbox").first().tap();
  await page.getByText(/^1 image selected/).waitFor();
  const all = page.getByRole("button", { name: "Select all" });
  const bar = page.locator("#selection");
  assert.ok(await bar.evaluate((bar) => bar.scrollWidth <= bar.clientWidth), "the bar fits");
  await takeScreenshot(page, "narrow-select-all");
  await all.tap();
  await page.getByText(/^450 images selected/).waitFor();
  await page.getByRole("button", { name: "Clear the selection" }).tap();
  await bar.waitFor({ state: "hidden" });
  await page.locator(".open").first().focus();
  await page.keyboard.press("End");
  await waitUntil(async () => (await readFocusedName(page)) === "449.jpg", "the last of all");
});
