//! Messages that wait for one event stream, in bounded memory.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{model::EventPosition, store::ImageChange};

/// Changes that may wait for a client that reads slowly. One more replaces all of them by a reset.
const CAPACITY: usize = 100;

/// A message of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// An image changed.
    Changed(ImageChange),
    /// Changes up to this position may be missing: the client must read again what it shows.
    Reset(EventPosition),
}

/// The messages that wait for one stream.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    woken: Notify,
}

/// The waiting messages.
#[derive(Debug, Default)]
struct Content {
    /// Changes that were not sent yet, the oldest first.
    waiting: VecDeque<ImageChange>,
    /// The latest change that a pending reset covers. The reset precedes the waiting changes.
    reset: Option<EventPosition>,
    is_closed: bool,
}

impl Mailbox {
    /// Adds a change. If too many wait, or a reset is not taken yet, the reset covers it.
    pub(super) fn push(&self, change: ImageChange) {
        let mut content = self.content.lock();
        if content.reset.is_some() || content.waiting.len() >= CAPACITY {
            content.reset = Some(change.position);
            content.waiting.clear();
        } else {
            content.waiting.push_back(change);
        }
        drop(content);
        self.woken.notify_one();
    }

    /// Replaces all waiting changes by a reset.
    pub(super) fn reset(&self, position: EventPosition) {
        let mut content = self.content.lock();
        content.reset = Some(position);
        // Frees the memory, too.
        content.waiting = VecDeque::new();
        drop(content);
        self.woken.notify_one();
    }

    /// Removes all messages.
    pub(super) fn clear(&self) {
        let mut content = self.content.lock();
        content.waiting.clear();
        content.reset = None;
    }

    /// Ends the stream.
    pub(super) fn close(&self) {
        self.content.lock().is_closed = true;
        self.woken.notify_one();
    }

    /// Returns whether the next message is a reset.
    pub(super) fn begins_with_reset(&self) -> bool {
        self.content.lock().reset.is_some()
    }

    /// Returns whether no message waits.
    pub(super) fn is_empty(&self) -> bool {
        let content = self.content.lock();
        content.reset.is_none() && content.waiting.is_empty()
    }

    /// Waits for the next message; `None` at the end of the stream. Loses none if it is cancelled.
    pub(super) async fn take(&self) -> Option<Notice> {
        loop {
            {
                let mut content = self.content.lock();
                if content.is_closed {
                    return None;
                }
                if let Some(position) = content.reset.take() {
                    return Some(Notice::Reset(position));
                }
                if let Some(change) = content.waiting.pop_front() {
                    return Some(Notice::Changed(change));
                }
            }
            self.woken.notified().await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{EventType, ImageId, UserId};

    /// Returns a change at this second.
    fn change(at: u32) -> ImageChange {
        let position = EventPosition { seconds: at, increment: 1, changes: 1 };
        ImageChange { position, user: UserId::new(), image: ImageId::new(), event: EventType::ImageReady }
    }

    #[tokio::test]
    async fn changes_that_a_slow_client_does_not_read_become_one_reset() {
        let mailbox = Mailbox::default();
        let all = u32::try_from(CAPACITY).unwrap() + 5;
        (1..=all).for_each(|at| mailbox.push(change(at)));
        assert!(mailbox.content.lock().waiting.capacity() <= 2 * CAPACITY, "memory is bounded");
        assert_eq!(mailbox.take().await, Some(Notice::Reset(change(all).position)), "it covers the latest change");
        assert!(mailbox.is_empty());
        let later = change(all + 1);
        mailbox.push(later);
        assert_eq!(mailbox.take().await, Some(Notice::Changed(later)), "later changes are sent again");
    }

    #[tokio::test]
    async fn messages_keep_their_order_until_the_end() {
        let mailbox = Mailbox::default();
        let (first, second) = (change(1), change(2));
        mailbox.push(first);
        mailbox.push(second);
        assert_eq!(mailbox.take().await, Some(Notice::Changed(first)));
        assert_eq!(mailbox.take().await, Some(Notice::Changed(second)));
        mailbox.push(change(3));
        mailbox.reset(change(4).position);
        assert_eq!(mailbox.take().await, Some(Notice::Reset(change(4).position)), "the reset replaces the waiting change");
        mailbox.close();
        assert_eq!(mailbox.take().await, None);
    }
}
