/**
 * waiting → preparing → sending → confirming → done, or failed; `needs-file`: open on the server, but its file has to be chosen again.
 */
export type UploadState = "waiting" | "paused" | "preparing" | "sending" | "confirming" | "done" | "failed" | "cancelled" | "needs-file";
/**
 * An image as the API returns it.
 */
export type GalleryImage = {
    /**
     * Never names other bytes, so it is a key for caches.
     */
    id: string;
    fileName: string;
    contentType: string;
    size: number;
    sha256?: string;
    width: number;
    height: number;
    caption?: string;
    url: string;
    previewUrl?: string;
    /**
     * Smaller pictures, the smallest first.
     */
    previews?: {
        url: string;
        width: number;
        height: number;
    }[];
    thumbHash?: string;
    /**
     * RFC 3339, without an offset if the camera recorded none: show it as it is, do not convert it.
     */
    takenAt?: string;
    camera?: string;
    location?: {
        latitude: number;
        longitude: number;
    };
    urlExpiresAt: string;
    createdAt: string;
    uploadedAt: string;
};
/**
 * A stream and its length. It is read once, into a Blob, because a repeat needs the bytes again.
 */
export type SizedStream = {
    stream: ReadableStream<Uint8Array>;
    size: number;
    name: string;
    type?: string;
};
export type AddOptions = {
    /**
     * Name of a Blob without one.
     */
    name?: string;
    caption?: string;
    /**
     * Cancels the uploads of this call.
     */
    signal?: AbortSignal;
};
export type StoredFile = {
    key: string;
    user: string;
    tab: string;
    name: string;
    size: number;
    type: string;
    lastModified: number;
    storedAt?: number;
    caption?: string;
    file: Blob | {
        uri: string;
    } | null;
    id?: string;
};
/**
 * The id of a stored file's upload, and the tab that has it.
 */
export type StoredClaim = {
    key: string;
    user: string;
    tab: string;
    storedAt: number;
    id?: string;
};
export type Store = {
    all(): Promise<(StoredFile | StoredClaim)[]>;
    put(record: StoredFile | StoredClaim): Promise<unknown>;
    delete(key: string): Promise<unknown>;
    clear(): Promise<unknown>;
};
export type UploaderOptions = {
    /**
     * Address of the server, such as `https://api.example.com`; "" is the page's own.
     */
    api: string;
    /**
     * The access token, or a function that returns it. With an
     * argument, the server has just refused that token: the function returns another. It is called once for all uploads.
     */
    token: string | ((stale?: string) => string | Promise<string>);
    /**
     * Files of unfinished uploads. The default is IndexedDB where there is one; null stores nothing.
     */
    store?: Store | null;
    /**
     * Owner of the stored files: `restore()` leaves those of other users alone.
     */
    user?: string;
    /**
     * Files that are sent at a time; 3 by default.
     */
    concurrency?: number;
    /**
     * Returns a new worker that runs `valet-upload/worker`, for bundlers that do not find it by themselves.
     */
    worker?: () => Worker;
};
/**
 * One upload. The uploader writes its fields.
 */
export type Upload = {
    /**
     * Unique within the device.
     */
    key: string;
    /**
     * The bytes, or null if the user has to choose the file again.
     */
    file: Blob | null;
    name: string;
    size: number;
    caption?: string;
    state: UploadState;
    /**
     * Why an attempt waits: no network, or a pause before a repeat.
     */
    waitReason: "offline" | "again" | null;
    /**
     * Bytes that have been sent.
     */
    sent: number;
    /**
     * Why it failed.
     */
    problem: import("./http.js").Problem | null;
    /**
     * A small picture to show meanwhile.
     */
    preview: Blob | null;
    /**
     * The image's id, once the upload is open.
     */
    id: string | null;
    /**
     * The image, once it is done.
     */
    image: GalleryImage | null;
    /**
     * Done, and the gallery had the image before.
     */
    duplicate: boolean;
    /**
     * Resolves to the image; rejects with the Problem of a failure, or an AbortError when
     * cancelled or stopped. After `retry()` it is another promise.
     */
    finished: Promise<GalleryImage>;
    /**
     * Whether requests are under way.
     */
    active: boolean;
    /**
     * Whether it is under way or will start by itself.
     */
    open: boolean;
    /**
     * Whether a repeat with the same file can succeed.
     */
    isRetryable: boolean;
    pause: () => void;
    resume: () => void;
    /**
     * Repeats a failed upload, if that can succeed.
     */
    retry: () => void;
    cancel: () => void;
};
export type UploaderEvents = {
    /**
     * With the upload, or nothing when several changed.
     */
    change: CustomEvent<Upload | undefined>;
    uploaded: CustomEvent<Upload>;
    failed: CustomEvent<Upload>;
};
export type Listening = {
    addEventListener<K extends keyof UploaderEvents>(type: K, listener: (event: UploaderEvents[K]) => void, options?: Parameters<EventTarget["addEventListener"]>[2]): void;
    removeEventListener<K extends keyof UploaderEvents>(type: K, listener: (event: UploaderEvents[K]) => void, options?: Parameters<EventTarget["removeEventListener"]>[2]): void;
};
export type Queue = {
    /**
     * All uploads, oldest first.
     */
    items: Upload[];
    /**
     * Whether the whole queue is paused.
     */
    paused: boolean;
    /**
     * Bytes, and numbers of uploads, of all that are
     * neither `needs-file`, failed nor cancelled.
     */
    progress: {
        sent: number;
        size: number;
        done: number;
        count: number;
    };
    /**
     * Queues files, except those that are queued already, and returns
     * the new uploads.
     */
    add: (input: Input, options?: AddOptions) => Upload[];
    /**
     * Resumes the uploads of an earlier visit, and lists other uploads that are open on the server
     * as `needs-file`; waits for the network to list them. Resolves after `stop()` too.
     */
    restore: () => Promise<void>;
    /**
     * Pauses one upload, or all of them. Parts that have arrived are kept; a single PUT starts
     * again.
     */
    pause: (upload?: Upload) => void;
    /**
     * Continues one upload, or all that `pause()` without an upload has paused.
     */
    resume: (upload?: Upload) => void;
    /**
     * Repeats a failed upload, if that can succeed.
     */
    retry: (upload: Upload) => void;
    /**
     * Removes an upload from the list and, unless it is complete, from the server.
     */
    cancel: (upload: Upload) => void;
    /**
     * Removes the uploads that are done from the list.
     */
    clearDone: () => void;
    /**
     * Stops all uploads without a request to the server, and ends the workers. Stored files stay for `restore`.
     */
    stop: () => void;
};
export type Uploader = Queue & Listening & EventTarget;
/**
 * A change of an image.
 */
export type ImageEvent = {
    /**
     * `image.ready`, `image.rejected`, `image.deleted`, `image.updated`, `upload.expired`, or one of a later server.
     */
    type: string;
    /**
     * The image.
     */
    id: string;
};
export type EventHandlers = {
    /**
     * Called for each change; maybe twice for one.
     */
    onEvent: (event: ImageEvent) => void;
    /**
     * Called at the beginning and whenever changes may have been missed: read again what is shown.
     */
    onReset?: () => void;
    /**
     * Ends the subscription.
     */
    signal?: AbortSignal;
};
/**
 * `api` and `token` are those of an uploader.
 */
export type SubscribeOptions = EventHandlers & {
    api: string;
    token: string | ((stale?: string) => string | Promise<string>);
};
export type Input = Blob | SizedStream | Iterable<Blob | SizedStream>;
