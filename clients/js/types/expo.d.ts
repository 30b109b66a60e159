/**
 * @typedef {import("./native.js").NativeFileInput} NativeFileInput
 * @typedef {import("./native.js").NativeInput} NativeInput
 * @typedef {import("./native.js").NativeUploader} NativeUploader
 * @typedef {import("./types.js").Store} Store
 * @typedef {import("./types.js").StoredFile} StoredFile
 */
/**
 * @typedef {object} ExpoFile The used part of `File` of expo-file-system.
 * @property {string} uri
 * @property {boolean} exists
 * @property {number} size
 * @property {string} type
 * @property {number | null} lastModified
 * @property {(algorithm: "SHA-256") => Promise<string>} [digest] Since SDK 58; before, the file is read and hashed in JavaScript.
 * @property {(mode?: any) => { offset: number | null, readBytes: (length: number) => Uint8Array | Promise<Uint8Array>, close: () => void }} open
 * @property {(url: string, options: ExpoUploadOptions) => { uploadAsync: () => Promise<{ status: number }>, release: () => void }} createUploadTask
 * @property {() => Promise<string>} text
 * @property {(text: string) => void | Promise<void>} write
 * @property {() => void} delete
 *
 * @typedef {object} ExpoUploadOptions
 * @property {"PUT"} httpMethod
 * @property {Record<string, string>} headers
 * @property {"background" | "foreground"} sessionType
 * @property {(progress: { bytesSent: number }) => void} onProgress
 * @property {AbortSignal} signal
 *
 * @typedef {object} ExpoDirectory
 * @property {string} uri
 * @property {boolean} exists
 * @property {(options: { intermediates: boolean, idempotent: boolean }) => void} create
 * @property {() => { uri: string }[]} list
 *
 * @typedef {object} ExpoFileSystem The module `expo-file-system` of SDK 56 and later.
 * @property {new (...uris: any[]) => ExpoFile} File
 * @property {new (...uris: any[]) => ExpoDirectory} Directory
 * @property {{ document: ExpoDirectory, cache: ExpoDirectory }} Paths
 * @property {{ ReadOnly: any }} FileMode
 */
/**
 * @typedef {object} ExpoOptions
 * @property {ExpoFileSystem} FileSystem The module: `import * as FileSystem from "expo-file-system"`.
 * @property {"background" | "foreground"} [sessionType] The session of iOS; "background" by default.
 * @typedef {Omit<import("./types.js").UploaderOptions, "worker"> & ExpoOptions} ExpoUploaderOptions
 */
/**
 * Returns a queue that uploads files as the user of `token`. `add` takes URIs, files of expo-file-system, and what pickers return.
 * @param {ExpoUploaderOptions} options
 * @returns {NativeUploader}
 */
export function createUploader({ FileSystem, sessionType, store, ...options }: ExpoUploaderOptions): NativeUploader;
/**
 * Returns a store in a folder of the app's documents, with a file for each unfinished upload. The files are not copied: their URIs are
 * stored. A URI in one of the app's folders is stored relative to it, because iOS moves the folders when an app is updated.
 * @param {ExpoFileSystem} FileSystem
 * @param {string} [name]
 * @returns {Store}
 */
export function fileStore({ File, Directory, Paths }: ExpoFileSystem, name?: string): Store;
export type NativeFileInput = import("./native.js").NativeFileInput;
export type NativeInput = import("./native.js").NativeInput;
export type NativeUploader = import("./native.js").NativeUploader;
export type Store = import("./types.js").Store;
export type StoredFile = import("./types.js").StoredFile;
/**
 * The used part of `File` of expo-file-system.
 */
export type ExpoFile = {
    uri: string;
    exists: boolean;
    size: number;
    type: string;
    lastModified: number | null;
    /**
     * Since SDK 58; before, the file is read and hashed in JavaScript.
     */
    digest?: (algorithm: "SHA-256") => Promise<string>;
    open: (mode?: any) => {
        offset: number | null;
        readBytes: (length: number) => Uint8Array | Promise<Uint8Array>;
        close: () => void;
    };
    createUploadTask: (url: string, options: ExpoUploadOptions) => {
        uploadAsync: () => Promise<{
            status: number;
        }>;
        release: () => void;
    };
    text: () => Promise<string>;
    write: (text: string) => void | Promise<void>;
    delete: () => void;
};
export type ExpoUploadOptions = {
    httpMethod: "PUT";
    headers: Record<string, string>;
    sessionType: "background" | "foreground";
    onProgress: (progress: {
        bytesSent: number;
    }) => void;
    signal: AbortSignal;
};
export type ExpoDirectory = {
    uri: string;
    exists: boolean;
    create: (options: {
        intermediates: boolean;
        idempotent: boolean;
    }) => void;
    list: () => {
        uri: string;
    }[];
};
/**
 * The module `expo-file-system` of SDK 56 and later.
 */
export type ExpoFileSystem = {
    File: new (...uris: any[]) => ExpoFile;
    Directory: new (...uris: any[]) => ExpoDirectory;
    Paths: {
        document: ExpoDirectory;
        cache: ExpoDirectory;
    };
    FileMode: {
        ReadOnly: any;
    };
};
export type ExpoOptions = {
    /**
     * The module: `import * as FileSystem from "expo-file-system"`.
     */
    FileSystem: ExpoFileSystem;
    /**
     * The session of iOS; "background" by default.
     */
    sessionType?: "background" | "foreground";
};
export type ExpoUploaderOptions = Omit<import("./types.js").UploaderOptions, "worker"> & ExpoOptions;
export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";
