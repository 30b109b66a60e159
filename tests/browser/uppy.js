// Helpers for both versions of Uppy: the code of docs/uppy.md, bundled with the real packages and served to a page of another origin;
// images, and changes to them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { build } from "esbuild";
import { callApi, BASE, servePages, waitUntil } from "./harness.js";

const PNG = readFileSync(`${process.env.VALET_FIXTURES}/plain.png`);
export const MIB = 1024 * 1024;

/** Returns a unique image of this many bytes: bytes after the end of a PNG are legal. */
export const makeImage = (name, size = PNG.length + 16) => ({ name, mimeType: "image/png", buffer: Buffer.concat([PNG, randomBytes(size - PNG.length)]) });

/** Returns a unique image of 17 MiB, which is uploaded in three parts. */
export const makeLargeImage = (name) => ({ ...makeImage(name), zeros: 17 * MIB });

/** The text of docs/uppy.md. */
const TEXT = readFileSync(new URL("../../docs/uppy.md", import.meta.url), "utf8");

/** Returns the code block of docs/uppy.md after this mark. */
export function readCodeBlock(mark) {
  const [, code] = TEXT.match(new RegExp(`<!-- ${mark} -->\n\`\`\`jsx?\n([\\s\\S]*?)\n\`\`\``)) ?? [];
  if (!code) throw new Error(`docs/uppy.md has no block ${mark}`);
  return code;
}

/** Bundles the code into a script that puts its exports into `app`. `recipe` is the module that it imports as `./uppy.js`. */
async function bundle(code, version, recipe = "") {
  const here = new URL(`uppy-${version}`, import.meta.url).pathname;
  const known = (text) => text.replaceAll("https://api.example.com", BASE);
  const plugin = {
    name: "recipe",
    setup(build) {
      build.onResolve({ filter: /^\.\/uppy\.js$/ }, () => ({ path: "uppy.js", namespace: "recipe" }));
      build.onLoad({ filter: /.*/, namespace: "recipe" }, () => ({ contents: known(recipe), resolveDir: here }));
    },
  };
  const made = await build({
    stdin: { contents: known(code), resolveDir: here, loader: "jsx" }, plugins: [plugin], jsx: "automatic",
    bundle: true, write: false, format: "iife", globalName: "app", platform: "browser", logLevel: "error", define: { "process.env.NODE_ENV": '"production"' },
  });
  return made.outputFiles[0].text;
}

/** Versions of @uppy/aws-s3 that the bundles must contain: a wrong resolution would test one version twice. */
export const VERSION = { 5: "5.1.0", 6: "6.3.1" };

/** Exports of every bundle besides those of the code in docs/uppy.md. */
const EXPORTS = `
export { default as AwsS3 } from "@uppy/aws-s3";
export { default as Compressor } from "@uppy/compressor";
export { default as GoldenRetriever } from "@uppy/golden-retriever";
`;

/**
 * Opens a page of another origin with the code of this mark in docs/uppy.md, changed by `change`, signed in as `user`.
 * The default version is the digit in a mark such as `uppy-6`.
 */
export async function openUppyPage(t, context, mark, user, change = (code) => code, version = mark.slice(5, 6)) {
  return serve(t, context, version, user, await bundle(`${change(readCodeBlock(mark))}${EXPORTS}`, version));
}

/** Opens the same page with the React component of docs/uppy.md. */
export async function openReactPage(t, context, mark, user, change = (code) => code, version = mark.slice(5, 6)) {
  const code = `import { createRoot } from "react-dom/client";
    ${readCodeBlock(`${mark}-react`)}
    export { uppy } from "./uppy.js"; ${EXPORTS}
    createRoot(document.querySelector("#root")).render(<Upload />);`;
  return serve(t, context, version, user, await bundle(code, version, change(readCodeBlock(mark))));
}

/** Serves a page with the script on a port of its own, and opens it. */
async function serve(t, context, version, user, script) {
  const port = await servePages(t, (request, response) => {
    if (request.url === "/app.js") return response.setHeader("content-type", "text/javascript").end(script);
    return response.setHeader("content-type", "text/html").end('<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Uppy</title><input type="file" id="files" multiple><div id="root"></div>');
  });
  const opened = await context.newPage();
  await opened.goto(`http://localhost:${port}/`);
  await start(opened, version, user);
  return opened;
}

/** Runs the bundled script in a page that was loaded. */
async function start(opened, version, user) {
  await opened.evaluate((token) => {
    globalThis.accessToken = () => token;
    globalThis.refreshedToken = () => token;
    globalThis.shown = [];
    globalThis.show = (...values) => shown.push(values);
  }, user.token);
  await opened.addScriptTag({ url: "/app.js" });
  const loaded = await opened.evaluate(() => {
    globalThis.events = [];
    app.uppy.on("upload-success", (file, response) => events.push({ name: file.name, key: response.body.key, id: response.body.id, url: response.uploadURL }));
    app.uppy.on("upload-error", (file, error) => events.push({ name: file.name, error: String(error.message) }));
    return app.AwsS3.VERSION;
  });
  if (loaded !== VERSION[version]) throw new Error(`${loaded} instead of ${VERSION[version]}`);
}

/** Reloads a page of {@link openUppyPage}. */
export async function reloadUppyPage(opened, version, user) {
  await opened.reload();
  await start(opened, version, user);
}

/** Adds files to Uppy as a user chooses them. */
export async function addFiles(opened, files) {
  await opened.locator("#files").setInputFiles(files.map(({ name, mimeType, buffer }) => ({ name, mimeType, buffer })));
  await opened.evaluate((zeros) => {
    for (const [i, file] of [...document.querySelector("#files").files].entries()) {
      const { name, type } = file;
      // The same file has the same time when it is chosen again.
      app.uppy.addFile({ name, type, data: new File([file, new Uint8Array(zeros[i])], name, { type, lastModified: 1 }) });
    }
  }, files.map((file) => file.zeros ?? 0));
}

/** Uploads the added files with the recipe's code; returns Uppy's result. */
export const uploadAdded = (opened, method = "upload") => opened.evaluate(async (method) => {
  const work = () => app.uppy[method]();
  const result = await (app.withSession ?? ((work) => work()))(work);
  return { successful: result?.successful.length ?? 0, failed: result?.failed.map((file) => file.error) ?? [] };
}, method);

/** Returns the events that the page has recorded. */
export const readEvents = (opened) => opened.evaluate(() => events);

/** Calls the API as the user. */
export async function callAsUser(user, method, path) {
  const answer = await callApi(path, user, { method });
  return answer.status === 204 ? {} : answer.json();
}

/** Returns the gallery's images by name. */
export async function readGallery(user) {
  const { images } = await callAsUser(user, "GET", "/api/images/gallery?limit=100");
  return Object.fromEntries(images.map((image) => [image.fileName, image]));
}

/** Returns the user's usage. */
export const readUsage = async (user) => (await callAsUser(user, "GET", "/api/auth/me")).usage;

/** Waits until the store has this many parts of an open upload: bytes that were sent may not have arrived. */
export const waitForParts = (user, count) => waitUntil(async () => {
  const { uploads } = await callAsUser(user, "GET", "/api/images/pending");
  const lists = await Promise.all(uploads.map(({ id }) => callAsUser(user, "GET", `/api/images/${id}/parts`)));
  return lists.some(({ parts }) => parts?.length === count);
}, `${count} parts in the store`);

/** Returns the page's requests to the API and the bucket, as method and path; the list grows. */
export function watchRequests(opened) {
  const seen = [];
  opened.on("request", (request) => {
    const url = new URL(request.url());
    if (request.method() === "OPTIONS" || url.port === new URL(opened.url()).port) return;
    const path = url.pathname.replace(/\/uppy\/[^/]+\//, "/uppy/…/").replace(/multipart\/[^/]+/, "multipart/ID").replace(/[0-9a-f-]{36}/, "ID");
    const isApi = url.origin === new URL(BASE).origin;
    seen.push(isApi ? `${request.method()} ${path}` : `S3 ${request.method()}${url.searchParams.has("partNumber") ? ` part ${url.searchParams.get("partNumber")}` : ""}`);
    const headers = request.headers();
    if (isApi && path.startsWith("/uppy/") && (headers.authorization || headers.cookie)) seen.push("credentials were sent");
  });
  return seen;
}

/** Asserts that the gallery has this file byte for byte; returns its image. */
export async function assertStored(user, file) {
  const shown = (await readGallery(user))[file.name];
  const sent = Buffer.concat([file.buffer, Buffer.alloc(file.zeros ?? 0)]);
  assert.equal(shown.size, sent.length);
  const bytes = Buffer.from(await (await fetch(shown.url)).arrayBuffer());
  assert.ok(bytes.equals(sent), `${file.name} is byte for byte the same`);
  return shown;
}

/** Changes to a file's bytes after it was added, the first three as an editor makes them and the last as a compressor does. */
export const CHANGES = {
  "grown in an editor": (opened) => edit(opened, 3),
  "shrunk in an editor": (opened) => edit(opened, 0.4),
  "edited twice": async (opened) => { await edit(opened, 0.5); await edit(opened, 4); },
  // The compressor's preprocessor runs after those of the recipe, which were added earlier.
  "made smaller by a compressor": (opened) => opened.evaluate(() => { app.uppy.use(app.Compressor, { quality: 0.2 }); }),
};

/** Redraws the image at another size and passes it to Uppy as the image editor does. */
const edit = (opened, scale) => opened.evaluate(async (scale) => {
  const [file] = app.uppy.getFiles();
  const bitmap = await createImageBitmap(file.data);
  const canvas = new OffscreenCanvas(bitmap.width * scale, bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const data = await canvas.convertToBlob({ type: file.type, quality: 0.95 });
  app.uppy.setFileState(file.id, { data, size: data.size, preview: undefined });
  app.uppy.emit("file-editor:complete", app.uppy.getFile(file.id));
}, scale);

/**
 * Uploads one of the drawn photos with each of {@link CHANGES}, made after the file was added. Returns the sizes of the changed bytes by
 * the files' names.
 */
export async function uploadChanged(opened, drawn) {
  const sent = {};
  for (const [i, [label, act]] of Object.entries(CHANGES).entries()) {
    const file = { ...drawn[i], name: `${i}.jpg` };
    await addFiles(opened, [file]);
    await act(opened);
    assert.deepEqual(await uploadAdded(opened), { successful: 1, failed: [] }, label);
    sent[file.name] = await opened.evaluate(() => app.uppy.getFiles()[0].data.size);
    assert.notEqual(sent[file.name], file.buffer.length, `${label}: its bytes changed`);
    await opened.evaluate(() => app.uppy.cancelAll());
  }
  return sent;
}

/** Chooses a photo in the Dashboard and rotates it in the editor; returns the size of the edited bytes. */
export async function rotateInDashboard(opened, photo) {
  await opened.locator(".uppy-Dashboard-input").first().setInputFiles(photo);
  await opened.getByRole("button", { name: /^Edit file/ }).click();
  await opened.getByRole("button", { name: /Rotate 90/ }).click();
  await opened.getByRole("button", { name: "Save", exact: true }).click();
  const size = () => opened.evaluate(() => app.uppy.getFiles()[0].size);
  await waitUntil(async () => (await size()) !== photo.buffer.length, "the edited bytes");
  return size();
}

/** Uploads a file by the Dashboard's buttons to a store that refuses it, calls `mend`, which ends the refusals, and retries. */
export async function retryInDashboard(opened, file, mend) {
  await opened.evaluate(() => app.uppy.clear());
  await opened.locator(".uppy-Dashboard-input").first().setInputFiles(file);
  await opened.getByRole("button", { name: "Upload 1 file" }).click();
  const again = opened.getByRole("button", { name: /^Retry/ }).first();
  await again.waitFor();
  mend();
  await again.click();
}
