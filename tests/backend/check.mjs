// Drives an example backend as the clients of its app do: BACKEND is its address, VALET_URL that of the server, VALET_PNG an image.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { BACKEND, VALET_URL, VALET_PNG, VALET_WEBHOOK_SECRET } = process.env;

/** Sends a request; returns the status and the JSON of the response. */
const call = async (url, { method = "GET", headers = {}, json } = {}) => {
  const body = json && JSON.stringify(json);
  // A busy server gets the request up to ten times.
  for (let left = 9; ; left -= 1) {
    const answer = await fetch(url, { method, headers: { ...(body && { "content-type": "application/json" }), ...headers }, body });
    const text = await answer.text();
    if (!left || ![503, 504].includes(answer.status)) return { status: answer.status, json: text ? JSON.parse(text) : undefined };
    await new Promise((done) => { setTimeout(done, 500); });
  }
};

/** Waits until `check` returns a true value. */
async function until(check, condition) {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await check()) return;
    await new Promise((done) => { setTimeout(done, 50); });
  }
  assert.fail(`not within 120 s: ${condition}`);
}

/** Returns the images of a user as the backend knows them. */
const imagesOf = async (user) => (await call(`${BACKEND}/images`, { headers: { "x-session": `session-of-${user}` } })).json;

/** Uploads a unique image; returns its id and the headers of authorization. */
async function upload(token) {
  const bytes = Buffer.concat([readFileSync(VALET_PNG), randomBytes(16)]);
  const headers = { authorization: `Bearer ${token}` };
  const sha256 = createHash("sha256").update(bytes).digest("base64");
  const declaration = { fileName: "boat.png", contentType: "image/png", size: bytes.length, sha256 };
  const ticket = await call(`${VALET_URL}/api/images/upload`, { method: "POST", headers, json: declaration });
  assert.equal(ticket.status, 201, JSON.stringify(ticket));
  const { method, url, headers: signed } = ticket.json.upload;
  assert.equal((await fetch(url, { method, headers: signed, body: bytes })).status, 200);
  const confirm = await call(`${VALET_URL}/api/images/${ticket.json.id}/confirm`, { method: "POST", headers });
  assert.equal(confirm.status, 200, JSON.stringify(confirm));
  return { id: ticket.json.id, headers };
}

await until(() => fetch(`${BACKEND}/images`).then(() => true, () => false), "the backend listens");
assert.equal((await call(`${BACKEND}/valet-token`, { method: "POST" })).status, 401, "only the app's users get a token");
const { status, json } = await call(`${BACKEND}/valet-token`, { method: "POST", headers: { "x-session": "session-of-ada" } });
assert.equal(status, 200);
assert.equal(json.expiresIn, 3600);
const { id, headers } = await upload(json.token);
await until(async () => (await imagesOf("ada")).some((image) => image.id === id), "the backend knows the image");
assert.deepEqual(await imagesOf("eve"), [], "another user has no images");

// Messages with invalid signatures are rejected; a message that is sent twice is accepted twice.
const body = JSON.stringify({ type: "image.deleted", timestamp: new Date().toISOString(), data: { id, subject: "ada" } });
/** Sends a message that is signed with this secret at this time; `text` replaces the signed body. Returns the status. */
const hook = async (secret, at, id = "forged", text = body) => {
  const signature = new Webhook(secret).sign(id, at, body);
  const signed = { "webhook-id": id, "webhook-timestamp": `${Math.floor(at / 1000)}`, "webhook-signature": signature };
  return (await fetch(`${BACKEND}/hooks/valet`, { method: "POST", headers: signed, body: text })).status;
};
const [now, otherSecret] = [new Date(), `whsec_${randomBytes(32).toString("base64")}`];
assert.equal(await hook(otherSecret, now), 401, "another secret");
assert.equal(await hook(VALET_WEBHOOK_SECRET, new Date(now - 3_600_000)), 401, "an hour old");
assert.equal(await hook(VALET_WEBHOOK_SECRET, now, "forged", body.replace("ada", "eve")), 401, "changed bytes");
assert.equal((await fetch(`${BACKEND}/hooks/valet`, { method: "POST", body })).status, 401, "no signature");
assert.ok((await imagesOf("ada")).some((image) => image.id === id), "rejected messages changed nothing");
assert.deepEqual([await hook(VALET_WEBHOOK_SECRET, now, "twice"), await hook(VALET_WEBHOOK_SECRET, now, "twice")], [204, 204]);

const second = await upload(json.token);
await until(async () => (await imagesOf("ada")).some((image) => image.id === second.id), "the backend knows the second image");
assert.equal((await call(`${VALET_URL}/api/images/${second.id}`, { method: "DELETE", headers: second.headers })).status, 204);
await until(async () => !(await imagesOf("ada")).some((image) => image.id === second.id), "the backend forgets a deleted image");
