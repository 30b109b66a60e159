// Shows one image in a modal dialog, which keeps the focus and closes with Escape. Arrow keys and swipes show the next image.

import * as api from "./api.js";
import { $, announce, isTyping, toast } from "./dom.js";
import { nameOf, srcset } from "./gallery.js";
import { placeholder } from "./grid.js";
import { bytes, count, day, explain, timeTaken } from "./messages.js";

/** Length of a swipe in pixels, at least. */
const SWIPE = 48;

/** Characters of a caption. The API counts code points: an emoji is one, not two as in a string's length. */
const MAX_CAPTION = 1000;

/** Events: `shown`, `delete`, `download`, `closed` (detail: id) and `described` (detail: `{ id, caption }`). */
export class Lightbox extends EventTarget {
  #gallery;
  #dialog = $("#lightbox");
  #stage = $("#stage");
  #caption = $("#caption");
  #image = null;
  #requested = null; // the id that is being loaded
  #savedCaption = ""; // the field when it was filled or sent: saved if it differs
  #stopping = new AbortController();

  constructor(gallery) {
    super();
    this.#gallery = gallery;
    const on = (target, name, work) => target.addEventListener(name, work, { signal: this.#stopping.signal });
    on($("#previous"), "click", () => this.#step(-1));
    on($("#next"), "click", () => this.#step(1));
    on($("#close-lightbox"), "click", () => this.#leave());
    on($("#download-one"), "click", () => this.#dispatch("download"));
    on($("#delete-one"), "click", () => this.#delete());
    on(this.#caption, "change", () => this.#save());
    on(this.#caption, "input", () => this.#fit());
    on(this.#caption, "keydown", (event) => this.#captionKey(event));
    on(gallery, "change", () => this.#changed());
    on(window, "resize", () => this.#fit());
    on(this.#dialog, "close", () => {
      if (this.isOpen) return; // Forward has opened it again.
      this.#stage.replaceChildren();
      document.title = "Valet";
      this.#dispatch("closed");
    });
    on(this.#dialog, "keydown", (event) => this.#key(event));
    this.#swipes(on);
  }

  stop() {
    this.#stopping.abort();
    this.close();
    document.title = "Valet";
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /** Shows an image, also of a page that is not loaded. Returns false if it does not exist; throws if that is unknown. */
  async open(id) {
    this.#requested = id;
    const image = this.#gallery.shows(id) ? this.#gallery.get(id) : await this.#gallery.find(id);
    if (this.#requested !== id || this.#stopping.signal.aborted) return true;
    if (!image) return false;
    if (this.#dialog.open) this.#save();
    this.#show(image);
    if (this.#dialog.open) return true;
    this.#dialog.showModal();
    $("#close-lightbox").focus();
    return true;
  }

  close() {
    this.#requested = null;
    if (!this.#dialog.open) return;
    this.#save();
    this.#dialog.close();
  }

  /** Closes the dialog, unless that would lose a caption that cannot be saved. */
  #leave() {
    if (this.#save()) this.close();
  }

  #dispatch(name, detail = this.#image.id) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Returns the image before (-1) or after (1) this one, also if this one is not in the list any more. */
  #neighbour(by) {
    const { images } = this.#gallery;
    const index = images.indexOf(this.#image);
    if (index >= 0) return images[index + by];
    const { order } = this.#image;
    if (order === undefined) return undefined; // Its page is not loaded yet.
    return by > 0 ? images.find((image) => image.order > order) : images.findLast((image) => image.order < order);
  }

  /** Updates the buttons and the caption after a change of the gallery. */
  #changed() {
    if (!this.#dialog.open) return;
    this.#image = this.#gallery.get(this.#image.id) ?? this.#image;
    this.#neighbours();
    if (this.#caption.value === this.#savedCaption) this.#describe();
  }

  #neighbours() {
    $("#previous").disabled = !this.#neighbour(-1);
    $("#next").disabled = !this.#neighbour(1);
    // A disabled button loses the focus.
    if (document.activeElement?.disabled || document.activeElement === document.body) $("#close-lightbox").focus();
  }

  #describe() {
    this.#caption.value = this.#image.caption ?? "";
    this.#savedCaption = this.#caption.value;
    this.#fit();
  }

  #fit() {
    this.#caption.style.height = "auto";
    this.#caption.style.height = `${this.#caption.scrollHeight + 2}px`;
  }

  async #show(image) {
    this.#image = image;
    const { images, complete } = this.#gallery;
    const index = images.indexOf(image);
    document.title = `${image.fileName} – Valet`;
    $("#lightbox-name").textContent = image.fileName;
    const taken = image.takenAt && `taken ${timeTaken(image.takenAt)}`;
    const facts = [`${image.width} × ${image.height}`, bytes(image.size), taken, image.camera, `uploaded ${day(image.uploadedAt)}`];
    $("#facts").textContent = facts.filter(Boolean).join(" · ");
    const frame = document.createElement("div");
    frame.className = "frame";
    frame.style.aspectRatio = `${image.width} / ${image.height}`;
    frame.style.setProperty("--ratio", image.width / image.height);
    frame.style.setProperty("--width", `${image.width}px`);
    const blurred = placeholder(image);
    if (blurred) frame.append(blurred);
    const preview = image.local ?? image.previewUrl;
    if (preview) frame.append(Object.assign(new Image(), { srcset: image.local ? "" : srcset(image), src: preview, alt: "", className: "under" }));
    const picture = Object.assign(new Image(image.width, image.height), { alt: nameOf(image), decoding: "async", draggable: false });
    frame.append(picture);
    this.#stage.replaceChildren(frame);
    announce(index < 0 ? nameOf(image) : `${nameOf(image)}, ${index + 1} of ${images.length}${complete ? "" : " or more"}`, "image");
    this.#dispatch("shown");
    // The focus and the height of the field need the open dialog.
    queueMicrotask(() => { this.#neighbours(); this.#describe(); });
    if (index < 0) this.#gallery.until(image.id);
    else if (index > images.length - 5) this.#gallery.more();
    await this.#gallery.freshen([image]).catch(() => {});
    picture.onload = () => {
      frame.classList.add("loaded");
      this.#preload();
    };
    const giveUp = (words) => {
      frame.classList.add("undrawable");
      frame.replaceChildren(words);
    };
    let tried = false;
    picture.onerror = async () => {
      // After a second failure: a worker's picture, because the browser cannot display the file.
      const largest = image.previews?.at(-1).url;
      if (tried && largest && picture.src !== largest) return void (picture.src = largest);
      if (tried) return giveUp(`This browser cannot show ${image.contentType.replace("image/", "").toUpperCase()} files. Download it to look at it.`);
      tried = true;
      try {
        await this.#gallery.freshen([image], { all: true });
        picture.src = image.url;
      } catch (problem) {
        giveUp(`The image could not be loaded. ${explain(problem)}`);
        addEventListener("online", () => { if (frame.isConnected) this.#show(image); }, { once: true, signal: this.#stopping.signal });
      }
    };
    picture.src = image.url;
  }

  /** Loads the neighbours, so that the next step shows at once. */
  #preload() {
    for (const image of [this.#neighbour(1), this.#neighbour(-1)]) {
      if (image && Date.parse(image.urlExpiresAt) > Date.now()) new Image().src = image.url;
    }
  }

  #step(by) {
    const next = this.#neighbour(by);
    if (next && this.#save()) this.#show(next);
  }

  #key(event) {
    if (isTyping(event) || event.altKey || event.ctrlKey || event.metaKey) return;
    const act = { ArrowLeft: () => this.#step(-1), ArrowRight: () => this.#step(1), Delete: () => this.#delete() }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** To a side: the next or previous image. Down, or a click beside the image: closes the dialog. */
  #swipes(on) {
    let from = null;
    on(this.#stage, "pointerdown", (event) => {
      from = event.isPrimary ? { x: event.clientX, y: event.clientY } : null;
    });
    on(this.#stage, "pointermove", (event) => {
      if (from && event.pointerType === "touch") this.#stage.style.transform = `translateX(${(event.clientX - from.x) * 0.6}px)`;
    });
    const end = (event) => {
      this.#stage.style.transform = "";
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      from = null;
      if (event.type === "pointercancel") return;
      if (Math.abs(dx) > SWIPE && Math.abs(dx) > Math.abs(dy)) this.#step(dx < 0 ? 1 : -1);
      else if (dy > 2 * SWIPE) this.#leave();
      else if (event.target === this.#stage && Math.abs(dx) + Math.abs(dy) < 8) this.#leave();
    };
    on(this.#stage, "pointerup", end);
    on(this.#stage, "pointercancel", end);
  }

  /** Saves on Enter, and starts a line on Shift+Enter; on a touch screen, Enter starts a line. */
  #captionKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && matchMedia("(hover: hover)").matches) {
      event.preventDefault();
      this.#save();
    }
    // Escape restores an edited caption instead of closing the dialog.
    if (event.key === "Escape" && this.#caption.value !== this.#savedCaption) {
      event.preventDefault();
      this.#describe();
    }
  }

  /** Saves an edited caption. Returns false if it is too long: then it stays in the field. */
  #save() {
    const { value } = this.#caption;
    if (value === this.#savedCaption) return true;
    const excess = [...value.trim()].length - MAX_CAPTION;
    if (excess > 0) {
      toast(`The caption was not saved: it is ${count(excess, "character")} too long.`, { error: true });
      return false;
    }
    this.#savedCaption = value;
    this.#send(this.#image, value.trim());
    return true;
  }

  async #send(image, text) {
    const { id, caption } = image;
    image.caption = text || undefined;
    try {
      await api.setCaption(id, text);
      announce("Caption saved");
      this.#gallery.describe(id, text);
      this.#dispatch("described", { id, caption: text });
    } catch (problem) {
      image.caption = caption;
      // "Try again" keeps the text, also if another image is shown by now.
      const again = { action: "Try again", onaction: () => this.#send(image, text), seconds: 12 };
      toast(`The caption was not saved. ${explain(problem)}`, { error: true, ...again });
    }
  }

  /** Deletes the image and shows the next one. */
  #delete() {
    const deleted = this.#image;
    const next = this.#neighbour(1) ?? this.#neighbour(-1);
    if (next) this.#show(next);
    this.#dispatch("delete", deleted.id);
    if (!next) this.close();
  }
}
