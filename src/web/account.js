// The account's own dialog: where its owner is signed in, another password, the end of it all.

import * as api from "./api.js";
import { $, el, say, toast } from "./dom.js";
import { Problem } from "./http.js";
import { session } from "./session.js";
import * as shelf from "./shelf.js";
import { day, device, explain } from "./words.js";

/** In this dialog nobody signs in: it is the present password that is wrong. */
const reason = (problem) => problem.code === "invalid_credentials" ? "The password is wrong." : explain(problem);

/** Events: `opened` and `closed`. */
export class Account extends EventTarget {
  #dialog = $("#account");
  #stopping = new AbortController();

  constructor() {
    super();
    const on = (target, name, work) => target.addEventListener(name, work, { signal: this.#stopping.signal });
    on($("#open-account"), "click", () => this.open());
    on($("#close-account"), "click", () => this.close());
    on(this.#dialog, "close", () => {
      this.#clear();
      // The button that opened it is in the menu, which has closed.
      if (this.#dialog.contains(document.activeElement) || document.activeElement === document.body) $(".menu summary").focus();
      this.dispatchEvent(new Event("closed"));
    });
    on($("#end-others"), "click", () => this.#endAll());
    on($("#password-form"), "submit", (event) => this.#submit(event, () => this.#change()));
    on($("#delete-form"), "submit", (event) => this.#submit(event, () => this.#delete()));
  }

  stop() {
    this.#stopping.abort();
    this.close();
    this.#clear();
  }

  open() {
    if (this.#dialog.open) return;
    $(".menu").open = false;
    $("#account-email").value = session.user.email ?? "";
    this.#dialog.showModal();
    this.#list();
    this.dispatchEvent(new Event("opened"));
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  #clear() {
    for (const form of this.#dialog.querySelectorAll("form")) {
      form.reset();
      this.#complain(form, "");
    }
    $("#devices").replaceChildren();
    $("#devices-problem").textContent = "";
  }

  async #list() {
    await this.#attempt(async () => {
      const { sessions } = await api.sessions();
      $("#devices").replaceChildren(...sessions.map((one) => this.#line(one)));
      $("#end-others").hidden = sessions.length < 2;
    });
  }

  #line(one) {
    const name = device(one.device);
    const used = one.current ? "This device" : `Last used ${day(one.lastUsedAt)}`;
    const words = el("div", { class: "words" }, el("span", { class: "name", title: one.device }, name), el("span", { class: "quiet" }, used));
    const end = el("button", { type: "button", class: "text-button", ariaLabel: `Sign out ${name}`, onclick: () => this.#end([one]) }, "Sign out");
    return el("li", { class: "line" }, words, one.current ? null : end);
  }

  async #endAll() {
    await this.#attempt(async () => this.#end((await api.sessions()).sessions.filter((one) => !one.current)));
  }

  async #end(sessions) {
    await this.#attempt(async () => {
      for (const { id } of sessions) {
        // One that has ended by itself meanwhile is what was wanted.
        await api.endSession(id).catch((problem) => { if (problem.code !== "not_found") throw problem; });
      }
      say("Signed out");
    });
    $("#close-account").focus();
    await this.#list();
  }

  async #attempt(work) {
    $("#devices-problem").textContent = "";
    try {
      await work();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      $("#devices-problem").textContent = reason(problem);
    }
  }

  async #submit(event, work) {
    event.preventDefault();
    const form = event.target;
    const empty = [...form.querySelectorAll("input[type=password]")].find((input) => !input.value);
    if (empty) return this.#complain(form, "Enter your password.", empty);
    this.#complain(form, "");
    $("[type=submit]", form).disabled = true;
    try {
      await work();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      const field = problem.code === "weak_password" ? $("#new-password") : $("input[type=password]", form);
      this.#complain(form, reason(problem), field);
    } finally {
      $("[type=submit]", form).disabled = false;
    }
  }

  /** Above the fields, announced at once; `field` is where it is wrong. */
  #complain(form, text, field) {
    $(".problem", form).textContent = text;
    for (const input of form.querySelectorAll("input[type=password]")) input.ariaInvalid = String(input === field);
    field?.focus();
  }

  async #change() {
    await api.changePassword($("#current-password").value, $("#new-password").value);
    this.close();
    toast("The password is changed. All your other devices are signed out.");
  }

  async #delete() {
    await api.deleteAccount($("#delete-password").value);
    await shelf.forgetAll();
    await session.signOut();
    toast("The account and its images are deleted.");
  }
}
