/**
 * @typedef {import("./native.js").NativeFileInput} NativeFileInput
 * @typedef {import("./native.js").NativeInput} NativeInput
 * @typedef {import("./native.js").NativeUploader} NativeUploader
 */
/**
 * @typedef {object} FileTransferPlugin The used part of `FileTransfer` of @capacitor/file-transfer.
 * @property {(options: UploadFileOptions) => Promise<{ responseCode: string }>} uploadFile
 * @property {(event: "progress", listener: (progress: { type: string, url: string, bytes: number }) => void) => Promise<{ remove: () => Promise<void> }>} addListener
 *
 * @typedef {{ url: string, path: string, method: string, headers: Record<string, string>, progress: boolean, chunkedMode: boolean, disableRedirects: boolean }} UploadFileOptions
 *
 * @typedef {object} FilesystemPlugin The used part of `Filesystem` of @capacitor/filesystem 8.1 and later.
 * @property {(options: { path: string }) => Promise<{ size: number, mtime: number }>} stat
 * @property {(options: { path: string, directory: any }) => Promise<{ uri: string }>} getUri
 * @property {(options: { path: string, offset: number, length: number }) => Promise<{ data: string | Blob }>} readFile
 */
/**
 * @typedef {object} CapacitorOptions
 * @property {FileTransferPlugin} FileTransfer The plugin: `import { FileTransfer } from "@capacitor/file-transfer"`.
 * @property {FilesystemPlugin} Filesystem The plugin: `import { Filesystem } from "@capacitor/filesystem"`.
 * @typedef {import("./types.js").UploaderOptions & CapacitorOptions} CapacitorUploaderOptions
 */
/**
 * Returns a queue that uploads files as the user of `token`. `add` takes `file://` and `content://` URIs, what plugins return (`path` or
 * `uri`), and Blobs.
 * @param {CapacitorUploaderOptions} options
 * @returns {NativeUploader}
 */
export function createUploader({ FileTransfer, Filesystem, store, worker, ...options }: CapacitorUploaderOptions): NativeUploader;
export type NativeFileInput = import("./native.js").NativeFileInput;
export type NativeInput = import("./native.js").NativeInput;
export type NativeUploader = import("./native.js").NativeUploader;
/**
 * The used part of `FileTransfer` of
 */
export type FileTransferPlugin = object;
export type UploadFileOptions = {
    url: string;
    path: string;
    method: string;
    headers: Record<string, string>;
    progress: boolean;
    chunkedMode: boolean;
    disableRedirects: boolean;
};
/**
 * The used part of `Filesystem` of
 */
export type FilesystemPlugin = object;
export type CapacitorOptions = {
    /**
     * The plugin: `import { FileTransfer } from "@capacitor/file-transfer"`.
     */
    FileTransfer: FileTransferPlugin;
    /**
     * The plugin: `import { Filesystem } from "@capacitor/filesystem"`.
     */
    Filesystem: FilesystemPlugin;
};
export type CapacitorUploaderOptions = import("./types.js").UploaderOptions & CapacitorOptions;
export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";
