// `valet-upload/uppy`: an uploader plugin for Uppy 5 and 6. Uppy has the list of files, the buttons and the order of its steps; each file is
// uploaded by the protocol of upload.js. A file's bytes are read when it is sent, after editors and compressors.

import { BasePlugin } from "@uppy/core";
import { createApi } from "./api.js";
import { Problem, problem } from "./http.js";
import { abortError, Turns } from "./retry.js";
import { upload } from "./upload.js";
import { WorkerPool } from "./worker-pool.js";

/** Progress that is shown at most until the image is confirmed: Uppy ignores any progress after 100 %. */
const MAX_PROGRESS = 0.99;

/**
 * @typedef {object} ValetUploadOptions
 * @property {string} api Address of the server, such as `https://api.example.com`; "" is the page's own.
 * @property {string | ((stale?: string) => string | Promise<string>)} token The access token, or a function that returns it, and
 *   that returns another one when the server has refused `stale`.
 * @property {number} [limit] Files at a time; 3 by default, 0 for no limit.
 * @property {(problem: Problem) => string} [explain] Returns the sentence that Uppy shows about a problem; English by default.
 * @property {() => Worker} [worker] Returns a new worker that runs `valet-upload/worker`, for bundlers that do not find it by themselves.
 * @property {string} [id] The plugin's id in Uppy, "ValetUpload" by default.
 */

/**
 * Uploads Uppy's files to Valet. A file's `response.body` is the image as the API returns it, `uploadURL` the image's URL; `caption` in the
 * metadata becomes its caption. An `upload-error` carries the problem, whose message is a sentence for the user.
 * @extends {BasePlugin<ValetUploadOptions, any, any>}
 */
export default class ValetUpload extends BasePlugin {
  #api;
  #work;
  #turns;
  #transfers = new Map(); // id of the file → Transfer

  /**
   * @param {import("@uppy/core").Uppy<any, any>} uppy
   * @param {ValetUploadOptions} opts
   */
  constructor(uppy, opts) {
    super(uppy, opts);
    this.type = "uploader";
    this.id = opts.id ?? "ValetUpload";
    this.#work = new WorkerPool(opts.worker);
    this.#turns = new Turns(this.#limit);
    this.#connect();
  }

  /**
   * Changes options, for files that are sent later: all of them but `id` and `worker`.
   * @param {Partial<ValetUploadOptions>} changes
   */
  setOptions(changes) {
    const [{ api }, limit] = [this.opts, this.#limit];
    super.setOptions(changes);
    this.#turns.add(this.#limit - limit);
    if (this.opts.api !== api) this.#connect();
  }

  /** As in Uppy's own uploaders, 0 means no limit. `Infinity` cannot be subtracted from itself. */
  get #limit() {
    return (this.opts.limit ?? 3) || Number.MAX_SAFE_INTEGER;
  }

  #connect() {
    // `setOptions` may replace the token.
    const token = (stale) => (typeof this.opts.token === "function" ? this.opts.token(stale) : this.opts.token);
    this.#api = createApi({ api: this.opts.api, token });
  }

  install() {
    this.#setResumable(true);
    this.uppy.addUploader(this.#upload);
    for (const [event, handler] of this.#handlers) this.uppy.on(event, handler);
  }

  uninstall() {
    this.#setResumable(false);
    this.uppy.removeUploader(this.#upload);
    for (const [event, handler] of this.#handlers) this.uppy.off(event, handler);
    const ended = [...this.#transfers.values()].map((transfer) => transfer.end());
    // Uploads that are ending still wait for answers of the workers.
    Promise.allSettled(ended).then(() => this.#work.close());
  }

  /** Sets whether Uppy shows buttons to pause and resume. */
  #setResumable(resumableUploads) {
    this.uppy.setState({ capabilities: { ...this.uppy.getState().capabilities, resumableUploads } });
  }

  /** Handlers of the user's actions. `cancelAll` removes each file, so it needs no handler. */
  #handlers = /** @type {[any, any][]} */ ([
    ["upload-pause", (file, isPaused) => this.#transfers.get(file?.id)?.[isPaused ? "pause" : "resume"]()],
    ["pause-all", () => this.#transfers.forEach((transfer) => transfer.pause())],
    ["resume-all", () => this.#transfers.forEach((transfer) => transfer.resume())],
    // Not `file-removed`: `uppy.clear()` removes files without that event.
    ["state-update", ({ files }) => Object.values(files).forEach((file) => this.uppy.getFile(file.id) ?? this.#removed(file))],
  ]);

  #upload = async (ids) => {
    const files = ids.map((id) => this.uppy.getFile(id)).filter((file) => file && !file.error && !file.progress.uploadComplete);
    // Files that Golden Retriever has restored keep their progress.
    this.uppy.emit("upload-start", files.filter((file) => !file.isRestored || !file.progress.uploadStarted));
    await Promise.all(files.map((file) => this.#send(file)));
  };

  /** Uploads a file with pauses, and reports the end to Uppy. */
  async #send(file) {
    const { id } = file;
    if (!this.uppy.getFile(id)) return; // A listener of `upload-start` has removed it.
    const transfer = new Transfer((signal) => this.#turns.run(signal, () => this.#attempt(id, signal)));
    this.#transfers.set(id, transfer);
    if (this.uppy.getFile(id).isPaused) transfer.pause();
    const isRemoved = () => this.#transfers.get(id) !== transfer;
    try {
      const image = await transfer.run();
      if (isRemoved()) return;
      this.#setOpen(id, undefined);
      this.uppy.emit("upload-success", this.uppy.getFile(id) ?? file, { status: 200, uploadURL: image.url, body: image });
    } catch (error) {
      if (!isRemoved()) this.#failed(this.uppy.getFile(id) ?? file, error);
    } finally {
      if (!isRemoved()) this.#transfers.delete(id);
    }
  }

  /** Uploads a file once. */
  async #attempt(id, signal) {
    const { data, name, type, meta } = this.uppy.getFile(id) ?? {};
    // Golden Retriever could not keep the file's bytes, or the file is one that Uppy's Companion would fetch from another service.
    if (!data?.stream) throw problem({ code: "file_unreadable" });
    // An app may change the name alone, as in Uppy's example of `onBeforeUpload`.
    const bytes = Object.assign(new Blob([data], { type }), { name: (meta.name !== data.name && meta.name) || name, caption: meta.caption });
    const ignored = () => {};
    return upload(bytes, {
      stage: ignored, waiting: ignored, preview: ignored, found: ignored,
      opened: (open) => this.#setOpen(id, open),
      progress: (sent) => this.#report(id, sent, bytes.size),
    }, signal, { api: this.#api, work: this.#work });
  }

  /** Stores the id of a file's open upload in the file's state, which Golden Retriever keeps through a reload. */
  #setOpen(id, open) {
    const file = this.uppy.getFile(id);
    if (file) this.uppy.setFileState(id, { valet: open });
    // The file was removed while its upload was opened, or its bytes were changed after a failure, so its earlier upload cannot continue.
    if (open) this.#discard(file ? file.valet : open);
  }

  /** Reports the progress of a file to Uppy. */
  #report(id, sent, size) {
    const file = this.uppy.getFile(id);
    if (!file) return;
    this.uppy.emit("upload-progress", file, {
      uploadStarted: file.progress.uploadStarted ?? Date.now(), bytesUploaded: Math.min(sent, Math.floor(size * MAX_PROGRESS)), bytesTotal: size,
    });
  }

  /** Reports the failure of a file to Uppy. */
  #failed(file, error) {
    if (!(error instanceof Problem)) this.uppy.log(error, "error");
    const failure = error instanceof Problem ? error : problem({ code: "internal", detail: String(error) });
    // Uppy shows the message; `detail` keeps the server's description.
    failure.message = this.opts.explain?.(failure) ?? failure.userMessage;
    this.uppy.emit("upload-error", file, failure, { status: failure.status });
  }

  /** Stops the upload of a file that the user removed, and deletes it from the server if it is open. */
  #removed(file) {
    this.#transfers.get(file.id)?.end();
    this.#transfers.delete(file.id);
    this.#discard(file.valet);
  }

  /** Deletes an upload that is not complete, unless another file of the same bytes has it too. */
  #discard(open) {
    const isShared = this.uppy.getFiles().some((file) => file.valet === open || file.response?.body?.id === open);
    if (open && !isShared) this.#api.discard(open);
  }
}

/** The upload of one file: one attempt, and another one after each pause. */
class Transfer {
  #attempt;
  #controller = new AbortController();
  #resumed = Promise.resolve();
  #wake = () => {};
  #ended = Promise.resolve();
  /** Whether the file was removed, or the plugin. */
  #isEnded = false;

  /** @param {(signal: AbortSignal) => Promise<any>} attempt Uploads the file, until the signal is aborted. */
  constructor(attempt) {
    this.#attempt = attempt;
  }

  /** Resolves to the image; rejects after {@link end} too. */
  run() {
    const running = this.#run();
    this.#ended = running.then(() => {}, () => {});
    return running;
  }

  async #run() {
    while (!this.#isEnded) {
      const { signal } = this.#controller;
      try {
        signal.throwIfAborted();
        return await this.#attempt(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
      await this.#resumed;
    }
    // An error, because Uppy counts files without one as uploaded.
    throw abortError();
  }

  pause() {
    if (this.#controller.signal.aborted) return;
    this.#resumed = new Promise((resolve) => { this.#wake = resolve; });
    this.#controller.abort();
  }

  resume() {
    if (!this.#controller.signal.aborted) return;
    this.#controller = new AbortController();
    this.#wake();
  }

  /** Stops the upload; resolves when nothing of it runs any more. */
  end() {
    this.#isEnded = true;
    this.#controller.abort();
    this.#wake();
    return this.#ended;
  }
}
