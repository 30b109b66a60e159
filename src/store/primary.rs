//! Tracks elections, to know when reads from the primary show every acknowledged write.
//!
//! A new primary has every acknowledged write, but does not know yet that a majority has them: until a write of its own term is
//! acknowledged, a read with the concern "majority" may miss the latest of them, such as the deletion of an image. (Raft,
//! section 8: a leader commits a no-op at the start of its term before it answers reads; MongoDB answers without.) This file
//! records who was elected and whether that write is through; `mongo` runs the commands.
//!
//! Limit: a server that observes no other primary reads from one that has lost its majority, until that one steps down
//! (`electionTimeoutMillis`, 10 s).

use std::sync::{PoisonError, RwLock};

use mongodb::{
    bson::{Document, Timestamp, oid::ObjectId},
    event::sdam::SdamEvent,
    options::ServerAddress,
};
use tokio::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(super) struct Primary {
    known: RwLock<Known>,
    following: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// The latest known election; election ids grow.
    heard: Option<ObjectId>,
    /// The primary that has caught up, and its election.
    followed: Option<(ServerAddress, ObjectId)>,
    /// Number of times a primary was confirmed current; used as a generation.
    times: u64,
    /// A router, which knows the elections of its shards alone, or a server without replication.
    not_replicated: bool,
}

/// The state of a server, from its reply to `hello`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The elected primary, with its latest write.
    Primary {
        election: ObjectId,
        written: Timestamp,
    },
    /// A member of a replica set that is not its primary.
    NotPrimary,
    NotReplicated,
}

impl Standing {
    /// Parses the reply to `hello`.
    pub(super) fn read(hello: &Document) -> Self {
        if !hello.contains_key("setName") {
            return Self::NotReplicated;
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

impl Primary {
    /// Handles a heartbeat event of the driver's monitors.
    pub(super) fn hear(&self, event: &SdamEvent) {
        let SdamEvent::ServerHeartbeatSucceeded(beat) = event else { return };
        if let Standing::Primary { election, .. } = Standing::read(&beat.reply) {
            self.write(|known| known.heard = known.heard.max(Some(election)));
        }
    }

    /// Returns whether a read that this server just answered shows every acknowledged write.
    pub(super) fn holds(&self, from: &ServerAddress) -> bool {
        self.look(|known| known.not_replicated || known.holds(|address| address == from))
    }

    /// Returns the current generation.
    pub(super) fn times(&self) -> u64 {
        self.look(|known| known.times)
    }

    /// Returns whether a primary was confirmed current after generation `times`, and still is.
    pub(super) fn holds_since(&self, times: u64) -> bool {
        self.look(|known| known.not_replicated || known.times > times && known.holds(|_| true))
    }

    /// Returns the latest known election.
    pub(super) fn heard(&self) -> Option<ObjectId> {
        self.look(|known| known.heard)
    }

    /// Acquires the lock for finding the primary.
    pub(super) async fn following(&self) -> MutexGuard<'_, ()> {
        self.following.lock().await
    }

    /// Marks the primary as caught up, after its write was acknowledged. Returns `false` if an election newer than `heard` was
    /// observed.
    pub(super) fn follow(&self, heard: Option<ObjectId>, address: ServerAddress, election: ObjectId) -> bool {
        self.write(|known| {
            let same = known.heard == heard || known.heard == Some(election);
            if same {
                let times = known.times + 1;
                *known = Known { heard: Some(election), followed: Some((address, election)), times, not_replicated: false };
            }
            same
        })
    }

    pub(super) fn is_not_replicated(&self) -> bool {
        self.write(|known| known.not_replicated = true);
        true
    }

    /// Ignoring poisoning is safe: the closures do not panic.
    fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Known) -> T) -> T {
        write(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn holds(&self, is_it: impl FnOnce(&ServerAddress) -> bool) -> bool {
        self.followed.as_ref().is_some_and(|(address, election)| is_it(address) && self.heard == Some(*election))
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn election(term: u8) -> ObjectId {
        let mut id = [0; 12];
        id[11] = term;
        ObjectId::from_bytes(id)
    }

    fn server(port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(port) }
    }

    #[test]
    fn hello_tells_the_state_of_a_server() {
        let written = Timestamp { time: 7, increment: 1 };
        let last_write = doc! { "opTime": { "ts": written, "t": 3_i64 } };
        let primary = doc! { "setName": "rs", "isWritablePrimary": true, "electionId": election(3), "lastWrite": last_write };
        assert_eq!(Standing::read(&primary), Standing::Primary { election: election(3), written });
        let secondary = doc! { "setName": "rs", "isWritablePrimary": false, "secondary": true };
        assert_eq!(Standing::read(&secondary), Standing::NotPrimary);
        assert_eq!(Standing::read(&doc! { "isWritablePrimary": true, "msg": "isdbgrid" }), Standing::NotReplicated);
    }

    #[test]
    fn no_primary_is_current_before_it_caught_up_or_after_the_next_election() {
        let primary = Primary::default();
        assert!(!primary.holds(&server(1)));
        assert!(primary.follow(None, server(1), election(1)));
        assert!(primary.holds(&server(1)) && !primary.holds(&server(2)) && primary.holds_since(0) && !primary.holds_since(1));
        // Another server is elected, and observed before it has caught up.
        primary.write(|known| known.heard = Some(election(2)));
        assert!(!primary.holds(&server(1)) && !primary.holds(&server(2)));
        // A check that began before found the earlier primary.
        assert!(!primary.follow(Some(election(1)), server(1), election(1)));
        assert!(primary.follow(Some(election(2)), server(2), election(2)));
        assert!(primary.holds(&server(2)) && primary.holds_since(1));
    }

    #[test]
    fn a_reelected_server_must_catch_up_again() {
        let primary = Primary::default();
        assert!(primary.follow(None, server(1), election(1)));
        primary.write(|known| known.heard = Some(election(3)));
        assert!(!primary.holds(&server(1)));
    }

    #[test]
    fn a_server_without_replication_is_always_current() {
        let primary = Primary::default();
        assert!(primary.is_not_replicated() && primary.holds(&server(1)));
    }
}
