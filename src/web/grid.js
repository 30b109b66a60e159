// The grid: only the rows near the viewport are elements, so that ten thousand images scroll as fast as a hundred. The layout does
// not move while images load, since their sizes are known. Arrow keys move, Enter opens, Space selects.

import { $, el, icon, refocus } from "./dom.js";
import { nameOf, srcset } from "./gallery.js";
import { HEADING, justify, rowAt } from "./justified-layout.js";
import { monthName } from "./messages.js";
import { decode } from "./valet-upload/thumbhash.js";

/** Viewports above and below whose rows are elements. */
const OVERSCAN = 1;
/** The next page is loaded if fewer viewports are left below. */
const PREFETCH = 4;
/** Scroll speed, in pixels per millisecond, above which images are not loaded. */
const FAST_SCROLL = 4;

/** Events: `open` (detail: id) and `select`. */
export class Grid extends EventTarget {
  selected = new Set();
  /** Set while "Select all" loads the rest of the gallery. */
  selecting = null;
  #gallery;
  #list;
  #tiles = new Map(); // id → element; month → its heading
  #layout = { rows: [], height: 0 };
  #width = 0;
  #index = new Map(); // id → index in the gallery
  #current = null; // the tile that Tab reaches
  #anchor = null; // where a range of selected tiles begins
  #scrolled = { y: 0, at: 0 }; // at the last drawing
  #frame = 0;
  #late = 0; // timer: loads images after fast scrolling

  constructor(list, gallery) {
    super();
    this.#list = list;
    this.#gallery = gallery;
    this.stopping = new AbortController();
    const { signal } = this.stopping;
    gallery.addEventListener("change", () => this.#relayout(), { signal });
    addEventListener("scroll", () => this.#drawSoon(), { passive: true, signal });
    addEventListener("online", () => this.#drawSoon(), { signal });
    this.resizing = new ResizeObserver(() => this.#relayout());
    this.resizing.observe(list);
    list.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    list.addEventListener("focusin", (event) => this.#setCurrent(event.target.closest("li")?.dataset.id), { signal });
    this.#relayout();
  }

  stop() {
    this.stopping.abort();
    this.resizing.disconnect();
    cancelAnimationFrame(this.#frame);
    this.#list.replaceChildren();
    this.#list.style.height = "";
  }

  /** Scrolls to the heading of an image's month, and makes the image the one that Tab reaches. */
  goTo(id) {
    const index = this.#index.get(id);
    if (index === undefined) return;
    this.#setCurrent(id);
    scrollTo({ top: this.#topOf(index) - HEADING - $(".top").offsetHeight, behavior: "instant" });
    this.#draw();
  }

  /** Scrolls a tile into view and focuses it; if it does not exist any more, the tile that Tab reaches. */
  focus(id = this.#current) {
    const index = this.#index.get(id) ?? this.#index.get(this.#current);
    if (index === undefined) return refocus();
    id = this.#gallery.images[index].id;
    this.#setCurrent(id);
    const top = this.#topOf(index), { height } = this.#layout.rows[this.#rowOf(index)];
    const margin = 80;
    if (top < scrollY + margin) scrollTo({ top: top - margin, behavior: "instant" });
    else if (top + height > scrollY + innerHeight - margin) scrollTo({ top: top + height - innerHeight + margin, behavior: "instant" });
    this.#draw();
    this.#tiles.get(id)?.firstChild.focus({ preventScroll: true });
  }

  clearSelection() {
    this.selecting = null;
    this.selected.clear();
    this.#selectionChanged();
  }

  /** Selects every image, and loads the rest for that. Throws the problem of a page that cannot be loaded. */
  async selectAll() {
    const run = (this.selecting = {});
    try {
      this.#selectLoaded();
      await this.#gallery.all();
    } finally {
      if (this.selecting === run) {
        this.selecting = null;
        this.#selectLoaded();
      }
    }
  }

  #selectLoaded() {
    for (const image of this.#gallery.images) this.selected.add(image.id);
    this.#selectionChanged();
  }

  /** Selects or deselects a tile; `range` selects all tiles from the anchor to it. */
  #toggle(id, { range } = {}) {
    this.selecting = null;
    const from = this.#index.get(this.#anchor), to = this.#index.get(id);
    if (range && from !== undefined) {
      for (const image of this.#gallery.images.slice(Math.min(from, to), Math.max(from, to) + 1)) this.selected.add(image.id);
    } else if (!this.selected.delete(id)) this.selected.add(id);
    this.#anchor = id;
    this.#selectionChanged();
  }

  #selectionChanged() {
    this.#list.classList.toggle("selecting", this.selected.size > 0);
    for (const [id, tile] of this.#tiles) this.#mark(tile, id);
    this.dispatchEvent(new Event("select"));
  }

  #mark(tile, id) {
    if (!tile.picture) return;
    tile.classList.toggle("selected", this.selected.has(id));
    tile.lastChild.checked = this.selected.has(id);
  }

  #relayout() {
    const { images } = this.#gallery;
    const width = this.#list.clientWidth;
    if (!width) return;
    const topTile = width === this.#width ? this.#topTile() : null;
    const before = this.#index;
    const hadFocus = this.#list.contains(document.activeElement);
    const isNarrow = width < 600;
    this.#width = width;
    this.#layout = justify(images, {
      width, maxHeight: isNarrow ? 150 : width < 1100 ? 210 : 250, gap: isNarrow ? 3 : 6, complete: this.#gallery.complete,
    });
    // An incomplete last row is not shown yet.
    const shown = this.#layout.rows.at(-1)?.to ?? 0;
    this.#index = new Map(images.slice(0, shown).map((image, i) => [image.id, i]));
    const known = new Set(this.selected.size ? images.map((image) => image.id) : []);
    for (const id of this.selected) if (!known.has(id)) this.selected.delete(id);
    this.#list.style.height = `${this.#layout.height}px`;
    if (!this.#index.has(this.#current)) this.#current = this.#successor(before);
    // Visible images keep their position when images are inserted before them.
    if (topTile) {
      const index = this.#index.get(topTile.id);
      const moved = index === undefined ? 0 : this.#layout.rows[this.#rowOf(index)].top - topTile.top;
      if (moved) scrollBy({ top: moved, behavior: "instant" });
    }
    this.#draw({ moved: true });
    if (hadFocus && !this.#list.contains(document.activeElement)) this.focus();
    if (this.selected.size === 0) this.#list.classList.remove("selecting");
    this.dispatchEvent(new Event("select"));
  }

  /** Returns the id of the image that replaces the removed current one: the next remaining one, or the last. */
  #successor(before) {
    const ids = [...before.keys()];
    const index = before.get(this.#current) ?? 0;
    const stays = (id) => this.#index.has(id);
    return ids.slice(index).find(stays) ?? ids.slice(0, index).findLast(stays) ?? this.#gallery.images[0]?.id ?? null;
  }

  /** Returns id and top of the first visible tile, or null at the top of the page. */
  #topTile() {
    const above = -this.#list.getBoundingClientRect().top;
    if (above <= 0) return null;
    for (const row of this.#layout.rows.slice(rowAt(this.#layout.rows, above))) {
      for (const [id, tile] of this.#tiles) {
        if (tile.row === row.top && this.#gallery.shows(id)) return { id, top: row.top };
      }
    }
    return null;
  }

  #topOf(index) {
    return this.#list.getBoundingClientRect().top + scrollY + this.#layout.rows[this.#rowOf(index)].top;
  }

  #rowOf(index) {
    let [low, high] = [0, this.#layout.rows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#layout.rows[middle].from <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #drawSoon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** Creates and removes elements; `moved`: the layout has changed. */
  #draw({ moved } = {}) {
    const { rows, height } = this.#layout;
    const above = -this.#list.getBoundingClientRect().top;
    const now = performance.now(), { y, at } = this.#scrolled;
    const fast = Math.abs(above - y) / Math.max(1, now - at) > FAST_SCROLL;
    this.#scrolled = { y: above, at: now };
    if (above + innerHeight * PREFETCH > height && !this.#gallery.problem) this.#gallery.more();
    const wanted = new Map();
    if (rows.length) {
      const from = rowAt(rows, above - innerHeight * OVERSCAN), to = rowAt(rows, above + innerHeight * (1 + OVERSCAN));
      for (let i = from; i <= to; i += 1) this.#collect(rows[i], wanted);
      // The focused tile stays an element wherever it is, so that keyboard users keep their position.
      const index = this.#index.get(this.#current);
      if (index !== undefined) this.#collect(rows[this.#rowOf(index)], wanted);
    }
    for (const [id, tile] of this.#tiles) {
      if (wanted.has(id)) continue;
      tile.remove();
      this.#tiles.delete(id);
    }
    let changed = moved;
    for (const [id, [index, row, i]] of wanted) {
      const known = this.#tiles.get(id);
      if (known && !moved) continue;
      const isHeading = i === undefined;
      const tile = known ?? (isHeading ? el("li", { class: "month" }, el("h2", {}, monthName(id))) : this.#tile(this.#gallery.images[index]));
      this.#tiles.set(id, tile);
      tile.index = index;
      if (isHeading) tile.style.transform = `translateY(${row.top - HEADING}px)`;
      else this.#position(tile, index, row, i);
      changed = true;
    }
    if (changed) {
      this.#arrange();
      this.#markTabStop();
    }
    for (const tile of this.#tiles.values()) if (tile.awaitsPictures && this.#gallery.get(tile.dataset.id)?.previews) this.#retry(tile);
    const bare = [...this.#tiles.values()].filter((tile) => tile.picture && !tile.shown);
    clearTimeout(this.#late);
    if (fast && bare.length) this.#late = setTimeout(() => this.#drawSoon(), 120);
    else this.#show(bare);
  }

  /** Collects a row's tiles, and the heading above them wherever it is: screen readers read the month of every tile. */
  #collect(row, wanted) {
    if (row.head) wanted.set(row.head.month, [row.head.from - 0.5, row.head]);
    for (let index = row.from; index < row.to; index += 1) wanted.set(this.#gallery.images[index].id, [index, row, index - row.from]);
  }

  #position(tile, index, row, i) {
    tile.row = row.top;
    tile.style.transform = `translate(${row.lefts[i]}px, ${row.top}px)`;
    tile.style.width = `${row.widths[i]}px`;
    tile.style.height = `${row.height}px`;
    tile.ariaSetSize = this.#gallery.complete ? this.#gallery.images.length : -1;
    tile.ariaPosInSet = index + 1;
    const name = nameOf(this.#gallery.images[index]);
    if (tile.picture.alt === name) return;
    tile.picture.alt = name;
    tile.lastChild.ariaLabel = `Select ${name}`;
  }

  /** Puts the elements in the order of the images, which is the reading order. */
  #arrange() {
    const focused = document.activeElement;
    let next = this.#list.firstChild;
    for (const tile of [...this.#tiles.values()].sort((a, b) => a.index - b.index)) {
      if (tile === next) next = tile.nextSibling;
      else this.#list.insertBefore(tile, next);
    }
    // A moved element loses the focus.
    if (focused !== document.activeElement && this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Makes only the current tile reachable by Tab. */
  #markTabStop() {
    for (const [id, tile] of this.#tiles) {
      const value = id === this.#current ? 0 : -1;
      for (const control of tile.children) if (control.tabIndex !== value) control.tabIndex = value;
    }
  }

  #tile(image) {
    const picture = el("img", { decoding: "async", draggable: false });
    const open = el("button", { type: "button", class: "open", tabIndex: -1 }, placeholder(image), picture);
    open.onclick = (event) => {
      if (this.selected.size || event.shiftKey || event.ctrlKey || event.metaKey) this.#toggle(image.id, { range: event.shiftKey });
      else this.dispatchEvent(new CustomEvent("open", { detail: image.id }));
    };
    const pick = el("input", { type: "checkbox", class: "pick", tabIndex: -1 });
    pick.onclick = (event) => this.#toggle(image.id, { range: event.shiftKey });
    const tile = el("li", { class: "tile" }, open, pick);
    tile.dataset.id = image.id;
    tile.picture = picture;
    picture.onload = () => {
      tile.tried = tile.triedPictures = false; // A URL that expires later is renewed again.
      tile.classList.add("loaded");
    };
    picture.onerror = () => this.#broken(tile, image);
    this.#mark(tile, image.id);
    return tile;
  }

  /** Loads the images of these tiles, after renewing expired URLs. */
  async #show(tiles) {
    for (const tile of tiles) tile.shown = true;
    const images = tiles.map((tile) => this.#gallery.get(tile.dataset.id)).filter((image) => image && !image.local);
    try {
      await this.#gallery.freshen(images);
    } catch {
      for (const tile of tiles) tile.shown = false; // Repeated at the next scroll.
      return;
    }
    for (const tile of tiles) {
      const image = this.#gallery.get(tile.dataset.id);
      if (!image || !tile.isConnected) continue;
      if (!image.local) Object.assign(tile.picture, { sizes: tile.style.width, srcset: srcset(image) });
      tile.picture.src = image.local ?? image.previewUrl ?? image.url;
    }
  }

  /** Loads a tile's image again: a worker has made pictures of a file that the browser cannot display. */
  #retry(tile) {
    tile.awaitsPictures = tile.tried = tile.triedPictures = tile.shown = false;
    tile.classList.remove("undrawable");
    tile.querySelector(".kind").remove();
  }

  /** Handles an image that did not load: tries a new URL of the full image once, then shows that it cannot be displayed. */
  async #broken(tile, image) {
    if (!tile.isConnected) return;
    if (!tile.tried) {
      tile.tried = true;
      try {
        await this.#gallery.freshen([image], { all: true });
        Object.assign(tile.picture, { srcset: "", src: image.url });
      } catch {
        // The server is unreachable: repeated when the network is back, or at the next scroll.
        tile.tried = tile.shown = false;
      }
      return;
    }
    const { previews } = this.#gallery.get(tile.dataset.id) ?? {};
    if (previews && !tile.triedPictures) {
      // Made since, or one did not load.
      tile.triedPictures = true;
      return void Object.assign(tile.picture, { srcset: srcset({ previews }), src: previews[0].url });
    }
    tile.awaitsPictures = !previews;
    tile.classList.add("undrawable");
    tile.firstChild.append(el("span", { class: "kind" }, icon("image"), image.contentType.replace("image/", "").toUpperCase()));
  }

  #setCurrent(id) {
    if (!id || id === this.#current) return;
    this.#current = id;
    this.#markTabStop();
  }

  #onKey(event) {
    const id = event.target.closest("li")?.dataset.id;
    if (!id || event.altKey || event.ctrlKey || event.metaKey) return;
    const { images } = this.#gallery, index = this.#index.get(id);
    if (event.key === "End" && !this.#gallery.complete) {
      event.preventDefault();
      return this.#focusLast(id);
    }
    const to = {
      ArrowRight: () => index + 1, ArrowLeft: () => index - 1, Home: () => 0, End: () => this.#index.size - 1,
      ArrowDown: () => this.#neighbour(index, 1), ArrowUp: () => this.#neighbour(index, -1),
      PageDown: () => this.#neighbour(index, 3), PageUp: () => this.#neighbour(index, -3),
    }[event.key];
    if (to) {
      const next = images[Math.min(this.#index.size - 1, Math.max(0, to()))];
      if (event.shiftKey && next.id !== id) {
        if (!this.selected.has(id)) this.#toggle(id);
        this.#toggle(next.id, { range: true });
      }
      this.focus(next.id);
    } else if (event.key === " " || event.key === "x") this.#toggle(id, { range: event.shiftKey });
    else return;
    event.preventDefault();
  }

  /** Focuses the last image of all, after loading the rest. */
  async #focusLast(id) {
    await this.#gallery.all().catch(() => {}); // The gallery shows its problem.
    if (this.#current === id) this.focus(this.#gallery.images[this.#index.size - 1]?.id);
  }

  /** Returns the index of the tile `by` rows further whose centre is nearest. */
  #neighbour(index, by) {
    const { rows } = this.#layout;
    const at = this.#rowOf(index);
    const row = rows[at], next = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    if (next === row) return by > 0 ? row.to - 1 : row.from;
    const middle = (r, i) => r.lefts[i] + r.widths[i] / 2;
    const here = middle(row, index - row.from);
    const offsets = next.lefts.map((_, i) => Math.abs(middle(next, i) - here));
    return next.from + offsets.indexOf(Math.min(...offsets));
  }
}

/** Draws the ThumbHash; the browser scales it up. */
export function placeholder({ thumbHash }) {
  if (!thumbHash) return null;
  try {
    const { w, h, rgba } = decode(Uint8Array.from(atob(thumbHash), (c) => c.charCodeAt(0)));
    const canvas = el("canvas", { width: w, height: h, ariaHidden: "true" });
    canvas.getContext("2d").putImageData(new ImageData(rgba, w, h), 0, 0);
    return canvas;
  } catch {
    return null; // Another client stored an invalid ThumbHash.
  }
}
