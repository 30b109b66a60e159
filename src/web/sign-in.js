// The form for signing in and signing up.

import { $, announce } from "./dom.js";
import { Problem } from "./valet-upload/http.js";
import { session } from "./session.js";
import { explain } from "./messages.js";

let isSigningUp = false;

function setMode(signUp) {
  isSigningUp = signUp;
  $("#sign-in-title").textContent = signUp ? "Create an account" : "Sign in";
  $("#enter").textContent = signUp ? "Create account" : "Sign in";
  $("#turn-words").textContent = signUp ? "Have an account already?" : "New here?";
  $("#turn").textContent = signUp ? "Sign in" : "Create an account";
  $("#password").autocomplete = signUp ? "new-password" : "current-password";
  $("#password-hint").hidden = !signUp;
  complain("");
}

/** Shows an error above the fields, where it is announced at once; `field` is the wrong field. */
function complain(text, field) {
  $("#sign-in-problem").textContent = text;
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
    await (isSigningUp ? session.signUp(email.value, password.value) : session.signIn(email.value, password.value));
    password.value = "";
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    const field = { invalid_email: email, email_taken: email, weak_password: password, invalid_credentials: password }[problem.code];
    complain(explain(problem), field);
  } finally {
    $("#enter").disabled = false;
  }
}

/** Adds the form's event listeners; called once. */
export function prepare() {
  $("#sign-in-form").addEventListener("submit", submit);
  $("#turn").addEventListener("click", () => { setMode(!isSigningUp); $("#email").focus(); announce($("#sign-in-title").textContent, "mode"); });
  $("#reveal").addEventListener("click", () => {
    const shown = $("#password").type === "password";
    $("#password").type = shown ? "text" : "password";
    $("#reveal").ariaPressed = String(shown);
  });
}

/** Shows the form; `why` is the reason, if the session has ended. */
export function show(why) {
  setMode(false);
  complain(why ?? "");
  $("#email").focus({ preventScroll: true });
}
