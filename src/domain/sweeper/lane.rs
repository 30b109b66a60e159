//! The lane for slow images. Images that exceed its capacity stay in the database's queue.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::store::QueuedImage;

/// Capacity of the lane in images, waiting or being settled: in total, and per owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) all: usize,
    pub(super) of_one_owner: usize,
}

/// Sender of the lane.
#[derive(Debug)]
pub(super) struct SlowLane {
    sender: mpsc::Sender<QueuedImage>,
    room: Room,
    held: Arc<Held>,
}

/// Receiver of the lane.
#[derive(Debug)]
pub(super) struct SlowQueue {
    receiver: mpsc::Receiver<QueuedImage>,
    held: Arc<Held>,
}

/// Number of images in the lane by owner.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<String, usize>>);

impl Held {
    fn enter(&self, owner: &str, room: Room) -> bool {
        let mut held = self.0.lock();
        let has_room = held.values().sum::<usize>() < room.all && held.get(owner).is_none_or(|count| *count < room.of_one_owner);
        if has_room {
            *held.entry(owner.to_owned()).or_default() += 1;
        }
        has_room
    }

    fn leave(&self, owner: &str) {
        let mut held = self.0.lock();
        if let Some(count) = held.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                held.remove(owner);
            }
        }
    }
}

/// Creates a lane.
pub(super) fn slow_lane(room: Room) -> (SlowLane, SlowQueue) {
    let (sender, receiver) = mpsc::channel(room.all);
    let held = Arc::<Held>::default();
    (SlowLane { sender, room, held: Arc::clone(&held) }, SlowQueue { receiver, held })
}

impl SlowLane {
    /// Takes an image if there is room. Otherwise it becomes due again soon, which does not count as a failure.
    pub(super) fn take(&self, due: QueuedImage) {
        let owner = due.owner();
        if self.held.enter(&owner, self.room) && self.sender.try_send(due).is_err() {
            self.held.leave(&owner);
        }
    }
}

impl SlowQueue {
    pub(super) async fn next(&mut self) -> Option<QueuedImage> {
        self.receiver.recv().await
    }

    /// Removes an image after it was settled or has failed.
    pub(super) fn leave(&self, due: &QueuedImage) {
        self.held.leave(&due.owner());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_leaves_room_for_others() {
        let (held, room) = (Held::default(), Room { all: 5, of_one_owner: 2 });
        let enter = |owner: &str| held.enter(owner, room);
        assert_eq!(["a", "a", "a", "b", "b", "b", "c", "d"].map(enter), [true, true, false, true, true, false, true, false]);
        held.leave("b");
        assert!(!enter("a"), "a has its share");
        assert!(enter("d") && !enter("e"), "the lane is full");
        for owner in ["a", "a", "b", "c", "d"] {
            held.leave(owner);
        }
        assert!(held.0.lock().is_empty(), "no owner is kept");
        assert!(enter("a"));
    }
}
