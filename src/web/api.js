// Requests to the API, one function each, with the token of session.js. /docs has the request and response types. The calls of an
// upload are in clients/js/src/api.js.

import { session } from "./session.js";
import { createApi } from "./valet-upload/api.js";
import { request } from "./valet-upload/http.js";

/** The calls of an upload. */
export const client = createApi({ api: "", token: (stale) => session.token(stale) });
const { call } = client;

const pathOf = (id) => `/api/images/${encodeURIComponent(id)}`;
const pagePath = (path, limit, cursor) => `${path}?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;

export const readAccount = () => call("GET", "/api/auth/me");
export const listSessions = () => call("GET", "/api/auth/sessions");
export const endSession = (id) => call("DELETE", `/api/auth/sessions/${encodeURIComponent(id)}`);
export const changePassword = (currentPassword, newPassword) => call("PUT", "/api/auth/password", { body: { currentPassword, newPassword } });
export const deleteAccount = (password) => call("POST", "/api/auth/me/delete", { body: { password } });

export const readGallery = (limit, cursor, order) => call("GET", `${pagePath("/api/images/gallery", limit, cursor)}&order=${order}`);
export const readTimeline = () => call("GET", "/api/images/timeline");
/** Returns images with new URLs. */
export const readImages = (ids) => call("POST", "/api/images/read", { body: { ids } });
export const signDownload = (id) => call("GET", `${pathOf(id)}/download`);
export const setCaption = (id, text) => call("PATCH", pathOf(id), { body: { caption: text } });
export const deleteImages = (ids) => call("POST", "/api/images/delete", { body: { ids } });
/** Deletes images even while the page closes: `keepalive` lets the request outlive the page. */
export const deleteImagesNow = (ids) =>
  request("POST", "/api/images/delete", { body: { ids }, token: session.tokenNow, keepalive: true }).catch(() => {});
