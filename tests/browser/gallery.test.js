// Covers the gallery page: repeated views, long lists, narrow windows, keyboard only.

import assert from "node:assert/strict";
import test from "node:test";
import { chooseFiles, newEmail, openPageWithList, findLoadedTiles, PASSWORD, drawPhotos, takeScreenshot, reload, openSignedInPage, waitUntil, upload, openContext } from "./harness.js";

test("a second view of fifty images fetches none of them again", async (t) => {
  const { page, context } = await openSignedInPage(t, {});
  await upload(page, await drawPhotos(page, 50, { width: 320, height: 240 }));
  // All of them in view.
  await page.setViewportSize({ width: 1280, height: 4200 });
  // Reloads the page, and returns the number of requests for images, and the bytes of those that were not cached.
  const view = async () => {
    const cdp = await context.newCDPSession(page);
    await cdp.send("Network.enable");
    const images = new Map();
    cdp.on("Network.requestWillBeSent", ({ requestId, type, request }) => { if (type === "Image" && request.url.includes("X-Amz-")) images.set(requestId, { bytes: 0 }); });
    cdp.on("Network.requestServedFromCache", ({ requestId }) => { if (images.has(requestId)) images.get(requestId).cached = true; });
    cdp.on("Network.responseReceived", ({ requestId, response }) => { if (images.has(requestId)) images.get(requestId).cached ||= response.fromDiskCache; });
    cdp.on("Network.dataReceived", ({ requestId, encodedDataLength }) => { if (images.has(requestId)) images.get(requestId).bytes += encodedDataLength; });
    await reload(page);
    await waitUntil(async () => (await findLoadedTiles(page).count()) === 50, "fifty tiles");
    await cdp.detach();
    const all = [...images.values()];
    return { requests: all.length, wire: all.filter((image) => !image.cached).reduce((sum, image) => sum + image.bytes, 0) };
  };
  const first = await view();
  assert.ok(first.wire > 50_000, JSON.stringify(first));
  // URLs are the same within a window of time, which may end between two views: a third is within the next window.
  const views = [await view(), await view()];
  console.log(`fifty images: ${first.wire} bytes at first, ${views.map(({ wire }) => wire).join(" and ")} later`);
  assert.ok(views.some(({ wire }) => wire === 0), JSON.stringify(views));
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  console.log(paint === undefined ? "first contentful paint: not reported yet" : `first contentful paint: ${paint.toFixed(0)} ms`);
});

test("ten thousand images use few elements, cause no layout shift and are loaded on demand", async (t) => {
  // Without a GPU most of the time is painting: a small window has less to paint.
  const { page } = await openPageWithList(t, 10_000, { viewport: { width: 800, height: 600 } });
  await page.evaluate(() => {
    window.shifted = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifted += entry.value; }).observe({ type: "layout-shift" });
  });
  assert.equal(await page.locator(".tile canvas").first().evaluate((canvas) => canvas.width > 8 && canvas.getContext("2d").getImageData(4, 4, 1, 1).data[3]), 255, "placeholders are drawn");
  // Three screens per frame, which is fast, until the end.
  const run = await page.evaluate(async () => {
    const began = performance.now();
    const frames = [];
    let most = 0, last = performance.now();
    const end = last + 400_000;
    for (;;) {
      scrollBy({ top: 3 * innerHeight, behavior: "instant" });
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      frames.push(now - last);
      last = now;
      most = Math.max(most, document.querySelectorAll(".tile").length);
      const done = document.querySelector("#loading").hidden && scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
      if (done || now > end) break;
    }
    frames.sort((a, b) => a - b);
    return { most, frames: frames.length, middle: frames[frames.length >> 1], slow: frames[Math.floor(frames.length * 0.99)], shifted: window.shifted, took: performance.now() - began };
  });
  await waitUntil(async () => (await page.locator(".tile").last().locator("img").getAttribute("alt")) === "9999.jpg", "the last image");
  console.log(`10,000 images: at most ${run.most} tiles, ${run.frames} frames in ${(run.took / 1000).toFixed(1)} s, median ${run.middle.toFixed(1)} ms, 99th ${run.slow.toFixed(1)} ms, layout shift ${run.shifted}`);
  assert.ok(run.most < 160, `${run.most} tiles at once`);
  // An image that jumped would shift ten times this; the sum grows slightly if a slow machine draws late.
  assert.ok(run.shifted < 0.01, `layout shift ${run.shifted}`);
  await page.evaluate(() => scrollTo(0, 0));
  await waitUntil(async () => (await findLoadedTiles(page).first().locator("img").getAttribute("alt")) === "0.jpg", "the first again");
});

test("every action works with the keyboard only", async (t) => {
  const context = await openContext(t, {});
  const page = await context.newPage();
  await page.goto("/");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  const address = newEmail();
  // The focus begins in the first field.
  await page.keyboard.type(address);
  for (let i = 0; i < 4; i += 1) await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Create an account");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), (async () => {
    await page.locator("#upload").focus();
    await page.keyboard.press("Enter");
  })()]);
  const files = await drawPhotos(page, 6);
  await chooser.setFiles(files);
  await page.getByRole("heading", { name: "6 images uploaded" }).waitFor();
  await reload(page);
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 6, "the tiles");
  // From the top: skip link, upload, account, then one stop for the whole grid.
  await page.evaluate(() => document.activeElement.blur());
  const stops = [];
  for (let i = 0; i < 8; i += 1) {
    await page.keyboard.press("Tab");
    stops.push(await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.querySelector("img")?.alt ?? document.activeElement.textContent.trim()));
    if (stops.at(-1).startsWith("photo-")) break;
  }
  assert.equal(stops[0], "Skip to the content");
  assert.ok(stops.at(-1).startsWith("photo-"), stops.join(", "));
  const focused = () => page.evaluate(() => document.activeElement.closest("li")?.querySelector("img").alt);
  const first = await focused();
  await page.keyboard.press("ArrowRight");
  const second = await focused();
  assert.notEqual(second, first);
  await page.keyboard.press("ArrowDown");
  assert.ok(![first, second].includes(await focused()));
  await page.keyboard.press("End");
  await page.keyboard.press("Home");
  assert.equal(await focused(), first);
  await takeScreenshot(page, "focus");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  // The dialog traps the focus.
  for (let i = 0; i < 12; i += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.querySelector("dialog").contains(document.activeElement)));
  }
  await page.keyboard.press("Escape");
  assert.equal(await focused(), first);
  await page.keyboard.press("Space");
  await page.getByText(/^1 image selected/).waitFor();
  await page.keyboard.press("Shift+ArrowRight");
  await page.getByText(/^2 images selected/).waitFor();
  await page.keyboard.press("Delete");
  await waitUntil(async () => (await page.locator(".tile").count()) === 4, "two images fewer");
  await page.keyboard.press("Control+z");
  await waitUntil(async () => (await page.locator(".tile").count()) === 6, "all images again");
});

test("on a phone no content overflows and every control is large enough", async (t) => {
  const { page } = await openSignedInPage(t, { viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  const files = await drawPhotos(page, 8);
  await takeScreenshot(page, "narrow-empty");
  await chooseFiles(page, files);
  await takeScreenshot(page, "narrow-uploading");
  await page.getByRole("heading", { name: "8 images uploaded" }).waitFor();
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  assert.ok(await fits());
  await takeScreenshot(page, "narrow");
  await page.locator(".open").nth(2).tap();
  await page.locator(".frame.loaded").waitFor();
  assert.ok(await fits());
  await takeScreenshot(page, "narrow-lightbox");
  await page.getByRole("button", { name: "Next image" }).tap();
  await page.getByRole("button", { name: "Close" }).tap();
  await page.getByRole("checkbox").first().tap();
  await page.getByText(/^1 image selected/).waitFor();
  await takeScreenshot(page, "narrow-selected");
  const small = await page.evaluate(() => [...document.querySelectorAll("button, summary, input[type=checkbox]")]
    .filter((control) => control.checkVisibility() && control.getBoundingClientRect().width)
    .filter((control) => { const box = control.getBoundingClientRect(); return box.width < 24 || box.height < 24; }).map((control) => control.outerHTML));
  assert.deepEqual(small, [], "targets of at least 24 pixels (WCAG 2.5.8)");
});
