//! One attempt to make the pictures of an image.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::PreviewWorker;
use crate::{
    domain::{
        permanent_failures::concerns_only_record,
        rendering::{RenderFailure, Rendered, Renderer},
    },
    metrics::{METRICS, Metrics},
    model::{
        Dimensions, Format, Image, ObjectKey, RenderingFailure,
        decoding::{MAX_FILE_BYTES, Picture, Sandbox},
    },
    store::{ClaimOutcome, Lease, MadePictures, QueuedImage, StoreError},
};

/// Duration of a claim's lease.
const LEASE_DURATION: Duration = Duration::from_secs(180);
/// Time limit of an attempt, shorter than the lease, so that no object is written after the lease has ended.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(150);
/// Delays after attempts that failed. There is one attempt more than delays.
const RETRY_DELAYS: [Duration; 3] = [Duration::from_secs(30), Duration::from_secs(5 * 60), Duration::from_secs(60 * 60)];
/// Delay after an outage.
const OUTAGE_DELAY: Duration = Duration::from_secs(60);

/// The result of an attempt.
#[derive(Debug)]
enum Attempt {
    /// The pictures are recorded.
    Made,
    /// The image was deleted meanwhile, or another worker has claimed it.
    Gone,
    /// The image has no pictures, and another attempt would not change that.
    Failed(RenderingFailure),
    /// Another attempt may succeed. Contains the failure of this one.
    Retry(RenderingFailure),
    /// The cause of the failure is not the image; contains the error.
    Outage(String),
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_final() => Self::Retry(RenderingFailure::Unreadable),
            error => Self::Outage(error.to_string()),
        }
    }
}

impl From<RenderFailure> for Attempt {
    fn from(failure: RenderFailure) -> Self {
        match (failure.name().and_then(RenderingFailure::parse), failure.is_retryable()) {
            (Some(name), true) => Self::Retry(name),
            (Some(name), false) => Self::Failed(name),
            (None, _) => Self::Outage(failure.to_string()),
        }
    }
}

impl PreviewWorker {
    /// Claims an image that was due at `now`, and makes its pictures. Returns whether this worker claimed the image, and no other
    /// attempt follows.
    pub(super) async fn render_queued(&self, renderer: &Renderer, queued: &QueuedImage, now: OffsetDateTime) -> bool {
        let claim = match self.store.images.claim_rendering(queued, now, LEASE_DURATION).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::warn!(image = %queued.id(), %error, "failed to claim an image for its previews");
                return false;
            }
        };
        let began = Instant::now();
        let (attempt, attempts, lease) = match claim {
            ClaimOutcome::Lost => return false,
            ClaimOutcome::Unreadable(error, lease) => {
                tracing::error!(%error, "failed to read the record of an image whose previews are due");
                (Attempt::Failed(RenderingFailure::Unreadable), 0, lease)
            }
            ClaimOutcome::Image(image, lease) => {
                let attempts = image.rendering.as_ref().map_or(0, |rendering| rendering.attempts);
                (self.try_image(renderer, &image, attempts, lease).await, attempts, lease)
            }
        };
        METRICS.preview_duration.observe(began.elapsed().as_secs_f64());
        match self.end_claim(&queued.with_due(lease.ends), &attempt, attempts, lease).await {
            Ok(outcome) => {
                Metrics::count(&METRICS.preview_attempts, outcome, 1);
                !matches!(outcome, "retried" | "postponed")
            }
            Err(error) => {
                // The image is due again when its lease ends.
                tracing::warn!(image = %queued.id(), %error, "failed to record the outcome of an image's previews");
                false
            }
        }
    }

    /// Makes the pictures of a claimed image, for which `attempts` attempts have begun, within [`ATTEMPT_DEADLINE`].
    async fn try_image(&self, renderer: &Renderer, image: &Image, attempts: u32, lease: Lease) -> Attempt {
        // More attempts began than the delays allow: in the earlier ones, the worker died.
        if attempts as usize > RETRY_DELAYS.len() + 1 {
            return Attempt::Failed(RenderingFailure::Crashed);
        }
        match tokio::time::timeout(ATTEMPT_DEADLINE, self.make_pictures(renderer, image, lease)).await {
            Ok(Ok(attempt) | Err(attempt)) => attempt,
            Err(_) => Attempt::Retry(RenderingFailure::Crashed),
        }
    }

    /// Makes, writes and records the pictures.
    async fn make_pictures(&self, renderer: &Renderer, image: &Image, lease: Lease) -> Result<Attempt, Attempt> {
        let Some(ready) = image.ready() else { return Ok(Attempt::Gone) };
        if image.upload.size > u64::from(MAX_FILE_BYTES) {
            return Ok(Attempt::Failed(RenderingFailure::TooBig));
        }
        let file = match self.objects.read_all(&image.key, &ready.etag, image.upload.size).await {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Attempt::Retry(RenderingFailure::Missing)),
            Err(error) => return Ok(self.read_failure(error).await),
        };
        let format = Format::declared_as(image.upload.content_type);
        let Rendered { thumb_hash, pictures, sandbox } = renderer.render(format, file).await?;
        self.warn_of_missing_restrictions(sandbox);
        if !self.store.images.begin_pictures(image, lease).await? {
            return Ok(Attempt::Gone);
        }
        let size = |picture: &Picture| Dimensions { width: picture.width.into(), height: picture.height.into() };
        let made = MadePictures { sizes: pictures.iter().map(size).collect(), thumb_hash };
        let keys = image.key.pictures();
        for (key, picture) in keys.iter().zip(pictures) {
            self.objects.put_picture(key, picture.jpeg).await?;
        }
        if self.store.images.record_pictures(image, lease, &made).await? {
            return Ok(Attempt::Made);
        }
        self.remove_unrecorded(image, &keys).await?;
        Ok(Attempt::Gone)
    }

    /// Returns the result of an attempt that failed to read the object. If the bucket answers, the failure concerns this object
    /// alone, such as the key that it is encrypted with.
    async fn read_failure(&self, error: StoreError) -> Attempt {
        if concerns_only_record(&self.objects, &error).await {
            tracing::warn!(%error, "failed to read an image for its previews");
            return Attempt::Retry(RenderingFailure::Unreadable);
        }
        error.into()
    }

    /// Logs once which restrictions the children lack, if they lack any.
    fn warn_of_missing_restrictions(&self, sandbox: Sandbox) {
        if sandbox != Sandbox::COMPLETE && !self.has_warned.swap(true, Relaxed) {
            let Sandbox { has_limits, has_filter, is_untraceable, has_nothing_inherited } = sandbox;
            tracing::warn!(has_limits, has_filter, is_untraceable, has_nothing_inherited, "decoding without all restrictions");
        }
    }

    /// Removes the pictures of an image that was deleted while they were made. If this fails, the sweeper removes them: the
    /// tombstone has their keys.
    async fn remove_unrecorded(&self, image: &Image, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let found = self.store.images.find_owned(image.user, image.id).await?;
        // The pictures belong to another worker, whose lease began after the end of this one's.
        if found.is_some_and(|found| found.ready().is_some() && found.key == image.key) {
            return Ok(());
        }
        self.objects.purge_all(keys).await
    }

    /// Records the result; returns its name in metrics.
    async fn end_claim(
        &self,
        claimed: &QueuedImage,
        attempt: &Attempt,
        attempts: u32,
        lease: Lease,
    ) -> Result<&'static str, StoreError> {
        let (images, image) = (&self.store.images, claimed.id());
        match attempt {
            Attempt::Made => {
                tracing::debug!(%image, "made the previews of an image");
                Ok("made")
            }
            Attempt::Gone => images.drop_rendering(claimed).await.map(|_| "gone"),
            Attempt::Failed(failure) => self.give_up(claimed, *failure).await,
            Attempt::Retry(failure) => match RETRY_DELAYS.get((attempts as usize).saturating_sub(1)) {
                Some(delay) => {
                    tracing::info!(%image, failure = failure.as_str(), attempts, "failed to make the previews of an image");
                    images.retry_rendering(claimed, lease.now + *delay).await.map(|_| "retried")
                }
                None => self.give_up(claimed, *failure).await,
            },
            Attempt::Outage(error) => {
                tracing::warn!(%image, error, "postponed the previews of an image");
                images.postpone_rendering(claimed, lease.now + OUTAGE_DELAY).await.map(|_| "postponed")
            }
        }
    }

    /// Records that an image has no pictures; returns the failure's name in metrics.
    async fn give_up(&self, claimed: &QueuedImage, failure: RenderingFailure) -> Result<&'static str, StoreError> {
        tracing::info!(image = %claimed.id(), failure = failure.as_str(), "an image has no previews");
        self.store.images.fail_rendering(claimed, failure).await.map(|_| failure.as_str())
    }
}
