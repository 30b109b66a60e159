//! Makes pictures of the images that become ready, in smaller sizes (`valet worker`).
//!
//! Any number of workers may run: a worker claims an image by raising its `rendering.due` to the end of a lease, as sweepers do,
//! and every step can be repeated. Images are decoded in a child process without any rights ([`super::rendering`]).
//!
//! This module has the loop; `backfill` queues earlier images; `queue` reads the queue in turns between owners, `attempt` makes
//! the pictures of one image.

mod attempt;
mod backfill;
mod queue;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{rendering::Renderer, sweeper::PairWatch, turns::Turns};
use crate::{
    config,
    store::{Objects, QueuedImage, Store, StoreError, without_failpoints},
};

/// Interval between two reads of the queue.
const QUEUE_READ_INTERVAL: Duration = Duration::from_millis(500);
/// Interval between two measurements of the longest wait.
const LAG_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failure to read the queue.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Time within which the images under way must be finished after a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Makes pictures of images.
#[derive(Debug)]
pub struct PreviewWorker {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) pair_watch: PairWatch,
    pub(super) settings: config::PreviewWorker,
    /// Whether a restriction of the children was found missing, and logged.
    pub(super) has_warned: AtomicBool,
    /// Turns of owners in the queue.
    pub(super) turns: Turns,
}

impl PreviewWorker {
    /// Returns a renderer with the worker's settings, whose children run this program. Removes the images that a killed worker left
    /// in the folder of temporary files.
    ///
    /// # Errors
    /// [`std::io::Error`] if the path of this program is unknown.
    pub fn renderer(&self) -> std::io::Result<Renderer> {
        match Renderer::remove_leftovers() {
            Ok(0) => {}
            Ok(conversions) => tracing::info!(conversions, "removed temporary files of a worker that was killed"),
            Err(error) => tracing::warn!(%error, "failed to remove temporary files of workers that were killed"),
        }
        let renderer = Renderer::of_this_program()?;
        Ok(match &self.settings.heif_command {
            Some(command) => renderer.with_heif_command(command.clone()),
            None => renderer,
        })
    }

    /// Makes pictures until `stop`, of one image at a time on each core. Then finishes the images under way, within
    /// `STOP_DEADLINE`. If a command for HEIC and AVIF is set, also makes the pictures of the images that failed without one.
    pub async fn run_until(&self, renderer: &Renderer, stop: CancellationToken) {
        let work = async {
            loop {
                tokio::select! {
                    () = self.work_until(renderer, &stop) => return,
                    error = self.pair_watch.watch_pair() => {
                        tracing::error!(%error, "stopped making previews: the bucket belongs to another database");
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.pair_watch.wait_until_paired() => {}
                }
            }
        };
        // Tests count the calls to MongoDB and S3, to end the process at one of them. The calls of this loop are left out; those of
        // `valet worker --once` are counted.
        without_failpoints(async { tokio::join!(work, self.convert_earlier_until(renderer, &stop)) }).await;
    }

    /// Makes the pictures that are due at `now`, and returns the number of images that need no further attempt.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails.
    pub async fn render_due(&self, renderer: &Renderer, now: OffsetDateTime) -> Result<u32, StoreError> {
        let (mut done, mut tried) = (0, HashSet::new());
        loop {
            let mut due = self.next_images_to_render(now).await?;
            // Each image is tried once: one that this worker failed to claim is still due.
            due.retain(|queued| tried.insert(queued.id()));
            if due.is_empty() {
                return Ok(done);
            }
            let attempts = futures_util::stream::iter(due).map(|queued| async move {
                self.turns.record(&queued.owner());
                self.render_queued(renderer, &queued, now).await
            });
            done += attempts
                .map(FutureExt::boxed)
                .buffer_unordered(concurrency())
                .map(u32::from)
                .fold(0, |sum, count| async move { sum + count })
                .await;
        }
    }

    /// Makes the pictures that are due by the database's clock, and returns the number of images as [`Self::render_due`] does.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails.
    pub async fn render_all_due(&self, renderer: &Renderer) -> Result<u32, StoreError> {
        self.render_due(renderer, self.store.now().await?).await
    }

    /// Makes pictures until `stop`, then waits for the images under way, within `STOP_DEADLINE`.
    async fn work_until(&self, renderer: &Renderer, stop: &CancellationToken) {
        let (mut running, mut under_way) = (FuturesUnordered::new(), HashSet::new());
        let mut waiting = VecDeque::<QueuedImage>::new();
        let (mut now, mut next_read, mut next_report) = (OffsetDateTime::UNIX_EPOCH, Instant::now(), Instant::now());
        while !stop.is_cancelled() {
            if running.len() < concurrency() && Instant::now() >= next_read {
                next_read = Instant::now() + QUEUE_READ_INTERVAL;
                match self.read_queue().await {
                    Ok((read_at, due)) => {
                        (now, waiting) = (read_at, due);
                        // The queue was read before these images were claimed.
                        waiting.retain(|queued| !under_way.contains(&queued.id()));
                        if Instant::now() >= next_report {
                            next_report = Instant::now() + LAG_INTERVAL;
                            self.report_lag(now).await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "failed to read the queue of previews");
                        next_read = Instant::now() + FAILURE_PAUSE;
                    }
                }
            }
            while running.len() < concurrency()
                && let Some(queued) = waiting.pop_front()
            {
                under_way.insert(queued.id());
                self.turns.record(&queued.owner());
                let render = async move {
                    self.render_queued(renderer, &queued, now).await;
                    queued.id()
                };
                running.push(render.boxed());
            }
            let has_free_core = running.len() < concurrency();
            tokio::select! {
                Some(done) = running.next() => drop(under_way.remove(&done)),
                () = tokio::time::sleep_until(next_read.into()), if has_free_core => {}
                () = stop.cancelled() => {}
            }
        }
        // An image that is not finished in time stays claimed until its lease ends.
        let finish = async { while running.next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, finish).await.is_err() {
            tracing::warn!("stopped before all previews under way were made; another worker makes them");
        }
    }
}

/// Returns the number of images that are decoded at once.
fn concurrency() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
