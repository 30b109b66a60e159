// Covers accessibility: axe-core finds no violations in any view, light, dark and narrow.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chooseFiles, findLoadedTiles, LONG_UNDO, drawPhotos, takeScreenshot, openSignedInPage, waitUntil, upload, openContext } from "./harness.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/**
 * Asserts that all rules of axe-core, best practices included, find nothing. Runs the script through the debugger, to which the page's
 * content security policy does not apply.
 */
async function axe(page, label) {
  await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => {}))));
  await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  assert.ok(passes.length > 10, `${label}: axe checked no elements`);
  assert.deepEqual(violations.map(({ id, nodes }) => `${label}: ${id}: ${nodes.map((node) => `${node.html.slice(0, 120)} ${node.any[0]?.message ?? ""}`).join(" | ")}`), []);
}

for (const [name, options] of [
  ["light", { colorScheme: "light" }],
  ["dark", { colorScheme: "dark" }],
  ["narrow", { viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true }],
]) {
  test(`every view has no accessibility violations, ${name}`, async (t) => {
    const stranger = await openContext(t, options);
    const entrance = await stranger.newPage();
    await entrance.goto("/");
    await entrance.getByRole("heading", { name: "Sign in" }).waitFor();
    await axe(entrance, "sign in");
    await takeScreenshot(entrance, `${name}-entrance`);
    await entrance.getByRole("button", { name: "Create an account" }).click();
    await entrance.getByRole("button", { name: "Create account" }).click();
    await entrance.getByText("Enter your email address.").waitFor();
    await axe(entrance, "sign up, with a problem");
    await takeScreenshot(entrance, `${name}-problem`);

    const { page } = await openSignedInPage(t, { ...options, timers: LONG_UNDO, allowed: [/Failed to load resource/] });
    await page.getByRole("heading", { name: "No images yet" }).waitFor();
    await axe(page, "empty");
    await chooseFiles(page, { name: "letter.jpg", mimeType: "image/jpeg", buffer: Buffer.from("Dear Ada") });
    await page.getByText("The file is damaged").waitFor();
    await axe(page, "a failed upload");
    await page.getByRole("button", { name: "Discard letter.jpg" }).click();
    await upload(page, await drawPhotos(page, 9));
    await waitUntil(async () => (await findLoadedTiles(page).count()) >= 6, "tiles");
    await axe(page, "gallery");
    await takeScreenshot(page, `${name}-gallery`);
    await page.locator("summary").click();
    await axe(page, "the menu");
    await takeScreenshot(page, `${name}-menu`);
    await page.getByRole("button", { name: "Account and devices" }).click();
    await page.getByText("This device").waitFor();
    await axe(page, "the account");
    await takeScreenshot(page, `${name}-account`);
    await page.getByRole("button", { name: "Change the password" }).click();
    await page.getByText("Enter your password.").waitFor();
    await axe(page, "the account, with a problem");
    await page.keyboard.press("Escape");
    await page.getByRole("checkbox").first().check();
    await axe(page, "a selection");
    await page.getByRole("button", { name: "Delete" }).click();
    await axe(page, "a toast");
    await takeScreenshot(page, `${name}-toast`);
    await page.getByRole("button", { name: "Undo" }).click();
    // With the keyboard: a click in the middle of a small tile hits its checkbox.
    await page.locator(".open").first().press("Enter");
    await page.locator(".frame.loaded").waitFor();
    await axe(page, "the dialog");
    await takeScreenshot(page, `${name}-lightbox`);
  });
}
