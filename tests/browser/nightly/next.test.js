// Covers the package in Next.js, unmodified: production builds by both of its bundlers from the package as npm packs it, with the component
// of docs/client.md. The server renders it, the browser hydrates it, and files are uploaded with the worker.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import test from "node:test";
import { signUp, callAtEnd, BASE, drawPhotos, waitUntil, openContext } from "../harness.js";
import { readGallery, readUsage } from "../uppy.js";

const APP = new URL("next/", import.meta.url).pathname;
const TEXT = readFileSync(new URL("../../../docs/client.md", import.meta.url), "utf8");
const [, COMPONENT] = TEXT.match(/<!-- react -->\n```jsx\n([\s\S]*?)\n```/);
/** Code before the component: functions of the app. */
const OWN = `"use client";
const accessToken = () => globalThis.token;
const show = (text) => console.error(text);
`;
writeFileSync(`${APP}app/uploads.jsx`, `${OWN}${COMPONENT.replaceAll("https://api.example.com", BASE)}\n`);

/** Runs Next.js with `dist` as the folder of the build; returns the process and the pieces of its output, which grow. */
function next(args, dist) {
  const child = spawn(process.execPath, [`${APP}node_modules/next/dist/bin/next`, ...args], {
    cwd: APP, env: { ...process.env, NEXT_DIST: dist, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" }, stdio: ["ignore", "pipe", "pipe"],
  });
  const output = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => output.push(text));
  return { child, output };
}

/** Returns a port that no program listens on. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Serves a build; returns its address. */
async function serve(t, dist) {
  const port = await freePort();
  const { child, output } = next(["start", "--hostname", "127.0.0.1", "--port", String(port)], dist);
  callAtEnd(t, async () => { child.kill(); await once(child, "exit"); });
  const address = `http://localhost:${port}/`;
  await waitUntil(async () => {
    assert.equal(child.exitCode, null, output.join(""));
    const status = await fetch(address).then((answer) => answer.status, () => 0);
    assert.ok(status === 0 || status === 200, `${status}: ${output.join("")}`);
    return status === 200;
  }, "Next.js serves the app");
  return address;
}

for (const bundler of ["turbopack", "webpack"]) {
  test(`Next.js builds the app with ${bundler}, renders it, and it uploads with the worker`, { timeout: 600_000 }, async (t) => {
    const dist = `.next-${bundler}`;
    const { child, output } = next(["build", `--${bundler}`], dist);
    const [code] = await once(child, "exit");
    assert.equal(code, 0, output.join(""));
    assert.doesNotMatch(output.join(""), /warn/i);
    const address = await serve(t, dist);
    const user = await signUp();
    const html = await (await fetch(`${address}?user=${user.user.id}`)).text();
    assert.match(html, /<section><input type="file"[^>]*><progress[^>]*><\/progress><ul><\/ul><\/section>/, "the server renders the component");
    // An error of hydration is an error in the console.
    const context = await openContext(t, {});
    await context.addInitScript((token) => { globalThis.token = token; }, user.token);
    const opened = await context.newPage();
    await opened.goto(`${address}?user=${user.user.id}`);
    const [photo] = await drawPhotos(opened, 1, { width: 900, height: 700, noise: 0.8 });
    // Before the page is hydrated a choice has no effect.
    await waitUntil(async () => {
      await opened.locator("input[type=file]").setInputFiles([photo]);
      return opened.getByRole("listitem").first().waitFor({ timeout: 2000 }).then(() => true, () => false);
    }, "the page is hydrated");
    await opened.getByText(`${photo.name}: done`).waitFor();
    const shown = await waitUntil(async () => (await readGallery(user))[photo.name], "the image");
    assert.ok(shown.previewUrl && shown.thumbHash, "the image has a preview");
    assert.ok(opened.workers().length > 0, "the worker of the build runs");
    const { images, pending } = await readUsage(user);
    assert.deepEqual([images, pending], [1, 0]);
  });
}
