//! Hands uploads that notifications have made due over to the sweeper of this server, which checks them before its next sweep.

use std::{sync::Arc, time::Instant};

use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard, mpsc};

use crate::{domain::arrival_polling::ArrivalPoller, store::QueuedImage};

/// Uploads that may wait. The database has all of them; the next sweep, which begins soon, finds those beyond this number.
const CAPACITY: usize = 1000;

/// An upload that was made due.
#[derive(Debug)]
pub(in crate::domain) struct NotifiedUpload {
    pub(in crate::domain) upload: QueuedImage,
    /// Time at which it is due.
    pub(in crate::domain) at: Instant,
    /// Time at which the store sent the notification, by the store's clock.
    pub(in crate::domain) sent_at: Option<OffsetDateTime>,
}

/// Hands uploads over to the sweeper.
#[derive(Debug)]
pub(in crate::domain) struct NotifiedSender {
    sender: mpsc::Sender<NotifiedUpload>,
    arrival_poller: Arc<ArrivalPoller>,
}

/// Uploads for the sweeper, which is the only receiver.
#[derive(Debug)]
pub(in crate::domain) struct NotifiedUploads(Mutex<mpsc::Receiver<NotifiedUpload>>);

impl NotifiedSender {
    /// Returns a sender, and the uploads that it sends.
    pub(in crate::domain) fn new(arrival_poller: Arc<ArrivalPoller>) -> (Self, NotifiedUploads) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self { sender, arrival_poller }, NotifiedUploads(Mutex::new(receiver)))
    }

    /// Hands an upload over. If too many wait, schedules a sweep, which finds it.
    pub(super) fn send(&self, upload: NotifiedUpload) {
        if self.sender.try_send(upload).is_err() {
            self.arrival_poller.schedule();
        }
    }
}

impl NotifiedUploads {
    /// Returns the receiver, as soon as no other task uses it.
    pub(in crate::domain) async fn lock(&self) -> MutexGuard<'_, mpsc::Receiver<NotifiedUpload>> {
        self.0.lock().await
    }
}
