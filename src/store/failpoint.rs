//! Dying on purpose: how the tests show that a server may be killed after any call to MongoDB or S3.
//!
//! Only builds with the feature `dev` can. A server that was started with `VALET_ABORT_AT=FILE` counts its calls while
//! FILE is there, and aborts, as SIGKILL would end it, after as many as FILE says. So a test arms each server once, for one
//! request, and goes through 1, 2, 3 and so on until the request is answered, without naming the calls.

/// A call to MongoDB or S3 is over.
#[cfg(not(feature = "dev"))]
pub(super) fn passed() {}

#[cfg(feature = "dev")]
tokio::task_local! {
    static UNCOUNTED: ();
}

/// Does work whose calls are not counted, such as trying the store out and a server's own sweeps: no part of any request.
#[cfg(not(feature = "dev"))]
pub async fn uncounted<T>(work: impl Future<Output = T>) -> T {
    work.await
}

/// Does work whose calls are not counted, such as trying the store out and a server's own sweeps: no part of any request.
#[cfg(feature = "dev")]
pub async fn uncounted<T>(work: impl Future<Output = T>) -> T {
    UNCOUNTED.scope((), work).await
}

/// A call to MongoDB or S3 is over; it may have been the last.
#[cfg(feature = "dev")]
pub(super) fn passed() {
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
    let Ok(last) = std::fs::read_to_string(file) else { return };
    if last.trim().parse() == Ok(CALLS.fetch_add(1, SeqCst) + 1) {
        std::process::abort();
    }
}
