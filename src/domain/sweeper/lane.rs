//! The lane for slow images. Images that exceed its capacity stay in the database's queue.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::store::QueuedImage;

/// Capacity of the lane in images, waiting or being settled: in total, and per owner.
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
    held: Arc<HeldByOwner>,
}

/// Receiver of the lane.
#[derive(Debug)]
pub(super) struct SlowQueue {
    receiver: mpsc::Receiver<QueuedImage>,
    held: Arc<HeldByOwner>,
}

/// Number of images in the lane by owner.
#[derive(Debug, Default)]
struct HeldByOwner(Mutex<HashMap<String, usize>>);

impl HeldByOwner {
    /// Takes a permit for the owner; returns `false` if lane or owner have no free one.
    fn enter(&self, owner: &str, capacity: LaneCapacity) -> bool {
        let mut held = self.0.lock();
        let has_room =
            held.values().sum::<usize>() < capacity.all && held.get(owner).is_none_or(|count| *count < capacity.per_owner);
        if has_room {
            *held.entry(owner.to_owned()).or_default() += 1;
        }
        has_room
    }

    /// Returns a permit of the owner.
    fn release(&self, owner: &str) {
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
pub(super) fn slow_lane(capacity: LaneCapacity) -> (SlowLane, SlowQueue) {
    let (sender, receiver) = mpsc::channel(capacity.all);
    let held = Arc::<HeldByOwner>::default();
    (SlowLane { sender, capacity, held: Arc::clone(&held) }, SlowQueue { receiver, held })
}

impl SlowLane {
    /// Takes an image if there is capacity. Otherwise it becomes due again soon, which does not count as a failure.
    pub(super) fn take(&self, due: QueuedImage) {
        let owner = due.owner();
        if self.held.enter(&owner, self.capacity) && self.sender.try_send(due).is_err() {
            self.held.release(&owner);
        }
    }
}

impl SlowQueue {
    /// Waits for the next image.
    pub(super) async fn next(&mut self) -> Option<QueuedImage> {
        self.receiver.recv().await
    }

    /// Removes an image after it was settled or has failed.
    pub(super) fn release(&self, due: &QueuedImage) {
        self.held.release(&due.owner());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn owner_of_many_images_leaves_room_for_others() {
        let (held, capacity) = (HeldByOwner::default(), LaneCapacity { all: 5, per_owner: 2 });
        let enter = |owner: &str| held.enter(owner, capacity);
        assert_eq!(["a", "a", "a", "b", "b", "b", "c", "d"].map(enter), [true, true, false, true, true, false, true, false]);
        held.release("b");
        assert!(!enter("a"), "a has its share");
        assert!(enter("d") && !enter("e"), "the lane is full");
        for owner in ["a", "a", "b", "c", "d"] {
            held.release(owner);
        }
        assert!(held.0.lock().is_empty(), "no owner is kept");
        assert!(enter("a"));
    }
}
