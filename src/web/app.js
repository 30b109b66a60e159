// The page put together: who is signed in decides between the entrance and the gallery; here the parts meet.

import { Account } from "./account.js";
import * as api from "./api.js";
import { $, icon, toast } from "./dom.js";
import * as entrance from "./entrance.js";
import { gather } from "./files.js";
import { Gallery } from "./gallery.js";
import { Grid } from "./grid.js";
import { Problem } from "./http.js";
import { Lightbox } from "./lightbox.js";
import { session } from "./session.js";
import { sleep } from "./patience.js";
import * as shelf from "./shelf.js";
import { Trash } from "./trash.js";
import { Tray } from "./tray.js";
import { Uploader } from "./uploader.js";
import { bytes, count, explain } from "./words.js";

/** Ends all that runs for the user who is signed in. */
let leave = () => {};

function view(name) {
  document.body.dataset.view = name;
  for (const section of ["entrance", "gallery", "unreachable"]) $(`#${section}`).hidden = section !== name;
  $("#bar").hidden = name !== "gallery";
}

function enter() {
  view("gallery");
  const gallery = new Gallery();
  const grid = new Grid($("#grid"), gallery);
  const uploader = new Uploader(session.user.id);
  const choose = () => $("#files").click();
  const tray = new Tray(uploader, choose);
  const lightbox = new Lightbox(gallery);
  const trash = new Trash(gallery, usage);
  const account = new Account();
  const stopGathering = gather((files) => take(uploader, files));
  const stopping = new AbortController();
  const on = (target, name, work) => target.addEventListener(name, work, { signal: stopping.signal });

  $("#account-name").textContent = session.user.email;
  for (const pick of [$("#upload"), $("#upload-first")]) on(pick, "click", choose);
  on($("#sign-out"), "click", async () => {
    await shelf.forgetAll();
    await session.signOut();
  });
  on($("#load-again"), "click", () => gallery.more());
  on(gallery, "change", () => showState(gallery));
  on(grid, "select", () => showSelection(grid, gallery));
  on(grid, "open", ({ detail }) => lightbox.open(detail));
  on(lightbox, "closed", ({ detail }) => grid.focus(detail));
  on(lightbox, "delete", ({ detail }) => trash.put([detail]));
  on(lightbox, "download", ({ detail }) => download([detail]));
  on(uploader, "uploaded", ({ detail: item }) => {
    gallery.add(item.image, item.preview ? URL.createObjectURL(item.preview) : undefined);
    usageSoon();
  });
  const selected = () => gallery.images.filter((image) => grid.selected.has(image.id)).map((image) => image.id);
  const deleteSelected = () => {
    const ids = selected();
    grid.clearSelection();
    trash.put(ids);
    $("#main").focus({ preventScroll: true });
  };
  on($("#delete-selected"), "click", deleteSelected);
  on($("#download-selected"), "click", () => download(selected()));
  on($("#clear-selection"), "click", () => { grid.clearSelection(); $("#main").focus({ preventScroll: true }); });
  on($("#grid"), "keydown", (event) => { if (event.key === "Delete" && grid.selected.size) deleteSelected(); });
  on(window, "keydown", (event) => {
    if ($("dialog[open]") || event.target.matches?.("input:not([type=checkbox]), textarea")) return;
    if (event.key === "Escape" && grid.selected.size) grid.clearSelection();
    if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      grid.selectAll();
    }
  });
  on(window, "beforeunload", (event) => { if (uploader.items.some((item) => item.open && item.size > 16 << 20)) event.preventDefault(); });
  on(window, "online", () => { if (gallery.problem) gallery.more(); });

  leave = () => {
    stopping.abort();
    stopGathering();
    for (const part of [account, lightbox, trash, tray, grid]) part.stop();
    uploader.stop();
    leave = () => {};
  };
  showState(gallery);
  gallery.more();
  usage();
  uploader.resume().catch((problem) => { if (!(problem instanceof Problem)) throw problem; });
}

function take(uploader, files) {
  if (!files.length) return toast("There were no files in that.");
  const added = uploader.add(files);
  if (!added) toast("These files are being uploaded already.");
}

/** Empty, loading, or in trouble. */
function showState({ images, complete, problem }) {
  $("#empty").hidden = !(complete && images.length === 0);
  $("#loading").hidden = complete || Boolean(problem);
  $("#trouble").hidden = !problem;
  if (problem) $("#trouble-words").textContent = explain(problem);
}

function showSelection(grid, gallery) {
  const n = grid.selected.size;
  $("#selection").hidden = n === 0;
  $("#bar").classList.toggle("selecting", n > 0);
  if (!n) return;
  const size = gallery.images.reduce((sum, image) => sum + (grid.selected.has(image.id) ? image.size : 0), 0);
  $("#selection-words").textContent = `${count(n, "image")} selected`;
  $("#selection-size").textContent = bytes(size);
}

/** Each is saved under its name: the URL itself says so. */
async function download(ids) {
  try {
    for (const id of ids) {
      const { url } = await api.download(id);
      const link = Object.assign(document.createElement("a"), { href: url, download: "" });
      link.click();
      if (ids.length > 1) await sleep(400); // Browsers drop downloads that come at once.
    }
  } catch (problem) {
    toast(`The download did not start. ${explain(problem)}`, { error: true });
  }
}

let usageTimer;
function usageSoon() {
  usageTimer ??= setTimeout(() => { usageTimer = undefined; usage(); }, 1000);
}

async function usage() {
  if (!session.user) return;
  try {
    const { usage: used } = await api.me();
    $("#meter").max = used.quotaBytes;
    $("#meter").value = used.bytes;
    $("#meter-words").textContent = `${bytes(used.bytes)} of ${bytes(used.quotaBytes)}`;
    $("#meter-images").textContent = count(used.images, "image");
  } catch {
    // It is only a meter: the next time.
  }
}

session.addEventListener("begun", enter);
session.addEventListener("ended", ({ detail: why }) => {
  leave();
  view("entrance");
  entrance.show(why === "signed_out" ? "" : "Your session has ended. Sign in again to go on; unfinished uploads go on too.");
});

async function start() {
  try {
    if (await session.resume()) enter();
    else if (document.body.dataset.view !== "entrance") {
      view("entrance");
      entrance.show();
    }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) return; // The session said so itself.
    view("unreachable");
    $("#unreachable-words").textContent = explain(problem);
  }
}

for (const place of document.querySelectorAll("[data-icon]")) place.prepend(icon(place.dataset.icon));
entrance.prepare();
$("#start-again").addEventListener("click", start);
addEventListener("online", () => { if (document.body.dataset.view === "unreachable") start(); });
start();
