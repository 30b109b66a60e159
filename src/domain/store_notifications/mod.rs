//! Receives the store's notifications that an object was written. The upload is checked at once, so it becomes ready even if its
//! client has died; an upload by one of Uppy's forms becomes ready when its bytes arrive.
//!
//! A notification is not trusted. It makes the upload due now in the sweeper's queue, by one conditional update; the sweeper then
//! settles the upload like any other. So duplicates, disorder, forgeries and losses do no harm, and the sweeper finds every
//! upload without notifications, too.
//!
//! `recent_checks` limits the checks of one object, `notified` hands uploads to the sweeper of this server, and `polling` reads the
//! queue.

mod notified;
mod polling;
mod recent_checks;

use std::{sync::Arc, time::Instant};

use aws_lc_rs::{constant_time, digest};
use futures_util::{StreamExt, TryStreamExt, stream};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

pub(in crate::domain) use self::notified::{NotifiedSender, NotifiedUpload, NotifiedUploads};
use self::recent_checks::{Plan, RecentChecks};
use crate::{
    config::{StoreEvents, StoreHook},
    metrics::{METRICS, Metrics},
    model::s3_event::{EventRecord, IgnoredRecord, WrittenObject, decode_notification},
    store::{MadeDue, Store, StoreError, objects::events_queue::EventsQueue},
};

/// Maximum number of concurrent updates of the database for all notifications: a flood of them leaves connections to requests.
const MAX_UPDATES: usize = 8;

/// Receives notifications of the store.
#[derive(Debug)]
pub struct StoreNotifications {
    store: Arc<Store>,
    bucket: String,
    hook: Option<StoreHook>,
    queue: Option<EventsQueue>,
    notified: NotifiedSender,
    recent: RecentChecks,
    updates: Semaphore,
}

impl StoreNotifications {
    pub(in crate::domain) fn new(
        store: Arc<Store>,
        bucket: String,
        settings: &StoreEvents,
        queue: Option<EventsQueue>,
        notified: NotifiedSender,
    ) -> Self {
        let updates = Semaphore::new(MAX_UPDATES);
        Self { store, bucket, hook: settings.hook.clone(), queue, notified, recent: RecentChecks::default(), updates }
    }

    /// Returns whether `given` is the token of the hook, in a time that does not depend on the number of correct characters.
    #[must_use]
    pub fn is_hook_token(&self, given: &str) -> bool {
        let Some(hook) = &self.hook else { return false };
        let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
        let (given, token) = (hash(given), hash(hook.token.expose_secret()));
        constant_time::verify_slices_are_equal(given.as_ref(), token.as_ref()).is_ok()
    }

    /// Makes the uploads that a notification names due. Other records are counted and ignored.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails: the notification must be sent again.
    pub async fn receive(&self, notification: &[u8]) -> Result<(), StoreError> {
        let records = decode_notification(notification, &self.bucket);
        let updates = stream::iter(records).map(|record| async move {
            match record {
                EventRecord::Ignored(why) => {
                    count(why.as_str());
                    if why == IgnoredRecord::Malformed {
                        tracing::debug!("ignored a malformed notification");
                    }
                    Ok(())
                }
                EventRecord::Written(object) => self.make_due(&object, Instant::now()).await,
            }
        });
        updates.buffer_unordered(MAX_UPDATES).try_collect().await
    }

    /// Makes the upload of this object due.
    async fn make_due(&self, object: &WrittenObject, now: Instant) -> Result<(), StoreError> {
        let (user, image) = (object.owner.user, object.owner.image);
        let check = match self.recent.plan(object, now) {
            Plan::AlreadyPlanned => {
                count("repeated");
                return Ok(());
            }
            Plan::Check(check) => check,
        };
        let made_due = {
            // The semaphore is never closed.
            let _permit = self.updates.acquire().await;
            let wait = check.at.saturating_duration_since(now);
            self.store.images.make_due_owned(object.owner, &object.upload_key, wait).await
        };
        match made_due {
            Ok(Some(MadeDue { upload, is_new })) => {
                count("queued");
                // If `is_new` is false, the upload was due already and its check has not begun, so that check will see the object.
                // It may have begun when the next record arrives, so that record must update the database again.
                if is_new {
                    check.skip_repeats();
                }
                self.notified.send(NotifiedUpload { upload, at: check.at, sent_at: object.sent_at });
                Ok(())
            }
            Ok(None) => {
                // The upload is ready, deleted, or was never opened. It never becomes pending again, so a repeated record needs
                // no query.
                check.skip_repeats();
                count("not_pending");
                Ok(())
            }
            Err(error) => {
                count("failed");
                tracing::warn!(%user, %image, %error, "failed to make an upload due");
                Err(error)
            }
        }
    }
}

/// Counts a record of a notification.
fn count(outcome: &'static str) {
    Metrics::count(&METRICS.notification_records, outcome, 1);
}
