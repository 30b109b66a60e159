// A picture that was never uploaded before, and its declaration.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const url = required("VALET_URL");
const picture = readFileSync(required("VALET_PICTURE"));

export function required(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} must be set`);
  return value;
}

export async function newPicture() {
  // Bytes after the end of an image are accepted.
  const bytes = new Uint8Array([...picture, ...crypto.getRandomValues(new Uint8Array(16))]);
  const sha256 = Buffer.from(await crypto.subtle.digest("SHA-256", bytes)).toString("base64");
  return { bytes, declared: { fileName: "beach.png", contentType: "image/png" as const, size: bytes.length, sha256 } };
}

/** Sends the bytes with the method and the headers of the ticket, and no others. */
export async function put(request: { method: string; url: string; headers: Record<string, string> }, bytes: Uint8Array<ArrayBuffer>) {
  const { method, headers } = request;
  const answer = await fetch(request.url, { method, headers, body: bytes });
  await answer.arrayBuffer();
  return answer.status;
}

export const newCredentials = () => ({ email: `${crypto.randomUUID()}@example.com`, password: `four words ${crypto.randomUUID()}` });
