//! Builds the services that have many parts.

use std::sync::Arc;

use super::{Base, ImageParts};
use crate::{
    config::Config,
    domain::{
        account_deletion::AccountDeletion,
        multipart::Multipart,
        store_notifications::{NotifiedSender, NotifiedUploads, StoreNotifications},
        sweeper::{ImageSweeper, PairWatch, Sweeper},
        turns::Turns,
        uploads::{IdempotencyKeys, RecentUploads, Uploads},
        uppy::UppyUploads,
    },
    store::objects::events_queue::EventsQueue,
};

pub(super) fn uploads(base: &Base, images: &ImageParts) -> Uploads {
    let Base { store, objects, settings, capabilities, late_transfers, .. } = base.clone();
    Uploads {
        store,
        objects,
        settings,
        capabilities,
        reservations: images.reservations.clone(),
        late_transfers,
        quota: images.quota.clone(),
        inspector: images.inspector.clone(),
        lifecycle: images.lifecycle.clone(),
        recent: RecentUploads::default(),
    }
}

pub(super) fn multipart(base: &Base, images: &ImageParts) -> Multipart {
    let Base { store, objects, settings, capabilities, late_transfers, .. } = base.clone();
    Multipart {
        idempotency_keys: IdempotencyKeys { store: store.clone() },
        store,
        objects,
        settings,
        capabilities,
        opening: images.opening.clone(),
        reservations: images.reservations.clone(),
        quota: images.quota.clone(),
        lifecycle: images.lifecycle.clone(),
        late_transfers,
    }
}

pub(super) fn uppy(base: &Base, images: &ImageParts) -> UppyUploads {
    let Base { store, objects, settings, capabilities, arrival_poller, throttle, .. } = base.clone();
    UppyUploads {
        store,
        objects,
        settings,
        capabilities,
        arrival_poller,
        reservations: images.reservations.clone(),
        quota: images.quota.clone(),
        throttle,
        confirmation: images.confirmation.clone(),
        opening: images.opening.clone(),
        lifecycle: images.lifecycle.clone(),
        part_limits: images.part_limits.clone(),
        parts_completion: images.parts_completion.clone(),
        removal: images.removal.clone(),
    }
}

pub(super) fn sweeper(
    base: &Base,
    images: &ImageParts,
    account_deletion: Arc<AccountDeletion>,
    notified_uploads: NotifiedUploads,
) -> Sweeper {
    let Base { store, objects, sweep, capabilities, prober, arrival_poller, late_transfers, .. } = base.clone();
    let image_sweeper = ImageSweeper {
        store: store.clone(),
        objects: objects.clone(),
        sweep,
        late_transfers,
        inspector: images.inspector.clone(),
        lifecycle: images.lifecycle.clone(),
        part_limits: images.part_limits.clone(),
        reservations: images.reservations.clone(),
        removal: images.removal.clone(),
    };
    Sweeper {
        store,
        objects,
        sweep,
        capabilities,
        image_sweeper,
        pair_watch: PairWatch { sweep, deployment: images.deployment.clone() },
        arrival_poller,
        notified_uploads,
        prober,
        reservations: images.reservations.clone(),
        account_deletion,
        turns: Turns::default(),
    }
}

#[cfg(feature = "worker")]
pub(super) fn preview_worker(base: &Base, images: &ImageParts, config: &Config) -> crate::domain::preview_worker::PreviewWorker {
    let Base { store, objects, sweep, .. } = base.clone();
    let pair_watch = PairWatch { sweep, deployment: images.deployment.clone() };
    crate::domain::preview_worker::PreviewWorker {
        store,
        objects,
        pair_watch,
        settings: config.previews.worker().cloned().unwrap_or_default(),
        has_warned: std::sync::atomic::AtomicBool::default(),
        turns: Turns::default(),
    }
}

/// Returns the receiver of notifications, and the uploads that it hands over to the sweeper.
pub(super) fn store_notifications(base: &Base, config: &Config) -> (StoreNotifications, NotifiedUploads) {
    let (sender, notified_uploads) = NotifiedSender::new(base.arrival_poller.clone());
    let settings = &config.store_events;
    let queue = settings.queue.as_ref().map(|queue| EventsQueue::new(&base.objects, queue));
    (StoreNotifications::new(base.store.clone(), config.s3.bucket.to_string(), settings, queue, sender), notified_uploads)
}
