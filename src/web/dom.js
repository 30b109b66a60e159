// Elements in one expression, and the two ways to tell people something: toasts and the screen reader's voice. Text is only ever
// set as text: names and captions are other people's words.
//
// Everything outside an open modal dialog is inert: not painted above it, not clickable, not in the accessibility tree. So both
// live inside the dialog for as long as it is open.

export const $ = (selector, root = document) => root.querySelector(selector);

/** `el("button", { class: "x", onclick, ariaLabel: "…" }, "text", child)`: properties where there are any, else attributes. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A picture of the sprite in index.html; it says nothing, the button around it does. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const button = (label, picture, onclick, more = {}) =>
  el("button", { type: "button", class: "icon-button", ariaLabel: label, title: label, onclick, ...more }, icon(picture));

/** The modal dialog that is open, or null. */
export const openDialog = () => [...document.querySelectorAll("dialog:modal")].at(-1) ?? null;

/** Whether a key belongs to a field that takes text. */
export const isTyping = ({ target }) => Boolean(target.matches?.("input:not([type=checkbox]), textarea"));

function bringMessages() {
  const home = openDialog() ?? document.body;
  if ($("#toasts").parentNode === home) return;
  const focused = $("#toasts").contains(document.activeElement) && document.activeElement;
  const voice = $("#voice");
  // What has been read out is not read out again for having moved; what may have been cut short is.
  if (voice.textContent && performance.now() - spoken < READING_MS) say(voice.textContent);
  voice.textContent = "";
  home.append($("#toasts"), voice);
  if (focused) focused.focus({ preventScroll: true });
}

// Whoever opens or closes a dialog, its `open` attribute changes.
new MutationObserver(bringMessages).observe(document.body, { attributes: true, attributeFilter: ["open"], subtree: true });

/** A screen reader is given so long to begin. */
const READING_MS = 1000;
let speaking, spoken;
/** Says it to screen readers; what is said in quick succession is said once, the last. */
export function say(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    bringMessages();
    $("#voice").textContent = text;
    spoken = performance.now();
  }, 250);
}

/** Moves the focus to where the reader goes on when what had it is gone: the open dialog's way out, or the content. */
export function refocus() {
  (openDialog()?.querySelector("[data-icon=close]") ?? $("#main")).focus({ preventScroll: true });
}

/** A message at the lower edge, with one thing to do about it. Returns the function that takes it away. */
export function toast(text, { action, onaction, seconds = 6, error = false } = {}) {
  const close = () => {
    clearTimeout(timer);
    const focused = box.contains(document.activeElement);
    box.remove();
    if (focused) refocus();
  };
  const box = el("div", { class: error ? "toast error" : "toast" }, el("span", {}, text));
  if (action) box.append(el("button", { type: "button", class: "text-button", onclick: () => { close(); onaction(); } }, action));
  box.append(button("Dismiss", "close", close));
  const timer = seconds ? setTimeout(close, seconds * 1000) : 0;
  bringMessages();
  $("#toasts").append(box);
  return close;
}
