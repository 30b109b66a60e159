//! The lane of images that take long. What it does not take stays in the database's queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;

use crate::store::QueuedImage;

/// How many images the lane holds, waiting or being settled: of all owners, and of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) all: usize,
    pub(super) of_one_owner: usize,
}

/// The end into which images are put.
#[derive(Debug)]
pub(super) struct SlowLane {
    sender: mpsc::Sender<QueuedImage>,
    room: Room,
    held: Arc<Held>,
}

/// The end from which they are settled.
#[derive(Debug)]
pub(super) struct SlowQueue {
    receiver: mpsc::Receiver<QueuedImage>,
    held: Arc<Held>,
}

/// How many the lane holds of each owner.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<String, usize>>);

impl Held {
    fn enter(&self, owner: &str, room: Room) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = held.values().sum::<usize>() < room.all && held.get(owner).is_none_or(|count| *count < room.of_one_owner);
        if has_room {
            *held.entry(owner.to_owned()).or_default() += 1;
        }
        has_room
    }

    fn leave(&self, owner: &str) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                held.remove(owner);
            }
        }
    }
}

/// Both ends of a lane.
pub(super) fn slow_lane(room: Room) -> (SlowLane, SlowQueue) {
    let (sender, receiver) = mpsc::channel(room.all);
    let held = Arc::<Held>::default();
    (SlowLane { sender, room, held: Arc::clone(&held) }, SlowQueue { receiver, held })
}

impl SlowLane {
    /// Takes an image if there is room. Otherwise it is due again soon, which is no failure.
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

    /// An image is settled, or failed to be.
    pub(super) fn leave(&self, due: &QueuedImage) {
        self.held.leave(&due.owner());
    }
}
