// openapi-typescript's types with openapi-fetch.
import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";
import { newCredentials, newPicture, put, url } from "./file.js";

type Problem = components["schemas"]["Problem"];

const client = createClient<paths>({ baseUrl: url });
let token: string | undefined;
const bearer: Middleware = {
  onRequest({ request }) {
    if (token) request.headers.set("authorization", `Bearer ${token}`);
    return request;
  },
};
client.use(bearer);

function ok<T>(answer: { data?: T; error?: Problem }): T {
  assert.ok(answer.data !== undefined, JSON.stringify(answer.error));
  return answer.data;
}

// Accounts.
const credentials = newCredentials();
const signedUp = ok(await client.POST("/api/auth/signup", { body: credentials }));
assert.equal(signedUp.user.email, credentials.email);
const loggedIn = ok(await client.POST("/api/auth/login", { body: credentials }));
const refreshed = ok(await client.POST("/api/auth/refresh", { body: { refreshToken: loggedIn.refreshToken } }));
assert.notEqual(refreshed.refreshToken, loggedIn.refreshToken);
token = refreshed.token;

// From a file to an image.
async function upload(): Promise<[components["schemas"]["GalleryImage"], Uint8Array]> {
  const { bytes, declared } = await newPicture();
  const params = { header: { "Idempotency-Key": crypto.randomUUID() } };
  const ticket = ok(await client.POST("/api/images/upload", { params, body: { ...declared, caption: "The sea" } }));
  assert.equal(ticket.state, "pending");
  assert.ok(ticket.upload);
  assert.equal(await put(ticket.upload, bytes), 200);
  assert.equal(await put(ticket.upload, bytes), 412);
  const path = { params: { path: { id: ticket.id } } };
  const image = ok(await client.POST("/api/images/{id}/confirm", path));
  assert.equal(ok(await client.POST("/api/images/{id}/confirm", path)).id, image.id);
  return [image, bytes];
}
const [first, bytes] = await upload();
const [second] = await upload();

// The gallery, by pages.
const seen: string[] = [];
for (let cursor: string | undefined, more = true; more; ) {
  const page = ok(await client.GET("/api/images/gallery", { params: { query: { limit: 1, cursor } } }));
  seen.push(...page.images.map((image) => image.id));
  cursor = page.nextCursor;
  more = cursor !== undefined;
}
assert.deepEqual(seen, [second.id, first.id]);

// Many at once.
const pictures = await Promise.all([newPicture(), newPicture()]);
const opened = ok(await client.POST("/api/images/upload/batch", { body: { items: pictures.map(({ declared }) => declared) } }));
const ids = await Promise.all(
  opened.results.map(async ({ status, ticket }, at) => {
    assert.equal(status, 201);
    assert.ok(ticket?.upload && pictures[at]);
    assert.equal(await put(ticket.upload, pictures[at].bytes), 200);
    return ticket.id;
  }),
);
const confirmed = ok(await client.POST("/api/images/confirm", { body: { ids } }));
assert.deepEqual(confirmed.results.map(({ image }) => image?.id), ids);
const deleted = ok(await client.POST("/api/images/delete", { body: { ids } }));
assert.deepEqual(deleted.results.map(({ status }) => status), [204, 204]);

// One image.
const path = { path: { id: first.id } };
const read = ok(await client.GET("/api/images/{id}", { params: path }));
assert.equal(read.caption, "The sea");
assert.deepEqual(new Uint8Array(await (await fetch(read.url)).arrayBuffer()), bytes);
assert.equal(ok(await client.PATCH("/api/images/{id}", { params: path, body: { caption: "The harbour" } })).caption, "The harbour");
const me = ok(await client.GET("/api/auth/me"));
assert.equal(me.usage?.images, 2);
const gone = await client.DELETE("/api/images/{id}", { params: path });
assert.equal(gone.response.status, 204);

// Problems.
const missing = await client.GET("/api/images/{id}", { params: path });
assert.equal(missing.error?.code, "not_found");
const wrong = await client.POST("/api/auth/login", { body: { ...credentials, password: "not the password" } });
assert.equal(wrong.error?.code, "invalid_credentials");
const { declared } = await newPicture();
const large = await client.POST("/api/images/upload", { body: { ...declared, size: 2 ** 50 } });
assert.equal(large.error?.code, "file_too_large");
assert.equal(large.error?.errors?.[0]?.field, "size");

const out = await client.POST("/api/auth/logout", { body: { refreshToken: refreshed.refreshToken } });
assert.equal(out.response.status, 204);
assert.equal((await client.GET("/api/auth/me")).error?.code, "session_ended");
