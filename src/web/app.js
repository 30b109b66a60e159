// The page put together: who is signed in decides between the entrance and the gallery; here the parts meet.

import { Account } from "./account.js";
import { Address } from "./address.js";
import * as api from "./api.js";
import { $, icon, isTyping, openDialog, refocus, toast } from "./dom.js";
import * as entrance from "./entrance.js";
import { gather } from "./files.js";
import { Gallery } from "./gallery.js";
import { Grid } from "./grid.js";
import { Problem } from "./http.js";
import { Lightbox } from "./lightbox.js";
import { session } from "./session.js";
import { sleep } from "./patience.js";
import * as shelf from "./shelf.js";
import { Tabs } from "./tabs.js";
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
  const tabs = new Tabs(session.user.id);
  const trash = new Trash(gallery, (gone) => {
    tabs.tell({ gone });
    usage();
  });
  const account = new Account();
  const address = new Address();
  const stopGathering = gather((files) => take(uploader, files));
  const stopping = new AbortController();
  const on = (target, name, work) => target.addEventListener(name, work, { signal: stopping.signal });

  const [name, host = ""] = (session.user.email ?? "").split(/(?=@)/);
  $("#account-name").replaceChildren(name, document.createElement("wbr"), host);
  for (const pick of [$("#upload"), $("#upload-first")]) on(pick, "click", choose);
  on($("#sign-out"), "click", async () => {
    await shelf.forgetAll();
    await session.signOut();
  });
  on($("#load-again"), "click", () => gallery.more());
  on(gallery, "change", () => showState(gallery));

  on(grid, "select", () => showSelection(grid, gallery));
  on(grid, "open", ({ detail: id }) => lightbox.open(id));
  on(lightbox, "shown", ({ detail: id }) => address.open("image", id));
  on(lightbox, "closed", ({ detail: id }) => { address.close("image"); grid.focus(id); });
  on(lightbox, "delete", ({ detail: id }) => trash.put([id], () => { if (lightbox.isOpen) lightbox.open(id); }));
  on(lightbox, "download", ({ detail: id }) => download([id]));
  on(lightbox, "described", ({ detail }) => tabs.tell({ described: detail }));
  on(account, "opened", () => address.open("account"));
  on(account, "closed", () => address.close("account"));
  const follow = async () => {
    const { kind, id } = address.place;
    if (kind !== "account") account.close();
    if (kind !== "image") lightbox.close();
    if (kind === "account") account.open();
    if (kind === "image") await openImage(lightbox, address, id);
  };
  on(address, "change", follow);

  on(uploader, "uploaded", ({ detail: item }) => {
    tabs.tell({ added: { ...item.image } });
    trash.keep(item.image.id);
    gallery.add(item.image, item.preview ? URL.createObjectURL(item.preview) : undefined);
    usageSoon();
  });
  on(tabs, "news", ({ detail: { added, gone, described } }) => {
    if (added) {
      trash.keep(added.id);
      gallery.add(added);
    }
    if (gone) gallery.forget(gone);
    if (described) gallery.describe(described.id, described.caption);
    if (added || gone) usageSoon();
  });
  // Other devices send no news: it is looked for when the person comes back.
  let looking;
  const look = () => {
    if (document.visibilityState !== "visible") return;
    gallery.refresh().catch((problem) => { if (!(problem instanceof Problem)) throw problem; });
    usageSoon();
  };
  // These events come in twos and threes.
  const lookAgain = () => {
    clearTimeout(looking);
    looking = setTimeout(look, 200);
  };
  for (const name of ["focus", "online", "pageshow"]) on(window, name, lookAgain);
  on(document, "visibilitychange", lookAgain);

  const selected = () => gallery.images.filter((image) => grid.selected.has(image.id)).map((image) => image.id);
  const deleteSelected = () => {
    const ids = selected();
    grid.clearSelection();
    trash.put(ids);
    if (!$("#grid").contains(document.activeElement)) refocus();
  };
  const selectAll = () => grid.selectAll().catch((problem) => toast(`Not all images are selected. ${explain(problem)}`, { error: true }));
  on($("#delete-selected"), "click", deleteSelected);
  on($("#download-selected"), "click", () => download(selected()));
  on($("#clear-selection"), "click", () => { grid.clearSelection(); refocus(); });
  on($("#select-all"), "click", selectAll);
  on($("#grid"), "keydown", (event) => { if (event.key === "Delete" && grid.selected.size) deleteSelected(); });
  on(window, "keydown", (event) => {
    if (openDialog() || isTyping(event)) return;
    if (event.key === "Escape" && grid.selected.size) grid.clearSelection();
    if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      selectAll();
    }
  });
  on(window, "beforeunload", (event) => { if (uploader.items.some((item) => item.open && item.size > 16 << 20)) event.preventDefault(); });

  leave = () => {
    clearTimeout(looking);
    stopping.abort();
    stopGathering();
    for (const part of [address, account, lightbox, trash, tray, grid, tabs]) part.stop();
    uploader.stop();
    leave = () => {};
  };
  showState(gallery);
  gallery.more();
  usage();
  follow();
  sayWhatIsNotKept();
  uploader.resume().catch((problem) => { if (!(problem instanceof Problem)) throw problem; });
}

/** The image of the page's address. */
async function openImage(lightbox, address, id) {
  try {
    if (await lightbox.open(id)) return;
    toast("This image is not in your gallery any more.");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    toast(`The image could not be opened. ${explain(problem)}`, { error: true });
  }
  address.close("image");
}

function take(uploader, files) {
  if (!files.length) return toast("Nothing to upload was dropped.");
  const added = uploader.add(files);
  if (!added) toast("These files are already being uploaded.");
}

/** Where the browser denies storage everything works, but less of it lasts. */
async function sayWhatIsNotKept() {
  const lost = [];
  if (!session.lasting) lost.push("You stay signed in only in this tab, until it is closed or reloaded.");
  if (!(await shelf.works())) lost.push("Unfinished uploads do not continue by themselves after a reload: their files have to be chosen again.");
  $("#not-kept").textContent = lost.length ? `This browser does not let the page store data. ${lost.join(" ")}` : "";
  $("#not-kept").hidden = !lost.length;
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
  const all = gallery.complete && n === gallery.images.length;
  $("#selection").hidden = n === 0;
  $("#bar").classList.toggle("selecting", n > 0);
  if (!n) return;
  const size = gallery.images.reduce((sum, image) => sum + (grid.selected.has(image.id) ? image.size : 0), 0);
  $("#selection-words").textContent = grid.selecting ? "Selecting all images" : `${count(n, "image")} selected`;
  if (all && document.activeElement === $("#select-all")) $("#download-selected").focus();
  $("#select-all").hidden = all;
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
  if (why === "signed_out") history.replaceState(null, "", location.pathname + location.search);
  view("entrance");
  entrance.show(why === "signed_out" ? "" : "Your session has ended. Sign in again: unfinished uploads continue then, too.");
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
sayWhatIsNotKept();
$("#start-again").addEventListener("click", start);
addEventListener("online", () => { if (document.body.dataset.view === "unreachable") start(); });
start();
