// The page: shows the sign-in form or the gallery, and connects the modules.

import { Account } from "./account.js";
import { Address } from "./address.js";
import * as api from "./api.js";
import { Changes } from "./changes.js";
import { $, icon, isTyping, openDialog, refocus, toast } from "./dom.js";
import * as signIn from "./sign-in.js";
import { collectFiles } from "./files.js";
import { Gallery } from "./gallery.js";
import { Grid } from "./grid.js";
import { Problem } from "./valet-upload/http.js";
import { Lightbox } from "./lightbox.js";
import { session } from "./session.js";
import { sleep } from "./valet-upload/retry.js";
import { Tabs } from "./tabs.js";
import { MAX_WAITING, UndoDelete } from "./undo-delete.js";
import { UploadList } from "./upload-list.js";
import { indexedDbStore, isAvailable } from "./valet-upload/pending-files.js";
import { Uploader } from "./valet-upload/uploader.js";
import { StoredText } from "./valet-upload/storage.js";
import { WorkerPool } from "./valet-upload/worker-pool.js";
import { bytes, count, explain, monthName } from "./messages.js";

/** Stops the modules that run for the signed-in user. */
let leave = () => {};
const order = new StoredText("localStorage", "valet.order");
/** Milliseconds that signing out waits for deletions. */
const SIGN_OUT_MS = 5000;
/** Milliseconds that other tabs have to send their deletions. */
const OTHER_TABS_MS = 300;

function view(name) {
  document.body.dataset.view = name;
  for (const section of ["sign-in", "gallery", "unreachable"]) $(`#${section}`).hidden = section !== name;
  $("#bar").hidden = name !== "gallery";
}

function enter() {
  view("gallery");
  const gallery = new Gallery();
  gallery.sort = $("#order").value = order.value === "taken" ? "taken" : "uploaded";
  const grid = new Grid($("#grid"), gallery);
  const uploader = new Uploader({ api: api.client, work: new WorkerPool(), store: indexedDbStore(), user: session.user.id });
  const choose = () => $("#files").click();
  const uploadList = new UploadList(uploader, choose);
  const lightbox = new Lightbox(gallery);
  const tabs = new Tabs(session.user.id);
  const undoDelete = new UndoDelete(gallery, (deleted) => {
    tabs.send({ gone: deleted });
    usage();
  });
  const account = new Account();
  const address = new Address();
  const stopCollecting = collectFiles((files) => uploadFiles(uploader, files));
  const stopping = new AbortController();
  const on = (target, name, work) => target.addEventListener(name, work, { signal: stopping.signal });

  const [name, host = ""] = (session.user.email ?? "").split(/(?=@)/);
  $("#account-name").replaceChildren(name, document.createElement("wbr"), host);
  for (const pick of [$("#upload"), $("#upload-first")]) on(pick, "click", choose);
  on(session, "ending", () => undoDelete.sendAll());
  on($("#sign-out"), "click", async () => {
    session.announceEnd();
    await Promise.race([Promise.all([undoDelete.sendAll(), sleep(OTHER_TABS_MS)]), sleep(SIGN_OUT_MS)]);
    await indexedDbStore().clear().catch(() => {});
    await session.signOut();
  });
  on($("#load-again"), "click", () => gallery.more());
  sorting(gallery, grid, on);
  on(gallery, "change", () => showState(gallery));

  on(grid, "select", () => showSelection(grid, gallery));
  on(grid, "open", ({ detail: id }) => lightbox.open(id));
  on(lightbox, "shown", ({ detail: id }) => address.open("image", id));
  on(lightbox, "closed", ({ detail: id }) => { address.close("image"); grid.focus(id); });
  on(lightbox, "delete", ({ detail: id }) => undoDelete.remove([id], () => { if (lightbox.isOpen) lightbox.open(id); }));
  on(lightbox, "download", ({ detail: id }) => download([id]));
  on(lightbox, "described", ({ detail }) => tabs.send({ described: detail }));
  on(account, "opened", () => address.open("account"));
  on(account, "closed", () => address.close("account"));
  const showAddressed = async () => {
    const { kind, id } = address.dialog;
    if (kind !== "account") account.close();
    if (kind !== "image") lightbox.close();
    if (kind === "account") account.open();
    if (kind === "image") await openImage(lightbox, address, id);
  };
  on(address, "change", showAddressed);

  on(uploader, "uploaded", ({ detail: item }) => {
    tabs.send({ added: { ...item.image } });
    undoDelete.keep(item.image.id);
    gallery.add(item.image, item.preview ? URL.createObjectURL(item.preview) : undefined);
    usageSoon();
  });
  on(tabs, "changed", ({ detail: { added, gone, described } }) => {
    if (added) {
      undoDelete.keep(added.id);
      gallery.add(added);
    }
    if (gone) gallery.forget(gone);
    if (described) gallery.describe(described.id, described.caption);
    if (added || gone) usageSoon();
  });
  // Without a stream, and while the page was hidden, the gallery is refreshed when the user returns to the page.
  let refreshTimer;
  const refresh = () => {
    if (document.visibilityState !== "visible") return;
    gallery.refresh().catch((problem) => { if (!(problem instanceof Problem)) throw problem; });
    usageSoon();
  };
  // These events fire two or three at a time.
  const refreshSoon = () => {
    clearTimeout(refreshTimer);
    refreshTimer = setTimeout(refresh, 200);
  };
  for (const name of ["focus", "online", "pageshow"]) on(window, name, refreshSoon);
  on(document, "visibilitychange", refreshSoon);
  const changes = new Changes(session.user.id, (id) => Boolean(gallery.get(id)));
  on(changes, "missed", refreshSoon);
  on(changes, "changed", ({ detail: images }) => {
    for (const image of images.filter(({ id }) => !gallery.get(id))) undoDelete.keep(image.id);
    for (const image of images) gallery.add(image);
    usageSoon();
  });
  on(changes, "gone", ({ detail: ids }) => {
    gallery.forget(ids);
    usageSoon();
  });

  const selected = () => gallery.images.filter((image) => grid.selected.has(image.id)).map((image) => image.id);
  const deleteSelected = () => {
    const ids = selected();
    if (ids.length > MAX_WAITING && !confirm(`Delete ${count(ids.length, "image")}? This cannot be undone.`)) return;
    grid.clearSelection();
    undoDelete.remove(ids);
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
  // Closing the page would lose these deletions, and uploads of files that are too large to be stored.
  on(window, "beforeunload", (event) => { if (undoDelete.needsPage || uploader.items.some((item) => item.open && item.size > 16 << 20)) event.preventDefault(); });

  leave = () => {
    clearTimeout(refreshTimer);
    stopping.abort();
    stopCollecting();
    for (const part of [changes, address, account, lightbox, undoDelete, uploadList, grid, tabs]) part.stop();
    uploader.stop();
    leave = () => {};
  };
  showState(gallery);
  gallery.more();
  usage();
  showAddressed();
  showStorageNotice();
  uploader.restore().catch((problem) => { if (!(problem instanceof Problem)) throw problem; });
}

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

function uploadFiles(uploader, files) {
  if (!files.length) return toast("Nothing to upload was dropped.");
  const added = uploader.add(files);
  if (!added.length) toast("These files are already being uploaded.");
}

/** Shows a notice about data that the page cannot store. */
async function showStorageNotice() {
  const limitations = [];
  if (!session.lasting) limitations.push("You stay signed in only in this tab, until it is closed or reloaded.");
  if (!(await isAvailable())) limitations.push("Unfinished uploads do not continue by themselves after a reload: their files have to be chosen again.");
  $("#not-kept").textContent = limitations.length ? `This browser does not let the page store data. ${limitations.join(" ")}` : "";
  $("#not-kept").hidden = !limitations.length;
}

/** Connects the choice of the order, which this browser keeps, and the list of the months in which images were taken. */
function sorting(gallery, grid, on) {
  const months = $("#month");
  let timer;
  const list = async () => {
    timer = undefined;
    $("#go").hidden = gallery.sort !== "taken";
    if ($("#go").hidden) return;
    try {
      const { months: found } = await api.readTimeline();
      if (document.activeElement === months) return; // It is in use.
      const entries = found.map(({ month, count }) => new Option(`${monthName(month)} (${count})`, month));
      months.replaceChildren(new Option("Month", ""), ...entries);
    } catch {
      // The list stays as it is until the next change of the gallery.
    }
  };
  on($("#order"), "change", ({ target }) => {
    gallery.sortBy(order.value = target.value);
    scrollTo({ top: 0, behavior: "instant" });
    list();
  });
  on(months, "change", async ({ target: { value } }) => {
    const image = value && await gallery.untilMonth(value);
    if (image && months.value === value) grid.goTo(image.id);
  });
  on(months, "blur", list); // The same month can be chosen again.
  on(gallery, "change", () => { timer ??= setTimeout(list, 1000); });
  months.replaceChildren();
  list();
}

/** Shows whether the gallery is empty, loading or failed. */
function showState({ images, complete, problem }) {
  $("#sorting").hidden = complete && images.length === 0;
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

/** Downloads images under their names, which the URLs contain. */
async function download(ids) {
  try {
    for (const id of ids) {
      const { url } = await api.signDownload(id);
      const link = Object.assign(document.createElement("a"), { href: url, download: "" });
      link.click();
      if (ids.length > 1) await sleep(400); // Browsers drop downloads that start at the same time.
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
    const { usage: used } = await api.readAccount();
    $("#meter").max = used.quotaBytes;
    $("#meter").value = used.bytes;
    $("#meter-words").textContent = `${bytes(used.bytes)} of ${bytes(used.quotaBytes)}`;
    $("#meter-images").textContent = count(used.images, "image");
  } catch {
    // The meter keeps its value until the next change.
  }
}

session.addEventListener("begun", enter);
session.addEventListener("ended", ({ detail: why }) => {
  leave();
  if (why === "signed_out") history.replaceState(null, "", location.pathname + location.search);
  view("sign-in");
  signIn.show(why === "signed_out" ? "" : "Your session has ended. Sign in again: unfinished uploads continue then, too.");
});

async function start() {
  try {
    if (await session.resume()) enter();
    else if (document.body.dataset.view !== "sign-in") {
      view("sign-in");
      signIn.show();
    }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) return; // The event `ended` has shown the sign-in form.
    view("unreachable");
    $("#unreachable-words").textContent = explain(problem);
  }
}

for (const element of document.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
signIn.prepare();
showStorageNotice();
$("#start-again").addEventListener("click", start);
addEventListener("online", () => { if (document.body.dataset.view === "unreachable") start(); });
start();
