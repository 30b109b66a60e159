// @ts-check
// The native half of expo-file-system, typed by the package's declaration of it. The package's own JavaScript runs on top (native.test.js).

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, closeSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { assertSmallRead, ROOT, sendAsPhone } from "./phone.js";

/**
 * @typedef {import("../node_modules/expo-file-system/build/internal/NativeFileSystem.types.js").NativeFileSystemFile} NativeFile
 * @typedef {import("../node_modules/expo-file-system/build/internal/NativeFileSystem.types.js").NativeFileSystemDirectory} NativeDirectory
 * @typedef {import("../node_modules/expo-file-system/build/internal/NativeFileSystem.types.js").FileSystemUploadTask} NativeUploadTask
 * @typedef {import("expo-file-system").FileHandle} FileHandle
 */

/** Options of each native upload, for the tests. */
export const uploads = /** @type {Record<string, any>[]} */ ([]);

/** @implements {Pick<FileHandle, "readBytes" | "close" | "offset">} */
class Handle {
  /** @type {number | null} */
  offset = 0;
  #file;

  /** @param {string} path @param {string} mode */
  constructor(path, mode) {
    if (mode !== "r") throw new Error("the photo library's files can only be read");
    this.#file = openSync(path, "r");
  }

  /** @param {number} length */
  async readBytes(length) {
    const bytes = new Uint8Array(assertSmallRead(length));
    const read = readSync(this.#file, bytes, 0, length, this.offset ?? 0);
    this.offset = (this.offset ?? 0) + read;
    return bytes.slice(0, read);
  }

  close() {
    closeSync(this.#file);
    this.offset = null;
  }
}

/** The members that files and directories share. */
class FileSystemPath {
  /** @param {string} uri */
  constructor(uri) {
    this.uri = uri;
  }

  get path() {
    return fileURLToPath(this.uri);
  }

  validatePath() {}

  get exists() {
    return existsSync(this.path);
  }

  delete() {
    rmSync(this.path, { recursive: true });
  }
}

/** @implements {Pick<NativeFile, "uri" | "exists" | "size" | "type" | "lastModified" | "text" | "write" | "delete" | "open" | "digest" | "validatePath">} */
class FileSystemFile extends FileSystemPath {
  get size() {
    return this.exists ? statSync(this.path).size : 0;
  }

  get type() {
    return "application/octet-stream";
  }

  get lastModified() {
    return this.exists ? statSync(this.path).mtimeMs : null;
  }

  async text() {
    return readFileSync(this.path, "utf8");
  }

  /** @param {string | Uint8Array | ArrayBuffer} content */
  async write(content) {
    writeFileSync(this.path, /** @type {string} */ (content));
  }

  /** @param {string} [mode] @returns {any} */
  open(mode = "rw") {
    return new Handle(this.path, mode);
  }

  /** @param {string} algorithm */
  async digest(algorithm) {
    return createHash(algorithm.replace("-", "").toLowerCase()).update(readFileSync(this.path)).digest("hex");
  }
}

/** @implements {Pick<NativeDirectory, "uri" | "exists" | "create" | "listAsRecords" | "validatePath">} */
class FileSystemDirectory extends FileSystemPath {
  /** @param {import("expo-file-system").DirectoryCreateOptions} [options] */
  create({ intermediates = false, idempotent = false } = {}) {
    if (this.exists && !idempotent) throw new Error("it exists");
    mkdirSync(this.path, { recursive: intermediates || idempotent });
  }

  listAsRecords() {
    return readdirSync(this.path, { withFileTypes: true }).map((/** @type {any} */ entry) => ({ isDirectory: entry.isDirectory(), uri: pathToFileURL(join(this.path, entry.name)).href }));
  }
}

/** An upload as in ios/FileSystemUploadTask.swift: resolves with any response, and rejects without one or after a cancellation. */
class FileSystemUploadTask {
  #stopping = new AbortController();
  /** @type {((progress: import("expo-file-system").UploadProgress) => void)[]} */
  #listeners = [];

  /** @type {NativeUploadTask["start"]} */
  async start(url, file, options) {
    if (options.uploadType !== 0) throw new Error("only binary content is sent");
    uploads.push(options);
    const { httpMethod: method, headers } = options;
    const onBytes = (/** @type {number} */ bytesSent, /** @type {number} */ totalBytes) => this.#listeners.forEach((listener) => listener({ bytesSent, totalBytes }));
    return sendAsPhone({ method, url, headers, stack: "ios", path: fileURLToPath(file.uri), onBytes, signal: this.#stopping.signal });
  }

  cancel() {
    this.#stopping.abort();
  }

  release() {
    this.#stopping.abort();
  }

  /** @param {"progress"} _ @param {(progress: import("expo-file-system").UploadProgress) => void} listener */
  addListener(_, listener) {
    this.#listeners.push(listener);
    return { remove: () => { this.#listeners = this.#listeners.filter((one) => one !== listener); } };
  }
}

/** Stands for classes that the package exports and these tests do not use. */
class Unused {}

const folder = (/** @type {string} */ name) => pathToFileURL(join(ROOT, name)).href;

/** @type {Pick<typeof import("../node_modules/expo-file-system/build/ExpoFileSystem.js").default, "documentDirectory" | "cacheDirectory"> & Record<string, unknown>} */
export const module = {
  FileSystemFile, FileSystemDirectory, FileSystemUploadTask, FileSystemDownloadTask: Unused, FileSystemWatcher: Unused,
  documentDirectory: folder("document/"), cacheDirectory: folder("cache/"),
};
mkdirSync(join(ROOT, "document"));
mkdirSync(join(ROOT, "cache"));

// Parts of expo-modules-core and react-native that expo-file-system imports.
export const requireNativeModule = () => module;
export class NativeModule {}
export class UnavailabilityError extends Error {}
export const uuid = {};
export const Platform = { OS: "ios" };
