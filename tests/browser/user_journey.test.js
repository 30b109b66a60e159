// Covers a user's whole journey: sign up, upload, view, caption, download, delete, sign out.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { newEmail, PASSWORD, chooseFiles, findLoadedTiles, drawPhotos, takeScreenshot, reload, openSignedInPage, signIn, waitUntil, upload, openContext } from "./harness.js";

test("sign-up, upload, gallery and sign-out", async (t) => {
  const context = await openContext(t, { allowed: [/ 401 .*login/, / 422 .*signup/, / 409 .*signup/] });
  const page = await context.newPage();
  const address = newEmail();
  await page.goto("/");
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Email address").fill(address);
  await page.getByLabel("Password", { exact: true }).fill("password1234");
  await page.getByRole("button", { name: "Create account" }).click();
  const problem = page.getByRole("alert");
  await problem.filter({ hasText: "guessed early" }).waitFor();
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "No images yet" }).waitFor();
  await takeScreenshot(page, "empty");

  await upload(page, await drawPhotos(page, 3));
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 3, "three tiles");
  await page.getByText(/^[\d.]+ KiB of 10 GiB$/).waitFor();

  await reload(page);
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 3, "three tiles after a reload, without signing in again");
  await page.getByRole("button", { name: "Account" }).or(page.locator("summary")).first().click();
  await page.getByText(address).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(await page.locator(".tile").count(), 0);
  assert.equal(await page.evaluate(() => localStorage.length), 0, "nothing stays in the storage");

  await page.getByLabel("Email address").fill(address);
  await page.getByLabel("Password", { exact: true }).fill("not the password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await problem.filter({ hasText: "The email address or the password is wrong." }).waitFor();
  await signIn(page, { email: address });
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 3, "three tiles after signing in");
});

test("a large image has arrows, swipe, caption, download, delete and undo", async (t) => {
  const { page } = await openSignedInPage(t, { acceptDownloads: true });
  const files = await drawPhotos(page, 4, { width: 1200, height: 900 });
  await upload(page, files);
  await reload(page);
  await page.locator(".open").nth(1).click();
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  const name = page.locator("#lightbox-name");
  const first = await name.textContent();
  await page.locator(".frame.loaded").waitFor();
  await takeScreenshot(page, "lightbox");
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await name.textContent(), first);
  await page.keyboard.press("ArrowLeft");
  assert.equal(await name.textContent(), first);
  // The events of a swipe on a touch screen.
  await page.locator("#stage").evaluate((stage) => {
    const at = (type, x) => stage.dispatchEvent(new PointerEvent(type, { clientX: x, clientY: 300, isPrimary: true, pointerType: "touch", bubbles: true }));
    at("pointerdown", 500);
    at("pointermove", 420);
    at("pointerup", 380);
  });
  assert.notEqual(await name.textContent(), first, "a swipe to the left goes on");
  await page.keyboard.press("ArrowLeft");

  await page.getByLabel("Caption").fill("The sun over the bay");
  await page.keyboard.press("Enter");
  await page.getByText("Caption saved").waitFor({ state: "attached" });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  assert.equal(download.suggestedFilename(), first);
  const saved = await download.path();
  assert.ok(files.some((file) => file.name === first && file.buffer.equals(readFileSync(saved))), "byte for byte");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement.closest("li")?.querySelector("img").alt), "The sun over the bay", "the focus is back where it was");
  await reload(page);
  await page.getByRole("button", { name: "The sun over the bay" }).waitFor();

  const tiles = page.locator(".tile");
  await tiles.first().hover();
  await page.getByRole("checkbox").first().check();
  await page.getByRole("checkbox").nth(2).check();
  await page.getByText(/^2 images selected/).waitFor();
  await takeScreenshot(page, "selected");
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByText("2 images deleted").first().waitFor();
  assert.equal(await tiles.count(), 2);
  await page.getByRole("button", { name: "Undo" }).click();
  await waitUntil(async () => (await tiles.count()) === 4, "all four images again");

  // Leaving the page does not undo a deletion.
  await page.getByRole("checkbox").first().check();
  await page.getByRole("button", { name: "Delete" }).click();
  await waitUntil(async () => { await reload(page); await page.locator(".tile").first().waitFor(); return (await tiles.count()) === 3; }, "three images are left");
  // Waiting does not undo a deletion either.
  const sent = page.waitForResponse("**/api/images/delete");
  await page.getByRole("checkbox").first().check();
  await page.getByRole("button", { name: "Delete" }).click();
  assert.equal((await sent).status(), 200);
  await reload(page);
  await waitUntil(async () => (await tiles.count()) === 2, "two images are left");
});

test("files can be dropped and pasted, and a file that is not an image gets a message", async (t) => {
  const { page } = await openSignedInPage(t, { allowed: [/ 422 /] });
  const [one, two] = await drawPhotos(page, 2);
  const give = (event, file) => page.evaluate(({ event, base64, name }) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
    if (event === "drop") {
      dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer }));
      if (document.querySelector("#drop").hidden) throw new Error("the page does not invite the drop");
      dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
    } else dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
  }, { event, base64: file.buffer.toString("base64"), name: file.name });
  await give("drop", one);
  await give("paste", { ...two, name: "image.png" });
  await page.getByRole("heading", { name: "2 images uploaded" }).waitFor();
  await page.getByRole("button", { name: /^Pasted / }).waitFor();

  await chooseFiles(page, { name: "letter.jpg", mimeType: "image/jpeg", buffer: Buffer.from("Dear Ada, this is not an image.") });
  await page.getByText("The file is damaged or is not a valid image.").waitFor();
  await chooseFiles(page, { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("Dear Ada") });
  await page.getByText("Files of this kind are not accepted.").waitFor();
  // The header of a GIF with 20,000 pixels a side, and its frame's.
  const large = "GIF89a\x20\x4e\x20\x4e\0\0\0\x2c\0\0\0\0\x01\0\x01\0\0";
  await chooseFiles(page, { name: "large.gif", mimeType: "image/gif", buffer: Buffer.from(large, "latin1") });
  await page.getByText("The image has too many pixels.").waitFor();
  await takeScreenshot(page, "refused");
  await page.getByRole("button", { name: "Discard letter.jpg" }).click();
  await page.getByRole("button", { name: "Discard notes.txt" }).click();
  await page.getByRole("button", { name: "Discard large.gif" }).click();
  await page.getByRole("heading", { name: "2 images uploaded" }).waitFor();
});
