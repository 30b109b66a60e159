// The session: its tokens, their refresh, and the same state in every tab.
//
// The access token is in memory, one per tab. The refresh token is in localStorage: copies in the sessionStorage of each tab would differ
// after the first refresh, and a tab that used an old one would end the session (after five minutes the server treats that as theft). A
// script injected into the page could read it; the page's content security policy prevents that.
//
// One refresh for all tabs: a Web Lock lets one tab send it, a BroadcastChannel gives its result to the others. Without locks (plain
// http) two tabs may refresh at once; the server gives both the same token.
//
// If the browser denies localStorage, each tab has its own session, in memory, that ends with the page.

import { Problem, request } from "./valet-upload/http.js";
import { channel, locks, StoredText } from "./valet-upload/storage.js";

const STORE = "valet.refresh";
const LOCK = "valet.refresh";
/** Time that a tab waits, after it has waited for the lock, for the message of the tab that held it. */
const BROADCAST_MS = 500;

/**
 * Events: `begun` after a sign-in; `updated` by another tab; `ending`, to send waiting requests; `ended` (detail: `signed_out` or
 * `session_ended`).
 */
class Session extends EventTarget {
  user = null;
  #access = null; // { token, expiresAt }
  #refreshing = null;
  #refreshToken = new StoredText("localStorage", STORE);
  #channel = channel("valet.session");

  constructor() {
    super();
    this.#channel.onmessage = ({ data }) => this.#onMessage(data);
    // For changes without a message, such as cleared site data, and a sign-in whose message came before its token was readable.
    addEventListener("storage", (event) => {
      if (event.key !== STORE) return;
      if (event.newValue === null && this.user) this.#forget("signed_out");
      if (event.newValue !== null && !this.user && !this.#refreshing) location.reload();
    });
  }

  /** Whether the session outlives this page. */
  get lasting() {
    return this.#refreshToken.lasting;
  }

  /** Resumes the session of an earlier visit. Returns the user, or null without a session. */
  async resume() {
    if (!this.#refreshToken.value) return null;
    await this.token();
    return this.user;
  }

  signUp(email, password) {
    return this.#authenticate("/api/auth/signup", email, password);
  }

  signIn(email, password) {
    return this.#authenticate("/api/auth/login", email, password);
  }

  /** Dispatches `ending` in every tab. */
  announceEnd() {
    this.#channel.postMessage({ kind: "ending" });
    this.dispatchEvent(new Event("ending"));
  }

  /** Ends the session here and in every tab. Offline, the session on the server ends when it expires. */
  async signOut() {
    const refreshToken = this.#refreshToken.value;
    this.#end("signed_out");
    if (refreshToken) await request("POST", "/api/auth/logout", { body: { refreshToken }, keepalive: true }).catch(() => {});
  }

  /**
   * Returns a token to send. `stale` is a token that the server has just refused.
   * Throws `session_ended` if the session has ended, and `no_answer` and similar codes if that is unknown.
   */
  async token(stale) {
    if (this.#isValid(stale)) return this.#access.token;
    this.#refreshing ??= this.#refresh(stale).finally(() => { this.#refreshing = null; });
    await this.#refreshing;
    return this.#access.token;
  }

  /** The current token, without a refresh: for requests sent while the page closes. */
  get tokenNow() {
    return this.#access?.token;
  }

  #isValid(stale) {
    return this.#access && this.#access.token !== stale && Date.now() < this.#access.expiresAt;
  }

  async #authenticate(path, email, password) {
    const created = await request("POST", path, { body: { email, password } });
    this.#store(created);
    this.#broadcast();
    this.dispatchEvent(new Event("begun"));
    return this.user;
  }

  #refresh(stale) {
    return locked(async ({ waited }) => {
      if (waited && !this.#isValid(stale)) await this.#updateOfAnotherTab();
      if (this.#isValid(stale)) return;
      for (;;) {
        const refreshToken = this.#refreshToken.value;
        if (!refreshToken) throw this.#end("session_ended");
        try {
          this.#store(await request("POST", "/api/auth/refresh", { body: { refreshToken } }));
          break;
        } catch (error) {
          if (!(error instanceof Problem) || error.status !== 401) throw error;
          // If another tab has exchanged the refresh token meanwhile, the next attempt uses the new one.
          if (this.#refreshToken.value === refreshToken) throw this.#end("session_ended");
        }
      }
      this.#broadcast();
    });
  }

  #store({ token, expiresIn, refreshToken, user }) {
    // Refreshed early, so that no token expires while a request is on its way.
    const early = Math.min(10, expiresIn / 10);
    this.#access = { token, expiresAt: Date.now() + (expiresIn - early) * 1000 };
    this.user = user;
    this.#refreshToken.value = refreshToken;
  }

  #broadcast() {
    this.#channel.postMessage({ kind: "token", access: this.#access, user: this.user });
  }

  #onMessage({ kind, access, user, why }) {
    if (!this.lasting) return; // This tab has its own session.
    if (kind === "ending") this.dispatchEvent(new Event("ending"));
    if (kind === "ended") this.#forget(why);
    if (kind !== "token") return;
    // Another account, or a sign-in while this tab shows the form: reload. A tab that is just starting adopts the session.
    const known = this.user ? this.user.id === user.id : this.#refreshing !== null;
    if (!known) return this.#refreshToken.value && location.reload();
    Object.assign(this, { user });
    this.#access = access;
    this.dispatchEvent(new Event("updated"));
  }

  #updateOfAnotherTab() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, BROADCAST_MS);
      this.addEventListener("updated", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }

  /** Ends the session in all tabs. Returns the problem to throw. */
  #end(why) {
    this.#refreshToken.clear();
    this.#channel.postMessage({ kind: "ended", why });
    this.#forget(why);
    return new Problem({ code: "session_ended", status: 401 });
  }

  #forget(why) {
    this.#access = this.user = null;
    this.dispatchEvent(new CustomEvent("ended", { detail: why }));
  }
}

/** Runs `work` while no other tab does. */
async function locked(work) {
  const manager = await locks;
  if (!manager) return work({});
  let ran = false;
  const result = await manager.request(LOCK, { ifAvailable: true }, (lock) => {
    if (!lock) return undefined;
    ran = true;
    return work({});
  });
  return ran ? result : manager.request(LOCK, () => work({ waited: true }));
}

export const session = new Session();
