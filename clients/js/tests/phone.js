// A phone for the tests of `valet-upload/expo` and `valet-upload/capacitor`: files on this machine, a transport that sends them over HTTP as
// the system's stack does, and a recorder between it and the store, which sees every byte of the wire and can break connections.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { createServer, request as send } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pathToFileURL } from "node:url";
import { MIB } from "./harness.js";

export const ROOT = mkdtempSync(join(tmpdir(), "phone-"));
/** Bytes that one read may return, at most: the package must not have a whole file in memory. */
const MAX_READ = MIB;

/** Asserts that a read through the bridge is small. */
export function assertSmallRead(length) {
  assert.ok(length > 0 && length <= MAX_READ, `a read of ${length} bytes`);
  return length;
}

/** Writes a file to the phone and returns its URI. */
export async function saveFile(file, name = file.name) {
  const path = join(ROOT, `${Math.random().toString(36).slice(2)}-${name}`);
  writeFileSync(path, Buffer.from(await file.arrayBuffer()));
  return pathToFileURL(path).href;
}

/** Headers that the HTTP stack of each system adds; none of them is signed. */
export const STACKS = {
  ios: { accept: "*/*", "accept-encoding": "gzip, deflate", "accept-language": "en-GB,en;q=0.9", "user-agent": "App/1 CFNetwork/3826 Darwin/24" },
  android: { "accept-encoding": "gzip", "user-agent": "Dalvik/2.1.0 (Linux; U; Android 15)" },
};

/**
 * Sends a file. `body` replaces its bytes, for a form. Resolves with status, headers and body of the response; rejects without one.
 * The signal ends the connection.
 * @param {any} options
 * @returns {Promise<any>}
 */
export function sendAsPhone({ method, url, headers, stack, path, body, onBytes = () => {}, signal }) {
  return new Promise((resolve, reject) => {
    const { host, pathname, search } = new URL(url);
    const size = body ? body.length : statSync(path).size;
    const request = send({
      host: "127.0.0.1", port: recorder.port, method, path: pathname + search, headers: { host, ...STACKS[stack], ...headers, "content-length": size }, signal, agent: false,
    }, async (response) => {
      const text = (await response.toArray()).join("");
      resolve({ status: response.statusCode, headers: response.headers, body: text });
    });
    request.on("error", reject);
    if (body) return request.end(body);
    let sent = 0;
    const counter = new Transform({ transform(piece, _, done) { sent += piece.length; onBytes(sent, size); done(null, piece); } });
    return createReadStream(path).on("error", reject).pipe(counter).pipe(request);
  });
}

/** The recorder of the current test. */
const recorder = { port: 0, rule: () => {}, wire: [] };

/**
 * Records the PUTs of a test: method, path, headers as they were on the wire, size and digest of the body. `rule(n, entry, body)`
 * decides about the nth PUT, with its entry and a promise of its body's pieces; the PUT is passed on if it returns nothing. It may
 * return "lost" (the bytes arrive, the response does not), "broken" (nothing arrives), "held" (no answer while the test runs), or a
 * status.
 */
export async function recordPuts(t, rule = () => {}) {
  const open = new Set();
  const server = createServer(async (request, response) => {
    open.add(request.socket);
    const { method, url, rawHeaders } = request;
    const headers = rawHeaders.flatMap((name, i) => (i % 2 ? [] : [[name.toLowerCase(), rawHeaders[i + 1]]]));
    const entry = { method, url, headers, size: 0, aborted: false };
    recorder.wire.push(entry);
    request.on("error", () => {});
    response.on("close", () => { entry.aborted = !response.writableEnded; });
    // The body is read while the rule decides: a connection with unread bytes does not notice that it was closed.
    const body = request.toArray().catch(() => []);
    const verdict = await rule(recorder.wire.length, entry, body);
    if (verdict === "broken") return request.socket.destroy();
    const bytes = Buffer.concat(await body);
    Object.assign(entry, { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("base64") });
    if (typeof verdict === "number") return response.writeHead(verdict).end();
    if (verdict === "held") return undefined;
    const { host } = request.headers;
    const forwarded = send({ host: host.split(":")[0], port: host.split(":")[1], method, path: url, headers: rawHeaders, agent: false }, (answer) => {
      entry.status = answer.statusCode;
      if (verdict === "lost") return request.socket.destroy();
      response.writeHead(answer.statusCode, answer.headers);
      return answer.pipe(response);
    });
    return forwarded.on("error", () => request.socket.destroy()).end(bytes);
  });
  await new Promise((ready) => { server.listen(0, "127.0.0.1", ready); });
  Object.assign(recorder, { port: server.address().port, wire: [] });
  t.after(() => { server.close(); open.forEach((socket) => socket.destroy()); });
  return recorder.wire;
}

/** Returns the presigned PUTs that the server issues during the test, to compare the recorded PUTs with them; the list grows. */
export function recordTickets(t) {
  const given = [];
  const before = globalThis.fetch;
  globalThis.fetch = async (url, options) => {
    const response = await before(url, options);
    const answer = await response.clone().json().catch(() => ({}));
    for (const { ticket = answer } of answer.results ?? [{}]) if (ticket.upload) given.push(ticket.upload);
    return response;
  };
  t.after(() => { globalThis.fetch = before; });
  return given;
}

/** Asserts that a recorded PUT has every header of its ticket once, with its value, and besides only headers that stacks add. */
export function assertSigned(entry, given, file) {
  const ticket = given.find(({ url }) => new URL(url).pathname + new URL(url).search === entry.url);
  assert.ok(ticket, `${entry.url} is not the URL of a ticket`);
  assert.equal(entry.method, ticket.method);
  const added = new Set(["host", "connection", "content-length", ...Object.keys({ ...STACKS.ios, ...STACKS.android })]);
  const own = entry.headers.filter(([name]) => !added.has(name) || name in ticket.headers);
  assert.deepEqual(own.sort(), Object.entries(ticket.headers).sort());
  const signed = new URL(ticket.url).searchParams.get("X-Amz-SignedHeaders").split(";");
  for (const name of signed) assert.equal(entry.headers.filter(([one]) => one === name).length, 1, `${name} in ${JSON.stringify(entry.headers)}`);
  assert.equal(Object.fromEntries(entry.headers)["content-length"], String(file.size));
  assert.equal(entry.size, file.size);
  assert.equal(ticket.headers["x-amz-checksum-sha256"], entry.sha256);
}
