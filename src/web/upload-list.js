// The list of uploads: the total progress, and a line for each file. Shows the state of an Uploader.

import { $, announce, button, el, icon, refocus } from "./dom.js";
import { bytes, count, duration, explain } from "./messages.js";

const STATES = { waiting: "Waiting", preparing: "Preparing", confirming: "Checking", done: "Uploaded" };
const DUPLICATE = "Already in your gallery";
const WAIT_REASONS = { offline: "Waiting for the network", again: "Trying again" };
/** Uploads that have a line, at most; finished uploads are left out first. */
const MAX_LINES = 200;
const outcome = (fresh, duplicates) => !duplicates ? `${count(fresh, "image")} uploaded`
  : fresh ? `${count(fresh, "image")} uploaded, ${duplicates.toLocaleString("en")} already in your gallery`
  : `${count(duplicates, "image")} already in your gallery`;
/** Time over which the speed is measured. */
const WINDOW_MS = 8000;

export class UploadList {
  #uploader;
  #lines = new Map(); // upload → list item
  #samples = []; // bytes sent at times within WINDOW_MS
  #frame = 0;
  #dirty = new Set(); // changed uploads; undefined for all
  #announced = "";
  #busy = false;
  #stopping = new AbortController();

  /** `choose` opens the file picker. */
  constructor(uploader, choose) {
    this.#uploader = uploader;
    this.choose = choose;
    const on = (target, name, work) => target.addEventListener(name, work, { signal: this.#stopping.signal });
    on(uploader, "change", ({ detail }) => this.#soon(detail));
    on($("#pause"), "click", () => (uploader.paused ? uploader.resume() : uploader.pause()));
    on($("#retry-all"), "click", () => uploader.items.forEach((item) => uploader.retry(item)));
    on($("#clear-upload-list"), "click", () => uploader.clearDone());
    on($("#fold"), "click", () => this.#fold(!$("#upload-list").classList.contains("folded")));
    for (const name of ["online", "offline"]) on(window, name, () => this.#soon());
    this.#draw();
  }

  stop() {
    this.#stopping.abort();
    cancelAnimationFrame(this.#frame);
    $("#upload-list").hidden = true;
    $("#upload-list-lines").replaceChildren();
  }

  #fold(folded) {
    $("#upload-list").classList.toggle("folded", folded);
    $("#fold").ariaExpanded = String(!folded);
  }

  #soon(item) {
    this.#dirty.add(item);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { items, paused } = this.#uploader;
    const moved = (item) => item?.state !== this.#lines.get(item)?.dataset.state;
    const all = this.#lines.size === 0 || [...this.#dirty].some((item) => !item || moved(item));
    const panel = $("#upload-list");
    const hadFocus = panel.contains(document.activeElement);
    panel.hidden = !items.length;
    document.body.classList.toggle("has-upload-list", items.length > 0);
    if (all) this.#arrange(items);
    for (const item of all ? items : this.#dirty) if (this.#lines.has(item)) this.#line(item, this.#lines.get(item));
    this.#dirty.clear();
    this.#total(items, paused);
    if (hadFocus && (panel.hidden || !document.activeElement.checkVisibility() || !panel.contains(document.activeElement))) this.#refocus();
  }

  /** Moves the focus after the focused control was removed or hidden. */
  #refocus() {
    const next = [...$("#upload-list").querySelectorAll("button")].find((control) => control.checkVisibility());
    if (next) next.focus({ preventScroll: true });
    else refocus();
  }

  /** Sorts the lines: failed uploads and those that need the user first, then active, waiting and finished ones. */
  #arrange(items) {
    const rank = (item) => ["failed", "needs-file"].includes(item.state) ? 0 : item.active ? 1 : item.state === "waiting" ? 2 : 3;
    const shown = [...items].sort((a, b) => rank(a) - rank(b)).slice(0, MAX_LINES);
    const focused = document.activeElement;
    const list = $("#upload-list-lines");
    const kept = new Set(shown);
    for (const [item, line] of this.#lines) {
      if (kept.has(item)) continue;
      line.remove();
      if (line.thumb) URL.revokeObjectURL(line.thumb);
      this.#lines.delete(item);
    }
    shown.forEach((item, i) => {
      if (!this.#lines.has(item)) this.#lines.set(item, this.#make(item));
      const line = this.#lines.get(item);
      if (list.children[i] !== line) list.insertBefore(line, list.children[i] ?? null);
    });
    // A moved element loses the focus.
    if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #make(item) {
    const line = el("li", { class: "line" });
    line.picture = el("span", { class: "thumb" }, icon("image"));
    line.state = el("span", { class: "state" });
    line.bar = el("progress", { max: Math.max(1, item.size), value: 0, ariaLabel: `Progress of ${item.name}` });
    line.retry = button(`Try ${item.name} again`, "retry", () => this.#uploader.retry(item));
    line.again = button(`Choose ${item.name} again`, "upload", () => this.choose());
    line.cancel = button(`Cancel ${item.name}`, "close", () => this.#uploader.cancel(item));
    line.append(line.picture, el("div", { class: "words" }, el("span", { class: "name", title: item.name }, item.name), line.state, line.bar), line.retry, line.again, line.cancel);
    return line;
  }

  #line(item, line) {
    line.dataset.state = item.state;
    const sending = item.sent && item.size ? `${Math.floor((100 * item.sent) / item.size)} % of ${bytes(item.size)}` : `Sending ${bytes(item.size)}`;
    const paused = this.#uploader.paused && item.state === "waiting" ? "Paused" : null;
    const unfinished = "Unfinished. Choose the file again to continue, or discard it.";
    const text = item.problem ? explain(item.problem) : item.state === "needs-file" ? unfinished
      : item.state === "done" && item.duplicate ? DUPLICATE : WAIT_REASONS[item.waitReason] ?? paused ?? STATES[item.state] ?? sending;
    if (line.state.textContent !== text) line.state.textContent = text;
    line.bar.value = item.sent;
    line.bar.hidden = !item.active || item.state === "preparing";
    line.retry.hidden = !item.isRetryable;
    line.again.hidden = item.state !== "needs-file";
    line.cancel.hidden = item.state === "done";
    const label = item.state === "needs-file" || item.state === "failed" ? `Discard ${item.name}` : `Cancel ${item.name}`;
    line.cancel.ariaLabel = line.cancel.title = label;
    if (item.preview && !line.thumb) {
      line.thumb = URL.createObjectURL(item.preview);
      line.picture.replaceChildren(el("img", { src: line.thumb, alt: "" }));
    }
  }

  #total(items, paused) {
    const counted = items.filter((item) => item.state !== "needs-file" && item.state !== "failed");
    const done = items.filter((item) => item.state === "done").length;
    const duplicates = items.filter((item) => item.state === "done" && item.duplicate).length;
    const failed = items.filter((item) => item.state === "failed").length;
    const needFile = items.filter((item) => item.state === "needs-file").length;
    const open = items.some((item) => item.open);
    const size = counted.reduce((sum, item) => sum + item.size, 0);
    const sent = counted.reduce((sum, item) => sum + item.sent, 0);
    $("#total").max = Math.max(1, size);
    $("#total").value = sent;
    $("#total").hidden = !open;
    $("#pause").hidden = !open;
    $("#pause").replaceChildren(icon(paused ? "play" : "pause"), paused ? "Resume" : "Pause");
    $("#retry-all").hidden = items.filter((item) => item.isRetryable).length < 2;
    $("#clear-upload-list").hidden = !done || open;
    const title = !navigator.onLine && open ? "You are offline. Uploads resume when you are back online."
      : paused && open ? `Paused, ${done} of ${counted.length} uploaded`
      : open ? `Uploading ${Math.min(done + 1, counted.length)} of ${counted.length}`
      : failed ? `${count(failed, "upload")} failed`
      : needFile ? `${count(needFile, "unfinished upload")}` : outcome(done - duplicates, duplicates);
    $("#upload-list-title").textContent = title;
    $("#upload-list-rest").textContent = open && !paused ? this.#rest(size, sent) : "";
    // Finished files are announced, not each percent.
    const news = open ? `${done} of ${counted.length} uploaded${failed ? `, ${failed} failed` : ""}` : title;
    if (items.length && news !== this.#announced) announce(news, "uploads");
    // The list is folded when all uploads have succeeded.
    if (this.#busy && !open && !failed && !needFile) this.#fold(true);
    if (!this.#busy && open) this.#fold(false);
    this.#busy = open;
    this.#announced = news;
  }

  #rest(size, sent) {
    const now = performance.now();
    const last = this.#samples.at(-1);
    if (last && sent < last.sent) this.#samples = [];
    this.#samples.push({ now, sent });
    while (now - this.#samples[0].now > WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0];
    const speed = (sent - first.sent) / Math.max(1, now - first.now) * 1000;
    if (now - first.now < 800 || speed < 1) return `${bytes(sent)} of ${bytes(size)}`;
    return `${bytes(sent)} of ${bytes(size)}, ${duration((size - sent) / speed)} left`;
  }
}
