// Covers the package's React hook with the development builds of React 18 and 19: the component of docs/client.md under
// StrictMode, unmounting during an upload, uploaders of the app, other users, rendering on a server.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import { build } from "esbuild";
import { signUp, BASE, servePages, waitUntil, openContext } from "./harness.js";
import { readGallery, makeImage, readUsage, watchRequests } from "./uppy.js";

const TEXT = readFileSync(new URL("../../docs/client.md", import.meta.url), "utf8");
const [, COMPONENT] = TEXT.match(/<!-- react -->\n```jsx\n([\s\S]*?)\n```/);

/** Code around the component: `mount(element)` renders under StrictMode. */
const APP = `${COMPONENT}
import { memo, StrictMode, useState } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { createUploader } from "valet-upload";
export { createUploader, hydrateRoot };
export let root;
export const mount = (element) => { root = createRoot(document.querySelector("#root")); root.render(<StrictMode>{element}</StrictMode>); };
export const render = (element) => root.render(<StrictMode>{element}</StrictMode>);
export const uploads = (userId) => <Uploads userId={userId} />;
export const renders = {};
const Line = memo(({ upload }) => { renders[upload.name] = (renders[upload.name] ?? 0) + 1; return <li>{upload.name} {upload.state}</li>; });
export function List({ source }) {
  const { uploads } = useUploader(source);
  return <ul>{uploads.map((upload) => <Line key={upload.key} upload={upload} />)}</ul>;
}
export const list = (source) => <List source={source} />;
function Adding({ queue, file }) {
  useEffect(() => { queue.add(file); }, [queue.add, file]);
}
export function Shared({ source, file }) {
  const queue = useUploader(source);
  return <><Adding queue={queue} file={file} /><List source={source} /><output>{queue.uploads.map(({ state }) => state).join()}</output></>;
}
function Leaving({ source }) {
  globalThis.queue = useUploader(source);
  return <p>mounted</p>;
}
export const leaving = (source) => <Leaving source={source} />;
export const shared = (source, file) => <Shared source={source} file={file} />;
`;

/** Bundles code with the React of this version. */
async function bundle(version, contents, options) {
  const made = await build({
    stdin: { contents: contents.replaceAll("https://api.example.com", BASE), resolveDir: new URL(`react-${version}`, import.meta.url).pathname, loader: "jsx" },
    jsx: "automatic", bundle: true, write: false, logLevel: "error", define: { "process.env.NODE_ENV": '"development"' }, ...options,
  });
  return made.outputFiles[0].text;
}

/** Opens a page of another origin with the app in `app`, signed in as `user`; `html` is the content of its root. */
async function openApp(t, context, version, user, html = "") {
  const script = await bundle(version, APP, { format: "iife", globalName: "app" });
  const port = await servePages(t, (request, response) => {
    if (request.url === "/app.js") return response.setHeader("content-type", "text/javascript").end(script);
    return response.setHeader("content-type", "text/html").end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>React</title><div id="root">${html}</div>`);
  });
  const opened = await context.newPage();
  await opened.goto(`http://localhost:${port}/`);
  await opened.evaluate(({ user, base }) => {
    Object.assign(globalThis, { user, base, shown: [], show: (text) => shown.push(text), accessToken: () => globalThis.user.token });
  }, { user, base: BASE });
  await opened.addScriptTag({ url: "/app.js" });
  return opened;
}

/** Holds all PUTs to the bucket until `release()` is called. */
async function holdPuts(opened) {
  const held = [];
  await opened.route((url) => url.searchParams.has("X-Amz-Signature"), (route) => (route.request().method() === "PUT" ? held.push(route) : route.fallback()));
  return {
    async release() {
      await opened.unrouteAll({ behavior: "ignoreErrors" });
      // Some of these requests were aborted by the page.
      await Promise.all(held.map((route) => route.continue().catch(() => {})));
    },
  };
}

/** Chooses files in the component. */
const choose = (opened, files) => opened.locator("input[type=file]").setInputFiles(files);
/** Returns the names of the user's images. */
const names = async (user) => Object.keys(await readGallery(user)).sort();
/** Returns the number of PUTs to the bucket in a list of `watchRequests`. */
const puts = (seen) => seen.filter((call) => call === "S3 PUT").length;

for (const version of ["18", "19"]) {
  test(`react-${version}: the component of docs/client.md uploads, under StrictMode`, async (t) => {
    // A file that is read later than the others is opened by a separate request, whose refusal (422) is a console error.
    const [context, user] = [await openContext(t, { allowed: [/\b422\b/] }), await signUp()];
    const opened = await openApp(t, context, version, user);
    await opened.evaluate(() => app.mount(app.uploads(user.user.id)));
    const seen = watchRequests(opened);
    await choose(opened, [makeImage("one.png"), makeImage("two.png"), { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") }]);
    await opened.getByText("one.png: done").waitFor();
    await opened.getByText("two.png: done").waitFor();
    await opened.getByText("notes.txt: Files of this kind are not accepted.").waitFor();
    assert.deepEqual([await names(user), puts(seen)], [["one.png", "two.png"], 2]);
    await opened.getByRole("listitem").filter({ hasText: "one.png" }).getByRole("button", { name: "Remove" }).click();
    await waitUntil(async () => (await opened.getByRole("listitem").count()) === 2, "the line is removed");
    assert.equal((await names(user)).length, 2, "the image is not removed");
  });

  test(`react-${version}: unmounting stops an upload, and mounting again continues it`, async (t) => {
    const context = await openContext(t, { allowed: [/ERR_/] });
    const user = await signUp();
    const opened = await openApp(t, context, version, user);
    const seen = watchRequests(opened);
    const hold = await holdPuts(opened);
    let aborted = 0;
    opened.on("requestfailed", (request) => { aborted += Number(request.method() === "PUT"); });
    await opened.evaluate(() => app.mount(app.uploads(user.user.id)));
    await choose(opened, [makeImage("kept.png")]);
    await opened.getByText("kept.png: sending").waitFor();
    await waitUntil(() => puts(seen) === 1, "the upload is sent");
    await opened.evaluate(() => app.render(null));
    await waitUntil(() => aborted === 1, "the request is aborted");
    const before = seen.length;
    await hold.release();
    await new Promise((done) => { setTimeout(done, 700); });
    assert.equal(seen.length, before, `no component, no requests: ${seen.slice(before)}`);
    await opened.evaluate(() => app.render(app.uploads(user.user.id)));
    await opened.getByText("kept.png: done").waitFor();
    assert.deepEqual([await names(user), (await readUsage(user)).pending, await opened.evaluate(() => shown)], [["kept.png"], 0, []]);
  });

  test(`react-${version}: nothing is sent by the uploader of a component that was unmounted`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, version, user);
    await opened.evaluate(() => app.mount(app.leaving({ api: base, user: user.user.id, token: accessToken })));
    await opened.getByText("mounted").waitFor();
    const seen = watchRequests(opened);
    await opened.evaluate(() => app.render(null));
    await opened.getByText("mounted").waitFor({ state: "detached" });
    const thrown = await opened.evaluate(async (bytes) => {
      queue.pause();
      await queue.restore();
      try {
        queue.add(new File([new Uint8Array(bytes)], "late.png", { type: "image/png" }));
      } catch (error) {
        return error.message;
      }
    }, [...makeImage("late.png").buffer]);
    assert.match(thrown, /unmounted/);
    await new Promise((done) => { setTimeout(done, 500); });
    assert.deepEqual([seen, await names(user)], [[], []]);
  });

  test(`react-${version}: an uploader of the app continues without a component`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, version, user);
    const hold = await holdPuts(opened);
    await opened.evaluate(() => {
      globalThis.uploader = app.createUploader({ api: base, token: accessToken, store: null });
      app.mount(app.list(uploader));
    });
    await opened.evaluate((bytes) => { uploader.add(new File([new Uint8Array(bytes)], "one.png", { type: "image/png" })); }, [...makeImage("one.png").buffer]);
    await opened.getByText("one.png sending").waitFor();
    await opened.evaluate(() => app.render(null));
    await hold.release();
    await waitUntil(async () => (await names(user)).length === 1, "the file is uploaded");
    await opened.evaluate(() => app.render(app.list(uploader)));
    await opened.getByText("one.png done").waitFor();
  });

  test(`react-${version}: an upload that does not change is the same object`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, version, user);
    await opened.evaluate(() => {
      globalThis.uploader = app.createUploader({ api: base, token: accessToken, store: null });
      app.mount(app.list(uploader));
    });
    const add = (name) => opened.evaluate(async ({ name, bytes }) => {
      await uploader.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }))[0].finished;
    }, { name, bytes: [...makeImage(name).buffer] });
    await add("one.png");
    await opened.getByText("one.png done").waitFor();
    const before = await opened.evaluate(() => app.renders["one.png"]);
    await add("two.png");
    await opened.getByText("two.png done").waitFor();
    assert.equal(await opened.evaluate(() => app.renders["one.png"]), before);
  });

  test(`react-${version}: progress is rendered at most twenty times a second`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, version, user);
    const { renders, ms } = await opened.evaluate(async (bytes) => {
      globalThis.uploader = app.createUploader({ api: base, token: accessToken, store: null });
      uploader.pause();
      app.mount(app.list(uploader));
      const [item] = uploader.add(new File([new Uint8Array(bytes)], "one.png", { type: "image/png" }));
      const laterOn = () => new Promise((done) => { setTimeout(done, 5); });
      while (!app.renders["one.png"]) await laterOn();
      const [before, begin] = [app.renders["one.png"], performance.now()];
      for (let sent = 1; sent <= 60; sent += 1) {
        item.sent = sent;
        uploader.dispatchEvent(new CustomEvent("change", { detail: item }));
        await laterOn();
      }
      return { renders: app.renders["one.png"] - before, ms: performance.now() - begin };
    }, [...makeImage("one.png").buffer]);
    // StrictMode renders twice.
    assert.ok(renders <= 2 * (ms / 50 + 1), `${renders} renders in ${ms} ms`);
  });

  test(`react-${version}: the effect of a child adds a file, once`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const opened = await openApp(t, context, version, user);
    await opened.evaluate((bytes) => {
      const file = new File([new Uint8Array(bytes)], "one.png", { type: "image/png" });
      app.mount(app.shared({ api: base, token: accessToken, store: null }, file));
    }, [...makeImage("one.png").buffer]);
    await waitUntil(async () => (await opened.locator("output").textContent()) === "done", "it is uploaded, and shown once");
    assert.deepEqual([await names(user), (await readUsage(user)).pending], [["one.png"], 0]);
  });

  test(`react-${version}: another user gets another uploader`, async (t) => {
    const context = await openContext(t, { allowed: [/ERR_/] });
    const [ada, eve] = [await signUp(), await signUp()];
    const opened = await openApp(t, context, version, ada);
    const hold = await holdPuts(opened);
    await opened.evaluate(() => app.mount(app.uploads(user.user.id)));
    await choose(opened, [makeImage("of-ada.png")]);
    await opened.getByText("of-ada.png: sending").waitFor();
    await opened.evaluate((eve) => { globalThis.user = eve; app.render(app.uploads(eve.user.id)); }, eve);
    await waitUntil(async () => (await opened.getByRole("listitem").count()) === 0, "the list is empty");
    await hold.release();
    await choose(opened, [makeImage("of-eve.png")]);
    await opened.getByText("of-eve.png: done").waitFor();
    assert.deepEqual([await names(ada), await names(eve)], [[], ["of-eve.png"]]);
    await opened.evaluate((ada) => { globalThis.user = ada; app.render(app.uploads(ada.user.id)); }, ada);
    await opened.getByText("of-ada.png: done").waitFor();
    assert.deepEqual(await names(ada), ["of-ada.png"]);
  });

  test(`react-${version}: a server renders the component, and the page is hydrated`, async (t) => {
    const [context, user] = [await openContext(t, {}), await signUp()];
    const code = `import { renderToString } from "react-dom/server"; ${COMPONENT}
      globalThis.accessToken = () => { throw new Error("no requests on servers"); };
      export const html = (userId) => renderToString(<Uploads userId={userId} />);`;
    const banner = { js: 'import { createRequire } from "node:module"; const require = createRequire("/");' };
    const file = new URL(`server-${version}.mjs`, import.meta.url);
    writeFileSync(file, await bundle(version, code, { format: "esm", platform: "node", banner }));
    const { html } = await import(file);
    const text = html(user.user.id);
    assert.match(text, /<section><input type="file".*<ul><\/ul><\/section>/);
    const opened = await openApp(t, context, version, user, text);
    await opened.evaluate(() => { app.hydrateRoot(document.querySelector("#root"), app.uploads(user.user.id)); });
    await choose(opened, [makeImage("one.png")]);
    await opened.getByText("one.png: done").waitFor();
    assert.deepEqual(await names(user), ["one.png"]);
  });
}
