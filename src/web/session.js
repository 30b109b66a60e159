// Who is signed in: tokens, silent refresh, and the same answer in every tab.
//
// The access token lives in memory only, one per tab. The refresh token lives in localStorage, because a rotating token must
// have one home: copies in each tab's sessionStorage would differ after the first refresh, and a tab that used an old one
// would end the session for all (after five minutes the server takes that for theft). A script injected into the page could read it there;
// that is what the page's content security policy is for, and a session can be ended from any other device.
//
// One refresh for all tabs: a Web Lock lets one tab ask, a BroadcastChannel hands its answer to the others. Where there are no
// locks (plain http from an address in the local network) two tabs may ask at once; the server gives both the same next token.
//
// Where the browser denies localStorage, each tab has a session of its own, in memory, that ends with the page.

import { Problem, request } from "./http.js";
import { channel, Kept, locks } from "./storage.js";

const STORE = "valet.refresh";
const LOCK = "valet.refresh";
/** How long a tab that waited for the lock waits for the answer of the tab that held it. */
const BROADCAST_MS = 500;

class Session extends EventTarget {
  user = null;
  #access = null; // { token, expiresAt }
  #refreshing = null;
  #refreshToken = new Kept("localStorage", STORE);
  #channel = channel("valet.session");

  constructor() {
    super();
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    // What the channel does not say, such as cleared site data; and a sign-in whose message came before its token was to be seen.
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

  /** Takes up the session of an earlier visit. The user, or null when there is none. */
  async resume() {
    if (!this.#refreshToken.value) return null;
    await this.token();
    return this.user;
  }

  signUp(email, password) {
    return this.#enter("/api/auth/signup", email, password);
  }

  signIn(email, password) {
    return this.#enter("/api/auth/login", email, password);
  }

  /** Ends the session here and in every tab. Works offline: then the server learns of it when the session expires. */
  async signOut() {
    const refreshToken = this.#refreshToken.value;
    this.#end("signed_out");
    if (refreshToken) await request("POST", "/api/auth/logout", { body: { refreshToken }, keepalive: true }).catch(() => {});
  }

  /**
   * A token to send. `stale` is one that the server has just refused.
   * Throws `session_ended` when there is nothing left to refresh, and `no_answer` and the like when that is not known.
   */
  async token(stale) {
    if (this.#good(stale)) return this.#access.token;
    this.#refreshing ??= this.#refresh(stale).finally(() => { this.#refreshing = null; });
    await this.#refreshing;
    return this.#access.token;
  }

  /** The token at hand, without any waiting: for requests sent while the page closes. */
  get tokenNow() {
    return this.#access?.token;
  }

  #good(stale) {
    return this.#access && this.#access.token !== stale && Date.now() < this.#access.expiresAt;
  }

  async #enter(path, email, password) {
    const answer = await request("POST", path, { body: { email, password } });
    this.#take(answer);
    this.#say();
    this.dispatchEvent(new Event("begun"));
    return this.user;
  }

  #refresh(stale) {
    return locked(async (waited) => {
      if (waited && !this.#good(stale)) await this.#answerOfAnotherTab();
      if (this.#good(stale)) return;
      for (;;) {
        const refreshToken = this.#refreshToken.value;
        if (!refreshToken) throw this.#end("session_ended");
        try {
          this.#take(await request("POST", "/api/auth/refresh", { body: { refreshToken } }));
          break;
        } catch (error) {
          if (!(error instanceof Problem) || error.status !== 401) throw error;
          // Where another tab has exchanged it meanwhile, the token to try is the one that it was given.
          if (this.#refreshToken.value === refreshToken) throw this.#end("session_ended");
        }
      }
      this.#say();
    });
  }

  #take({ token, expiresIn, refreshToken, user }) {
    // Refreshed a little early, so that no request is refused on the way for being seconds late.
    const early = Math.min(10, expiresIn / 10);
    this.#access = { token, expiresAt: Date.now() + (expiresIn - early) * 1000 };
    this.user = user;
    this.#refreshToken.value = refreshToken;
  }

  #say() {
    this.#channel.postMessage({ kind: "token", access: this.#access, user: this.user });
  }

  #hear({ kind, access, user, why }) {
    if (!this.lasting) return; // This tab's session is its own.
    if (kind === "ended") this.#forget(why);
    if (kind !== "token") return;
    // Another account, or a sign-in while this tab shows the form: begin as a fresh tab does. A tab that is just starting takes it as its own.
    const known = this.user ? this.user.id === user.id : this.#refreshing !== null;
    if (!known) return this.#refreshToken.value && location.reload();
    Object.assign(this, { user });
    this.#access = access;
    this.dispatchEvent(new Event("heard"));
  }

  #answerOfAnotherTab() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, BROADCAST_MS);
      this.addEventListener("heard", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }

  /** Returns the problem to throw. */
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

/** Runs `work` while no other tab does; tells it whether it had to wait for one. */
async function locked(work) {
  const manager = await locks;
  if (!manager) return work(false);
  let ran = false;
  const result = await manager.request(LOCK, { ifAvailable: true }, (lock) => {
    if (!lock) return undefined;
    ran = true;
    return work(false);
  });
  return ran ? result : manager.request(LOCK, () => work(true));
}

export const session = new Session();
