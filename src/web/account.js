// The account dialog: lists the sessions, changes the password, deletes the account.

import * as api from "./api.js";
import { $, announce, el, toast } from "./dom.js";
import { Problem } from "./valet-upload/http.js";
import { session } from "./session.js";
import { indexedDbStore } from "./valet-upload/pending-files.js";
import { day, device, explain } from "./messages.js";

/** Returns the sentence for a problem. In this dialog, `invalid_credentials` means a wrong current password. */
const reason = (problem) => problem.code === "invalid_credentials" ? "The password is wrong." : explain(problem);

/** The dialog. Events: `opened` and `closed`. */
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
      if (this.#dialog.open) return; // Forward has opened it again.
      // The button that opened the dialog is in the menu, which has closed.
      if (this.#dialog.contains(document.activeElement) || document.activeElement === document.body) $(".menu summary").focus();
      this.dispatchEvent(new Event("closed"));
    });
    on($("#end-others"), "click", () => this.#endAll());
    on($("#password-form"), "submit", (event) => this.#submit(event, () => this.#changePassword()));
    on($("#delete-form"), "submit", (event) => this.#submit(event, () => this.#deleteAccount()));
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
      const { sessions } = await api.listSessions();
      $("#devices").replaceChildren(...sessions.map((listed) => this.#line(listed)));
      $("#end-others").hidden = sessions.length < 2;
    });
  }

  #line(listed) {
    const name = device(listed.device);
    const used = listed.current ? "This device" : `Last used ${day(listed.lastUsedAt)}`;
    const words = el("div", { class: "words" }, el("span", { class: "name", title: listed.device }, name), el("span", { class: "quiet" }, used));
    const end = el("button", { type: "button", class: "text-button", ariaLabel: `Sign out ${name}`, onclick: () => this.#end([listed]) }, "Sign out");
    return el("li", { class: "line" }, words, listed.current ? null : end);
  }

  async #endAll() {
    await this.#attempt(async () => this.#end((await api.listSessions()).sessions.filter((listed) => !listed.current)));
  }

  async #end(sessions) {
    await this.#attempt(async () => {
      for (const { id } of sessions) {
        // `not_found`: the session has ended meanwhile.
        await api.endSession(id).catch((problem) => { if (problem.code !== "not_found") throw problem; });
      }
      announce("Signed out");
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

  /** Shows an error above the fields, where it is announced at once; `field` is the wrong field. */
  #complain(form, text, field) {
    $(".problem", form).textContent = text;
    for (const input of form.querySelectorAll("input[type=password]")) input.ariaInvalid = String(input === field);
    field?.focus();
  }

  async #changePassword() {
    await api.changePassword($("#current-password").value, $("#new-password").value);
    this.close();
    toast("The password is changed. All your other devices are signed out.");
  }

  async #deleteAccount() {
    await api.deleteAccount($("#delete-password").value);
    await indexedDbStore().clear().catch(() => {});
    await session.signOut();
    toast("The account and its images are deleted.");
  }
}
