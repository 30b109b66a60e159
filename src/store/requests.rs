//! The caller of the request that a task answers, for what is shared between callers below the handlers: turns at MongoDB, and
//! limits of users that count for their networks as well.
//!
//! It is the task's, not a parameter of every query: a query decides nothing by it. What runs in no request (the sweeper, the
//! commands) has no caller.

use std::{cell::Cell, future::Future};

use crate::model::{Holder, Prefix, UserId};

tokio::task_local! {
    static CALLER: Cell<Holder>;
}

/// Runs the answer to a request that comes from this network.
pub async fn scope<T>(site: Prefix, answer: impl Future<Output = T>) -> T {
    CALLER.scope(Cell::new(Holder { site, user: None }), answer).await
}

/// Notes the user that the task's request proved to come from; does nothing outside of a request.
pub fn identify(user: UserId) {
    let _ = CALLER.try_with(|caller| caller.set(Holder { user: Some(user), ..caller.get() }));
}

/// Returns the caller of the task's request; `None` outside of one.
#[must_use]
pub fn caller() -> Option<Holder> {
    CALLER.try_with(Cell::get).ok()
}
