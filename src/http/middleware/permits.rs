//! Permits of requests and of bytes for their bodies, shared so that no network and no user takes all of them.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;

use crate::{
    domain::{
        request_origin,
        shares::{Share, Shares},
    },
    http::{operation::Operation, problem::Problem},
    metrics::METRICS,
    model::{NetworkPrefix, UserId},
};

/// Maximum bytes of all bodies in memory together, without the first [`FREE_BODY_BYTES`] of each.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that every body may have without a permit: those of a single operation. The number of connections bounds their sum.
const FREE_BODY_BYTES: usize = 16 * 1024;

/// Number of requests ending sessions that are handled at once in addition to `MAX_REQUESTS`.
const SESSION_ENDING_PERMITS: usize = 64;

/// All permits of the server.
#[derive(Debug)]
pub struct Permits {
    requests: Arc<Shares<NetworkPrefix>>,
    /// Only for requests that end sessions, in addition to `requests`.
    session_ending: Arc<Shares<NetworkPrefix>>,
    users: Arc<Shares<UserId>>,
    body_bytes: Arc<Shares<NetworkPrefix>>,
}

/// A request's or a body's permit, held until it is dropped.
#[derive(Debug, Default)]
pub struct Permit(Option<Share<NetworkPrefix>>);

/// The permits of users, and that of the request's user once the user is known.
struct UserPermit {
    users: Arc<Shares<UserId>>,
    held: Mutex<Option<Share<UserId>>>,
}

tokio::task_local! {
    /// Permit of the user whose request the task handles.
    static USER_PERMIT: UserPermit;
}

/// Acquires the user's permit for the request that this task handles. Without effect outside [`Permits::scope`].
///
/// # Errors
/// 503 at once when the user holds as many permits as one user may.
pub fn acquire_for_user(user: UserId) -> Result<(), Problem> {
    let acquired = USER_PERMIT.try_with(|permit| {
        let share = permit.users.take(user, 1).ok_or_else(too_many_requests)?;
        *permit.held.lock() = Some(share);
        Ok(())
    });
    acquired.unwrap_or(Ok(()))
}

impl Permits {
    /// Creates the permits of at most `requests` requests at once.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        // A single network gets half of the permits, a single user a third: other users of the same network need some, too.
        Self {
            requests: Shares::new(requests),
            session_ending: Shares::new(SESSION_ENDING_PERMITS),
            users: Shares::divided(requests, 2),
            body_bytes: Shares::new(BODY_BYTES),
        }
    }

    /// Acquires the permit of a request. Health checks need none; for requests that end sessions, some are reserved.
    ///
    /// # Errors
    /// 503 at once when no permit is free, or the network holds as many as one network may.
    pub fn acquire(&self, path: &str, operation: Option<&Operation>, network: NetworkPrefix) -> Result<Permit, Problem> {
        if matches!(path, "/livez" | "/readyz") {
            return Ok(Permit(None));
        }
        let share = self.requests.take(network, 1).or_else(|| {
            let reserve = operation.filter(|operation| operation.ends_sessions()).map(|_| &self.session_ending);
            reserve?.take(network, 1)
        });
        share.map(|share| Permit(Some(share))).ok_or_else(too_many_requests)
    }

    /// Runs the handler of a request from this network. A permit of [`acquire_for_user`] is held until the handler ends.
    pub async fn scope<T>(&self, network: NetworkPrefix, handler: impl Future<Output = T>) -> T {
        let permit = UserPermit { users: self.users.clone(), held: Mutex::new(None) };
        request_origin::scope(network, USER_PERMIT.scope(permit, handler)).await
    }

    /// Extends the permit of a body that has grown to `bytes`.
    ///
    /// # Errors
    /// 503 when other bodies hold all bytes, or the network holds as many as one network may.
    pub fn extend(&self, permit: &mut Permit, bytes: usize, network: NetworkPrefix) -> Result<(), Problem> {
        let held_bytes = permit.0.as_ref().map_or(0, Share::count);
        let more = bytes.saturating_sub(FREE_BODY_BYTES + held_bytes);
        let fits = match &mut permit.0 {
            _ if more == 0 => true,
            Some(share) => share.grow(more),
            none => {
                *none = self.body_bytes.take(network, more);
                none.is_some()
            }
        };
        if fits { Ok(()) } else { Err(too_many_requests()) }
    }
}

/// Returns the 503 for a request beyond the number that the server handles at once.
fn too_many_requests() -> Problem {
    METRICS.requests_shed.inc();
    Problem::too_many("Too many requests are under way.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::operations;

    #[test]
    fn sessions_can_be_ended_while_other_requests_hold_all_permits() {
        let permits = Permits::new(8);
        let network = NetworkPrefix::site("203.0.113.7".parse().unwrap());
        let acquire = |id: &str| permits.acquire("/api", Some(operations::find(id).unwrap()), network);
        let flood: Vec<_> = std::iter::from_fn(|| acquire("list_images").ok()).collect();
        assert_eq!(flood.len(), 4, "a single network gets half of the permits");
        for operation in ["list_images", "refresh_session", "log_in"] {
            assert!(acquire(operation).is_err(), "{operation}");
        }
        for operation in ["log_out", "list_sessions", "end_session"] {
            assert!(acquire(operation).is_ok(), "{operation}");
        }
    }
}
