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
export function createUploader({ api, token, store, user, concurrency, worker }: UploaderOptions): Uploader;
/**
 * Follows the changes of the images of the user of `token`, on any device, until `signal` is aborted. Reconnects by itself. Resolves
 * after an abort; rejects with a Problem that a repeat does not solve, such as the end of the session.
 * @param {SubscribeOptions} options
 * @returns {Promise<void>}
 */
export function subscribe({ api, token, ...handlers }: SubscribeOptions): Promise<void>;
export { explain } from "./messages.js";
export type AddOptions = import("./types.js").AddOptions;
export type GalleryImage = import("./types.js").GalleryImage;
export type ImageEvent = import("./types.js").ImageEvent;
export type SubscribeOptions = import("./types.js").SubscribeOptions;
export type Input = import("./types.js").Input;
export type SizedStream = import("./types.js").SizedStream;
export type Upload = import("./types.js").Upload;
export type Uploader = import("./types.js").Uploader;
export type UploadState = import("./types.js").UploadState;
export type UploaderOptions = import("./types.js").UploaderOptions;
export type Store = import("./types.js").Store;
export type StoredClaim = import("./types.js").StoredClaim;
export type StoredFile = import("./types.js").StoredFile;
import { indexedDbStore } from "./pending-files.js";
import { memoryStore } from "./pending-files.js";
export { indexedDbStore, memoryStore };
export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";
