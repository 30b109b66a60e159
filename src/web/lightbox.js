// One image, large: a modal dialog, so focus stays inside and Escape closes it. Arrow keys and swipes go on to the next.

import * as api from "./api.js";
import { $, isTyping, say, toast } from "./dom.js";
import { nameOf } from "./gallery.js";
import { placeholder } from "./grid.js";
import { bytes, count, day, explain } from "./words.js";

/** A swipe is at least this long, and flatter than it is wide. */
const SWIPE = 48;

/** The API counts characters as people do: an emoji is one, not two as in a string's length. */
const CAPTION_MOST = 1000;

/** Events: `shown`, `delete`, `download`, `closed` (detail: id) and `described` (detail: `{ id, caption }`). */
export class Lightbox extends EventTarget {
  #gallery;
  #dialog = $("#lightbox");
  #stage = $("#stage");
  #caption = $("#caption");
  #image = null;
  #asked = null; // the id that is being looked for
  #written = ""; // the caption as the field showed it at first: what is not changed is not saved
  #stopping = new AbortController();

  constructor(gallery) {
    super();
    this.#gallery = gallery;
    const on = (target, name, work) => target.addEventListener(name, work, { signal: this.#stopping.signal });
    on($("#previous"), "click", () => this.#step(-1));
    on($("#next"), "click", () => this.#step(1));
    on($("#close-lightbox"), "click", () => this.#leave());
    on($("#download-one"), "click", () => this.#tell("download"));
    on($("#delete-one"), "click", () => this.#delete());
    on(this.#caption, "change", () => this.#save());
    on(this.#caption, "input", () => this.#fit());
    on(this.#caption, "keydown", (event) => this.#captionKey(event));
    on(gallery, "change", () => this.#changed());
    on(window, "resize", () => this.#fit());
    on(this.#dialog, "close", () => {
      this.#stage.replaceChildren();
      document.title = "Valet";
      this.#tell("closed");
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

  /** Shows an image, one that is on no page so far too. False when it is not there any more; throws when that is not known. */
  async open(id) {
    this.#asked = id;
    const image = this.#gallery.shows(id) ? this.#gallery.get(id) : await this.#gallery.find(id);
    if (this.#asked !== id || this.#stopping.signal.aborted) return true;
    if (!image) return false;
    if (this.#dialog.open) this.#save();
    this.#show(image);
    if (this.#dialog.open) return true;
    this.#dialog.showModal();
    $("#close-lightbox").focus();
    return true;
  }

  close() {
    this.#asked = null;
    if (!this.#dialog.open) return;
    this.#save();
    this.#dialog.close();
  }

  /** Closes it, unless that would lose a caption that cannot be saved. */
  #leave() {
    if (this.#save()) this.close();
  }

  #tell(what, detail = this.#image.id) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }

  /** The image so far before (-1) or behind (1) this one, whether or not this one is still in the list. */
  #neighbour(by) {
    const { images } = this.#gallery;
    const place = images.indexOf(this.#image);
    if (place >= 0) return images[place + by];
    const { order } = this.#image;
    if (order === undefined) return undefined; // Its page is not loaded yet.
    return by > 0 ? images.find((image) => image.order > order) : images.findLast((image) => image.order < order);
  }

  /** The list has changed around the image: other neighbours, another caption. */
  #changed() {
    if (!this.#dialog.open) return;
    this.#image = this.#gallery.get(this.#image.id) ?? this.#image;
    this.#neighbours();
    if (this.#caption.value === this.#written) this.#describe();
  }

  #neighbours() {
    $("#previous").disabled = !this.#neighbour(-1);
    $("#next").disabled = !this.#neighbour(1);
    // A disabled button loses the focus.
    if (document.activeElement?.disabled || document.activeElement === document.body) $("#close-lightbox").focus();
  }

  #describe() {
    this.#caption.value = this.#image.caption ?? "";
    this.#written = this.#caption.value;
    this.#fit();
  }

  /** As high as its lines. */
  #fit() {
    this.#caption.style.height = "auto";
    this.#caption.style.height = `${this.#caption.scrollHeight + 2}px`;
  }

  async #show(image) {
    this.#image = image;
    const { images, complete } = this.#gallery;
    const place = images.indexOf(image);
    document.title = `${image.fileName} – Valet`;
    $("#lightbox-name").textContent = image.fileName;
    $("#facts").textContent = `${image.width} × ${image.height} · ${bytes(image.size)} · uploaded ${day(image.uploadedAt)}`;
    const frame = document.createElement("div");
    frame.className = "frame";
    frame.style.aspectRatio = `${image.width} / ${image.height}`;
    frame.style.setProperty("--ratio", image.width / image.height);
    frame.style.setProperty("--width", `${image.width}px`);
    const blurred = placeholder(image);
    if (blurred) frame.append(blurred);
    const preview = image.local ?? image.previewUrl;
    if (preview) frame.append(Object.assign(new Image(), { src: preview, alt: "", className: "under" }));
    const picture = Object.assign(new Image(image.width, image.height), { alt: nameOf(image), decoding: "async", draggable: false });
    frame.append(picture);
    this.#stage.replaceChildren(frame);
    say(place < 0 ? nameOf(image) : `${nameOf(image)}, ${place + 1} of ${images.length}${complete ? "" : " or more"}`);
    this.#tell("shown");
    // Both need the dialog to be on the page.
    queueMicrotask(() => { this.#neighbours(); this.#describe(); });
    if (place < 0) this.#gallery.until(image.id);
    else if (place > images.length - 5) this.#gallery.more();
    await this.#gallery.freshen([image]).catch(() => {});
    picture.onload = () => {
      frame.classList.add("loaded");
      this.#warm();
    };
    const giveUp = (words) => {
      frame.classList.add("undrawable");
      frame.replaceChildren(words);
    };
    let tried = false;
    picture.onerror = async () => {
      if (tried) return giveUp(`This browser cannot show ${image.contentType.replace("image/", "").toUpperCase()} files. Download it to look at it.`);
      tried = true;
      try {
        await this.#gallery.freshen([image], true);
        picture.src = image.url;
      } catch (problem) {
        giveUp(`The image could not be loaded. ${explain(problem)}`);
        addEventListener("online", () => { if (frame.isConnected) this.#show(image); }, { once: true, signal: this.#stopping.signal });
      }
    };
    picture.src = image.url;
  }

  /** The neighbours, so that the next step shows at once. */
  #warm() {
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

  /** Enter saves where there is a keyboard, and Shift+Enter begins a line; on a touch screen Enter begins one, as everywhere. */
  #captionKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && matchMedia("(hover: hover)").matches) {
      event.preventDefault();
      this.#save();
    }
    // What is typed is not lost to the key that closes.
    if (event.key === "Escape" && this.#caption.value !== this.#written) {
      event.preventDefault();
      this.#describe();
    }
  }

  /** Saves what was typed, if anything was. False when it is too long: then it stays in the field. */
  #save() {
    const { value } = this.#caption;
    if (value === this.#written) return true;
    const excess = [...value.trim()].length - CAPTION_MOST;
    if (excess > 0) {
      toast(`The caption was not saved: it is ${count(excess, "character")} too long.`, { error: true });
      return false;
    }
    this.#written = value;
    this.#send(this.#image, value.trim());
    return true;
  }

  async #send(image, text) {
    const { id, caption } = image;
    image.caption = text || undefined;
    try {
      await api.caption(id, text);
      say("Caption saved");
      this.#gallery.describe(id, text);
      this.#tell("described", { id, caption: text });
    } catch (problem) {
      image.caption = caption;
      // Whatever is shown by now, what was typed is not lost.
      const again = { action: "Try again", onaction: () => this.#send(image, text), seconds: 12 };
      toast(`The caption was not saved. ${explain(problem)}`, { error: true, ...again });
    }
  }

  /** The next one takes its place. */
  #delete() {
    const gone = this.#image;
    const next = this.#neighbour(1) ?? this.#neighbour(-1);
    if (next) this.#show(next);
    this.#tell("delete", gone.id);
    if (!next) this.close();
  }
}
