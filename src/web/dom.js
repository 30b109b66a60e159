// Creates elements, shows toasts, and announces messages to screen readers. Text is only set as text, never as HTML: names and
// captions come from users.
//
// Everything outside an open modal dialog is inert: not above it, not clickable, not in the accessibility tree. So toasts and
// announcements are moved into the dialog while it is open.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Creates an element: `el("button", { class: "x", onclick, ariaLabel: "…" }, "text", child)`. Names without a property become attributes. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Creates an icon of the sprite in index.html, hidden from screen readers: the button has the label. */
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

export const openDialog = () => [...document.querySelectorAll("dialog:modal")].at(-1) ?? null;

export const isTyping = ({ target }) => Boolean(target.matches?.("input:not([type=checkbox]), textarea"));

function moveMessages() {
  const home = openDialog() ?? document.body;
  if ($("#toasts").parentNode === home) return;
  const focused = $("#toasts").contains(document.activeElement) && document.activeElement;
  const voice = $("#voice");
  // Moving interrupts a screen reader: texts that it may not have read are announced again, before those that wait.
  if (performance.now() - announcedAt < READING_MS) {
    waiting = new Map([...announced, ...waiting]);
    announceSoon();
  }
  announced = new Map();
  voice.replaceChildren();
  home.append($("#toasts"), voice);
  if (focused) focused.focus({ preventScroll: true });
}

// The attribute `open` changes however a dialog is opened or closed.
new MutationObserver(moveMessages).observe(document.body, { attributes: true, attributeFilter: ["open"], subtree: true });

/** Time that a screen reader may take to start. */
const READING_MS = 1000;
/** Time in which texts are gathered. */
const GATHER_MS = 250;
// Texts by topic, in the order of their announcement.
let announced = new Map(), waiting = new Map();
let announcedAt = -Infinity, timer;
/** Announces a text to screen readers. Of several texts of one topic in quick succession, only the last is announced. */
export function announce(text, topic = text) {
  waiting.delete(topic);
  waiting.set(topic, text);
  announceSoon();
}

function announceSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    moveMessages();
    clearTimeout(timer);
    [announced, waiting] = [waiting, new Map()];
    $("#voice").replaceChildren(...[...announced.values()].map((text) => el("p", {}, text)));
    announcedAt = performance.now();
  }, GATHER_MS);
}

/** Moves the focus, after the focused element was removed, to the close button of the open dialog or to the content. */
export function refocus() {
  (openDialog()?.querySelector("[data-icon=close]") ?? $("#main")).focus({ preventScroll: true });
}

/** Shows a message at the lower edge, with at most one action. Returns the function that closes it. */
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
  moveMessages();
  $("#toasts").append(box);
  return close;
}
