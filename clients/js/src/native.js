// Shared by expo.js and capacitor.js: files of a phone, which have a URI and which the system sends. upload.js has the protocol.

import { createApi } from "./api.js";
import { problem } from "./http.js";
import { sniff } from "./image-processing.js";
import { Sha256 } from "./sha256.js";
import { Uploader } from "./uploader.js";

/** Bytes of a file that are in memory at a time. */
const PIECE_BYTES = 1 << 20;

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
  #access;

  /** @param {Access} access @param {string | NativeFileInput} input @param {string} [name] */
  constructor(access, input, name) {
    const given = typeof input === "string" ? { uri: input } : input;
    this.#access = access;
    this.uri = given.uri ?? given.path ?? "";
    this.name = given.name ?? given.fileName ?? name ?? lastSegment(this.uri);
    this.type = [given.mimeType, given.type].find((type) => type?.includes("/")) ?? "";
    this.size = given.size ?? given.fileSize ?? 0;
    this.lastModified = 0;
  }

  /** Reads the size: some pickers give none, or a wrong one. */
  async load() {
    try {
      const { size, type, lastModified } = await this.#access.stat(this.uri);
      Object.assign(this, { size, type: this.type || type || "", lastModified: lastModified ?? 0 });
    } catch {
      throw problem({ code: "file_unreadable" });
    }
  }

  /** Returns what an upload declares of the file. */
  async inspect() {
    await this.load();
    const contentType = sniff(await this.#read(0, 64)) || this.type || "application/octet-stream";
    const sha256 = await this.#attempt(async () => (await this.#access.digest(this.uri)) ?? this.#digest());
    return { contentType, sha256: btoa(String.fromCharCode(...sha256)) };
  }

  /** Sends the file as s3-put.js sends a Blob. */
  async put(presigned, { signal, progress }) {
    signal.throwIfAborted();
    const status = await this.#access.send(presigned, this.uri, progress, signal).catch(() => 0);
    signal.throwIfAborted();
    return status;
  }

  /** Returns a part to read, as a Blob does. */
  slice(from, to) {
    return { arrayBuffer: () => this.#read(from, to - from) };
  }

  async #digest() {
    const hash = new Sha256();
    for (let offset = 0; offset < this.size;) {
      const piece = await this.#read(offset, Math.min(PIECE_BYTES, this.size - offset));
      if (!piece.length) break; // The file became shorter: S3 rejects its bytes, and the next attempt reads the file again.
      hash.update(piece);
      offset += piece.length;
    }
    return hash.digest();
  }

  #read(from, length) {
    return this.#attempt(() => this.#access.read(this.uri, from, length));
  }

  async #attempt(work) {
    try {
      return await work();
    } catch (error) {
      throw Object.assign(new Error(String(error)), { name: "NotReadableError" });
    }
  }
}

/** A queue whose `add` takes files of a phone too. */
export class NativeUploads extends Uploader {
  #access;

  constructor({ api, token, user = "", store, concurrency }, access, work) {
    const revive = ({ file, name, type, size }) => (file instanceof Blob ? file : new NativeFile(access, { uri: file.uri, name, type, size }));
    super({ api: createApi({ api, token }), work, store, user, concurrency, revive });
    this.#access = access;
  }

  add(input, options = {}) {
    const isOne = typeof input === "string" || input instanceof Blob || !(Symbol.iterator in input);
    const isWebFile = (one) => one instanceof Blob || (typeof one !== "string" && !one.uri && !one.path);
    return super.add((isOne ? [input] : [...input]).map((one) => (isWebFile(one) ? one : new NativeFile(this.#access, one, options.name))), options);
  }
}

/**
 * Returns a store whose records name files in the app's own folders relative to these, as iOS moves the folders when an app is updated.
 * @param {import("./types.js").Store} store
 * @param {() => Promise<[string, string][]> | [string, string][]} folders Names, which end in a colon, and URIs; a folder before those that contain it.
 * @returns {import("./types.js").Store}
 */
export function inAppFolders(store, folders) {
  // Returns the URI with one of the two names that iOS has for the folder above all apps.
  const plain = (uri) => uri?.replace("file:///private/var/", "file:///var/");
  const folderPairs = async () => (await folders()).map(([name, uri]) => [name, plain(uri).replace(/\/?$/, "/")]);
  /** Returns the record with the beginning of its file's URI replaced, by the first of the pairs `[from, to]` that matches. */
  const moved = (record, replacements) => {
    const uri = plain(record?.file?.uri);
    const [from, to] = (uri && replacements.find(([from]) => uri.startsWith(from))) || [];
    return from === undefined ? record : { ...record, file: { uri: to + uri.slice(from.length) } };
  };
  return {
    all: async () => {
      const [records, named] = await Promise.all([store.all(), folderPairs()]);
      return records.map((record) => moved(record, named));
    },
    put: async (record) => store.put(moved(record, (await folderPairs()).map(([name, uri]) => [uri, name]))),
    delete: (key) => store.delete(key),
    clear: () => store.clear(),
  };
}

/** Returns the bytes of a text in hexadecimal digits. */
export const fromHex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Returns a URI's last segment, which is a file's name usually. */
function lastSegment(uri) {
  const segment = uri.split(/[?#]/)[0].split("/").pop() || "image";
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
