// What every test needs: the browser, accounts, pages that report each console error and policy violation, pictures of pages.
// The server's address comes from VALET_URL; .ci/browser starts one.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before } from "node:test";
import { chromium } from "playwright-core";

export const BASE = process.env.VALET_URL;
if (!BASE) throw new Error("VALET_URL is not set; run .ci/browser");
const PICTURES = process.env.VALET_PICTURES;

export let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
});
after(() => browser?.close());

export const PASSWORD = "three small blue boats";
let accounts = 0;
export const email = () => `ada-${process.pid}-${Date.now()}-${(accounts += 1)}@example.com`;

/** A context whose pages must be without faults; `allowed` are patterns of console errors that a test provokes. */
export async function visitor(t, { allowed = [], ...options } = {}) {
  const context = await browser.newContext({ baseURL: BASE, viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(30_000);
  const faults = [];
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`));
  });
  context.on("console", (message) => { if (message.type() === "error") faults.push(`${message.text()} ${message.location().url}`); });
  context.on("weberror", (error) => faults.push(String(error.error().stack)));
  t.after(async () => {
    await context.close();
    const unexpected = faults.filter((fault) => !allowed.some((pattern) => pattern.test(fault)));
    assert.deepEqual(unexpected, [], "no console error, no exception, no policy violation");
  });
  return context;
}

/** Makes an account by the API. */
export async function account() {
  const credentials = { email: email(), password: PASSWORD };
  const answer = await fetch(`${BASE}/api/auth/signup`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(credentials) });
  assert.equal(answer.status, 201);
  return { ...credentials, ...(await answer.json()) };
}

export async function signIn(page, user) {
  await page.goto("/");
  await page.getByLabel("Email address").fill(user.email);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#gallery").waitFor();
}

/** A page with a new account signed in. */
export async function signedIn(t, options) {
  const context = await visitor(t, options);
  const page = await context.newPage();
  const user = await account();
  await signIn(page, user);
  return { context, page, user };
}

/** JPEG files drawn by the browser: `count` different ones, as Playwright takes them. `noise` makes them large. */
export async function photos(page, count, { width = 640, height = 480, noise = 0, from = 0 } = {}) {
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

export const choose = (page, files) => page.locator("#files").setInputFiles(files);
export const title = (page) => page.locator("#tray-title");

/** Uploads them and waits until the page says that all are there. */
export async function upload(page, files) {
  await choose(page, files);
  await page.getByRole("heading", { name: `${files.length} image${files.length === 1 ? "" : "s"} uploaded` }).waitFor({ timeout: 60_000 });
}

export async function picture(page, name, options) {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: `${PICTURES}/${name}.png`, ...options });
}

/** Tiles whose images are there. */
export const loaded = (page) => page.locator(".tile.loaded");

/** Waits until `check` holds. */
export async function until(check, what, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) assert.fail(`not within ${seconds} s: ${what}`);
    await new Promise((done) => { setTimeout(done, 50); });
  }
}
