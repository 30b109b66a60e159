// `valet-upload/expo`: uploads files of an Expo app. The system sends them, on iOS in a background session, which goes on while the app is
// suspended. upload.js has the protocol, native.js the files.

import "./abort-reasons.js";
import * as work from "./image-processing.js";
import { fromHex, inAppFolders, NativeUploads } from "./native.js";

export { FileProblem, NetworkProblem, Problem, QuotaProblem, SessionProblem, StorageProblem } from "./http.js";

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
export function createUploader({ FileSystem, sessionType = "background", store = fileStore(FileSystem), ...options }) {
  const access = accessTo(FileSystem, sessionType);
  return /** @type {any} */ (new NativeUploads({ ...options, store }, access, { ...work, close() {} }));
}

/**
 * @param {ExpoFileSystem} FileSystem
 * @param {"background" | "foreground"} sessionType
 * @returns {import("./native.js").Access}
 */
function accessTo({ File, FileMode }, sessionType) {
  return {
    async stat(uri) {
      const { exists, size, type, lastModified } = new File(uri);
      if (!exists) throw new Error(`no file at ${uri}`);
      return { size, type, lastModified };
    },
    async read(uri, from, length) {
      const handle = new File(uri).open(FileMode.ReadOnly);
      try {
        handle.offset = from;
        return await handle.readBytes(length);
      } finally {
        handle.close();
      }
    },
    digest: (uri) => new File(uri).digest?.("SHA-256").then(fromHex),
    async send({ url, headers }, uri, progress, signal) {
      const onProgress = ({ bytesSent }) => progress(bytesSent);
      const task = new File(uri).createUploadTask(url, { httpMethod: "PUT", headers, sessionType, onProgress, signal });
      try {
        return (await task.uploadAsync()).status;
      } finally {
        task.release();
      }
    },
  };
}

/**
 * Returns a store in a folder of the app's documents, with a file for each unfinished upload. The files are not copied: their URIs are
 * stored. A URI in one of the app's folders is stored relative to it, because iOS moves the folders when an app is updated.
 * @param {ExpoFileSystem} FileSystem
 * @param {string} [name]
 * @returns {Store}
 */
export function fileStore({ File, Directory, Paths }, name = "valet-uploads") {
  const folder = new Directory(Paths.document, name);
  const fileOf = (key) => new File(folder, `${key}.json`);
  const read = async (file) => {
    try {
      return JSON.parse(await file.text());
    } catch {
      return undefined; // Gone, or written in part when the app was ended.
    }
  };
  const list = () => (folder.exists ? folder.list().filter(({ uri }) => uri.endsWith(".json")).map(({ uri }) => new File(uri)) : []);
  const store = {
    all: async () => (await Promise.all(list().map(read))).filter((record) => record !== undefined),
    async put(record) {
      folder.create({ intermediates: true, idempotent: true });
      await fileOf(record.key).write(JSON.stringify(record));
    },
    async delete(key) {
      if (fileOf(key).exists) fileOf(key).delete();
    },
    async clear() {
      for (const file of list()) file.delete();
    },
  };
  return inAppFolders(store, () => [["document:", Paths.document.uri], ["cache:", Paths.cache.uri]]);
}
