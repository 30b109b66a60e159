// Collects files from the button, from drops of files or folders anywhere on the page, and from the clipboard.

import { $ } from "./dom.js";

/** Calls `take(files)` for files of every source; returns the function that stops it. */
export function collectFiles(take) {
  const stopping = new AbortController();
  const on = (target, name, work) => target.addEventListener(name, work, { signal: stopping.signal });
  const input = $("#files");
  on(input, "change", () => {
    take([...input.files]);
    input.value = ""; // The same file may be chosen again.
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") && !$("dialog[open]");
  // `dragenter` and `dragleave` fire for every element that is crossed.
  let depth = 0;
  const show = (over) => { $("#drop").hidden = !over; };
  on(window, "dragenter", (event) => { if (carriesFiles(event)) show((depth += 1)); });
  on(window, "dragleave", (event) => { if (carriesFiles(event)) show((depth = Math.max(0, depth - 1))); });
  on(window, "dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  on(window, "drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    take(await droppedFiles(event.dataTransfer));
  });
  on(window, "paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !$("dialog[open]")) take(files.map(renamePasted));
  });
  return () => stopping.abort();
}

/** Returns the dropped files, and the files in dropped folders that look like images. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (const entry of entries) await addFiles(entry, files, { isChosen: true });
  return files;
}

/** Adds an entry's files to `files`; those in folders only if they look like images. */
async function addFiles(entry, files, { isChosen }) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => { entry.file(resolve, () => resolve(null)); });
    if (file && (isChosen || file.type.startsWith("image/") || /\.(hei[cf]s?|hif|avifs?|jfif|jpe|apng)$/i.test(file.name))) files.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const children = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
    if (!children.length) return;
    for (const child of children) await addFiles(child, files, { isChosen: false });
  }
}

/** Renames a pasted image: browsers call all of them image.png. */
function renamePasted(file) {
  if (file.name && file.name !== "image.png") return file;
  const time = new Date().toISOString().slice(0, 19).replace("T", " ").replaceAll(":", ".");
  return new File([file], `Pasted ${time}.${(file.type.split("/")[1] || "png").replace("jpeg", "jpg")}`, { type: file.type });
}
