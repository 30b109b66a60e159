//! Records the driver's command and connection events as metrics and as spans.

use std::{
    cell::RefCell,
    collections::HashSet,
    future::Future,
    sync::{Mutex, PoisonError},
};

use mongodb::{
    error::ErrorKind,
    event::{
        cmap::CmapEvent,
        command::{CommandEvent, CommandStartedEvent},
    },
    options::ServerAddress,
};

use crate::{metrics::METRICS, telemetry::spans};

/// Events of an operation that have begun and not ended. The driver emits no event for cancelled operations, and deadlines
/// cancel: dropping this ends them all.
#[derive(Default)]
struct CallEvents {
    /// Commands by the driver's request id.
    commands: RefCell<Vec<(i32, spans::ClientSpan)>>,
    /// Waits for a connection.
    waits: RefCell<Vec<Waiting>>,
    /// Server that the last command was sent to.
    server: RefCell<Option<ServerAddress>>,
}

/// Counts an operation that waits for a permit or a connection, until this is dropped.
pub(super) struct Waiting(());

impl Waiting {
    pub(super) fn begin() -> Self {
        METRICS.mongodb_calls_waiting.inc();
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        METRICS.mongodb_calls_waiting.dec();
    }
}

tokio::task_local! {
    static CALL_EVENTS: CallEvents;
}

/// Runs an operation, with its commands as spans, and returns the server that the last command was sent to. The driver emits
/// command events in the task of the operation.
pub(super) async fn instrument<T>(call: impl Future<Output = T>) -> (T, Option<ServerAddress>) {
    let operation = async { (call.await, CALL_EVENTS.with(|events| events.server.take())) };
    CALL_EVENTS.scope(CallEvents::default(), operation).await
}

/// Handles a command event.
pub(super) fn on_command(event: CommandEvent) {
    match event {
        CommandEvent::Started(started) => begin(&started),
        CommandEvent::Succeeded(done) => {
            METRICS.mongodb_command(&done.command_name, "ok", done.duration);
            end(done.request_id, None);
        }
        CommandEvent::Failed(failed) => {
            METRICS.mongodb_command(&failed.command_name, "error", failed.duration);
            end(failed.request_id, Some(&failed.failure));
        }
        _ => {}
    }
}

fn begin(started: &CommandStartedEvent) {
    let _ = CALL_EVENTS.try_with(|events| events.server.replace(Some(started.connection.address.clone())));
    if !cfg!(feature = "otlp") {
        return;
    }
    let text = |field: &str| started.command.get_str(field).ok();
    let name = started.command_name.as_str();
    // A command names its collection under its own name, except `getMore`.
    let collection = if name == "getMore" { text("collection") } else { text(name) };
    let (host, port) = match &started.connection.address {
        ServerAddress::Tcp { host, port } => (host.as_str(), *port),
        _ => ("", None),
    };
    let call = spans::ClientSpan::mongodb(name, &started.db, collection, host, port);
    if call.is_recorded() {
        // Outside of an operation the span ends at once.
        let _ = CALL_EVENTS.try_with(|events| events.commands.borrow_mut().push((started.request_id, call)));
    }
}

fn end(request_id: i32, failure: Option<&mongodb::error::Error>) {
    let found = CALL_EVENTS.try_with(|events| {
        let mut commands = events.commands.borrow_mut();
        let at = commands.iter().position(|(id, _)| *id == request_id)?;
        Some(commands.swap_remove(at).1)
    });
    if let Ok(Some(call)) = found {
        call.end(failure.map(failure_kind).as_deref());
    }
}

/// Returns the server's error code, or a word for the kind of failure.
fn failure_kind(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::Command(refused) => refused.code.to_string(),
        ErrorKind::Io(_) => "io".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// Connections of a pool that are in use. The driver may report that a connection was returned without having reported that it
/// was taken: if the operation that wanted it was cancelled meanwhile.
#[derive(Debug, Default)]
pub(super) struct ConnectionsInUse(Mutex<HashSet<(ServerAddress, u32)>>);

impl ConnectionsInUse {
    fn change(&self, change: impl FnOnce(&mut HashSet<(ServerAddress, u32)>) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _ = CALL_EVENTS.try_with(|events| events.waits.borrow_mut().push(Waiting::begin()));
    };
    let end_wait = || {
        let _ = CALL_EVENTS.try_with(|events| events.waits.borrow_mut().pop());
    };
    match event {
        CmapEvent::ConnectionCreated(_) => drop(open.inc()),
        CmapEvent::ConnectionClosed(_) => drop(open.dec()),
        CmapEvent::ConnectionCheckoutStarted(_) => begin_wait(),
        CmapEvent::ConnectionCheckoutFailed(_) => end_wait(),
        CmapEvent::ConnectionCheckedOut(out) => {
            end_wait();
            in_use.change(|all| all.insert((out.address, out.connection_id)));
        }
        CmapEvent::ConnectionCheckedIn(back) => in_use.change(|all| all.remove(&(back.address, back.connection_id))),
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
