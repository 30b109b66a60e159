//! Records the driver's command and connection events in the metrics, and as spans of the trace.

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

/// What a call has under way. The driver says nothing of what was cancelled, and deadlines cancel: with the call all of it
/// ends, however that ends.
#[derive(Default)]
struct UnderWay {
    /// By the driver's number.
    commands: RefCell<Vec<(i32, spans::ClientSpan)>>,
    /// For connections.
    waits: RefCell<Vec<Waiting>>,
    /// Server of the last command.
    server: RefCell<Option<ServerAddress>>,
}

/// Counts a call that waits for a connection, in the pool or for its turn, until this is dropped.
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
    static UNDER_WAY: UnderWay;
}

/// Runs a call, its commands as spans, and says which server the last of them went to. The driver tells of a command where it
/// is run: in the call's own task.
pub(super) async fn followed<T>(call: impl Future<Output = T>) -> (T, Option<ServerAddress>) {
    let told = async { (call.await, UNDER_WAY.with(|under_way| under_way.server.take())) };
    UNDER_WAY.scope(UnderWay::default(), told).await
}

/// Hears of a command.
pub(super) fn heard(event: CommandEvent) {
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
    let _ = UNDER_WAY.try_with(|under_way| under_way.server.replace(Some(started.connection.address.clone())));
    if !cfg!(feature = "otlp") {
        return;
    }
    let text = |field: &str| started.command.get_str(field).ok();
    let name = started.command_name.as_str();
    // A command names its collection under its own name, but for the one that goes on with a cursor.
    let collection = if name == "getMore" { text("collection") } else { text(name) };
    let (host, port) = match &started.connection.address {
        ServerAddress::Tcp { host, port } => (host.as_str(), *port),
        _ => ("", None),
    };
    let call = spans::ClientSpan::mongodb(name, &started.db, collection, host, port);
    if call.is_recorded() {
        // Outside of a call there is nobody to end it, so it ends at once.
        let _ = UNDER_WAY.try_with(|under_way| under_way.commands.borrow_mut().push((started.request_id, call)));
    }
}

fn end(request_id: i32, failure: Option<&mongodb::error::Error>) {
    let found = UNDER_WAY.try_with(|under_way| {
        let mut commands = under_way.commands.borrow_mut();
        let at = commands.iter().position(|(id, _)| *id == request_id)?;
        Some(commands.swap_remove(at).1)
    });
    if let Ok(Some(call)) = found {
        call.end(failure.map(kind).as_deref());
    }
}

/// Returns the server's code, else what went wrong in a word.
fn kind(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::Command(refused) => refused.code.to_string(),
        ErrorKind::Io(_) => "io".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// Connections of a pool that are in use. The driver tells of connections that come back without having told that they went out:
/// where the call that wanted one has been given up meanwhile.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<HashSet<(ServerAddress, u32)>>);

impl InUse {
    fn change(&self, change: impl FnOnce(&mut HashSet<(ServerAddress, u32)>) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.len();
        change(&mut all);
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        METRICS.mongodb_connections_used.inc_by(count(all.len()) - count(before));
    }
}

/// Counts the pool's connections, and the calls that wait for one.
pub(super) fn pooled(in_use: &InUse, event: CmapEvent) {
    let open = &METRICS.mongodb_connections;
    // Outside of a call nobody is counted.
    let wait = || {
        let _ = UNDER_WAY.try_with(|under_way| under_way.waits.borrow_mut().push(Waiting::begin()));
    };
    let waited = || {
        let _ = UNDER_WAY.try_with(|under_way| under_way.waits.borrow_mut().pop());
    };
    match event {
        CmapEvent::ConnectionCreated(_) => drop(open.inc()),
        CmapEvent::ConnectionClosed(_) => drop(open.dec()),
        CmapEvent::ConnectionCheckoutStarted(_) => wait(),
        CmapEvent::ConnectionCheckoutFailed(_) => waited(),
        CmapEvent::ConnectionCheckedOut(out) => {
            waited();
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

    /// A call that is given up while it waits takes no connection out, and the driver tells that one has come back.
    #[test]
    fn connections_in_use_are_never_less_than_none() {
        let in_use = InUse::default();
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
