//! The origin (network and user) of the request that a task answers, for resources shared between callers: permits for MongoDB,
//! and limits of users that also count for their networks.
//!
//! Task-local, not a parameter of every query, because no query's result depends on it. Work outside of a request (the sweeper,
//! the commands) has no origin.

use std::{cell::Cell, future::Future};

use crate::model::{NetworkPrefix, RequestOrigin, UserId};

tokio::task_local! {
    static ORIGIN: Cell<RequestOrigin>;
}

/// Runs the future that answers a request from this network.
pub async fn scope<T>(site: NetworkPrefix, answer: impl Future<Output = T>) -> T {
    ORIGIN.scope(Cell::new(RequestOrigin { site, user: None }), answer).await
}

/// Records the verified user of the task's request; does nothing outside of a request.
pub fn identify(user: UserId) {
    let _ = ORIGIN.try_with(|origin| origin.set(RequestOrigin { user: Some(user), ..origin.get() }));
}

/// Returns work for another task, with the origin of the current one.
pub fn inherit<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let origin = current();
    async move {
        match origin {
            Some(origin) => ORIGIN.scope(Cell::new(origin), work).await,
            None => work.await,
        }
    }
}

/// Returns the origin of the task's request; `None` outside of one.
#[must_use]
pub fn current() -> Option<RequestOrigin> {
    ORIGIN.try_with(Cell::get).ok()
}
