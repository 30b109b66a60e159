//! The lane for slow images. Images that exceed its capacity stay in the database's queue.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::store::QueuedImage;

/// Capacity of the lane in images, waiting or being swept: in total, and per owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneCapacity {
    pub(super) all: usize,
    pub(super) per_owner: usize,
}

/// Sender of the lane.
#[derive(Debug)]
pub(super) struct SlowLane {
    sender: mpsc::Sender<QueuedImage>,
    capacity: LaneCapacity,
    counts: Arc<CountsByOwner>,
}

/// Receiver of the lane.
#[derive(Debug)]
pub(super) struct SlowQueue {
    receiver: mpsc::Receiver<QueuedImage>,
    counts: Arc<CountsByOwner>,
}

/// Number of images in the lane by owner.
#[derive(Debug, Default)]
struct CountsByOwner(Mutex<HashMap<String, usize>>);

impl CountsByOwner {
    /// Counts an image of the owner. Returns `false` if the lane, or the owner's part of it, is full.
    fn enter(&self, owner: &str, capacity: LaneCapacity) -> bool {
        let mut counts = self.0.lock();
        let has_room =
            counts.values().sum::<usize>() < capacity.all && counts.get(owner).is_none_or(|count| *count < capacity.per_owner);
        if has_room {
            *counts.entry(owner.to_owned()).or_default() += 1;
        }
        has_room
    }

    /// Uncounts an image of the owner.
    fn release(&self, owner: &str) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(owner);
            }
        }
    }
}

/// Creates a lane.
pub(super) fn slow_lane(capacity: LaneCapacity) -> (SlowLane, SlowQueue) {
    let (sender, receiver) = mpsc::channel(capacity.all);
    let counts = Arc::<CountsByOwner>::default();
    (SlowLane { sender, capacity, counts: Arc::clone(&counts) }, SlowQueue { receiver, counts })
}

impl SlowLane {
    /// Takes an image if there is capacity. Otherwise it becomes due again soon, which does not count as a failure.
    pub(super) fn offer(&self, due: QueuedImage) {
        let owner = due.owner();
        if self.counts.enter(&owner, self.capacity) && self.sender.try_send(due).is_err() {
            self.counts.release(&owner);
        }
    }
}

impl SlowQueue {
    /// Waits for the next image.
    pub(super) async fn next(&mut self) -> Option<QueuedImage> {
        self.receiver.recv().await
    }

    /// Removes an image after it was swept or has failed.
    pub(super) fn release(&self, due: &QueuedImage) {
        self.counts.release(&due.owner());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn owner_of_many_images_leaves_room_for_others() {
        let (counts, capacity) = (CountsByOwner::default(), LaneCapacity { all: 5, per_owner: 2 });
        let enter = |owner: &str| counts.enter(owner, capacity);
        assert_eq!(["a", "a", "a", "b", "b", "b", "c", "d"].map(enter), [true, true, false, true, true, false, true, false]);
        counts.release("b");
        assert!(!enter("a"), "a has its share");
        assert!(enter("d") && !enter("e"), "the lane is full");
        for owner in ["a", "a", "b", "c", "d"] {
            counts.release(owner);
        }
        assert!(counts.0.lock().is_empty(), "no owner is left");
        assert!(enter("a"));
    }
}
