/**
 * Returns a store whose records name files in the app's own folders relative to these, as iOS moves the folders when an app is updated.
 * @param {import("./types.js").Store} store
 * @param {() => Promise<[string, string][]> | [string, string][]} folders Names, which end in a colon, and URIs; a folder before those that contain it.
 * @returns {import("./types.js").Store}
 */
export function inAppFolders(store: import("./types.js").Store, folders: () => Promise<[string, string][]> | [string, string][]): import("./types.js").Store;
/**
 * @typedef {object} NativeFileInput A file of a phone, as pickers and cameras describe it. Their `type` counts only if it is a media type.
 * @property {string} [uri] `file:///…`, or `content://…` on Android.
 * @property {string} [path] The same, as Capacitor's plugins call it.
 * @property {string | null} [name]
 * @property {string | null} [fileName]
 * @property {string | null} [mimeType]
 * @property {string | null} [type]
 * @property {number | null} [size]
 * @property {number | null} [fileSize]
 *
 * @typedef {string | NativeFileInput | Iterable<string | NativeFileInput>} NativeInput
 *
 * @typedef {{ add: (input: NativeInput, options?: import("./types.js").AddOptions) => import("./types.js").Upload[] }} NativeQueue
 * @typedef {import("./types.js").Uploader & NativeQueue} NativeUploader An uploader whose `add` takes files of a phone too.
 */
/**
 * Access of an app's runtime to files. `stat` and `read` reject if the file does not exist.
 * @typedef {object} Access
 * @property {(uri: string) => Promise<{ size: number, type?: string, lastModified?: number | null }>} stat
 * @property {(uri: string, from: number, length: number) => Promise<Uint8Array>} read
 * @property {(uri: string) => Promise<Uint8Array> | undefined} digest The SHA-256, or undefined if the runtime has none.
 * @property {(presigned: Presigned, uri: string, progress: (bytes: number) => void, signal: AbortSignal) => Promise<number>} send
 *   Sends the file; resolves with the status, or 0 without a response.
 *
 * @typedef {{ method: string, url: string, headers: Record<string, string> }} Presigned
 */
/** A file of a phone, used like a Blob. While it is read, only one piece of it is in memory. */
export class NativeFile {
    /** @param {Access} access @param {string | NativeFileInput} input @param {string} [name] */
    constructor(access: Access, input: string | NativeFileInput, name?: string);
    uri: string;
    name: any;
    type: string;
    size: number;
    lastModified: number;
    /** Reads the size: some pickers give none, or a wrong one. */
    load(): Promise<void>;
    /** Returns what an upload declares of the file. */
    inspect(): Promise<{
        contentType: string;
        sha256: string;
    }>;
    /** Sends the file as s3-put.js sends a Blob. */
    put(presigned: any, { signal, progress }: {
        signal: any;
        progress: any;
    }): Promise<number>;
    /** Returns a part to read, as a Blob does. */
    slice(from: any, to: any): {
        arrayBuffer: () => Promise<any>;
    };
    #private;
}
/** A queue whose `add` takes files of a phone too. */
export class NativeUploads extends Uploader {
    constructor({ api, token, user, store, concurrency }: {
        api: any;
        token: any;
        user?: string;
        store: any;
        concurrency: any;
    }, access: any, work: any);
    #private;
}
export function fromHex(text: any): Uint8Array<ArrayBuffer>;
/**
 * A file of a phone, as pickers and cameras describe it. Their `type` counts only if it is a media type.
 */
export type NativeFileInput = {
    /**
     * `file:///…`, or `content://…` on Android.
     */
    uri?: string;
    /**
     * The same, as Capacitor's plugins call it.
     */
    path?: string;
    name?: string | null;
    fileName?: string | null;
    mimeType?: string | null;
    type?: string | null;
    size?: number | null;
    fileSize?: number | null;
};
export type NativeInput = string | NativeFileInput | Iterable<string | NativeFileInput>;
export type NativeQueue = {
    add: (input: NativeInput, options?: import("./types.js").AddOptions) => import("./types.js").Upload[];
};
/**
 * An uploader whose `add` takes files of a phone too.
 */
export type NativeUploader = import("./types.js").Uploader & NativeQueue;
/**
 * Access of an app's runtime to files. `stat` and `read` reject if the file does not exist.
 */
export type Access = {
    stat: (uri: string) => Promise<{
        size: number;
        type?: string;
        lastModified?: number | null;
    }>;
    read: (uri: string, from: number, length: number) => Promise<Uint8Array>;
    /**
     * The SHA-256, or undefined if the runtime has none.
     */
    digest: (uri: string) => Promise<Uint8Array> | undefined;
    /**
     *   Sends the file; resolves with the status, or 0 without a response.
     */
    send: (presigned: Presigned, uri: string, progress: (bytes: number) => void, signal: AbortSignal) => Promise<number>;
};
/**
 * Access of an app's runtime to files. `stat` and `read` reject if the file does not exist.
 */
export type Presigned = {
    method: string;
    url: string;
    headers: Record<string, string>;
};
import { Uploader } from "./uploader.js";
