//! Records operations and the driver's connection events as metrics and as spans.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    future::Future,
    time::Instant,
};

use mongodb::{
    Collection,
    error::{ErrorKind, WriteFailure},
    event::cmap::CmapEvent,
    options::ServerAddress,
};
use parking_lot::Mutex;
use tokio::time::error::Elapsed;

use crate::{metrics::METRICS, telemetry::spans};

/// A command on a collection, as metrics and spans name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    command: &'static str,
    collection: Option<&'a str>,
}

/// Defines constructors for operations on a collection.
macro_rules! operations {
    ($($name:ident $command:literal)*) => {
        impl<'a> Operation<'a> {
            $(#[doc = concat!("Returns the operation `", $command, "` on a collection.")]
            pub(super) fn $name<T: Send + Sync>(collection: &'a Collection<T>) -> Self {
                Self { command: $command, collection: Some(collection.name()) }
            })*
        }
    };
}

operations! {
    aggregate "aggregate"
    count "count"
    create_indexes "createIndexes"
    delete "delete"
    drop "drop"
    drop_indexes "dropIndexes"
    find "find"
    find_and_modify "findAndModify"
    insert "insert"
    transaction "transaction"
    update "update"
}

impl Operation<'static> {
    pub(super) const BUILD_INFO: Self = Self { command: "buildInfo", collection: None };
    pub(super) const HELLO: Self = Self { command: "hello", collection: None };
    pub(super) const PING: Self = Self { command: "ping", collection: None };
}

/// Waits and the connection of an operation, from the driver's events. The driver emits no event for a cancelled operation, and a
/// deadline cancels; dropping this value ends the waits that are counted.
#[derive(Default)]
struct CallEvents {
    /// Waits for a connection.
    waits: RefCell<Vec<CountedWait>>,
    /// Time at which the operation got its first connection.
    began: Cell<Option<Instant>>,
    /// Server of its last connection.
    server: RefCell<Option<ServerAddress>>,
}

/// Counts an operation that waits for a permit or a connection, until this is dropped.
pub(super) struct CountedWait(());

impl CountedWait {
    /// Counts an operation that begins to wait.
    pub(super) fn begin() -> Self {
        METRICS.mongodb_calls_waiting.inc();
        Self(())
    }
}

impl Drop for CountedWait {
    fn drop(&mut self) {
        METRICS.mongodb_calls_waiting.dec();
    }
}

tokio::task_local! {
    static CALL_EVENTS: CallEvents;
}

/// Runs an operation, as a span and in the metrics, and returns the server that it was sent to last. The driver emits the events
/// of a connection in the task of the operation.
///
/// The driver's command events contain the same, but for them the driver converts each command and each reply to a document.
///
/// # Errors
/// [`Elapsed`] if the operation has not ended at `deadline`.
pub(super) async fn instrument<T>(
    operation: Operation<'_>,
    database: &str,
    deadline: tokio::time::Instant,
    call: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<(mongodb::error::Result<T>, Option<ServerAddress>), Elapsed> {
    let started_at = Instant::now();
    let span = spans::ClientSpan::mongodb(operation.command, database, operation.collection);
    let measured = async {
        let done = tokio::time::timeout_at(deadline, call).await;
        CALL_EVENTS.with(|events| (done, events.began.get(), events.server.take()))
    };
    let (done, began, server) = CALL_EVENTS.scope(CallEvents::default(), measured).await;
    if let Some(ServerAddress::Tcp { host, port }) = &server {
        span.record_server(host, *port);
    }
    let outcome = if done.as_ref().is_ok_and(|done| done.as_ref().err().is_none_or(is_rejected_write)) { "ok" } else { "error" };
    METRICS.record_mongodb_command(operation.command, outcome, began.unwrap_or(started_at).elapsed());
    match &done {
        Ok(Ok(_)) => span.end(None),
        Ok(Err(error)) if is_rejected_write(error) => span.end(None),
        Ok(Err(error)) => span.end(Some(&failure_kind(error))),
        Err(_) => span.end(Some("timeout")),
    }
    done.map(|done| (done, server))
}

/// Returns whether the server processed a write and rejected documents in it, such as for a unique index: an answer, not a failure.
fn is_rejected_write(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(_)) => true,
        ErrorKind::InsertMany(failure) => failure.write_concern_error.is_none(),
        _ => false,
    }
}

/// Returns the server's error code, or a word for the kind of failure.
fn failure_kind(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::Command(failure) => failure.code.to_string(),
        ErrorKind::Io(_) => "io".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// Connections of a pool that are in use. If an operation is cancelled while it waits for a connection, the driver may report that
/// the connection was returned without having reported that it was taken.
#[derive(Debug, Default)]
pub(super) struct ConnectionsInUse(Mutex<HashSet<(ServerAddress, u32)>>);

impl ConnectionsInUse {
    /// Changes the set of connections in use, and updates the gauge by the difference.
    fn change(&self, change: impl FnOnce(&mut HashSet<(ServerAddress, u32)>) -> bool) {
        let mut all = self.0.lock();
        let before = all.len();
        change(&mut all);
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        METRICS.mongodb_connections_used.inc_by(count(all.len()) - count(before));
    }
}

/// Handles a connection pool event.
pub(super) fn on_pool_event(in_use: &ConnectionsInUse, event: CmapEvent) {
    let open = &METRICS.mongodb_connections;
    // Outside of an operation no wait is counted.
    let begin_wait = || {
        let _ = CALL_EVENTS.try_with(|events| events.waits.borrow_mut().push(CountedWait::begin()));
    };
    let end_wait = || {
        let _ = CALL_EVENTS.try_with(|events| events.waits.borrow_mut().pop());
    };
    match event {
        CmapEvent::ConnectionCreated(_) => drop(open.inc()),
        CmapEvent::ConnectionClosed(_) => drop(open.dec()),
        CmapEvent::ConnectionCheckoutStarted(_) => begin_wait(),
        CmapEvent::ConnectionCheckoutFailed(_) => end_wait(),
        CmapEvent::ConnectionCheckedOut(taken) => {
            end_wait();
            let _ = CALL_EVENTS.try_with(|events| {
                events.began.set(events.began.get().or_else(|| Some(Instant::now())));
                events.server.replace(Some(taken.address.clone()));
            });
            in_use.change(|all| all.insert((taken.address, taken.connection_id)));
        }
        CmapEvent::ConnectionCheckedIn(returned) => {
            in_use.change(|all| all.remove(&(returned.address, returned.connection_id)));
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// An operation that is cancelled while it waits takes no connection, but the driver reports that one was returned.
    #[test]
    fn connections_in_use_are_never_negative() {
        let in_use = ConnectionsInUse::default();
        let address: ServerAddress = "127.0.0.1:1".parse().unwrap();
        let key = |id| (address.clone(), id);
        let before = METRICS.mongodb_connections_used.get();
        in_use.change(|all| all.remove(&key(1)));
        assert_eq!(METRICS.mongodb_connections_used.get() - before, 0);
        in_use.change(|all| all.insert(key(1)));
        in_use.change(|all| all.insert(key(2)));
        assert_eq!(METRICS.mongodb_connections_used.get() - before, 2);
        for id in [1, 1, 2] {
            in_use.change(|all| all.remove(&key(id)));
        }
        assert_eq!(METRICS.mongodb_connections_used.get() - before, 0);
    }
}
