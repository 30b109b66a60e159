// Elements in one expression, and the two ways to tell people something: toasts and the screen reader's voice. Text is only ever
// set as text: names and captions are other people's words.

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

let voice;
/** Says it to screen readers; what is said in quick succession is said once, the last. */
export function say(text) {
  clearTimeout(voice);
  voice = setTimeout(() => { $("#voice").textContent = text; }, 250);
}

/** A message at the lower edge, with one thing to do about it. Returns the function that takes it away. */
export function toast(text, { action, onaction, seconds = 6, error = false } = {}) {
  const close = () => {
    clearTimeout(timer);
    if (box.contains(document.activeElement)) $("#main").focus({ preventScroll: true });
    box.remove();
  };
  const box = el("div", { class: error ? "toast error" : "toast" }, el("span", {}, text));
  if (action) box.append(el("button", { type: "button", class: "text-button", onclick: () => { close(); onaction(); } }, action));
  box.append(button("Dismiss", "close", close));
  const timer = seconds ? setTimeout(close, seconds * 1000) : 0;
  $("#toasts").append(box);
  return close;
}
