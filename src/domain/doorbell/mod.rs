//! The doorbell: notifications of the store that an object was written make the server look at that object at once, so that an
//! upload is confirmed although its client died, and Uppy's forms when they arrive.
//!
//! A notification is never believed. It makes the upload due now in the sweeper's queue, by one conditional update; from there on
//! everything is as in a sweep. So duplicates, disorder, forgeries and losses do no harm, and the sweeper is the net under it.
//! `recent` limits the looks at one object, `rung` hands uploads to the sweeper of this server, `polling` reads the queue.

mod polling;
mod recent;
mod rung;

use std::{sync::Arc, time::Instant};

use aws_lc_rs::{constant_time, digest};
use futures_util::{StreamExt, TryStreamExt, stream};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use self::recent::{Plan, RecentRings};
pub(in crate::domain) use self::rung::{RungBell, RungUpload, RungUploads};
use crate::{
    config::{StoreEvents, StoreHook},
    metrics::{METRICS, Metrics},
    model::s3_event::{Hint, IgnoredHint, WrittenObject, decode_notification},
    store::{Hastened, Store, StoreError, objects::events_queue::EventsQueue},
};

/// Updates of the database under way for hints, over all notifications: a flood leaves the other connections to requests.
const MAX_UPDATES: usize = 8;

/// Receives notifications of the store.
#[derive(Debug)]
pub struct Doorbell {
    store: Arc<Store>,
    bucket: String,
    hook: Option<StoreHook>,
    queue: Option<EventsQueue>,
    bell: RungBell,
    recent: RecentRings,
    updates: Semaphore,
}

impl Doorbell {
    pub(in crate::domain) fn new(
        store: Arc<Store>,
        bucket: String,
        settings: &StoreEvents,
        queue: Option<EventsQueue>,
        bell: RungBell,
    ) -> Self {
        let updates = Semaphore::new(MAX_UPDATES);
        Self { store, bucket, hook: settings.hook.clone(), queue, bell, recent: RecentRings::default(), updates }
    }

    /// Returns whether `given` is the token of the hook, in a time that does not depend on how much of it is right.
    #[must_use]
    pub fn is_hook_token(&self, given: &str) -> bool {
        let Some(hook) = &self.hook else { return false };
        let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
        let (given, token) = (hash(given), hash(hook.token.expose_secret()));
        constant_time::verify_slices_are_equal(given.as_ref(), token.as_ref()).is_ok()
    }

    /// Makes the uploads due that a notification names. Other contents are counted and ignored.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails: the notification must be sent again.
    pub async fn receive(&self, notification: &[u8]) -> Result<(), StoreError> {
        let hints = decode_notification(notification, &self.bucket);
        let rings = stream::iter(hints).map(|hint| async move {
            match hint {
                Hint::Ignored(why) => {
                    count(why.as_str());
                    if why == IgnoredHint::Malformed {
                        tracing::debug!("ignored a malformed notification");
                    }
                    Ok(())
                }
                Hint::Written(object) => self.ring(&object, Instant::now()).await,
            }
        });
        rings.buffer_unordered(MAX_UPDATES).try_collect().await
    }

    /// Makes the upload due to which this object belongs.
    async fn ring(&self, object: &WrittenObject, now: Instant) -> Result<(), StoreError> {
        let (user, image) = (object.owner.user, object.owner.image);
        let ring = match self.recent.plan(object, now) {
            Plan::Known => {
                count("repeated");
                return Ok(());
            }
            Plan::Ring(ring) => ring,
        };
        let hastened = {
            // Never closed.
            let _permit = self.updates.acquire().await;
            let wait = ring.at.saturating_duration_since(now);
            self.store.images.hasten_owned(object.owner, &object.upload_key, wait).await
        };
        match hastened {
            Ok(Some(Hastened { upload, is_new })) => {
                count("rung");
                // Otherwise a look is due earlier that has not begun, so it will see what the hint is about. The next hint is
                // written again: that look may have begun by then.
                if is_new {
                    self.recent.confirm(ring);
                }
                self.bell.ring(RungUpload { upload, at: ring.at, sent_at: object.sent_at });
                Ok(())
            }
            Ok(None) => {
                // Ready, deleted, or never issued: it never becomes pending again, so a repeated hint needs no other query.
                self.recent.confirm(ring);
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

fn count(outcome: &'static str) {
    Metrics::count(&METRICS.doorbell_hints, outcome, 1);
}
