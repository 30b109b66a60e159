// Signing in and signing up: one form, two ways.

import { $, say } from "./dom.js";
import { Problem } from "./http.js";
import { session } from "./session.js";
import { explain } from "./words.js";

let joining = false;

function turn(join) {
  joining = join;
  $("#entrance-title").textContent = join ? "Create an account" : "Sign in";
  $("#enter").textContent = join ? "Create account" : "Sign in";
  $("#turn-words").textContent = join ? "Have an account already?" : "New here?";
  $("#turn").textContent = join ? "Sign in" : "Create an account";
  $("#password").autocomplete = join ? "new-password" : "current-password";
  $("#password-hint").hidden = !join;
  complain("");
}

/** Above the fields, announced at once; `field` is where it is wrong. */
function complain(text, field) {
  $("#entrance-problem").textContent = text;
  for (const input of [$("#email"), $("#password")]) input.ariaInvalid = String(input === field);
  field?.focus();
}

async function submit(event) {
  event.preventDefault();
  const [email, password] = [$("#email"), $("#password")];
  if (!email.value.trim()) return complain("Enter your email address.", email);
  if (!password.value) return complain("Enter your password.", password);
  complain("");
  $("#enter").disabled = true;
  try {
    await (joining ? session.signUp(email.value, password.value) : session.signIn(email.value, password.value));
    password.value = "";
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    const field = { invalid_email: email, email_taken: email, weak_password: password, invalid_credentials: password }[problem.code];
    complain(explain(problem), field);
  } finally {
    $("#enter").disabled = false;
  }
}

/** Wires the form, once. */
export function prepare() {
  $("#entrance-form").addEventListener("submit", submit);
  $("#turn").addEventListener("click", () => { turn(!joining); $("#email").focus(); say($("#entrance-title").textContent); });
  $("#reveal").addEventListener("click", () => {
    const shown = $("#password").type === "password";
    $("#password").type = shown ? "text" : "password";
    $("#reveal").ariaPressed = String(shown);
  });
}

/** Shows it; `why` says what brought the person here. */
export function show(why) {
  turn(false);
  complain(why ?? "");
  $("#email").focus({ preventScroll: true });
}
