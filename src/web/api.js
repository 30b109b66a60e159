// The API's calls, one function each, with the token of session.js. What they take and give is in /docs.

import { Problem, request } from "./http.js";
import { session } from "./session.js";

/** With a token; once more with a fresh one when the server refuses it. A session that is over is found out by the refresh. */
async function call(method, path, options = {}) {
  const token = await session.token();
  try {
    return await request(method, path, { ...options, token });
  } catch (error) {
    // A wrong password is no fault of the token's.
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
/** Many images again, with fresh URLs. */
export const read = (ids) => call("POST", "/api/images/read", { body: { ids } });
export const download = (id) => call("GET", `${at(id)}/download`);
export const caption = (id, text) => call("PATCH", at(id), { body: { caption: text } });
export const remove = (id) => call("DELETE", at(id));
export const removeMany = (ids) => call("POST", "/api/images/delete", { body: { ids } });
/** Sent even while the page closes: `keepalive` outlives it, and nothing is waited for. */
export const removeManyNow = (ids) =>
  request("POST", "/api/images/delete", { body: { ids }, token: session.tokenNow, keepalive: true }).catch(() => {});

export const openUpload = (upload, signal) => call("POST", "/api/images/upload", { body: upload, signal });
export const renew = (id, signal) => call("POST", `${at(id)}/renew`, { signal });
export const confirm = (id, signal) => call("POST", `${at(id)}/confirm`, { signal });

export const openMultipart = (upload, key, signal) => call("POST", "/api/images/multipart", { body: upload, key, signal });
export const signParts = (id, parts, signal) => call("POST", `${at(id)}/parts`, { body: { parts }, signal });
export const storedParts = (id, signal) => call("GET", `${at(id)}/parts`, { signal });
