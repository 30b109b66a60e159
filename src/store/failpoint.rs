//! A failpoint for tests: aborts the process after a given number of calls to MongoDB and S3.
//!
//! Only builds with the feature `dev` have it. A server that was started with `VALET_ABORT_AT=FILE` counts its calls while FILE
//! exists, and aborts, as with SIGKILL, after the number of calls in FILE. A test arms each server once, for one request, and
//! tries 1, 2, 3 and so on until the request is answered, without naming the calls.

/// Does nothing: only builds with the feature `dev` count calls.
#[cfg(not(feature = "dev"))]
pub(super) fn count_call() {}

#[cfg(feature = "dev")]
tokio::task_local! {
    static UNCOUNTED: ();
}

/// Runs work whose calls are not counted, because it belongs to no request: capability probes and the server's own sweeps.
#[cfg(not(feature = "dev"))]
pub async fn without_failpoints<T>(work: impl Future<Output = T>) -> T {
    work.await
}

/// Runs work whose calls are not counted, because it belongs to no request: capability probes and the server's own sweeps.
#[cfg(feature = "dev")]
pub async fn without_failpoints<T>(work: impl Future<Output = T>) -> T {
    UNCOUNTED.scope((), work).await
}

/// Returns work for another task, whose calls are counted if those of the current task are.
#[cfg(not(feature = "dev"))]
pub(super) fn inherit<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    work
}

/// Returns work for another task, whose calls are counted if those of the current task are.
#[cfg(feature = "dev")]
pub(super) fn inherit<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let is_uncounted = UNCOUNTED.try_with(|()| ()).is_ok();
    async move { if is_uncounted { UNCOUNTED.scope((), work).await } else { work.await } }
}

/// Counts a finished call to MongoDB or S3, and aborts the process at the call whose number is in the file.
#[cfg(feature = "dev")]
pub(super) fn count_call() {
    if UNCOUNTED.try_with(|()| ()).is_ok() {
        return;
    }
    use std::{
        path::PathBuf,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
    };
    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("VALET_ABORT_AT").map(PathBuf::from));
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let Some(file) = &*FILE else { return };
    let Ok(last_call) = std::fs::read_to_string(file) else { return };
    if last_call.trim().parse() == Ok(CALLS.fetch_add(1, SeqCst) + 1) {
        std::process::abort();
    }
}
