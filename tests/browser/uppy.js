// Uppy as it is, both versions: the code of docs/uppy.md, bundled with the real packages and served to a page of another origin.

import { build } from "esbuild";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { BASE } from "./harness.js";

const TEXT = readFileSync(new URL("../../docs/uppy.md", import.meta.url), "utf8");

/** The block of docs/uppy.md behind this mark. */
export function block(mark) {
  const [, code] = TEXT.match(new RegExp(`<!-- ${mark} -->\n\`\`\`jsx?\n([\\s\\S]*?)\n\`\`\``)) ?? [];
  if (!code) throw new Error(`docs/uppy.md has no block ${mark}`);
  return code;
}

/** A script that leaves what the code exports in `app`. `recipe` is what it imports as `./uppy.js`. */
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

/** The version that was bundled: a wrong resolution would test one version twice. */
export const VERSION = { 5: "5.1.0", 6: "6.3.1" };

const EXPORTS = `
export { default as AwsS3 } from "@uppy/aws-s3";
export { default as Compressor } from "@uppy/compressor";
`;

/** A page of another origin with the code of this mark in docs/uppy.md in it, signed in as `user`. */
export async function page(t, context, mark, user, change = (code) => code) {
  const version = mark.slice(5, 6);
  return serve(t, context, version, user, await bundle(`${change(block(mark))}${EXPORTS}`, version));
}

/** The same with the React component of docs/uppy.md around it. */
export async function reactPage(t, context, mark, user, change = (code) => code) {
  const version = mark.slice(5, 6);
  const code = `import { createRoot } from "react-dom/client";
    ${block(`${mark}-react`)}
    export { uppy } from "./uppy.js"; ${EXPORTS}
    createRoot(document.querySelector("#root")).render(<Upload />);`;
  return serve(t, context, version, user, await bundle(code, version, change(block(mark))));
}

async function serve(t, context, version, user, script) {
  const server = createServer((request, response) => {
    if (request.url === "/app.js") return response.setHeader("content-type", "text/javascript").end(script);
    return response.setHeader("content-type", "text/html").end('<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Uppy</title><input type="file" id="files" multiple><div id="root"></div>');
  });
  await new Promise((ready) => { server.listen(0, "127.0.0.1", ready); });
  t.after(() => { server.close(); server.closeAllConnections(); });
  const opened = await context.newPage();
  await opened.goto(`http://localhost:${server.address().port}/`);
  await opened.evaluate((token) => { globalThis.accessToken = () => token; }, user.token);
  await opened.addScriptTag({ url: "/app.js" });
  const loaded = await opened.evaluate(() => {
    globalThis.events = [];
    app.uppy.on("upload-success", (file, response) => events.push({ name: file.name, key: response.body.key, url: response.uploadURL }));
    app.uppy.on("upload-error", (file, error) => events.push({ name: file.name, error: String(error.message) }));
    return app.AwsS3.VERSION;
  });
  if (loaded !== VERSION[version]) throw new Error(`${loaded} instead of ${VERSION[version]}`);
  return opened;
}

/** Adds files to Uppy, as a person chooses them. */
export async function add(opened, files) {
  await opened.locator("#files").setInputFiles(files);
  await opened.evaluate(() => {
    for (const data of document.querySelector("#files").files) app.uppy.addFile({ name: data.name, type: data.type, data });
  });
}

/** Uploads what was added, in the way of the recipe; the result as Uppy gives it. */
export const upload = (opened, what = "upload") => opened.evaluate(async (what) => {
  const work = () => app.uppy[what]();
  const result = await (app.withSession ?? ((work) => work()))(work);
  return { successful: result?.successful.length ?? 0, failed: result?.failed.map((file) => file.error) ?? [] };
}, what);

export const events = (opened) => opened.evaluate(() => events);

/** A call of the API as the user. */
export async function api(user, method, path) {
  const answer = await fetch(BASE + path, { method, headers: { authorization: `Bearer ${user.token}` } });
  return answer.status === 204 ? {} : answer.json();
}

/** The gallery's images by name. */
export async function gallery(user) {
  const { images } = await api(user, "GET", "/api/images/gallery?limit=100");
  return Object.fromEntries(images.map((image) => [image.fileName, image]));
}
