//! Tracks elections, to know when reads from the primary show every acknowledged write.
//!
//! A new primary has every acknowledged write, but does not know yet that a majority has them: until a write of its own term is
//! acknowledged, a read with the concern "majority" may miss the latest of them, such as the deletion of an image. (Raft,
//! section 8: a leader commits a no-op at the start of its term before it answers reads; MongoDB answers without.) This file
//! records the latest election, and whether a majority has the elected primary's write; `mongo` runs the commands.
//!
//! Limit: if a primary loses its majority and a server observes no other primary, the server reads from it until it steps down
//! (`electionTimeoutMillis`, 10 s).

use mongodb::{
    bson::{Document, Timestamp, oid::ObjectId},
    event::sdam::SdamEvent,
    options::ServerAddress,
};
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};

/// The latest election, and the primary that was confirmed current.
#[derive(Debug, Default)]
pub(super) struct Elections {
    state: RwLock<State>,
    /// Held by the one task that waits until the primary is current.
    catch_up_lock: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The latest known election; election ids grow.
    latest: Option<ObjectId>,
    /// The primary that has caught up, and its election.
    caught_up: Option<(ServerAddress, ObjectId)>,
    /// Number of times a primary was confirmed current; used as a generation.
    generation: u64,
    /// Whether the server has no elections of its own: a router, which knows only those of its shards, or a server without
    /// replication.
    not_replicated: bool,
}

/// The state of a server, from its reply to `hello`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HelloState {
    /// The elected primary, with its latest write.
    Primary { election: ObjectId, written: Timestamp },
    /// A member of a replica set that is not its primary, or that has not read the set's configuration yet.
    NotPrimary,
    /// A router, or a server without replication.
    NotReplicated,
}

impl HelloState {
    /// Parses the reply to `hello`.
    pub(super) fn read(hello: &Document) -> Self {
        // A member without a configuration has no `setName` but `isreplicaset` (specification of server discovery, "RSGhost").
        if !hello.contains_key("setName") {
            let is_member = hello.get_bool("isreplicaset").unwrap_or(false);
            return if is_member { Self::NotPrimary } else { Self::NotReplicated };
        }
        let election = hello.get_object_id("electionId").ok();
        let written = hello.get_document("lastWrite").and_then(|write| write.get_document("opTime"));
        let written = written.ok().and_then(|at| at.get_timestamp("ts").ok());
        match (hello.get_bool("isWritablePrimary"), election, written) {
            (Ok(true), Some(election), Some(written)) => Self::Primary { election, written },
            _ => Self::NotPrimary,
        }
    }
}

impl Elections {
    /// Handles a heartbeat event of the driver's monitors.
    pub(super) fn on_heartbeat(&self, event: &SdamEvent) {
        let SdamEvent::ServerHeartbeatSucceeded(beat) = event else { return };
        if let HelloState::Primary { election, .. } = HelloState::read(&beat.reply) {
            self.write(|state| state.observe(election));
        }
    }

    /// Returns whether a read that the server `from` just answered shows every acknowledged write.
    pub(super) fn is_current(&self, from: &ServerAddress) -> bool {
        self.read(|state| state.not_replicated || state.is_current(|address| address == from))
    }

    /// Returns the current generation.
    pub(super) fn generation(&self) -> u64 {
        self.read(|state| state.generation)
    }

    /// Returns whether a primary was confirmed current after `generation`, and still is.
    pub(super) fn has_caught_up_since(&self, generation: u64) -> bool {
        self.read(|state| state.not_replicated || state.generation > generation && state.is_current(|_| true))
    }

    /// Returns the latest known election.
    pub(super) fn latest_election(&self) -> Option<ObjectId> {
        self.read(|state| state.latest)
    }

    /// Acquires the lock of the task that waits until the primary is current.
    pub(super) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.catch_up_lock.lock().await
    }

    /// Marks the primary as caught up, after its write was acknowledged. Returns `false` if an election newer than `latest` was
    /// observed.
    pub(super) fn mark_caught_up(&self, latest: Option<ObjectId>, address: ServerAddress, election: ObjectId) -> bool {
        self.write(|state| {
            let is_latest = state.latest == latest || state.latest == Some(election);
            if is_latest {
                let generation = state.generation + 1;
                *state =
                    State { latest: Some(election), caught_up: Some((address, election)), generation, not_replicated: false };
            }
            is_latest
        })
    }

    /// Records that the server has no elections and so is always current. Returns `true`.
    pub(super) fn mark_not_replicated(&self) -> bool {
        self.write(|state| state.not_replicated = true);
        true
    }

    /// Reads the state under its lock.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read())
    }

    /// Changes the state under its lock.
    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        write(&mut self.state.write())
    }
}

impl State {
    /// Records an election. A server that has elections is replicated, also if it was not at an earlier start.
    fn observe(&mut self, election: ObjectId) {
        self.latest = self.latest.max(Some(election));
        self.not_replicated = false;
    }

    /// Returns whether the server that has caught up has this address, and no later election was observed.
    fn is_current(&self, has_address: impl FnOnce(&ServerAddress) -> bool) -> bool {
        self.caught_up.as_ref().is_some_and(|(address, election)| has_address(address) && self.latest == Some(*election))
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    /// Returns the election of this term.
    fn election(term: u8) -> ObjectId {
        let mut id = [0; 12];
        id[11] = term;
        ObjectId::from_bytes(id)
    }

    /// Returns the address of a server on this port.
    fn server(port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) }
    }

    #[test]
    fn state_of_a_server_is_read_from_its_hello_reply() {
        let written = Timestamp { time: 7, increment: 1 };
        let last_write = doc! { "opTime": { "ts": written, "t": 3_i64 } };
        let primary = doc! { "setName": "rs", "isWritablePrimary": true, "electionId": election(3), "lastWrite": last_write };
        assert_eq!(HelloState::read(&primary), HelloState::Primary { election: election(3), written });
        let secondary = doc! { "setName": "rs", "isWritablePrimary": false, "secondary": true };
        assert_eq!(HelloState::read(&secondary), HelloState::NotPrimary);
        assert_eq!(HelloState::read(&doc! { "isWritablePrimary": true, "msg": "isdbgrid" }), HelloState::NotReplicated);
        assert_eq!(HelloState::read(&doc! { "isWritablePrimary": true }), HelloState::NotReplicated);
        let unconfigured = doc! { "isWritablePrimary": false, "isreplicaset": true };
        assert_eq!(HelloState::read(&unconfigured), HelloState::NotPrimary);
    }

    #[test]
    fn no_primary_is_current_before_it_caught_up_or_after_the_next_election() {
        let elections = Elections::default();
        assert!(!elections.is_current(&server(1)));
        assert!(elections.mark_caught_up(None, server(1), election(1)));
        assert!(
            elections.is_current(&server(1))
                && !elections.is_current(&server(2))
                && elections.has_caught_up_since(0)
                && !elections.has_caught_up_since(1)
        );
        // Another server is elected, and observed before it has caught up.
        elections.write(|state| state.observe(election(2)));
        assert!(!elections.is_current(&server(1)) && !elections.is_current(&server(2)));
        // A check that began before found the earlier primary.
        assert!(!elections.mark_caught_up(Some(election(1)), server(1), election(1)));
        assert!(elections.mark_caught_up(Some(election(2)), server(2), election(2)));
        assert!(elections.is_current(&server(2)) && elections.has_caught_up_since(1));
    }

    #[test]
    fn a_reelected_server_must_catch_up_again() {
        let elections = Elections::default();
        assert!(elections.mark_caught_up(None, server(1), election(1)));
        elections.write(|state| state.observe(election(3)));
        assert!(!elections.is_current(&server(1)));
    }

    #[test]
    fn a_server_without_replication_is_always_current() {
        let elections = Elections::default();
        assert!(elections.mark_not_replicated() && elections.is_current(&server(1)));
    }

    #[test]
    fn a_server_that_was_restarted_as_a_replica_set_must_catch_up() {
        let elections = Elections::default();
        assert!(elections.mark_not_replicated());
        elections.write(|state| state.observe(election(1)));
        assert!(!elections.is_current(&server(1)) && !elections.has_caught_up_since(0));
        assert!(elections.mark_caught_up(Some(election(1)), server(1), election(1)) && elections.is_current(&server(1)));
    }
}
