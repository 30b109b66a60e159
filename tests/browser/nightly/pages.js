// Serves pages of an app of another origin, which load the package's modules as they are.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const HTML = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>App</title><input type="file" id="files" multiple>';
const PACKAGE = new URL("../../../clients/js/", import.meta.url);

/** Serves the page at `/` and the package at `/src/`. Returns the page's address and a function that ends the server. */
export async function servePackage() {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (!/^\/src\/[a-z0-9-]+\.js$/.test(pathname)) return response.setHeader("content-type", "text/html").end(HTML);
    return response.setHeader("content-type", "text/javascript").end(readFileSync(new URL(`.${pathname}`, PACKAGE)));
  });
  await new Promise((ready) => { server.listen(0, "127.0.0.1", ready); });
  return {
    address: `http://localhost:${server.address().port}/`,
    close() { server.close(); server.closeAllConnections(); },
  };
}
