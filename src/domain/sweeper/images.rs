//! Sweeps images that are due: many concurrently, in turns between owners, each under its own claim. A free permit is passed on
//! at once, and an owner whose calls hang has no more than its share, so that it delays only its own images.
//!
//! Slow work (hashing bytes in this server, large copies, a store that responds slowly) goes to a separate lane, where it delays
//! only other slow work.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use time::OffsetDateTime;

use super::{
    Sweeper,
    health::{Health, TimeoutStreak},
    lane::{SlowLane, SlowQueue},
    permits::OwnerPermits,
    tally::{Swept, Tally},
};
use crate::{
    domain::{
        permanent_failures::concerns_only_record,
        sweep_backoff::{FIRST_DELAY, backoff},
    },
    store::{ClaimOutcome, ImageQueue, Lease, Postponement, QueuedImage, StoreError},
};

/// Maximum number of images that are read from the front of the queue at once, and are swept in a round.
pub(super) const QUEUE_BATCH: usize = 500;
/// Maximum number of images that are swept concurrently.
const MAX_CONCURRENT: usize = 32;
/// Each owner's share of them.
const OWNER_SHARE: usize = 8;
/// Maximum number of slow images that are swept concurrently.
const MAX_CONCURRENT_SLOW: usize = 4;
/// Each owner's share of them.
const SLOW_OWNER_SHARE: usize = 2;
/// Interval between two reads of the queue while images are being swept: another owner's may have become due.
const QUEUE_READ_INTERVAL: Duration = Duration::from_millis(500);
/// Interval between two updates of the metrics during continuous work.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// Time limit of an image in the normal lane: HEAD, a few ranged GETs, listing and completing parts, a few updates.
const QUICK_TIMEOUT: Duration = Duration::from_secs(20);
/// Lease of a claim, and time limit of an image in the slow lane, in addition to the time for its bytes.
const LEASE_DURATION: Duration = Duration::from_secs(120);
/// Minimum rate in bytes per second at which a store reads and copies: a large file gets more time in proportion.
const MIN_STORE_RATE: u64 = 4 << 20;
/// Size above which an upload may be slow if its bytes are hashed or copied.
const LARGE_UPLOAD_BYTES: u64 = 16 << 20;
/// Time for which an image may wait in the slow lane before another server may claim it.
const HANDOVER_DELAY: Duration = Duration::from_secs(30);
/// Failed claims in a row after which the sweep ends: the database has failed.
const MAX_FAILED_CLAIMS: u32 = 3;

/// Selection of images to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SweepScope {
    /// At most [`QUEUE_BATCH`] images that are due at this time.
    Round(OffsetDateTime),
    /// All images that are due or become due, until none is left.
    Continuous,
}

/// Shared state of a round.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) tally: Tally,
    /// Number of images that were claimed, or handed over to the slow lane.
    claimed: AtomicU32,
    /// Number of claims that failed since the last successful one.
    failed_claims: AtomicU32,
    /// Whether no further image is started.
    stopped: AtomicBool,
    health: Arc<Health>,
    /// Error that ended the round.
    failed: parking_lot::Mutex<Option<StoreError>>,
}

impl Round {
    /// Returns a round that reads and records failures in `health`.
    pub(super) fn with_health(health: Arc<Health>) -> Self {
        Self { health, ..Self::default() }
    }

    /// Returns whether images were claimed, and the round was not stopped, so that more may be due.
    pub(super) fn may_have_more(&self) -> bool {
        !self.stopped.load(Relaxed) && self.claimed.load(Relaxed) > 0
    }

    /// Returns whether no further image is started.
    fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Prevents further images of this round from being started.
    fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Records a failed claim. One failure may be caused by the record; several in a row mean that the database has failed.
    fn record_failed_claim(&self, due: &QueuedImage, error: StoreError) {
        self.tally.add(Swept { failed: 1, ..Swept::default() });
        tracing::warn!(image = %due.id(), %error, "failed to claim an image");
        if self.failed_claims.fetch_add(1, Relaxed) + 1 >= MAX_FAILED_CLAIMS {
            self.fail(error);
        }
    }

    /// Ends the round with an error.
    fn fail(&self, error: StoreError) {
        self.stop();
        *self.failed.lock() = Some(error);
    }

    /// Returns the error that ended the round, if there was one.
    fn take_failure(&self) -> Result<(), StoreError> {
        self.failed.lock().take().map_or(Ok(()), Err)
    }
}

/// Images that were read from the queue and wait for a permit.
#[derive(Debug)]
struct Waiting {
    images: VecDeque<QueuedImage>,
    /// Time at which they were due.
    now: OffsetDateTime,
    /// Start of the read.
    read_at: Instant,
    /// Whether the read found images that are not being swept already.
    has_new: bool,
}

impl Waiting {
    /// Removes the images that are being swept: the queue was read before they were claimed.
    fn without(mut self, under_way: &HashSet<String>) -> Self {
        self.images.retain(|due| !under_way.contains(&due.id()));
        self.has_new = !self.images.is_empty();
        self
    }

    /// Returns whether to read the queue again: at intervals, and after all images that were found are swept.
    fn is_outdated(&self, all_swept: bool) -> bool {
        self.read_at.elapsed() >= QUEUE_READ_INTERVAL || (all_swept && self.images.is_empty() && self.has_new)
    }
}

impl Sweeper {
    /// Sweeps the images of this scope.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails.
    pub(super) async fn sweep_due(&self, scope: SweepScope, round: &Round, lane: &SlowLane) -> Result<(), StoreError> {
        let mut permits = OwnerPermits::new(MAX_CONCURRENT, OWNER_SHARE);
        let (mut running, mut under_way) = (FuturesUnordered::new(), HashSet::new());
        let mut waiting = self.read_queue(scope).await?;
        let mut reading: Option<BoxFuture<'_, Result<Waiting, StoreError>>> = None;
        let mut reported_at = Instant::now();
        loop {
            let is_continuing = scope == SweepScope::Continuous && !round.is_stopped();
            let is_idle = running.is_empty();
            if is_continuing && reading.is_none() && permits.has_free() && waiting.is_outdated(is_idle) {
                let is_report_due = reported_at.elapsed() >= REPORT_INTERVAL;
                if is_report_due {
                    reported_at = Instant::now();
                }
                reading = Some(self.read_queue_and_report(scope, is_report_due).boxed());
            }
            while !round.is_stopped()
                && let Some(due) = permits.take_next(&mut waiting.images, QueuedImage::owner)
            {
                under_way.insert(due.id());
                self.turns.record(&due.owner());
                let now = waiting.now;
                let sweep = async move {
                    let began = Instant::now();
                    self.sweep_quick(&due, now, round, lane).await;
                    (due, began.elapsed())
                };
                running.push(sweep.boxed());
            }
            if running.is_empty() && reading.is_none() {
                return round.take_failure();
            }
            let next_read = waiting.read_at + QUEUE_READ_INTERVAL;
            let read = async {
                match &mut reading {
                    Some(reading) => reading.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((done, took)) = running.next() => {
                    permits.release(&done.owner(), took);
                    under_way.remove(&done.id());
                }
                found = read => {
                    reading = None;
                    match found {
                        Ok(found) => waiting = found.without(&under_way),
                        Err(error) => round.fail(error),
                    }
                }
                () = tokio::time::sleep_until(next_read.into()),
                    if is_continuing && permits.has_free() && Instant::now() < next_read => {}
            }
        }
    }

    /// Reads the queue, and updates the metrics if `is_report_due`.
    async fn read_queue_and_report(&self, scope: SweepScope, is_report_due: bool) -> Result<Waiting, StoreError> {
        let found = self.read_queue(scope).await?;
        if is_report_due {
            self.report(found.now).await;
        }
        Ok(found)
    }

    /// Reads due images from the queue, in turns between owners.
    async fn read_queue(&self, scope: SweepScope) -> Result<Waiting, StoreError> {
        let read_at = Instant::now();
        let now = match scope {
            SweepScope::Round(now) => now,
            SweepScope::Continuous => self.store.now().await?,
        };
        let due =
            self.turns.next_due(QUEUE_BATCH, |from, limit| self.store.images.find_due(ImageQueue::Sweeper, from, now, limit));
        let images = VecDeque::from(due.await?);
        Ok(Waiting { has_new: !images.is_empty(), images, now, read_at })
    }

    /// Sweeps one image, or hands it over to the slow lane if it is expected to be slow or takes longer than [`QUICK_TIMEOUT`].
    pub(super) async fn sweep_quick(&self, due: &QueuedImage, now: OffsetDateTime, round: &Round, lane: &SlowLane) {
        let owner = due.owner();
        round.health.pace(&owner).await;
        if round.is_stopped() {
            return;
        }
        if self.takes_long(due) {
            return self.hand_over(due, now, round, lane).await;
        }
        let claimed = match self.store.images.claim(due, now, LEASE_DURATION).await {
            Ok(claimed) => claimed,
            Err(error) => return round.record_failed_claim(due, error),
        };
        round.failed_claims.store(0, Relaxed);
        let (swept, lease) = match claimed {
            ClaimOutcome::Lost => return,
            ClaimOutcome::Unreadable(error, lease) => (Err(error), lease),
            ClaimOutcome::Image(image, lease) => {
                match tokio::time::timeout(QUICK_TIMEOUT, self.image_sweeper.sweep_image(&image, lease, &round.tally)).await {
                    Ok(swept) => (swept, lease),
                    Err(_) => return self.hand_over(&due.with_due(lease.ends), lease.now, round, lane).await,
                }
            }
        };
        round.claimed.fetch_add(1, Relaxed);
        self.record_health(&owner, &swept, round).await;
        self.end_claim(due, lease, swept, &round.tally).await;
    }

    /// Returns whether an image is expected to be slow: its last attempt failed, or its many bytes are hashed or copied.
    fn takes_long(&self, due: &QueuedImage) -> bool {
        let reads_bytes = due.sweep.is_pending && (self.capabilities.copies_uploads() || !self.capabilities.trusts_checksums());
        due.sweep.failures > 0 || (reads_bytes && due.sweep.bytes > LARGE_UPLOAD_BYTES)
    }

    /// Puts an image into the slow lane, or postpones it if the lane is full.
    async fn hand_over(&self, due: &QueuedImage, now: OffsetDateTime, round: &Round, lane: &SlowLane) {
        match self.store.images.reschedule(due, now + HANDOVER_DELAY).await {
            Ok(None) => {}
            Ok(Some(due)) => {
                round.claimed.fetch_add(1, Relaxed);
                lane.offer(due);
            }
            Err(error) => round.record_failed_claim(due, error),
        }
    }

    /// Records whether the calls for this owner's image succeeded, and stops the round if the store has failed.
    async fn record_health(&self, owner: &str, swept: &Result<(), StoreError>, round: &Round) {
        match swept {
            Ok(()) => round.health.record_success(owner),
            // One call may time out although the store answers others.
            Err(StoreError::ObjectsTimeout { .. }) => {
                if round.health.record_timeout() == TimeoutStreak::Long && !round.is_stopped() {
                    if self.objects.is_reachable().await {
                        round.health.reset_timeouts();
                    } else {
                        round.stop();
                    }
                }
            }
            Err(error) if error.is_outage() => {
                if round.health.record_outage(owner) {
                    round.stop();
                }
            }
            Err(_) => {}
        }
    }

    /// Counts a failure, and schedules the next attempt.
    async fn end_claim(&self, due: &QueuedImage, lease: Lease, swept: Result<(), StoreError>, tally: &Tally) {
        let Err(error) = swept else { return };
        tally.add(Swept { failed: 1, ..Swept::default() });
        let (failures, wait) = if concerns_only_record(&self.objects, &error).await {
            let failures = due.sweep.failures.saturating_add(1);
            (failures, backoff(failures))
        } else {
            (due.sweep.failures, FIRST_DELAY)
        };
        tracing::warn!(image = %due.id(), %error, failures, "failed to sweep an image");
        let to = Postponement { due: lease.now + wait, failures };
        if let Err(error) = self.store.images.postpone_failed(&due.with_due(lease.ends), to).await {
            // The image is due again when its lease ends.
            tracing::warn!(image = %due.id(), %error, "failed to postpone an image that could not be swept");
        }
    }

    /// Sweeps images from the slow lane, until its sender is dropped.
    pub(super) async fn sweep_slow(&self, mut queue: SlowQueue, tally: &Tally) {
        let mut permits = OwnerPermits::new(MAX_CONCURRENT_SLOW, SLOW_OWNER_SHARE);
        let (mut running, mut waiting) = (FuturesUnordered::new(), VecDeque::new());
        loop {
            while let Some(due) = permits.take_next(&mut waiting, QueuedImage::owner) {
                let sweep = async move {
                    self.sweep_slowly(&due, tally).await;
                    due
                };
                running.push(sweep.boxed());
            }
            tokio::select! {
                Some(due) = queue.next() => waiting.push_back(due),
                Some(done) = running.next() => {
                    // The duration does not matter: with a share of half the permits, no owner can borrow one.
                    permits.release(&done.owner(), Duration::ZERO);
                    queue.release(&done);
                }
                else => return,
            }
        }
    }

    /// Sweeps one image of the slow lane, with a lease by its size.
    async fn sweep_slowly(&self, due: &QueuedImage, tally: &Tally) {
        let lease_for = LEASE_DURATION + Duration::from_secs(due.sweep.bytes / MIN_STORE_RATE);
        // The image was postponed by this delay when it was handed over.
        let now = due.due - HANDOVER_DELAY;
        let (swept, lease) = match self.store.images.claim(due, now, lease_for).await {
            Ok(ClaimOutcome::Lost) => return,
            Ok(ClaimOutcome::Unreadable(error, lease)) => (Err(error), lease),
            Ok(ClaimOutcome::Image(image, lease)) => {
                let swept = tokio::time::timeout(lease_for, self.image_sweeper.sweep_image(&image, lease, tally)).await;
                (swept.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "a sweep" })), lease)
            }
            Err(error) => {
                tally.add(Swept { failed: 1, ..Swept::default() });
                tracing::warn!(image = %due.id(), %error, "failed to claim an image");
                return;
            }
        };
        self.end_claim(due, lease, swept, tally).await;
    }
}
