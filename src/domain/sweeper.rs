//! Nothing unconfirmed stays, and nothing confirmed is lost: what clients and servers that died left behind is settled.
//!
//! One step at a chosen time is [`Valet::sweep_once`]; the loop around it is cancellable. Any number of servers may
//! sweep: each image is claimed by raising its `due` to the end of a lease, and every step can be repeated.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Valet,
    confirm::Finding,
    lookout::{unannounced, wait},
};
use crate::{
    metrics::{Kind, METRICS, Metrics, SWEPT},
    model::{Image, ImageState, Loose},
    store::StoreError,
    telemetry::spans,
};

/// Images per step.
const BATCH: u32 = 100;
/// The longest one image may take: HEAD, a few ranged GETs, the parts' listing and completion, a few updates, each
/// with its deadline. A file that is hashed here has the rest.
const LEASE: Duration = Duration::from_secs(120);
/// After an image that could not be settled: S3 or the database may be down.
const RETRY: Duration = Duration::from_secs(60);
/// After so many images in a row that S3 said nothing about, it is asked no more until the next sweep.
const SILENCES: u32 = 3;
/// Images that are due are counted up to here.
const COUNTED: u32 = 1000;
/// Between two looks at how much there is in all.
const CENSUS: Duration = Duration::from_secs(5 * 60);
/// How old a hold is when its image is looked for: far longer than any request.
const HELD: Duration = Duration::from_secs(120);

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Made ready for clients that died before they confirmed.
    pub confirmed: u32,
    /// Were not what was declared.
    pub rejected: u32,
    /// Never came.
    pub expired: u32,
    /// Objects deleted, the first or the second time.
    pub purged: u32,
    /// Tombstones that ended.
    pub gone: u32,
    /// Holds of uploads that do not exist, freed.
    pub holds: u32,
    /// Deleted accounts of which nothing is left.
    pub accounts: u32,
    /// Could not be settled now.
    pub failed: u32,
}

impl Valet {
    /// Sweeps until `stop`, pausing between sweeps but not while there is more to do. Errors are logged and tried again.
    pub async fn sweep_until(&self, stop: CancellationToken) {
        let mut counted: Option<Instant> = None;
        loop {
            // Stopping in the middle is what a crash would do, and every step survives that.
            let swept = tokio::select! {
                () = stop.cancelled() => return,
                swept = self.sweep() => swept,
            };
            match swept {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(?swept, "swept"),
                Err(error) => tracing::warn!(%error, "the sweep failed"),
            }
            if counted.is_none_or(|at| at.elapsed() >= CENSUS) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.take_census() => counted = Some(Instant::now()),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.lookout.rest(self.sweep.interval) => {}
            }
        }
    }

    /// Sweeps by the database's clock until nothing is due.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        self.sweep_all().instrument(spans::internal("sweep")).await
    }

    async fn sweep_all(&self) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let now = self.store.now().await?;
            let (swept, more) = self.sweep_once(now).await?;
            total.confirmed += swept.confirmed;
            total.rejected += swept.rejected;
            total.expired += swept.expired;
            total.purged += swept.purged;
            total.gone += swept.gone;
            total.holds += swept.holds;
            total.accounts += swept.accounts;
            total.failed += swept.failed;
            if !more {
                self.tell(total, now).await;
                return Ok(total);
            }
        }
    }

    /// To the metrics: what was done, and what is left.
    async fn tell(&self, swept: Swept, now: OffsetDateTime) {
        let Swept { confirmed, rejected, expired, purged, gone, holds, accounts, failed } = swept;
        for (kind, count) in SWEPT.into_iter().zip([confirmed, rejected, expired, purged, gone, holds, accounts, failed]) {
            Metrics::count(&METRICS.swept, kind, count.into());
        }
        METRICS.swept_at.set(now.unix_timestamp() as f64);
        match self.store.images.backlog(now, COUNTED).await {
            Ok((due, first)) => {
                METRICS.sweep_backlog.set(due.into());
                METRICS.sweep_lag.set(first.map_or(0.0, |first| (now - first).as_seconds_f64()));
            }
            // The sweep went through all the same.
            Err(error) => tracing::warn!(%error, "what is still due could not be counted"),
        }
    }

    /// To the metrics: what there is, in all.
    async fn take_census(&self) {
        let counted = async {
            for (state, count) in self.store.images.census().await? {
                let kind = Kind { kind: state.as_str() };
                METRICS.images_present.get_or_create(&kind).set(count.images);
                METRICS.image_bytes.get_or_create(&kind).set(count.bytes);
            }
            METRICS.accounts.set(i64::try_from(self.store.users.estimated_count().await?).unwrap_or(i64::MAX));
            Ok::<_, StoreError>(())
        };
        if let Err(error) = counted.instrument(spans::internal("census")).await {
            tracing::warn!(%error, "what there is could not be counted");
        }
    }

    /// One step at `now`: at most a batch. The second value says whether anything was settled, so that more may be due.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; one image's failure is counted and tried again later.
    pub async fn sweep_once(&self, now: OffsetDateTime) -> Result<(Swept, bool), StoreError> {
        self.learn_store().await;
        let mut swept = Swept::default();
        let (mut claimed, mut silences) = (0, 0);
        let lease_ends = now + LEASE;
        for (image, due) in self.store.images.due(now, BATCH).await? {
            if !self.store.images.claim(&image, due, lease_ends).await? {
                continue;
            }
            claimed += 1;
            let settled = tokio::time::timeout(LEASE, self.sweep_image(&image, lease_ends, now, &mut swept)).await;
            let settled = settled.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "a sweep" }));
            silences = if matches!(settled, Err(StoreError::ObjectsTimeout { .. })) { silences + 1 } else { 0 };
            if let Err(error) = settled {
                tracing::warn!(image = %image.id, %error, "an image could not be swept");
                swept.failed += 1;
                self.store.images.postpone(&image, lease_ends, now + RETRY).await?;
            }
            if silences == SILENCES {
                break;
            }
        }
        swept.holds = self.settle_holds(now).await?;
        let (accounts, more) = self.sweep_deletions(now).await?;
        swept.accounts = accounts;
        Ok((swept, silences < SILENCES && (claimed > 0 || more)))
    }

    async fn sweep_image(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        match image.state {
            ImageState::Pending => self.sweep_pending(image, lease_ends, now, swept).await,
            ImageState::Ready => self.sweep_strays(image, lease_ends, now, swept).await,
            _ => self.sweep_tombstone(image, lease_ends, now, swept).await,
        }
    }

    /// Every URL has died: what is there now is all that will ever be. Or nobody will say when it comes, and it is looked for.
    async fn sweep_pending(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        match self.gather(image, now).await? {
            Finding::Proved(verified) => {
                if self.accept(image, &verified).await?.is_some() {
                    swept.confirmed += 1;
                }
            }
            Finding::Wrong(why) => {
                self.reject(image, why, now).await?;
                swept.rejected += 1;
            }
            finding @ (Finding::Missing | Finding::PartsMissing(_) | Finding::PartsRefused) => {
                let ends = image.expires_at.max(self.quiet_from(image));
                if now < ends {
                    let looks_again = if unannounced(image) { ends.min(now + wait(now - image.created_at)) } else { ends };
                    self.store.images.postpone(image, lease_ends, looks_again).await?;
                } else {
                    let was_tried = matches!(finding, Finding::PartsRefused);
                    let expired = if was_tried { self.expire_refused(image, now).await } else { self.expire(image, now).await };
                    swept.expired += u32::from(expired?);
                }
            }
        }
        Ok(())
    }

    /// What lies beside a ready image is deleted at once, and again when no URL can bring it back.
    async fn sweep_strays(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        // The server that made it ready may have died before it settled the hold.
        self.store.users.keep_held(image.user, image.id, image.surplus()).await?;
        if image.upload.loose == Some(Loose::Parts) {
            // Whoever holds a URL that opens an upload may open another, before and after.
            for stray in image.strays.iter().filter(|key| key.is_incoming()) {
                self.objects.abort_multiparts(stray).await?;
            }
        }
        self.objects.purge_all(&image.strays).await?;
        swept.purged += 1;
        let ends = self.quiet_from(image);
        if now < ends {
            self.store.images.postpone(image, lease_ends, ends).await.map(drop)
        } else {
            self.store.images.forget_strays(image, lease_ends).await.map(drop)
        }
    }

    /// A tombstone's object is deleted at once, and again when no URL can bring it back; then the tombstone ends.
    async fn sweep_tombstone(
        &self,
        image: &Image,
        lease_ends: OffsetDateTime,
        now: OffsetDateTime,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        // Whoever made the tombstone may have died before it freed the bytes.
        self.store.users.release_held(image.user, image.id, image.reserved).await?;
        self.remove(image).await?;
        swept.purged += 1;
        let ends = self.quiet_from(image);
        if now < ends {
            self.store.images.postpone(image, lease_ends, ends).await?;
        } else if self.store.images.mark_gone(image).await? {
            swept.gone += 1;
        }
        Ok(())
    }

    /// Holds older than any request: those whose server died before its next write are settled, those of open uploads
    /// are left until these end. A hold without an image is freed once its insertion can no longer succeed.
    async fn settle_holds(&self, now: OffsetDateTime) -> Result<u32, StoreError> {
        let mut freed = 0;
        for (user, holds) in self.store.users.old_holds(now - HELD, i64::from(BATCH)).await? {
            let ids: Vec<_> = holds.iter().map(|(id, _)| *id).collect();
            let images = self.store.images.find_all_owned(user, &ids).await?;
            let (mut open, mut ready) = (Vec::new(), Vec::new());
            for (id, bytes) in holds {
                match images.iter().find(|image| image.id == id) {
                    Some(image) if image.state == ImageState::Pending => {
                        open.push((id, image.expires_at.max(self.quiet_from(image)).max(now)));
                    }
                    Some(image) if image.state == ImageState::Ready => ready.push((id, image.surplus())),
                    None if !self.store.images.preclude(user, id, bytes, now).await? => {}
                    _ => freed += u32::from(self.store.users.release_held(user, id, bytes).await?),
                }
            }
            self.store.users.keep_all_held(user, &ready).await?;
            self.store.users.postpone_holds(user, &open).await?;
        }
        Ok(freed)
    }
}
