// `valet-upload/capacitor`: uploads files of a Capacitor app by the plugin @capacitor/file-transfer. upload.js has the protocol, native.js
// the files. Blobs are uploaded as by `valet-upload`, so the same code runs on the web.

import { inAppFolders, NativeUploads } from "./native.js";
import { defaultStore } from "./pending-files.js";
import { abortable } from "./retry.js";
import { WorkerPool } from "./worker-pool.js";

export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";

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
export function createUploader({ FileTransfer, Filesystem, store = defaultStore(), worker, ...options }) {
  return /** @type {any} */ (new NativeUploads({ ...options, store: store && inAppFolders(store, foldersOf(Filesystem)) }, accessTo(FileTransfer, Filesystem), new WorkerPool(worker)));
}

/** The app's own folders, by the plugin's names. On iOS `DATA` is the documents; on Android several of them are one folder. */
const FOLDERS = ["TEMPORARY", "CACHE", "LIBRARY_NO_CLOUD", "LIBRARY", "DATA"];

/**
 * Returns a function that reads the folders from the plugin. A browser and an older plugin do not have all of them.
 * @param {FilesystemPlugin} Filesystem
 * @returns {() => Promise<[string, string][]>}
 */
const foldersOf = (Filesystem) => async () => {
  const found = FOLDERS.map(async (directory) => {
    try {
      const { uri } = await Filesystem.getUri({ path: "", directory });
      return uri.startsWith("file://") ? [[`${directory}:`, uri]] : [];
    } catch {
      return [];
    }
  });
  return /** @type {any} */ ((await Promise.all(found)).flat());
};

/**
 * @param {FileTransferPlugin} FileTransfer
 * @param {FilesystemPlugin} Filesystem
 * @returns {import("./native.js").Access}
 */
function accessTo(FileTransfer, Filesystem) {
  const running = /** @type {Map<string, Promise<number>>} */ (new Map()); // URL without its query → status of the PUT under way
  const start = (object, { method, url, headers }, path) => {
    const sending = FileTransfer
      .uploadFile({ method, url, path, headers: withExactContentType(headers), progress: true, chunkedMode: false, disableRedirects: true })
      .then(({ responseCode }) => Number(responseCode), (error) => Number(error?.data?.httpStatus) || 0)
      .finally(() => running.delete(object));
    running.set(object, sending);
    return sending;
  };
  return {
    async stat(uri) {
      const { size, mtime } = await Filesystem.stat({ path: uri });
      return { size, lastModified: mtime };
    },
    async read(uri, offset, length) {
      const { data } = await Filesystem.readFile({ path: uri, offset, length });
      if (typeof data !== "string") return new Uint8Array(await data.arrayBuffer());
      return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    },
    digest: () => undefined,
    // The plugin cannot stop a PUT: after a pause, the upload waits for the PUT that is under way.
    async send(presigned, uri, progress, signal) {
      const object = withoutQuery(presigned.url);
      const listener = await FileTransfer.addListener("progress", ({ type, url, bytes }) => {
        if (type === "upload" && withoutQuery(url) === object) progress(bytes);
      });
      try {
        return await abortable(signal, (resolve) => { (running.get(object) ?? start(object, presigned, uri)).then(resolve); });
      } finally {
        await listener.remove();
      }
    },
  };
}

/** Returns the headers with `Content-Type` spelled so: without a header of exactly this name, the plugin sends the file as a form. */
const withExactContentType = (headers) => Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.replace(/^content-type$/i, "Content-Type"), value]));

const withoutQuery = (url) => url.split("?")[0];
