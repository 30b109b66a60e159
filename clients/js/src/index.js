// `valet-upload`: uploads to Valet from browsers and Node. Every uploader is independent: there is no state in the modules.

import { createApi } from "./api.js";
import { follow } from "./events.js";
import { defaultStore, indexedDbStore, memoryStore } from "./pending-files.js";
import { Uploader as Queue } from "./uploader.js";
import { WorkerPool } from "./worker-pool.js";

export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";
export { explain } from "./messages.js";
export { indexedDbStore, memoryStore };

/**
 * @typedef {import("./types.js").AddOptions} AddOptions
 * @typedef {import("./types.js").GalleryImage} GalleryImage
 * @typedef {import("./types.js").ImageEvent} ImageEvent
 * @typedef {import("./types.js").SubscribeOptions} SubscribeOptions
 * @typedef {import("./types.js").Input} Input
 * @typedef {import("./types.js").SizedStream} SizedStream
 * @typedef {import("./types.js").Upload} Upload
 * @typedef {import("./types.js").Uploader} Uploader
 * @typedef {import("./types.js").UploadState} UploadState
 * @typedef {import("./types.js").UploaderOptions} UploaderOptions
 * @typedef {import("./types.js").Store} Store
 * @typedef {import("./types.js").StoredClaim} StoredClaim
 * @typedef {import("./types.js").StoredFile} StoredFile
 */

/**
 * Returns a queue that uploads files as the user of `token`.
 * @param {UploaderOptions} options
 * @returns {Uploader}
 */
export function createUploader({ api, token, store = defaultStore(), user = "", concurrency, worker }) {
  return /** @type {any} */ (new Queue({ api: createApi({ api, token }), work: new WorkerPool(worker), store, user, concurrency }));
}

/**
 * Follows the changes of the images of the user of `token`, on any device, until `signal` is aborted. Reconnects by itself. Resolves
 * after an abort; rejects with a Problem that a repeat does not solve, such as the end of the session.
 * @param {SubscribeOptions} options
 * @returns {Promise<void>}
 */
export function subscribe({ api, token, ...handlers }) {
  return follow(createApi({ api, token }), handlers);
}
