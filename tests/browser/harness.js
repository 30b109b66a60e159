// Helpers for every test: the browser, accounts, pages that report each console error and policy violation, screenshots. The
// server's address comes from VALET_URL; .ci/browser starts one.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { after, before } from "node:test";
import { chromium } from "playwright-core";

export const BASE = process.env.VALET_URL;
if (!BASE) throw new Error("VALET_URL is not set; run .ci/browser");
const PICTURES = process.env.VALET_PICTURES;

/** Options of every browser that tests start. */
export const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
  timeout: 180_000,
};

/** Time in milliseconds that every test waits for an expected event. */
const PATIENCE = 180_000;

/** For the option `timers` of {@link openContext}: "Undo" is offered for ten minutes, because a busy machine takes long for a step. */
export const LONG_UNDO = { 8000: 600_000 };

export let browser;
before(async () => { browser = await chromium.launch(LAUNCH); });
after(() => browser?.close());

export const PASSWORD = "three small blue boats";
let accounts = 0;
/** Returns a new email address. */
export const newEmail = () => `ada-${process.pid}-${Date.now()}-${(accounts += 1)}@example.com`;

/** Test → functions to call at its end. */
const ends = new WeakMap();

/**
 * Calls `act` when the test ends, after the functions of earlier calls, even if one of them throws. `t.after` would skip the rest then, and
 * a server that stays open keeps the process from ending.
 */
export function callAtEnd(t, act) {
  if (ends.has(t)) return void ends.get(t).push(act);
  const acts = [act];
  ends.set(t, acts);
  t.after(async () => {
    const errors = [];
    for (const each of acts) {
      try { await each(); } catch (error) { errors.push(error); }
    }
    if (errors.length > 1) throw new AggregateError(errors, errors.map(({ message }) => message).join("; "));
    if (errors.length) throw errors[0];
  });
}

/** Serves pages with `listener` until the test ends, and returns the port. */
export async function servePages(t, listener, port = 0) {
  const server = createServer(listener);
  await new Promise((ready) => { server.listen(port, "127.0.0.1", ready); });
  callAtEnd(t, () => {
    server.closeAllConnections();
    return new Promise((closed) => { server.close(closed); });
  });
  return server.address().port;
}

/** Opens a context that resolves names that end in `.test` to this machine: origins that are neither secure nor local. */
export async function openContextWithFakeHosts(t, options) {
  const started = await chromium.launch({
    ...LAUNCH, args: [...LAUNCH.args, "--host-resolver-rules=MAP *.test 127.0.0.1", "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,LocalNetworkAccessChecks"],
  });
  callAtEnd(t, () => started.close());
  const context = await started.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  return context;
}

/**
 * Opens a context whose pages must report no errors; `allowed` are patterns of console errors that a test provokes. `timers` has the
 * durations, in milliseconds, that replace others of the page's timers.
 */
export async function openContext(t, { allowed = [], timers, ...options } = {}) {
  const context = await browser.newContext({ baseURL: BASE, viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const faults = [];
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`));
  });
  if (timers) {
    await context.addInitScript((timers) => {
      const later = window.setTimeout;
      // A pause of 8 s before a repeated request is not the timer of "Undo": its function is the native one of a promise.
      const isPause = (work, ms) => ms === 8000 && /\[native code\]/.test(String(work));
      window.setTimeout = (work, ms, ...rest) => later(work, isPause(work, ms) ? ms : timers[ms] ?? ms, ...rest);
    }, timers);
  }
  context.on("console", (message) => { if (message.type() === "error") faults.push(`${message.text()} ${message.location().url}`); });
  context.on("weberror", (error) => faults.push(String(error.error().stack)));
  callAtEnd(t, async () => {
    await context.close();
    const unexpected = faults.filter((fault) => !allowed.some((pattern) => pattern.test(fault)));
    assert.deepEqual(unexpected, [], "no console error, no exception, no policy violation");
  });
  return context;
}

/** Calls `send` up to ten times while it resolves with 503 or 504, which a busy server returns. Returns the last response. */
async function repeatWhileBusy(send) {
  for (let left = 9; ; left -= 1) {
    const answer = await send();
    if (!left || ![503, 504].includes(answer.status)) return answer;
    await answer.arrayBuffer();
    await new Promise((done) => { setTimeout(done, 500); });
  }
}

/** Calls the API with this access token; a call that can be repeated. */
export function callApi(path, { token }, { method, body } = {}) {
  const headers = { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) };
  return repeatWhileBusy(() => fetch(BASE + path, { method, headers, body: body && JSON.stringify(body) }));
}

/** Signs up an account through the API. */
export async function signUp() {
  let credentials;
  const answer = await repeatWhileBusy(() => {
    // A sign-up without an answer may have used its address.
    credentials = { email: newEmail(), password: PASSWORD };
    const body = JSON.stringify(credentials);
    return fetch(`${BASE}/api/auth/signup`, { method: "POST", headers: { "content-type": "application/json" }, body });
  });
  assert.equal(answer.status, 201);
  return { ...credentials, ...(await answer.json()) };
}

/** Signs in on the page. */
export async function signIn(page, user) {
  await page.goto("/");
  await page.getByLabel("Email address").fill(user.email);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#gallery").waitFor();
}

/** Opens a page that is signed in to a new account. */
export async function openSignedInPage(t, options) {
  const context = await openContext(t, options);
  const page = await context.newPage();
  const user = await signUp();
  await signIn(page, user);
  return { context, page, user };
}

/** Returns JPEG files drawn by the browser: `count` different ones, as Playwright takes them. `noise` makes them large. */
export async function drawPhotos(page, count, { width = 640, height = 480, noise = 0, from = 0 } = {}) {
  const drawn = await page.evaluate(async ({ count, width, height, noise, from }) => {
    const files = [];
    for (let n = from; n < from + count; n += 1) {
      const shape = [[1, 1], [1.5, 1], [0.7, 1.1], [1, 0.8], [1.9, 1]][n % 5];
      const canvas = new OffscreenCanvas(Math.round(width * shape[0]), Math.round(height * shape[1]));
      const context = canvas.getContext("2d");
      const sky = context.createLinearGradient(0, 0, 0, canvas.height);
      const hue = (n * 47) % 360;
      sky.addColorStop(0, `hsl(${hue} 55% 72%)`);
      sky.addColorStop(0.62, `hsl(${(hue + 40) % 360} 60% 86%)`);
      sky.addColorStop(0.63, `hsl(${(hue + 150) % 360} 30% 42%)`);
      sky.addColorStop(1, `hsl(${(hue + 170) % 360} 34% 24%)`);
      context.fillStyle = sky;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.fillStyle = `hsl(${(hue + 20) % 360} 90% 95%)`;
      context.beginPath();
      context.arc(canvas.width * (0.2 + ((n * 37) % 60) / 100), canvas.height * 0.36, canvas.height * 0.11, 0, 7);
      context.fill();
      if (noise) {
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < pixels.data.length; i += 65536) crypto.getRandomValues(pixels.data.subarray(i, i + 65536));
        for (let i = 3; i < pixels.data.length; i += 4) pixels.data[i] = 255;
        context.putImageData(pixels, 0, 0);
      }
      context.font = "12px sans-serif";
      context.fillText(`${n}`, 8, canvas.height - 8);
      const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: noise || 0.9 });
      const url = await new Promise((done) => { const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(blob); });
      files.push({ n, base64: url.split(",")[1] });
    }
    return files;
  }, { count, width, height, noise, from });
  return drawn.map(({ n, base64 }) => ({ name: `photo-${String(n).padStart(3, "0")}.jpg`, mimeType: "image/jpeg", buffer: Buffer.from(base64, "base64") }));
}

/** Reloads the page after its history has settled: a closed dialog goes back one entry, which in Chromium may abort a reload. */
export async function reload(page) {
  await page.waitForFunction(() => document.querySelector("dialog[open]") || !/^#(image|account)/.test(location.hash));
  await page.reload();
}

/** Chooses files in the page's file input. */
export const chooseFiles = (page, files) => page.locator("#files").setInputFiles(files);
/** Returns the locator of the upload list's title. */
export const findUploadListTitle = (page) => page.locator("#upload-list-title");

/** Uploads files and waits until the page reports all of them as uploaded. */
export async function upload(page, files) {
  await chooseFiles(page, files);
  await page.getByRole("heading", { name: `${files.length} image${files.length === 1 ? "" : "s"} uploaded` }).waitFor();
}

/** Stores a screenshot if VALET_PICTURES names a folder. */
export async function takeScreenshot(page, name, options) {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/${name}.png`, ...options });
}

/** Returns the locator of the tiles whose images have loaded. */
export const findLoadedTiles = (page) => page.locator(".tile.loaded");

/** Waits until `check` returns a true value, and returns it. All tests have one limit, because none of them measures speed. */
export async function waitUntil(check, condition) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) assert.fail(`not within ${PATIENCE / 1000} s: ${condition}`);
    await new Promise((done) => { setTimeout(done, 50); });
  }
}

/**
 * Returns the accessibility tree as Chromium gives it to screen readers, in reading order:
 * `{ role, name, live, focused, modal, text, path }`.
 * Hidden and inert elements are not in it. `path` holds the roles and names above, outermost first.
 */
export async function readAccessibilityTree(page) {
  const cdp = await page.context().newCDPSession(page);
  const { nodes } = await cdp.send("Accessibility.getFullAXTree");
  await cdp.detach();
  const byId = new Map(nodes.map((node) => [node.nodeId, node]));
  const children = (node) => (node.childIds ?? []).map((id) => byId.get(id)).filter(Boolean);
  const text = (node) => (node.role?.value === "StaticText" ? node.name?.value ?? "" : children(node).map(text).join(" ")).trim();
  const found = [];
  const walk = (node, path) => {
    const properties = Object.fromEntries((node.properties ?? []).map(({ name, value }) => [name, value.value]));
    const [role, name] = [node.role?.value, node.name?.value ?? ""];
    if (!node.ignored) found.push({ role, name, live: properties.live, focused: Boolean(properties.focused), modal: Boolean(properties.modal), text: text(node), path });
    for (const child of children(node)) walk(child, node.ignored ? path : [...path, `${role} ${name}`.trim()]);
  };
  for (const node of nodes.filter((node) => !node.parentId)) walk(node, []);
  return found;
}

/** Waits until a live region of the accessibility tree contains this text, which screen readers then announce. */
export const waitForAnnouncement = (page, pattern) =>
  waitUntil(async () => (await readAccessibilityTree(page)).some((node) => node.live && node.live !== "off" && pattern.test(node.text)), `announced: ${pattern}`);

/** Returns whether no other element covers the middle of this one. */
export const isClickable = (locator) => locator.evaluate((element) => {
  const { left, top, width, height } = element.getBoundingClientRect();
  const hit = document.elementFromPoint(left + width / 2, top + height / 2);
  return element === hit || element.contains(hit);
});

/** Returns the name of the focused element, or null. */
export const readFocusedName = (page) => page.evaluate(() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  return element.getAttribute("aria-label") ?? element.querySelector("img")?.alt ?? (element.id || element.textContent.trim());
});

/**
 * Replaces the page's gallery by a list of `count` images, the newest of them `0.jpg`, a second apart. `members(n, url)` returns more
 * members of an image. Call it before the gallery is shown.
 */
export async function replaceGallery(page, count, members = () => ({})) {
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30" fill="#7a9"/></svg>`;
  const url = await page.evaluate((text) => URL.createObjectURL(new Blob([text], { type: "image/svg+xml" })), picture);
  const image = (n) => ({
    id: `picture-${n}`, fileName: `${n}.jpg`, contentType: "image/jpeg", size: 1000, width: 400 + ((n * 7919) % 900), height: 400 + ((n * 104_729) % 500),
    thumbHash: "1QcSHQRnh493V4dIh4eXh1h4kJUI", url, urlExpiresAt: "2099-01-01T00:00:00Z", createdAt: "2026-01-01T00:00:00Z",
    uploadedAt: new Date(Date.UTC(2026, 0, 15) - n * 1000).toISOString(), ...members(n, url),
  });
  await page.route("**/api/images/gallery?*", (route) => {
    const query = new URL(route.request().url()).searchParams;
    const from = Number(query.get("cursor") ?? 0), to = Math.min(count, from + Number(query.get("limit")));
    return route.fulfill({ json: { images: Array.from({ length: to - from }, (_, i) => image(from + i)), nextCursor: to < count ? String(to) : undefined } });
  });
  await page.route("**/api/images/read", (route) => {
    const { ids } = route.request().postDataJSON();
    return route.fulfill({ json: { results: ids.map((id) => ({ id, status: 200, image: image(Number(id.split("-")[1])) })) } });
  });
}

/** Opens a page that is signed in to a new account with a gallery of {@link replaceGallery}. */
export async function openPageWithList(t, count, { members, ...options } = {}) {
  const context = await openContext(t, options);
  const page = await context.newPage();
  await page.goto("/");
  await replaceGallery(page, count, members);
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Email address").fill(newEmail());
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.keyboard.press("Enter");
  await findLoadedTiles(page).first().waitFor();
  return { context, page };
}
