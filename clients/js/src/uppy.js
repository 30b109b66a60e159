// `valet-upload/uppy`: an uploader plugin for Uppy 5 and 6. Uppy has the list of files, the buttons and the order of its steps; each file is
// uploaded by the protocol of upload.js. A file's bytes are read when it is sent, after editors and compressors.

import { BasePlugin } from "@uppy/core";
import { createApi } from "./api.js";
import { asProblem, problem } from "./http.js";
import { abortError, guarded, sleep, Turns } from "./retry.js";
import { upload } from "./upload.js";
import { WorkerPool } from "./worker-pool.js";

/** Progress that is shown at most until the image is confirmed: Uppy ignores any progress after 100 %. */
const MAX_PROGRESS = 0.99;
/** Milliseconds between two reports: for each change of a file, Uppy copies the list of all files, and its Dashboard draws them. */
const REPORT_MS = 200;
/** Files that are inspected at a time: the workers decode them. */
const MOST_INSPECTED = 3;
/** Files under way for each that is sent: the next ones are opened, and the last ones confirmed, in batches. */
const MOST_UNDER_WAY = 8;

/**
 * @typedef {object} ValetUploadOptions
 * @property {string} api Address of the server, such as `https://api.example.com`; "" is the page's own.
 * @property {string | ((stale?: string) => string | Promise<string>)} token The access token, or a function that returns it, and
 *   that returns another one when the server has refused `stale`.
 * @property {number} [limit] Files that are sent at a time; 3 by default, 0 for no limit.
 * @property {(problem: import("./http.js").Problem) => string} [explain] Returns the sentence that Uppy shows about a problem; English by default.
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
  #underWay = new Turns(0);
  #inspected = new Turns(MOST_INSPECTED);
  #sent = new Turns(0);
  #transfers = new Map(); // id of the file → Transfer, until the image is complete or the file is removed
  #changed = new Set(); // Transfers that have changed since the last report
  #ended = new Set(); // Ids of uploads that are complete or deleted
  #report = null;
  #reportedAt = 0;

  /**
   * @param {import("@uppy/core").Uppy<any, any>} uppy
   * @param {ValetUploadOptions} opts
   */
  constructor(uppy, opts) {
    super(uppy, opts);
    this.type = "uploader";
    this.id = opts.id ?? "ValetUpload";
    this.#work = new WorkerPool(opts.worker);
    this.#allow(1);
    this.#connect();
  }

  /**
   * Changes options, for files that are sent later: all of them but `id` and `worker`.
   * @param {Partial<ValetUploadOptions>} changes
   */
  setOptions(changes) {
    this.#allow(-1);
    super.setOptions(changes);
    this.#allow(1);
    this.#connect();
  }

  /** Adds the turns that `limit` allows, or takes them away with -1. 0 means no limit, as in Uppy's own uploaders; `Infinity - Infinity` is NaN. */
  #allow(sign) {
    const turns = sign * ((this.opts.limit ?? 3) || 1e9);
    this.#underWay.add(turns * MOST_UNDER_WAY);
    this.#sent.add(turns);
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
    ["file-removed", (file) => this.#removed(file)],
    // `uppy.clear()` removes all files without that event. Uppy reports each change of a file here, so only one file is looked for.
    ["state-update", (before, { files }) => {
      const [id] = this.#transfers.keys();
      if (id && !files[id]) Object.values(before.files).forEach((file) => files[file.id] || this.#removed(file));
    }],
  ]);

  #upload = async (ids, uploadId) => {
    const files = ids.map((id) => this.uppy.getFile(id)).filter((file) => file && !file.error && !file.progress.uploadComplete);
    this.uppy.emit("upload-start", files);
    await Promise.all(files.map(({ id }) => this.#send(id)));
    // `uppy.clear()` leaves this upload, which Uppy cannot end without its files.
    const { [uploadId]: ended, ...currentUploads } = this.uppy.getState().currentUploads;
    if (!ids.some((id) => this.uppy.getFile(id))) this.uppy.setState({ currentUploads });
  };

  /** Uploads a file with pauses, and reports the end to Uppy. */
  async #send(id) {
    const file = this.uppy.getFile(id);
    if (!file) return; // A listener of `upload-start` has removed it.
    const transfer = new Transfer(id, file.valet, (signal) => this.#underWay.run(signal, () => this.#attempt(transfer, signal)));
    this.#transfers.set(id, transfer);
    if (file.isPaused) transfer.pause();
    const [{ value: image, reason }] = await Promise.allSettled([transfer.run()]);
    if (image) this.#ended.add(image.id);
    await this.#tell(transfer);
    const now = this.#fileOf(transfer);
    if (!now) return;
    if (!image) return this.#failed(now, reason);
    this.#transfers.delete(id);
    this.#emit("upload-success", now, { status: 200, uploadURL: image.url, body: image });
  }

  /** Uploads a file once. */
  async #attempt(transfer, signal) {
    const { data, name, meta } = this.uppy.getFile(transfer.id) ?? {};
    // Golden Retriever could not keep the file's bytes, or the file is one that Uppy's Companion would fetch from another service.
    if (!data?.stream) throw problem({ code: "file_unreadable" });
    // An app may change the name alone, as in Uppy's example of `onBeforeUpload`.
    const named = { file: data, name: (meta.name !== data.name && meta.name) || name, caption: meta.caption };
    const ignored = () => {};
    const inTurn = (job) => (...input) => this.#inspected.run(signal, () => this.#work[job](...input));
    return upload(named, {
      stage: ignored, waiting: ignored, preview: ignored, found: ignored,
      opened: (open) => this.#opened(transfer, open),
      progress: (sent) => {
        transfer.sent = Math.min(sent, Math.floor(data.size * MAX_PROGRESS));
        this.#tell(transfer);
      },
    }, signal, { api: this.#api, work: { digest: inTurn("digest"), inspect: inTurn("inspect") }, turns: this.#sent });
  }

  /** Keeps the id of a file's open upload, also in the file's state, which Golden Retriever keeps through a reload. */
  #opened(transfer, open) {
    // The file was removed while its upload was opened; or its bytes were changed after a failure, so its earlier upload cannot continue.
    const useless = this.#fileOf(transfer) ? transfer.open : open;
    transfer.open = open;
    this.#tell(transfer);
    this.#discard(useless);
  }

  /** Returns the file of a transfer, or a false value if the file was removed or is sent again. */
  #fileOf(transfer) {
    return this.#transfers.get(transfer.id) === transfer && this.uppy.getFile(transfer.id);
  }

  /** Reports a transfer to Uppy, together with the others that have changed; resolves when that is done. */
  #tell(transfer) {
    this.#changed.add(transfer);
    return (this.#report ??= sleep(this.#reportedAt + REPORT_MS - Date.now()).then(() => {
      const changed = [...this.#changed].filter((transfer) => this.#fileOf(transfer));
      this.#changed.clear();
      [this.#report, this.#reportedAt] = [null, Date.now()];
      this.uppy.patchFilesState(Object.fromEntries(changed.map(({ id, open }) => [id, { valet: open }])));
      for (const transfer of changed) {
        const file = this.#fileOf(transfer);
        const { progress } = file || {};
        if (progress && progress.bytesUploaded !== transfer.sent) this.#emit("upload-progress", file, { ...progress, bytesUploaded: transfer.sent });
      }
    }));
  }

  /** Emits an event of Uppy. If a listener of the app throws, the uploads go on. */
  #emit(...event) {
    guarded(() => this.uppy.emit(...event));
  }

  /** Reports the failure of a file to Uppy. */
  #failed(file, error) {
    const failure = asProblem(error, "internal");
    if (failure !== error) this.uppy.log(error, "error");
    // Uppy shows the message; `detail` keeps the server's description.
    failure.message = this.opts.explain?.(failure) ?? failure.userMessage;
    this.#emit("upload-error", file, failure, { status: failure.status });
  }

  /** Stops the upload of a file that the user removed, and deletes it from the server if it is open. */
  #removed({ id, valet }) {
    const transfer = this.#transfers.get(id);
    this.#transfers.delete(id);
    transfer?.end();
    this.#discard(transfer?.open ?? valet);
  }

  /** Deletes an upload that is not complete, once, unless another file of the same bytes has it too. */
  #discard(open) {
    if (!open || this.#ended.has(open) || [...this.#transfers.values()].some((transfer) => transfer.open === open)) return;
    this.#ended.add(open);
    this.#api.discard(open);
  }
}

/** The upload of one file: one attempt, and another one after each pause. */
class Transfer {
  #attempt;
  #controller = new AbortController();
  #resumed;
  #wake = () => {};
  #running;
  /** Progress in bytes. */
  sent = 0;

  /**
   * @param {string} id The file's id.
   * @param {string | undefined} open Id of the upload that is open on the server.
   * @param {(signal: AbortSignal) => Promise<any>} attempt Uploads the file, until the signal is aborted.
   */
  constructor(id, open, attempt) {
    this.id = id;
    this.open = open;
    this.#attempt = attempt;
  }

  /** Resolves to the image; rejects after {@link end} too. */
  run() {
    return (this.#running = this.#run());
  }

  async #run() {
    while (this.#attempt) {
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

  /** Stops the upload; settles when nothing of it runs any more. */
  end() {
    this.#attempt = null;
    this.#controller.abort();
    this.#wake();
    return this.#running;
  }
}
