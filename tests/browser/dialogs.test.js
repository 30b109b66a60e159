// Covers dialogs over the gallery: messages that are shown and announced in them, their addresses, and the focus after they
// close.

import assert from "node:assert/strict";
import test from "node:test";
import {
  waitForAnnouncement, callApi, BASE, chooseFiles, isClickable, readFocusedName, openPageWithList, findLoadedTiles, LONG_UNDO, drawPhotos, takeScreenshot, reload, openSignedInPage, readAccessibilityTree, waitUntil, upload,
} from "./harness.js";

/** Every dialog of the page: the steps that open it, and its address. */
const DIALOGS = {
  lightbox: { open: (page) => page.locator(".open").first().press("Enter"), address: /#image\/picture-0$/ },
  account: {
    open: async (page) => {
      await page.locator("summary").click();
      await page.getByRole("button", { name: "Account and devices" }).click();
    },
    address: /#account$/,
  },
};

/** Shows a message with the page's own function. */
const showMessage = (page, text) => page.evaluate(async (text) => {
  const { announce, toast } = await import(document.querySelector("link[href$='dom.js']").href);
  toast(`${text}, written`, { action: "Act", onaction: () => { document.title = "acted"; }, seconds: 0 });
  announce(`${text}, spoken`);
}, text);

/** Waits until the live region has contained this text for almost a second, for 10 seconds at most. */
const waitUntilAnnounced = (page, text) => page.evaluate((text) => new Promise((done, fail) => {
  setTimeout(() => fail(new Error(`not in the live region for a second: ${text}`)), 10_000);
  const voice = document.querySelector("#voice");
  let timer;
  const check = () => {
    clearTimeout(timer);
    if ([...voice.children].some((child) => child.textContent === text)) timer = setTimeout(done, 950);
  };
  new MutationObserver(check).observe(voice, { childList: true });
  check();
}), text);

/** Goes back, and forward before the dialog's `close` event, which comes with the next frame; waits until what follows has happened. */
const goBackAndForward = (page) => page.evaluate(() => new Promise((done) => {
  const { hash } = location;
  addEventListener("popstate", () => {
    // A real Forward may come after the frame.
    history.pushState({ opened: true }, "", hash);
    dispatchEvent(new PopStateEvent("popstate"));
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300)));
  }, { once: true });
  history.back();
}));

for (const [name, viewport] of [["wide", { width: 1440, height: 900 }], ["narrow", { width: 375, height: 667 }]]) {
  test(`messages are shown over every dialog, and its address opens and closes it, ${name}`, async (t) => {
    const { page } = await openPageWithList(t, 30, { viewport });
    assert.deepEqual(await page.locator("dialog").evaluateAll((all) => all.map((one) => one.id).sort()), Object.keys(DIALOGS).sort(), "this test knows every dialog");
    for (const [id, { open, address }] of Object.entries(DIALOGS)) {
      const dialog = page.locator(`#${id}`);
      // A message that is already shown moves into the dialog.
      await showMessage(page, `Before ${id}`);
      await waitForAnnouncement(page, new RegExp(`Before ${id}, spoken`));
      await open(page);
      await dialog.waitFor();
      await waitUntil(async () => address.test(page.url()), `${page.url()} is the address of ${id}`);
      const act = page.getByRole("button", { name: "Act" });
      assert.ok(await isClickable(act), `${id}: a message from before can be clicked`);
      await waitForAnnouncement(page, new RegExp(`Before ${id}, written`));
      await act.click();
      assert.ok(await dialog.evaluate((dialog) => dialog.contains(document.activeElement)), `${id}: the focus stays in the dialog`);

      await showMessage(page, `Over ${id}`);
      await waitForAnnouncement(page, new RegExp(`Over ${id}, written`));
      await waitForAnnouncement(page, new RegExp(`Over ${id}, spoken`));
      if (id === "lightbox") await takeScreenshot(page, `${name}-message`);
      // With the keyboard only.
      for (let i = 0; i < 20 && (await readFocusedName(page)) !== "Act"; i += 1) await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await waitUntil(() => act.count().then((count) => count === 0), "the button disappears");
      await waitUntil(async () => (await page.title()) === "acted", "the button acted");

      // Back closes it, and the page stays; Forward opens it; a reload does not close it.
      await page.goBack();
      await dialog.waitFor({ state: "hidden" });
      assert.equal(page.url(), `${BASE}/`);
      await page.goForward();
      await dialog.waitFor();
      await goBackAndForward(page);
      assert.match(page.url(), address, `${id}: its address stays`);
      assert.ok(await dialog.isVisible(), `${id}: it stays open`);
      await page.goBack();
      await dialog.waitFor({ state: "hidden" });
      // After the dialog was closed in any way, Back does not open it again.
      for (const close of [() => page.keyboard.press("Escape"), () => dialog.getByRole("button", { name: "Close" }).click()]) {
        const before = await page.evaluate(() => history.length);
        await open(page);
        await dialog.waitFor();
        await showMessage(page, `Left in ${id}`);
        // A text may be in the live region for a second only, which a slow read of the accessibility tree may miss.
        const spoken = Promise.any([waitForAnnouncement(page, new RegExp(`Left in ${id}, spoken`)), waitUntilAnnounced(page, `Left in ${id}, spoken`)]);
        await page.getByRole("button", { name: "Act" }).waitFor();
        await close();
        await dialog.waitFor({ state: "hidden" });
        await waitUntil(() => page.url() === `${BASE}/`, "the address is the gallery's again");
        assert.ok((await page.evaluate(() => history.length)) <= before + 1);
        await waitUntil(async () => (await readFocusedName(page)) !== null, `${id}: the focus is somewhere`);
        await spoken;
        assert.ok(await isClickable(page.getByRole("button", { name: "Act" })), "a message outlives the dialog");
        await page.getByRole("button", { name: "Act" }).click();
      }
    }
    await page.goBack();
    assert.equal(page.url(), "about:blank", "Back leaves the gallery in the end");
  });
}

test("no text is lost that is announced while a dialog opens or closes", async (t) => {
  const { page } = await openPageWithList(t, 1, {});
  // Runs with several pauses in milliseconds: `before` the dialog opens or closes, and `between` that and the next text.
  const lost = await page.evaluate(async () => {
    const { announce } = await import(document.querySelector("link[href$='dom.js']").href);
    const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });
    const voice = document.querySelector("#voice");
    const dialog = document.querySelector("#account");
    const lost = [];
    for (const before of [0, 100, 300, 600]) {
      for (const between of [0, 100, 300]) {
        const shown = [];
        const watch = new MutationObserver(() => shown.push(...[...voice.childNodes].map((child) => child.textContent)));
        watch.observe(voice, { childList: true });
        const texts = ["first", "second", "third"].map((word) => `${word} ${before} ${between}`);
        announce(texts[0]);
        await pause(before);
        dialog.showModal();
        await pause(between);
        announce(texts[1]);
        await pause(before);
        dialog.close();
        await pause(between);
        announce(texts[2]);
        await pause(700);
        watch.disconnect();
        if (!texts.every((text) => shown.includes(text)) || shown.at(-1) !== texts[2]) lost.push({ before, between, shown });
      }
    }
    // Of several texts of one topic, only the last is announced.
    for (const n of [1, 2, 3]) announce(`${n} of 3`, "progress");
    await pause(400);
    if (voice.textContent !== "3 of 3") lost.push(voice.textContent);
    return lost;
  });
  assert.deepEqual(lost, []);
});

test("an open image has undo, captions of several lines, and failures that are shown and announced", async (t) => {
  const { page, user } = await openSignedInPage(t, { allowed: [/ 503 /], timers: LONG_UNDO });
  await upload(page, await drawPhotos(page, 3));
  const images = async () => (await (await callApi("/api/images/gallery", user)).json()).images;
  const [, second] = await images();
  const lines = "First line,\nsecond line: 🌊";
  assert.equal((await callApi(`/api/images/${second.id}`, user, { method: "PATCH", body: { caption: lines } })).status, 200);
  await page.goto(`/#image/${second.id}`);
  await reload(page);
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  const name = page.locator("#lightbox-name");
  await waitUntil(async () => (await name.textContent()) === second.fileName, "the image of the address");
  const caption = page.getByLabel("Caption");
  assert.equal(await caption.inputValue(), lines);
  assert.ok(await caption.evaluate((field) => field.scrollHeight <= field.clientHeight), "every line is visible");
  await page.getByText(/· uploaded /).waitFor();
  // A caption that was only viewed is not saved.
  let saves = 0;
  page.on("request", (request) => { saves += request.method() === "PATCH"; });
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowLeft");
  await waitUntil(async () => (await caption.inputValue()) === lines, "back at it");
  await caption.press("End");
  await caption.press("Shift+Enter");
  await page.keyboard.type("and a third.");
  await page.keyboard.press("Enter");
  await waitForAnnouncement(page, /Caption saved/);
  assert.equal(saves, 1);
  const stored = (await images()).find(({ id }) => id === second.id).caption;
  assert.equal(stored.split("\n").length, 3);
  assert.ok(stored.includes("and a third.") && stored.includes("🌊"));
  // A thousand characters count as a thousand, whatever their number of UTF-16 units.
  await caption.fill("🌊".repeat(1000));
  await page.keyboard.press("Enter");
  await waitUntil(async () => [...((await images()).find(({ id }) => id === second.id).caption)].length === 1000, "a thousand emoji");
  await caption.fill("🌊".repeat(1001));
  await page.keyboard.press("Enter");
  await waitForAnnouncement(page, /1 character too long/);
  // A step or a click does not lose it either.
  await page.getByRole("button", { name: "Next image" }).click();
  await page.getByRole("button", { name: "Close" }).click();
  assert.equal([...(await caption.inputValue())].length, 1001);
  // Before the text: leaving the field saves it too.
  await page.route("**/api/images/*", (route) => (route.request().method() === "PATCH" ? route.fulfill({ status: 503, json: { code: "unavailable" } }) : route.fallback()));
  await caption.fill("kept");
  await page.keyboard.press("Enter");
  await waitForAnnouncement(page, /The caption was not saved\. The server is busy/);
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.getByRole("button", { name: "Try again" }).click();
  await waitUntil(async () => (await images()).find(({ id }) => id === second.id).caption === "kept", "saved after all");
  await page.route("**/download", (route) => route.fulfill({ status: 503, json: { code: "unavailable" } }));
  await page.getByRole("button", { name: "Download" }).click();
  await waitForAnnouncement(page, /The download did not start/);
  await page.unrouteAll({ behavior: "ignoreErrors" });

  await page.getByRole("button", { name: "Delete" }).click();
  await waitForAnnouncement(page, /1 image deleted/);
  assert.notEqual(await name.textContent(), second.fileName);
  await page.getByRole("button", { name: "Undo" }).click();
  await waitUntil(async () => (await name.textContent()) === second.fileName, "the image is shown again");
  await waitForAnnouncement(page, /Restored|2 of 3/);
  // Opened from the gallery, it is open after a reload, and Back leads to the gallery.
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await page.locator(".open").first().press("Enter");
  await dialog.waitFor();
  await reload(page);
  await dialog.waitFor();
  await page.goBack();
  await dialog.waitFor({ state: "hidden" });
  await waitUntil(async () => (await page.locator(".tile").count()) === 3, "the gallery");
  await page.goForward();
  await dialog.waitFor();
  // Deleting the last image closes it, and can be undone as well.
  for (let i = 0; i < 3; i += 1) {
    await page.getByRole("button", { name: "Close" }).focus();
    await page.keyboard.press("Delete");
  }
  await dialog.waitFor({ state: "hidden" });
  assert.notEqual(await readFocusedName(page), null);
  assert.equal(await page.locator(".tile").count(), 0);
  for (let i = 0; i < 3; i += 1) await page.keyboard.press("Control+z");
  await waitUntil(async () => (await page.locator(".tile").count()) === 3, "all three again");
});

test("an image's address opens it anywhere in the gallery, and reports a deleted one", async (t) => {
  const { page } = await openPageWithList(t, 450, {});
  const name = page.locator("#lightbox-name");
  await page.evaluate(() => { location.hash = "#image/picture-333"; });
  await page.getByRole("dialog").waitFor();
  assert.equal(await name.textContent(), "333.jpg");
  await waitUntil(() => page.getByRole("button", { name: "Next image" }).isEnabled(), "its neighbours are found");
  await page.keyboard.press("ArrowRight");
  await waitUntil(() => page.url().endsWith("#image/picture-334"), "the address follows");
  await page.keyboard.press("ArrowRight");
  await page.goBack();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.equal(page.url(), `${BASE}/`, "one step back, however many images were viewed");
  await waitUntil(async () => (await readFocusedName(page)) === "335.jpg", "the focus is at the last one, which is in view");
  assert.ok(await page.evaluate(() => { const { top, bottom } = document.activeElement.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight; }));
  await page.unroute("**/api/images/read");
  await page.evaluate(() => { location.hash = "#image/01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f"; });
  await waitForAnnouncement(page, /not in your gallery any more/);
  assert.equal(page.url(), `${BASE}/`);
});

test("the focus survives removed lines of the upload list, and the removed list", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: [/ 422 /] });
  await chooseFiles(page, [1, 2].map((n) => ({ name: `letter-${n}.jpg`, mimeType: "image/jpeg", buffer: Buffer.from(`Dear Ada, ${n}`) })));
  await page.getByRole("heading", { name: "2 uploads failed" }).waitFor();
  for (const n of [1, 2]) {
    await page.getByRole("button", { name: `Discard letter-${n}.jpg` }).press("Enter");
    await page.getByRole("button", { name: `Discard letter-${n}.jpg` }).waitFor({ state: "detached" });
    await waitUntil(async () => (await readFocusedName(page)) !== null, "the focus is somewhere");
  }
  await upload(page, await drawPhotos(page, 1));
  await page.getByRole("button", { name: "Clear" }).press("Enter");
  await page.locator("#upload-list").waitFor({ state: "hidden" });
  await waitUntil(async () => (await readFocusedName(page)) !== null, "the focus is somewhere");
  assert.equal((await readAccessibilityTree(page)).filter((node) => node.role === "region" && node.live).length, 1);
  await findLoadedTiles(page).first().waitFor();
});
