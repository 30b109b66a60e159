//! The sweeper confirms, rejects or removes the uploads that clients and servers left unfinished.
//!
//! [`Sweeper::sweep_once`] is one round at a chosen time; the loop around it is cancellable. Any number of servers may sweep: a
//! sweeper claims an image by raising its `due` to the end of a lease, and every step can be repeated.
//!
//! This module has the loop and the metrics. `images` and `lane` process the images that are due, `notified` those about which
//! the store sent a notification; `image_sweeper` sweeps one image. `permits`, and `turns` of the parent module, share the work
//! between owners. `health` ends a sweep while the store fails, `pair_watch` while the bucket belongs to another database. `tally`
//! counts outcomes.

mod health;
mod image_sweeper;
mod images;
mod lane;
mod notified;
mod pair_watch;
mod permits;
mod tally;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use self::tally::{Swept, SweptRound};
pub(super) use self::{image_sweeper::ImageSweeper, pair_watch::PairWatch};
use self::{
    images::{QUEUE_BATCH, Round, SweepScope},
    lane::{LaneCapacity, SlowLane, slow_lane},
    tally::Tally,
};
use super::{
    account_deletion::{AccountDeletion, SweptDeletions},
    arrival_polling::ArrivalPoller,
    capability_probing::CapabilityProber,
    deployment::PairError,
    reservations::{Reservations, SweptReservations},
    store_capabilities::KnownCapabilities,
    store_notifications::NotifiedUploads,
    sweep_backoff::FAILURES_UNTIL_STUCK,
    turns::Turns,
};
use crate::{
    config::{self, SweepSchedule},
    metrics::{METRICS, StateLabel},
    store::{KeyStep, Objects, Store, StoreError, without_failpoints},
    telemetry::spans,
};

/// Maximum count of due images that is reported.
const MAX_COUNTED: u32 = 1000;
/// Maximum number of images in a server's slow lane.
const SLOW_LANE_CAPACITY: LaneCapacity = LaneCapacity { all: 16, per_owner: 4 };
/// Maximum number of accounts that a step registers, and of keys of each kind that it checks.
const KEYS_PER_STEP: u32 = 500;
/// Interval between two counts of images and accounts.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The sweeper of this server.
#[derive(Debug)]
pub struct Sweeper {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) sweep: config::Sweep,
    pub(super) capabilities: Arc<KnownCapabilities>,
    pub(super) image_sweeper: ImageSweeper,
    pub(super) pair_watch: PairWatch,
    pub(super) arrival_poller: Arc<ArrivalPoller>,
    pub(super) notified_uploads: NotifiedUploads,
    pub(super) prober: Arc<CapabilityProber>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) account_deletion: Arc<AccountDeletion>,
    /// Turns of owners in the queue of due images.
    pub(super) turns: Turns,
}

impl Sweeper {
    /// Sweeps until `stop`, with pauses while nothing is due, and while the bucket belongs to another database. Errors are
    /// logged, and the sweep is retried.
    pub async fn sweep_until(&self, stop: CancellationToken) {
        let sweep = async {
            loop {
                self.sweep_while_paired().await;
                self.pair_watch.wait_until_paired().await;
            }
        };
        // Tests crash servers after a number of calls (`store/failpoint.rs`). The calls of a running sweeper are not counted, those
        // of `valet sweep` are.
        tokio::select! {
            () = stop.cancelled() => without_failpoints(self.pair_watch.stamp_at_stop()).await,
            () = without_failpoints(sweep) => {}
        }
    }

    /// Sweeps until the bucket belongs to another database. Stopping in the middle has the effect of a crash, after which every
    /// step can be repeated.
    async fn sweep_while_paired(&self) {
        let (lane, queue) = slow_lane(SLOW_LANE_CAPACITY);
        let tally = Tally::default();
        tokio::select! {
            error = self.pair_watch.watch_pair() => {
                tracing::error!(%error, "stopped sweeping: the bucket belongs to another database");
            }
            () = self.sweep_continuously(&lane) => {}
            () = self.sweep_slow(queue, &tally) => {}
            () = self.sweep_notified(&lane) => {}
        }
    }

    /// Sweeps at intervals, and logs failures.
    async fn sweep_continuously(&self, lane: &SlowLane) {
        let mut counted: Option<Instant> = None;
        if self.sweep.schedule == SweepSchedule::IntervalsOnly {
            self.wait_until_next_sweep().await;
        }
        loop {
            match self.sweep_all(lane).instrument(spans::internal("sweep")).await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(?swept, "swept"),
                Err(error) => tracing::warn!(%error, "failed to sweep"),
            }
            if counted.is_none_or(|at| at.elapsed() >= GAUGE_INTERVAL) {
                self.make_undated_due().await;
                self.update_gauges().await;
                counted = Some(Instant::now());
            }
            self.wait_until_next_sweep().await;
        }
    }

    /// Waits until the next sweep of this server.
    async fn wait_until_next_sweep(&self) {
        match self.sweep.schedule {
            SweepSchedule::Prompt => self.arrival_poller.wait_until_next_sweep(self.sweep.interval).await,
            SweepSchedule::IntervalsOnly => tokio::time::sleep(self.sweep.interval).await,
        }
    }

    /// Sweeps until nothing is due by the database's clock.
    ///
    /// # Errors
    /// [`PairError`] if the bucket belongs to another database by now, or the database fails.
    pub async fn sweep(&self) -> Result<Swept, PairError> {
        let mut total = Swept::default();
        let sweep = async {
            self.make_undated_due().await;
            loop {
                let now = self.store.now().await?;
                let round = self.sweep_once(now).await?;
                total += round.swept;
                if !round.may_have_more {
                    self.report(now).await;
                    return Ok(total);
                }
            }
        };
        tokio::select! {
            swept = sweep.instrument(spans::internal("sweep")) => swept,
            // Not counted as failpoints: the number of checks depends on the time.
            error = without_failpoints(self.pair_watch.watch_pair()) => Err(error),
        }
    }

    /// Sweeps until nothing is due. Accounts and reservations do not wait for images, whose calls may hang.
    async fn sweep_all(&self, lane: &SlowLane) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let round = Round::default();
            let mut images = Box::pin(self.sweep_due(SweepScope::Continuous, &round, lane));
            let swept = loop {
                images = match select(images, Box::pin(tokio::time::sleep(self.sweep.interval))).await {
                    Either::Left((swept, _)) => break swept,
                    Either::Right((_, images)) => images,
                };
                let accounts = async { self.sweep_accounts(self.store.now().await?, &round).await };
                images = match select(images, Box::pin(accounts)).await {
                    Either::Left((swept, accounts)) => break accounts.await.and(swept),
                    Either::Right((done, images)) => {
                        if let Err(error) = done {
                            tracing::warn!(%error, "failed to sweep accounts and reservations");
                        }
                        images
                    }
                };
            };
            let now = self.store.now().await?;
            let more = self.sweep_accounts(now, &round).await;
            total += round.tally.total();
            swept?;
            if !more? && !round.may_have_more() {
                self.report(now).await;
                return Ok(total);
            }
        }
    }

    /// Sets the metrics of the last successful sweep, and of the remaining work. A sweep that is still at work calls it, too.
    async fn report(&self, now: OffsetDateTime) {
        METRICS.sweep_last_success.set(now.unix_timestamp() as f64);
        let counted = async {
            let (due, first) = self.store.images.backlog(now, MAX_COUNTED).await?;
            METRICS.sweep_backlog.set(due.into());
            METRICS.sweep_lag.set(first.map_or(0.0, |first| (now - first).as_seconds_f64()));
            let images = self.store.images.count_stuck(FAILURES_UNTIL_STUCK, MAX_COUNTED).await?;
            METRICS
                .sweep_stuck
                .set((images + self.store.users.count_stuck_deletions(FAILURES_UNTIL_STUCK, MAX_COUNTED).await?).into());
            Ok::<_, StoreError>(())
        };
        if let Err(error) = counted.await {
            // The sweep itself has not failed, only the count of what is left.
            tracing::warn!(%error, "failed to count what is still due");
        }
    }

    /// Makes records due now that have no readable time in the sweeper's queue.
    async fn make_undated_due(&self) {
        let made_due = async { self.store.make_undated_due(self.store.now().await?).await };
        match made_due.await {
            Ok(0) => {}
            Ok(records) => tracing::error!(records, "records had no readable time in the sweeper's queue; they are due now"),
            Err(error) => tracing::warn!(%error, "failed to look for records without a time in the sweeper's queue"),
        }
    }

    /// Sets the metrics of images, their bytes and accounts.
    async fn update_gauges(&self) {
        let counted = async {
            for (state, count) in self.store.images.count_by_state().await? {
                let label = StateLabel { state: state.as_str() };
                METRICS.images.get_or_create(&label).set(count.images);
                METRICS.image_bytes.get_or_create(&label).set(count.bytes);
            }
            METRICS.accounts.set(i64::try_from(self.store.users.estimated_count().await?).unwrap_or(i64::MAX));
            Ok::<_, StoreError>(())
        };
        if let Err(error) = counted.instrument(spans::internal("census")).await {
            tracing::warn!(%error, "failed to count images and accounts");
        }
    }

    /// Runs one round at `now`.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails; a failure of one image is counted, and the image is retried later.
    pub async fn sweep_once(&self, now: OffsetDateTime) -> Result<SweptRound, StoreError> {
        // The lane has room for all images of a round. The round ends when the lane is empty.
        let (lane, queue) = slow_lane(LaneCapacity { all: QUEUE_BATCH, per_owner: QUEUE_BATCH });
        let tally = Tally::default();
        let quick = async {
            // Moved here, so that the lane closes when the quick part ends.
            let lane = lane;
            self.sweep_round(now, &lane).await
        };
        let (round, ()) = tokio::join!(quick, self.sweep_slow(queue, &tally));
        // `valet sweep` may end after the round.
        self.store.wait_for_counts().await;
        let mut round = round?;
        round.swept += tally.total();
        Ok(round)
    }

    /// Runs one round. Slow images go to `lane`.
    async fn sweep_round(&self, now: OffsetDateTime, lane: &SlowLane) -> Result<SweptRound, StoreError> {
        // The futures are boxed, because together they exceed a thread's stack in a debug build.
        Box::pin(self.prober.probe(now)).await;
        let round = Round::default();
        // Each part runs even if another one fails.
        let images = Box::pin(self.sweep_due(SweepScope::Round(now), &round, lane)).await;
        let is_more_due = self.sweep_accounts(now, &round).await;
        images?;
        Ok(SweptRound { may_have_more: is_more_due? || round.may_have_more(), swept: round.tally.total() })
    }

    /// Checks the keys of accounts, settles reservations and continues deletions of accounts. Returns whether more is due now.
    async fn sweep_accounts(&self, now: OffsetDateTime, round: &Round) -> Result<bool, StoreError> {
        Box::pin(self.prober.probe(now)).await;
        if let Some(missing) = self.store.probe().missing_collection().await? {
            // Settling reservations while records are still to be restored would lose them.
            tracing::error!(%missing, "the database was restored in part: reservations and deletions of accounts wait");
            round.tally.add(Swept { failed: 1, ..Swept::default() });
            return Ok(false);
        }
        let keys = Box::pin(self.sweep_keys(now)).await;
        let reservations = Box::pin(self.reservations.sweep_reservations(now)).await;
        let deletions = Box::pin(self.account_deletion.sweep_deletions(now)).await;
        if let Ok(SweptDeletions { deleted, failed, .. }) = deletions {
            round.tally.add(Swept { accounts: deleted, failed, ..Swept::default() });
        }
        if let Ok(SweptReservations { freed, failed, .. }) = reservations {
            round.tally.add(Swept { reservations: freed, failed, ..Swept::default() });
        }
        if let Ok(KeyStep { failed, .. }) = keys {
            round.tally.add(Swept { failed, ..Swept::default() });
        }
        let has_more = [keys?.more, reservations?.more, deletions?.more];
        Ok(has_more.contains(&true))
    }

    /// Releases the addresses and identities of accounts that do not exist, and registers those of accounts of an earlier
    /// version.
    async fn sweep_keys(&self, now: OffsetDateTime) -> Result<KeyStep, StoreError> {
        let registered = self.store.users.register_earlier_accounts(now, KEYS_PER_STEP).await?;
        let checked = self.store.users.check_keys(now, KEYS_PER_STEP).await?;
        Ok(KeyStep { failed: registered.failed + checked.failed, more: registered.more || checked.more })
    }
}
