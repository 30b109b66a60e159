// Covers the times that images were taken at: the order, headings by month, the list of months, and the words in the large view.

import assert from "node:assert/strict";
import test from "node:test";
import {
  signUp, callApi, BASE, readFocusedName, openPageWithList, findLoadedTiles, drawPhotos, takeScreenshot, reload, openSignedInPage, signIn, readAccessibilityTree, waitUntil, upload, openContext,
} from "./harness.js";

/** Tags of Exif: the camera's model, the offset of the Exif directory, the time taken, and its offset from UTC. */
const [MODEL, EXIF, ORIGINAL, OFFSET] = [0x0110, 0x8769, 0x9003, 0x9011];

/** Returns a directory of a TIFF file for the offset `start`: entries are `[tag, text or offset]`; the texts follow the entries. */
function directory(start, entries) {
  const head = Buffer.alloc(2 + 12 * entries.length + 4);
  head.writeUInt16BE(entries.length);
  const texts = [];
  let end = start + head.length;
  entries.forEach(([tag, value], i) => {
    const at = 2 + 12 * i;
    head.writeUInt16BE(tag, at);
    head.writeUInt16BE(typeof value === "string" ? 2 : 4, at + 2);
    if (typeof value !== "string") {
      head.writeUInt32BE(1, at + 4);
      head.writeUInt32BE(value, at + 8);
      return;
    }
    const text = Buffer.from(`${value}\0`.padEnd(6, "\0"));
    head.writeUInt32BE(value.length + 1, at + 4);
    head.writeUInt32BE(end, at + 8);
    texts.push(text);
    end += text.length;
  });
  return Buffer.concat([head, ...texts]);
}

/** Returns a JPEG file with an Exif block that contains the time and the camera. */
function photographed(file, takenAt, { offset, model } = {}) {
  const main = (exifAt) => directory(8, [...(model ? [[MODEL, model]] : []), [EXIF, exifAt]]);
  const exifAt = 8 + main(0).length;
  const exif = directory(exifAt, [[ORIGINAL, takenAt], ...(offset ? [[OFFSET, offset]] : [])]);
  const segment = Buffer.concat([Buffer.from("Exif\0\0MM\0*\0\0\0\x08", "latin1"), main(exifAt), exif]);
  const marker = Buffer.from([0xff, 0xe1, 0, 0]);
  marker.writeUInt16BE(segment.length + 2, 2);
  return { ...file, buffer: Buffer.concat([file.buffer.subarray(0, 2), marker, segment, file.buffer.subarray(2)]) };
}

/** Returns the headings and the images of the grid in the order of screen readers. */
const read = async (page) => (await readAccessibilityTree(page))
  .filter(({ role, path }) => (role === "heading" || role === "button") && path.includes("list Images"))
  .map(({ name }) => name);

const readsAs = (page, names, label) => waitUntil(async () => String(await read(page)) === String(names), `${label}: ${names}`)
  .catch(async (error) => { throw new Error(`${error.message}; it reads ${await read(page)}`); });

const order = (page) => page.getByLabel("Sort by");
/** Returns the locator of the choice of the order. */
const monthOf = (time, timeZone) => new Date(time).toLocaleString("en", { month: "long", year: "numeric", timeZone });
const headings = async (page) => (await read(page)).filter((name) => !name.endsWith(".jpg"));

/** Returns three photographs and one file without a time: photo-000 is the latest, and photo-003 has no time. */
async function album(page) {
  const files = await drawPhotos(page, 4, { width: 320, height: 240 });
  return [
    photographed(files[0], "2024:12:31 23:30:00", { model: "EOS R5" }),
    photographed(files[1], "2024:12:01 00:10:00", { offset: "+05:00" }),
    photographed(files[2], "2023:06:15 12:00:00"),
    files[3],
  ];
}

// A time that is read as UTC, or converted to this zone, is in another month for one of the files.
const ZONE = "Pacific/Kiritimati";

test("images have headings by the month they were taken in, wherever the viewer is", async (t) => {
  const { page, user } = await openSignedInPage(t, { timezoneId: ZONE });
  await upload(page, await album(page));
  const { images } = await (await callApi("/api/images/gallery", user)).json();
  // One, unless a month ended between two uploads.
  const months = [...new Set(images.map(({ uploadedAt }) => monthOf(uploadedAt, ZONE)))];
  await waitUntil(async () => (await read(page)).length === months.length + 4, "a heading and four images");
  assert.equal((await read(page))[0], months[0], "by upload, the month is that of the viewer");
  assert.deepEqual(await headings(page), months);
  await order(page).focus();
  await order(page).selectOption("Date taken");
  const { createdAt } = images.find(({ fileName }) => fileName === "photo-003.jpg");
  const before = ["December 2024", "photo-000.jpg", "photo-001.jpg", "June 2023", "photo-002.jpg"];
  const names = [monthOf(createdAt, "UTC"), "photo-003.jpg", ...before];
  await readsAs(page, names, "by the time taken");
  assert.equal(await readFocusedName(page), "order", "the focus stays");
  await takeScreenshot(page, "months");
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 4, "the images");
  await reload(page);
  await readsAs(page, names, "the choice is kept");
  assert.equal(await order(page).inputValue(), "taken");
  await order(page).selectOption("Date uploaded");
  await waitUntil(async () => (await read(page)).length === months.length + 4, "one heading again");
  assert.deepEqual(await headings(page), months);
  assert.equal(await page.getByLabel("Go to").isVisible(), false);
});

test("the large view shows the time on the clocks there, and an offset only if it is known", async (t) => {
  const { page } = await openSignedInPage(t, { timezoneId: ZONE });
  await upload(page, await album(page));
  for (const [name, words] of [
    ["photo-000.jpg", /taken Dec 31, 2024, 11:30\sPM local time · EOS R5 · uploaded/],
    ["photo-001.jpg", /taken Dec 1, 2024, 12:10\sAM UTC\+05:00 · uploaded/],
    ["photo-003.jpg", /B · uploaded/],
  ]) {
    await page.getByRole("button", { name, exact: true }).press("Enter");
    await page.locator("#facts", { hasText: words }).waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await page.locator("#lightbox").waitFor({ state: "hidden" });
  }
});

test("a new image lands in its month, from this device, from another, and after the stream was lost", async (t) => {
  const user = await signUp();
  const context = await openContext(t, { allowed: [/api\/events/] });
  const page = await context.newPage();
  const opened = page.waitForResponse((response) => response.url() === `${BASE}/api/events`);
  await signIn(page, user);
  await opened;
  const files = await drawPhotos(page, 6, { width: 320, height: 240 });
  const taken = (n, at) => photographed(files[n], at);
  await upload(page, [taken(0, "2024:12:31 23:30:00"), taken(1, "2023:06:15 12:00:00")]);
  await order(page).selectOption("Date taken");
  await readsAs(page, ["December 2024", "photo-000.jpg", "June 2023", "photo-001.jpg"], "at first");
  await page.getByRole("button", { name: "Clear" }).click();
  await upload(page, [taken(2, "2024:01:10 08:00:00")]);
  await readsAs(page, ["December 2024", "photo-000.jpg", "January 2024", "photo-002.jpg", "June 2023", "photo-001.jpg"], "from this device");
  await page.getByLabel("Go to").getByText("January 2024 (1)").waitFor({ state: "attached" });

  const phone = await (await openContext(t)).newPage();
  await signIn(phone, user);
  await upload(phone, [taken(3, "2023:06:15 12:00:01")]);
  const june = ["June 2023", "photo-003.jpg", "photo-001.jpg"];
  await readsAs(page, ["December 2024", "photo-000.jpg", "January 2024", "photo-002.jpg", ...june], "from another device");
  await context.route("**/api/events", (route) => route.fulfill({ status: 404, contentType: "application/problem+json", body: '{"code":"not_found","status":404}' }));
  await reload(page);
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 4, "without a stream");
  await phone.getByRole("button", { name: "Clear" }).click();
  await upload(phone, [taken(4, "2024:01:09 08:00:00")]);
  await page.evaluate(() => dispatchEvent(new Event("focus")));
  await readsAs(page, ["December 2024", "photo-000.jpg", "January 2024", "photo-002.jpg", "photo-004.jpg", ...june], "after a return to the page");
});

test("the list of months goes to one that is not loaded, and Tab to its first image", async (t) => {
  // Thirty images a month, the last of them in December 2025.
  const takenIn = (n) => new Date(Date.UTC(2025, 11 - Math.floor(n / 30))).toISOString().slice(0, 7);
  const options = { viewport: { width: 1000, height: 700 }, members: (n) => ({ takenAt: `${takenIn(n)}-${30 - (n % 30) < 10 ? "0" : ""}${Math.min(28, 30 - (n % 30))}T12:00:00` }) };
  const { page } = await openPageWithList(t, 360, options);
  await page.route("**/api/images/timeline", (route) => {
    const months = Array.from({ length: 12 }, (_, i) => ({ month: takenIn(30 * i), count: 30 }));
    return route.fulfill({ json: { months } });
  });
  await order(page).selectOption("Date taken");
  const months = page.getByLabel("Go to");
  await months.getByText("February 2025 (30)").waitFor({ state: "attached" });
  await months.focus();
  await months.selectOption("2025-02");
  const heading = page.getByRole("heading", { name: "February 2025" });
  await heading.waitFor();
  await waitUntil(() => heading.evaluate((element) => {
    const { top } = element.getBoundingClientRect(), { bottom } = document.querySelector(".top").getBoundingClientRect();
    return top >= bottom - 1 && top < bottom + 60;
  }), "the month is at the top");
  await takeScreenshot(page, "month");
  assert.equal(await readFocusedName(page), await months.evaluate((element) => element.id), "the focus stays in the list");
  await page.keyboard.press("Tab");
  assert.equal(await readFocusedName(page), "300.jpg");
  const names = await headings(page);
  assert.equal(new Set(names).size, names.length, "a month has one heading");
});

test("the grid shows the preview of its size, and the image if none can be loaded", async (t) => {
  const sizes = [{ width: 640, height: 480 }, { width: 1600, height: 1200 }];
  const at = (url) => ({ previewUrl: `${url}#640`, previews: sizes.map((size) => ({ ...size, url: `${url}#${size.width}` })) });
  const broken = { previewUrl: "/missing-640", previews: [{ width: 640, height: 480, url: "/missing-640" }] };
  const options = { allowed: [/missing/], members: (n, url) => (n ? at(url) : broken) };
  const { page } = await openPageWithList(t, 4, options);
  await waitUntil(async () => (await findLoadedTiles(page).count()) === 4, "all images");
  const shown = (name) => page.getByAltText(name, { exact: true }).evaluate((image) => image.currentSrc);
  assert.match(await shown("1.jpg"), /#640$/);
  assert.match(await shown("0.jpg"), /^blob:[^#]*$/);
});

test("by upload, images are in the month of the viewer's calendar", async (t) => {
  const members = (n) => ({ uploadedAt: n ? "2026-01-31T09:59:59Z" : "2026-01-31T10:00:00Z" });
  const { page } = await openPageWithList(t, 2, { timezoneId: ZONE, members });
  await readsAs(page, ["February 2026", "0.jpg", "January 2026", "1.jpg"], "fourteen hours ahead of UTC");
});
