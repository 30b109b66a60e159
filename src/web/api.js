// Requests to the API, one function each, with the token of session.js. /docs has the request and response types.

import { Problem, request } from "./http.js";
import { session } from "./session.js";

/** Sends a request with a token, and repeats it once with a new token if the server refuses the first. The refresh detects an ended session. */
async function call(method, path, options = {}) {
  const token = await session.token();
  try {
    return await request(method, path, { ...options, token });
  } catch (error) {
    // Invalid credentials are a wrong password, not an invalid token.
    if (!(error instanceof Problem) || error.status !== 401 || error.code === "invalid_credentials") throw error;
    return request(method, path, { ...options, token: await session.token(token) });
  }
}

const at = (id) => `/api/images/${encodeURIComponent(id)}`;
const page = (path, limit, cursor) => `${path}?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;

export const me = () => call("GET", "/api/auth/me");
export const sessions = () => call("GET", "/api/auth/sessions");
export const endSession = (id) => call("DELETE", `/api/auth/sessions/${encodeURIComponent(id)}`);
export const changePassword = (currentPassword, newPassword) => call("PUT", "/api/auth/password", { body: { currentPassword, newPassword } });
export const deleteAccount = (password) => call("POST", "/api/auth/me/delete", { body: { password } });

export const gallery = (limit, cursor) => call("GET", page("/api/images/gallery", limit, cursor));
export const pending = (limit, cursor) => call("GET", page("/api/images/pending", limit, cursor));
/** Returns images with new URLs. */
export const read = (ids) => call("POST", "/api/images/read", { body: { ids } });
export const download = (id) => call("GET", `${at(id)}/download`);
export const caption = (id, text) => call("PATCH", at(id), { body: { caption: text } });
export const remove = (id) => call("DELETE", at(id));
export const removeMany = (ids) => call("POST", "/api/images/delete", { body: { ids } });
/** Deletes images even while the page closes: `keepalive` lets the request outlive the page. */
export const removeManyNow = (ids) =>
  request("POST", "/api/images/delete", { body: { ids }, token: session.tokenNow, keepalive: true }).catch(() => {});

export const openUpload = (upload, signal) => call("POST", "/api/images/upload", { body: upload, signal });
export const renew = (id, signal) => call("POST", `${at(id)}/renew`, { signal });
export const confirm = (id, signal) => call("POST", `${at(id)}/confirm`, { signal });

export const openMultipart = (upload, key, signal) => call("POST", "/api/images/multipart", { body: upload, key, signal });
export const signParts = (id, parts, signal) => call("POST", `${at(id)}/parts`, { body: { parts }, signal });
export const storedParts = (id, signal) => call("GET", `${at(id)}/parts`, { signal });
