// Types of the package's interface, as JSDoc. No code: browsers do not load this module.

/**
 * @typedef {"waiting" | "paused" | "preparing" | "sending" | "confirming" | "done" | "failed" | "cancelled" | "needs-file"} UploadState
 *   waiting → preparing → sending → confirming → done, or failed; `needs-file`: open on the server, but its file has to be chosen again.
 *
 * @typedef {object} GalleryImage An image as the API returns it.
 * @property {string} id Never names other bytes, so it is a key for caches.
 * @property {string} fileName
 * @property {string} contentType
 * @property {number} size
 * @property {string} [sha256]
 * @property {number} width
 * @property {number} height
 * @property {string} [caption]
 * @property {string} url
 * @property {string} [previewUrl]
 * @property {{ url: string, width: number, height: number }[]} [previews] Smaller pictures, the smallest first.
 * @property {string} [thumbHash]
 * @property {string} [takenAt] RFC 3339, without an offset if the camera recorded none: show it as it is, do not convert it.
 * @property {string} [camera]
 * @property {{ latitude: number, longitude: number }} [location]
 * @property {string} urlExpiresAt
 * @property {string} createdAt
 * @property {string} uploadedAt
 *
 * @typedef {object} SizedStream A stream and its length. It is read once, into a Blob, because a repeat needs the bytes again.
 * @property {ReadableStream<Uint8Array>} stream
 * @property {number} size
 * @property {string} name
 * @property {string} [type]
 *
 * @typedef {object} AddOptions
 * @property {string} [name] Name of a Blob without one.
 * @property {string} [caption]
 * @property {AbortSignal} [signal] Cancels the uploads of this call.
 */

/**
 * @typedef {{ key: string, user: string, tab: string, name: string, size: number, type: string, lastModified: number, storedAt?: number, caption?: string, file: Blob | { uri: string } | null, id?: string }} StoredFile
 * @typedef {{ key: string, user: string, tab: string, storedAt: number, id?: string }} StoredClaim The id of a stored file's upload, and the tab that has it.
 * @typedef {{ all(): Promise<(StoredFile | StoredClaim)[]>, put(record: StoredFile | StoredClaim): Promise<unknown>, delete(key: string): Promise<unknown>, clear(): Promise<unknown> }} Store
 */

/**
 * @typedef {object} UploaderOptions
 * @property {string} api Address of the server, such as `https://api.example.com`; "" is the page's own.
 * @property {string | ((stale?: string) => string | Promise<string>)} token The access token, or a function that returns it. With an
 *   argument, the server has just refused that token: the function returns another. It is called once for all uploads.
 * @property {Store | null} [store] Files of unfinished uploads. The default is IndexedDB where there is one; null stores nothing.
 * @property {string} [user] Owner of the stored files: `restore()` leaves those of other users alone.
 * @property {number} [concurrency] Files that are sent at a time; 3 by default.
 * @property {() => Worker} [worker] Returns a new worker that runs `valet-upload/worker`, for bundlers that do not find it by themselves.
 */

/**
 * @typedef {object} Upload One upload. The uploader writes its fields.
 * @property {string} key Unique within the device.
 * @property {Blob | null} file The bytes, or null if the user has to choose the file again.
 * @property {string} name
 * @property {number} size
 * @property {string} [caption]
 * @property {UploadState} state
 * @property {"offline" | "again" | null} waitReason Why an attempt waits: no network, or a pause before a repeat.
 * @property {number} sent Bytes that have been sent.
 * @property {import("./http.js").Problem | null} problem Why it failed.
 * @property {Blob | null} preview A small picture to show meanwhile.
 * @property {string | null} id The image's id, once the upload is open.
 * @property {GalleryImage | null} image The image, once it is done.
 * @property {boolean} duplicate Done, and the gallery had the image before.
 * @property {Promise<GalleryImage>} finished Resolves to the image; rejects with the Problem of a failure, or an AbortError when
 *   cancelled or stopped. After `retry()` it is another promise.
 * @property {boolean} active Whether requests are under way.
 * @property {boolean} open Whether it is under way or will start by itself.
 * @property {boolean} isRetryable Whether a repeat with the same file can succeed.
 * @property {() => void} pause
 * @property {() => void} resume
 * @property {() => void} retry Repeats a failed upload, if that can succeed.
 * @property {() => void} cancel
 *
 * @typedef {object} UploaderEvents
 * @property {CustomEvent<Upload | undefined>} change With the upload, or nothing when several changed.
 * @property {CustomEvent<Upload>} uploaded
 * @property {CustomEvent<Upload>} failed
 *
 * @typedef {{ addEventListener<K extends keyof UploaderEvents>(type: K, listener: (event: UploaderEvents[K]) => void, options?: Parameters<EventTarget["addEventListener"]>[2]): void, removeEventListener<K extends keyof UploaderEvents>(type: K, listener: (event: UploaderEvents[K]) => void, options?: Parameters<EventTarget["removeEventListener"]>[2]): void }} Listening
 *
 * @typedef {object} Queue
 * @property {Upload[]} items All uploads, oldest first.
 * @property {boolean} paused Whether the whole queue is paused.
 * @property {{ sent: number, size: number, done: number, count: number }} progress Bytes, and numbers of uploads, of all that are
 *   neither `needs-file`, failed nor cancelled.
 * @property {(input: Input, options?: AddOptions) => Upload[]} add Queues files, except those that are queued already, and returns
 *   the new uploads.
 * @property {() => Promise<void>} restore Resumes the uploads of an earlier visit, and lists other uploads that are open on the server
 *   as `needs-file`; waits for the network to list them. Resolves after `stop()` too.
 * @property {(upload?: Upload) => void} pause Pauses one upload, or all of them. Parts that have arrived are kept; a single PUT starts
 *   again.
 * @property {(upload?: Upload) => void} resume Continues one upload, or all that `pause()` without an upload has paused.
 * @property {(upload: Upload) => void} retry Repeats a failed upload, if that can succeed.
 * @property {(upload: Upload) => void} cancel Removes an upload from the list and, unless it is complete, from the server.
 * @property {() => void} clearDone Removes the uploads that are done from the list.
 * @property {() => void} stop Stops all uploads without a request to the server, and ends the workers. Stored files stay for `restore`.
 *
 * @typedef {Queue & Listening & EventTarget} Uploader
 */

/**
 * @typedef {object} ImageEvent A change of an image.
 * @property {string} type `image.ready`, `image.rejected`, `image.deleted`, `image.updated`, `upload.expired`, or one of a later server.
 * @property {string} id The image.
 *
 * @typedef {object} EventHandlers
 * @property {(event: ImageEvent) => void} onEvent Called for each change; maybe twice for one.
 * @property {() => void} [onReset] Called at the beginning and whenever changes may have been missed: read again what is shown.
 * @property {AbortSignal} [signal] Ends the subscription.
 *
 * @typedef {EventHandlers & { api: string, token: string | ((stale?: string) => string | Promise<string>) }} SubscribeOptions
 *   `api` and `token` are those of an uploader.
 */

/** @typedef {Blob | SizedStream | Iterable<Blob | SizedStream>} Input */

export {};
