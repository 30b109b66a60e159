// Adds `signal.reason` and `signal.throwIfAborted()` where they are missing, as in React Native. Runtimes that have both stay unchanged.
// Imported before the modules that use them.

const { prototype: controllers } = AbortController;
const { prototype: signals } = AbortSignal;

if (!("throwIfAborted" in signals)) {
  Object.defineProperty(signals, "throwIfAborted", {
    configurable: true,
    writable: true,
    value() {
      if (this.aborted) throw this.reason;
    },
  });
}

if (!("reason" in signals)) {
  const { abort } = controllers;
  controllers.abort = function abortWithReason(reason = Object.assign(new Error("The operation was aborted."), { name: "AbortError" })) {
    if (!this.signal.aborted) Object.defineProperty(this.signal, "reason", { configurable: true, value: reason });
    return abort.call(this);
  };
}
