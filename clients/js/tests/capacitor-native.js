// @ts-check
// The native half of @capacitor/file-transfer and @capacitor/filesystem, typed by the packages. As the plugin's libraries for Android and iOS
// do, an upload without a header that is spelled `Content-Type` (not `content-type`) is sent as a form, and errors have the status in `data`.

import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { assertSmallRead, ROOT, sendAsPhone } from "./phone.js";

/**
 * @typedef {import("@capacitor/file-transfer").FileTransferPlugin} FileTransferPlugin
 * @typedef {import("@capacitor/file-transfer").ProgressStatus} ProgressStatus
 * @typedef {import("@capacitor/file-transfer").FileTransferError} FileTransferError
 * @typedef {import("@capacitor/filesystem").FilesystemPlugin} FilesystemPlugin
 */

/** @type {Set<(progress: ProgressStatus) => void>} */
export const listeners = new Set();

/** @param {Partial<FileTransferError>} failure */
const failed = (failure) => Object.assign(new Error("The operation failed."), { code: failure.code, data: failure });

/** @type {Pick<FileTransferPlugin, "uploadFile" | "addListener">} */
export const FileTransfer = {
  async uploadFile({ url, path, method = "POST", headers = {}, progress, chunkedMode, fileKey = "file" }) {
    if (chunkedMode) throw failed({ code: "OS-PLUG-FLTR-0004" });
    const isForm = !("Content-Type" in headers);
    const file = fileURLToPath(path);
    const boundary = "++++IONFLTRBoundary";
    const body = isForm && Buffer.concat([
      Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${fileKey}"; filename="x"\r\n\r\n`), readFileSync(file), Buffer.from(`\r\n--${boundary}--\r\n`),
    ]);
    const sent = isForm ? { ...headers, "content-type": `multipart/form-data; boundary=${boundary}` } : headers;
    const onBytes = (/** @type {number} */ bytes, /** @type {number} */ contentLength) => {
      if (progress) listeners.forEach((listener) => listener({ type: "upload", url, bytes, contentLength, lengthComputable: true }));
    };
    const response = await sendAsPhone({ method, url, headers: sent, stack: "android", path: file, body, onBytes, signal: undefined }).catch(() => {
      throw failed({ code: "OS-PLUG-FLTR-0008" });
    });
    if (response.status >= 300) throw failed({ code: "OS-PLUG-FLTR-0010", httpStatus: response.status, body: response.body });
    return { bytesSent: statSync(file).size, responseCode: String(response.status), response: response.body };
  },

  async addListener(_, listener) {
    listeners.add(listener);
    return { remove: async () => { listeners.delete(listener); } };
  },
};

/** The app's container, whose folders are those of iOS. An update of the app moves it. */
export const container = { path: join(ROOT, "container-1") };
/** @type {Record<string, string>} */
const FOLDERS = { DOCUMENTS: "Documents", DATA: "Documents", LIBRARY: "Library", CACHE: "Library/Caches", TEMPORARY: "tmp" };

/** @type {Pick<FilesystemPlugin, "getUri" | "stat" | "readFile">} */
export const Filesystem = {
  async getUri({ path, directory = "DOCUMENTS" }) {
    const folder = FOLDERS[directory];
    if (!folder) throw failed({ code: "OS-PLUG-FILE-0005" });
    return { uri: pathToFileURL(join(container.path, folder, path)).href };
  },

  async stat({ path }) {
    const { size, mtimeMs } = statSync(fileURLToPath(path));
    return { name: "x", type: "file", size, mtime: mtimeMs, uri: path };
  },

  async readFile({ path, offset = 0, length = -1 }) {
    const bytes = Buffer.alloc(assertSmallRead(length));
    const file = openSync(fileURLToPath(path), "r");
    const read = readSync(file, bytes, 0, length, offset);
    closeSync(file);
    return { data: bytes.subarray(0, read).toString("base64") };
  },
};
