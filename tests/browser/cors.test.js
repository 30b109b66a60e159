// Covers CORS as browsers enforce it, of the API and of the bucket: pages of an origin in CORS_ORIGINS can make every call, pages
// of other origins cannot make any. Runs against `valet dev`, and against `valet serve` after `valet check --fix`.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";
import { signUp, callApi, BASE, openContextWithFakeHosts, servePages } from "./harness.js";

/** Origin in the server's CORS_ORIGINS. */
const ALLOWED = `http://app.test:${process.env.VALET_ORIGIN_PORT}`;

/** Serves an empty page on this port, and opens it under a name that ends in `.test`. */
async function pageOf(t, host, port) {
  const served = await servePages(t, (_, response) => response.setHeader("content-type", "text/html").end("<!doctype html><title>Elsewhere</title>"), port);
  const page = await (await openContextWithFakeHosts(t)).newPage();
  await page.goto(`http://${host}:${served}/`);
  return page;
}

/** Opens an upload of a new picture without a browser; returns the bytes and the server's response. */
async function ticket(token) {
  const bytes = Buffer.concat([readFileSync(`${process.env.VALET_FIXTURES}/plain.jpg`), randomBytes(16)]);
  const sha256 = createHash("sha256").update(bytes).digest("base64");
  const answer = await fetch(`${BASE}/api/images/upload`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ fileName: "cors.jpg", contentType: "image/jpeg", size: bytes.length, sha256 }),
  });
  assert.equal(answer.status, 201);
  return { base64: bytes.toString("base64"), ...(await answer.json()) };
}

/** Runs in the page: returns the result of each step, or that the browser hid it from the page. */
const steps = async ({ base, token, id, upload, base64, credentials }) => {
  const hidden = () => "hidden from the page";
  const body = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const headers = { authorization: `Bearer ${token}` };
  const call = (path, options) => fetch(base + path, { headers, credentials, ...options }).then((answer) => answer, hidden);
  const put = await fetch(upload.url, { method: upload.method, headers: upload.headers, body, credentials }).then((answer) => answer, hidden);
  const keyed = { method: "POST", headers: { ...headers, "content-type": "application/json", "idempotency-key": crypto.getRandomValues(new Uint32Array(4)).join("-") }, body: "{}" };
  const confirm = await call(`/api/images/${id}/confirm`, { method: "POST" });
  const image = confirm.status === 200 ? await confirm.json() : undefined;
  const got = image && await fetch(image.url, { credentials }).then((answer) => answer.arrayBuffer(), hidden);
  const patch = await call(`/api/images/${id}`, { method: "PATCH", headers: { ...headers, "content-type": "application/json" }, body: '{"caption":"From elsewhere"}' });
  const gallery = await call("/api/images/gallery");
  const unchanged = gallery.status === 200 ? await call("/api/images/gallery", { headers: { ...headers, "if-none-match": gallery.headers.get("etag") }, cache: "no-store" }) : gallery;
  const problem = await call("/api/auth/login", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
  return {
    put: put.status ?? put,
    etag: Boolean(put.headers?.get("etag")),
    invalid: (await call("/api/images/upload", keyed)).status ?? "hidden from the page",
    confirm: confirm.status ?? confirm,
    bytes: got?.byteLength ?? got,
    patch: patch.status ?? patch,
    unchanged: unchanged.status ?? unchanged,
    requestId: Boolean(problem.headers?.get("x-request-id")),
    deleted: (await call(`/api/images/${id}`, { method: "DELETE" })).status ?? "hidden from the page",
  };
};

test("a page of an origin in CORS_ORIGINS can make every call", async (t) => {
  const page = await pageOf(t, "app.test", Number(process.env.VALET_ORIGIN_PORT));
  const { token } = await signUp();
  const open = await ticket(token);
  const seen = await page.evaluate(steps, { base: BASE, token, credentials: "omit", ...open });
  const bytes = Buffer.from(open.base64, "base64").length;
  assert.deepEqual(seen, { put: 200, etag: true, invalid: 400, confirm: 200, bytes, patch: 200, unchanged: 304, requestId: true, deleted: 204 });
  assert.equal(await page.evaluate(() => location.origin), ALLOWED);
});

test("requests with credentials are refused, because no cookie authenticates", async (t) => {
  const page = await pageOf(t, "app.test", Number(process.env.VALET_ORIGIN_PORT));
  const { token } = await signUp();
  const seen = await page.evaluate(steps, { base: BASE, token, credentials: "include", ...(await ticket(token)) });
  const { put, etag, bytes, ...calls } = seen;
  assert.deepEqual(calls, { ...calls, invalid: "hidden from the page", confirm: "hidden from the page", patch: "hidden from the page", requestId: false, deleted: "hidden from the page" });
});

for (const [label, host, port] of [["another port", "app.test", 0], ["another name", "www.app.test", 0]]) {
  test(`a page of another origin can make no call: ${label}`, async (t) => {
    const page = await pageOf(t, host, port);
    const { token } = await signUp();
    const seen = await page.evaluate(steps, { base: BASE, token, credentials: "omit", ...(await ticket(token)) });
    const { bytes, ...others } = seen;
    for (const [step, outcome] of Object.entries(others)) assert.ok(outcome === "hidden from the page" || outcome === false, `${step}: ${outcome}`);
    assert.equal(bytes, undefined);
    const stored = await callApi("/api/auth/me", { token });
    assert.equal((await stored.json()).usage.images, 0, "nothing was stored");
  });
}
