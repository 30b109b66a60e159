// @hey-api/openapi-ts: a function for every operation.
import assert from "node:assert/strict";
import * as valet from "./client/index.js";
import { client } from "./client/client.gen.js";
import { newCredentials, newPicture, put, url } from "./file.js";

let token = "";
client.setConfig({ baseUrl: url, auth: () => token });

// Accounts. A refused call throws its `Problem`.
const throwOnError = true;
const credentials = newCredentials();
await valet.signUp({ body: credentials, throwOnError });
const { data: session } = await valet.logIn({ body: credentials, throwOnError });
const { data: refreshed } = await valet.refreshSession({ body: { refreshToken: session.refreshToken }, throwOnError });
token = refreshed.token;

// From a file to an image.
async function upload() {
  const { bytes, declared } = await newPicture();
  const body: valet.NewUpload = { ...declared, caption: "The sea" };
  const { data: ticket } = await valet.createUpload({ body, headers: { "Idempotency-Key": crypto.randomUUID() }, throwOnError });
  assert.ok(ticket.upload);
  assert.equal(await put(ticket.upload, bytes), 200);
  assert.equal(await put(ticket.upload, bytes), 412);
  const { data: image } = await valet.confirmUpload({ path: { id: ticket.id }, throwOnError });
  return { image, bytes };
}
const first = await upload();
const second = await upload();

// The gallery, by pages.
const seen: string[] = [];
let cursor: string | undefined;
do {
  const { data: page }: { data: valet.ImagePage } = await valet.listImages({ query: { limit: 1, cursor }, throwOnError });
  seen.push(...page.images.map(({ id }) => id));
  cursor = page.nextCursor;
} while (cursor);
assert.deepEqual(seen, [second.image.id, first.image.id]);

// Many at once.
const pictures = [await newPicture(), await newPicture()];
const { data: opened } = await valet.createUploads({ body: { items: pictures.map(({ declared }) => declared) }, throwOnError });
const ids: string[] = [];
for (const [at, { ticket }] of opened.results.entries()) {
  assert.ok(ticket?.upload && pictures[at]);
  assert.equal(await put(ticket.upload, pictures[at].bytes), 200);
  ids.push(ticket.id);
}
const { data: confirmed } = await valet.confirmUploads({ body: { ids }, throwOnError });
assert.deepEqual(confirmed.results.map(({ status }) => status), [200, 200]);
const { data: deleted } = await valet.deleteImages({ body: { ids }, throwOnError });
assert.deepEqual(deleted.results.map(({ status }) => status), [204, 204]);

// One image.
const path = { id: first.image.id };
const { data: read } = await valet.getImage({ path, throwOnError });
assert.deepEqual(new Uint8Array(await (await fetch(read.url)).arrayBuffer()), first.bytes);
const { data: updated } = await valet.updateImage({ path, body: { caption: "The harbour" }, throwOnError });
assert.equal(updated.caption, "The harbour");
const { data: me } = await valet.getMe({ throwOnError });
assert.equal(me.usage?.images, 2);
await valet.deleteImage({ path, throwOnError });

// Problems.
const { error: missing } = await valet.getImage({ path });
assert.equal(missing?.code, "not_found");
const { declared } = await newPicture();
const { error: large } = await valet.createUpload({ body: { ...declared, size: 2 ** 50 } });
assert.equal(large?.code, "file_too_large");
assert.equal(large?.errors?.[0]?.field, "size");
await assert.rejects(
  valet.logIn({ body: { ...credentials, password: "not the password" }, throwOnError }),
  (problem: valet.Problem) => problem.code === "invalid_credentials",
);

await valet.logOut({ body: { refreshToken: refreshed.refreshToken }, throwOnError });
assert.equal((await valet.getMe()).error?.code, "session_ended");
