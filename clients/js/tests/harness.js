// Helpers for the tests in Node: accounts of the server at VALET_URL, images, and a `fetch` that answers requests or breaks them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

export const BASE = process.env.VALET_URL;
if (!BASE) throw new Error("VALET_URL is not set; run .ci/client");
const PNG = readFileSync(process.env.VALET_PNG);
export const MIB = 1024 * 1024;

let accounts = 0;

/** Calls the server without the package, up to ten times while it answers that it is too busy. A `body` may be a function, which is called for each attempt. */
export async function call(method, path, { token, body } = {}) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }) };
  const text = () => JSON.stringify(typeof body === "function" ? body() : body);
  const send = () => originalFetch(BASE + path, { method, headers, body: body && text() });
  let response = await send();
  for (let left = 9; left && [503, 504].includes(response.status); left -= 1) {
    await response.arrayBuffer();
    await new Promise((done) => { originalSetTimeout(done, 500); });
    response = await send();
  }
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.status === 204 ? undefined : response.json();
}

/** Signs up a new account. A sign-up without an answer may have used its address, so a repeat has another one. */
export async function signUp() {
  const email = () => `node-${process.pid}-${Date.now()}-${(accounts += 1)}@example.com`;
  return call("POST", "/api/auth/signup", { body: () => ({ email: email(), password: "three small blue boats" }) });
}

/** Returns a unique image of this many bytes: bytes after the end of a PNG are legal. */
export const makeImage = (name, size = PNG.length + 16) => new File([PNG, randomBytes(size - PNG.length)], name, { type: "image/png" });

/** Returns the gallery's images. */
export const readGallery = async (user) => (await call("GET", "/api/images/gallery?limit=100", user)).images;

/** Asserts that the gallery has exactly these files, each once and byte for byte. */
export async function assertGallery(user, files) {
  const images = await readGallery(user);
  assert.deepEqual(images.map((one) => one.fileName).sort(), files.map((file) => file.name).sort());
  for (const file of files) {
    const { url } = images.find((one) => one.fileName === file.name);
    const [stored, sent] = [await (await originalFetch(url)).arrayBuffer(), await file.arrayBuffer()];
    assert.ok(Buffer.from(stored).equals(Buffer.from(sent)), `${file.name} is byte for byte the same`);
  }
}

const originalFetch = globalThis.fetch;
const originalSetTimeout = globalThis.setTimeout;

/**
 * Lets `rule(request, send)` answer requests of the package until the test ends: `request` is `{ kind, method, url, options, n }`
 * with the number of the request among those of its kind ("put", "confirm", "upload", …), `send()` passes it on. Requests for which
 * the rule returns nothing are passed on. Returns the kinds of all requests, in order; the list grows.
 */
export function intercept(t, rule = () => {}) {
  const seen = [];
  globalThis.fetch = async (url, options = {}) => {
    const { pathname, origin } = new URL(url);
    const kind = origin === BASE ? pathname.replace(/\/[0-9a-f-]{36}/, "").replace(/^\/api\/(images\/)?/, "") : "put";
    seen.push(kind);
    const send = () => originalFetch(url, options);
    return (await rule({ kind, method: options.method, url, options, n: seen.filter((one) => one === kind).length }, send)) ?? send();
  };
  t.after(() => { globalThis.fetch = originalFetch; });
  return seen;
}

/** Returns a response with this status and JSON. */
export const makeResponse = (code, body) => new Response(body ? JSON.stringify(body) : null, { status: code });
/** Never answers; rejects when the request is aborted, as `fetch` does. A request without an abort would keep the process alive. */
export const neverAnswer = ({ signal }) => new Promise((_, reject) => { signal.addEventListener("abort", () => reject(signal.reason)); });
/** Throws, as `fetch` does if the connection is lost. */
export const loseConnection = () => { throw new TypeError("fetch failed"); };

/** Makes timers end `factor` times earlier, until the returned function is called or the test ends. */
export function speedUpTimers(t, factor = 100) {
  const later = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms, ...rest) => later(work, ms / factor, ...rest);
  const undo = () => { globalThis.setTimeout = later; };
  t.after(undo);
  return undo;
}

/** Waits until `check` holds. */
export async function waitUntil(check, condition, seconds = 120) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    if (await check()) return;
    await new Promise((done) => { setTimeout(done, 20); });
  }
  assert.fail(`not within ${seconds} s: ${condition}`);
}
