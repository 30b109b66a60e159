// One image, large: a modal dialog, so focus stays inside and Escape closes it. Arrow keys and swipes go on to the next.

import * as api from "./api.js";
import { $, say, toast } from "./dom.js";
import { nameOf } from "./gallery.js";
import { placeholder } from "./grid.js";
import { bytes, day, explain } from "./words.js";

/** A swipe is at least this long, and flatter than it is wide. */
const SWIPE = 48;

/** Events: `delete` (detail: id), `download` (detail: id), `closed` (detail: id). */
export class Lightbox extends EventTarget {
  #gallery;
  #dialog = $("#lightbox");
  #stage = $("#stage");
  #image = null;
  #stopping = new AbortController();

  constructor(gallery) {
    super();
    this.#gallery = gallery;
    const on = (target, name, work) => target.addEventListener(name, work, { signal: this.#stopping.signal });
    on($("#previous"), "click", () => this.#step(-1));
    on($("#next"), "click", () => this.#step(1));
    on($("#close-lightbox"), "click", () => this.#dialog.close());
    on($("#download-one"), "click", () => this.dispatchEvent(new CustomEvent("download", { detail: this.#image.id })));
    on($("#delete-one"), "click", () => this.#delete());
    on($("#caption"), "change", () => this.#save());
    on($("#caption"), "keydown", (event) => {
      if (event.key === "Enter") this.#save();
      // What is typed is not lost to the key that closes.
      if (event.key === "Escape" && event.target.value !== (this.#image.caption ?? "")) {
        event.preventDefault();
        event.target.value = this.#image.caption ?? "";
      }
    });
    on(this.#dialog, "close", () => {
      const { id } = this.#image;
      this.#stage.replaceChildren();
      this.dispatchEvent(new CustomEvent("closed", { detail: id }));
    });
    on(this.#dialog, "keydown", (event) => this.#key(event));
    this.#swipes(on);
  }

  stop() {
    if (this.#dialog.open) this.#dialog.close();
    this.#stopping.abort();
  }

  open(id) {
    this.#show(this.#gallery.get(id));
    this.#dialog.showModal();
    $("#close-lightbox").focus();
  }

  async #show(image) {
    this.#image = image;
    const { images } = this.#gallery;
    const place = images.indexOf(image);
    $("#previous").disabled = place <= 0;
    $("#next").disabled = place >= images.length - 1;
    $("#lightbox-name").textContent = image.fileName;
    $("#facts").textContent = `${image.width} × ${image.height} · ${bytes(image.size)} · ${day(image.uploadedAt)}`;
    $("#caption").value = image.caption ?? "";
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
    say(`${nameOf(image)}, ${place + 1} of ${images.length}${this.#gallery.complete ? "" : " or more"}`);
    if (place > images.length - 5) this.#gallery.more();
    await this.#gallery.freshen([image]).catch(() => {});
    picture.onload = () => {
      frame.classList.add("loaded");
      this.#warm(place);
    };
    let tried = false;
    picture.onerror = async () => {
      if (!tried) {
        tried = true;
        await this.#gallery.freshen([image], true).catch(() => {});
        picture.src = image.url;
        return;
      }
      frame.classList.add("undrawable");
      frame.replaceChildren(`This browser cannot show ${image.contentType.replace("image/", "").toUpperCase()} files. Download it to look at it.`);
    };
    picture.src = image.url;
  }

  /** The neighbours, so that the next step shows at once. */
  #warm(place) {
    const { images } = this.#gallery;
    for (const image of [images[place + 1], images[place - 1]]) {
      if (image && Date.parse(image.urlExpiresAt) > Date.now()) new Image().src = image.url;
    }
  }

  #step(by) {
    const { images } = this.#gallery;
    const next = images[images.indexOf(this.#image) + by];
    if (!next) return;
    this.#save();
    this.#show(next);
    // A disabled button loses the focus to the page behind.
    if (document.activeElement?.disabled || document.activeElement === document.body) $("#close-lightbox").focus();
  }

  #key(event) {
    if (event.target === $("#caption") || event.altKey || event.ctrlKey || event.metaKey) return;
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
      else if (dy > 2 * SWIPE) this.#dialog.close();
      else if (event.target === this.#stage && Math.abs(dx) + Math.abs(dy) < 8) this.#dialog.close();
    };
    on(this.#stage, "pointerup", end);
    on(this.#stage, "pointercancel", end);
  }

  async #save() {
    const image = this.#image;
    const text = $("#caption").value.trim();
    if (text === (image.caption ?? "")) return;
    const before = image.caption;
    image.caption = text || undefined;
    try {
      await api.caption(image.id, text);
      say("Caption saved");
      this.#gallery.dispatchEvent(new CustomEvent("captioned", { detail: image }));
    } catch (problem) {
      image.caption = before;
      toast(`The caption was not saved. ${explain(problem)}`, { error: true });
    }
  }

  /** The next one takes its place. */
  #delete() {
    const { images } = this.#gallery;
    const gone = this.#image;
    const place = images.indexOf(gone);
    const next = images[place + 1] ?? images[place - 1];
    if (next) this.#show(next);
    this.dispatchEvent(new CustomEvent("delete", { detail: gone.id }));
    if (next) this.#show(next);
    else this.#dialog.close();
  }
}
