//! What the driver says of its commands and connections: to the metrics, and as spans of the trace.

use std::{cell::RefCell, future::Future};

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
    commands: RefCell<Vec<(i32, spans::Call)>>,
    /// For connections.
    waits: RefCell<Vec<Waiting>>,
    /// Who was sent the last command.
    server: RefCell<Option<ServerAddress>>,
}

/// Somebody who waits for a connection, in the pool or for a turn at it, until this is dropped.
pub(super) struct Waiting(());

impl Waiting {
    pub(super) fn begin() -> Self {
        METRICS.mongodb_connections_waiting.inc();
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        METRICS.mongodb_connections_waiting.dec();
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
    let server = match &started.connection.address {
        ServerAddress::Tcp { host, port } => (host.as_str(), *port),
        _ => ("", None),
    };
    let call = spans::Call::mongodb(name, &started.db, collection, server);
    if call.is_kept() {
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

/// The server's code, else what went wrong in a word.
fn kind(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::Command(refused) => refused.code.to_string(),
        ErrorKind::Io(_) => "io".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// Counts the pool's connections, and who waits for one.
pub(super) fn pooled(event: CmapEvent) {
    let (open, used) = (&METRICS.mongodb_connections, &METRICS.mongodb_connections_used);
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
        CmapEvent::ConnectionCheckedOut(_) => {
            waited();
            used.inc();
        }
        CmapEvent::ConnectionCheckedIn(_) => drop(used.dec()),
        _ => {}
    }
}
