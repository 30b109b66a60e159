//! Reads how images were taken that became ready before a confirm read it: their first bytes by one ranged GET each, and further ranges
//! where the metadata lies deeper.
//!
//! Owners take turns, and the rate is bounded. Each result is recorded with its image, also that the file says nothing, so the backfill
//! continues where it ended, whatever ended it.

use std::{collections::VecDeque, fmt, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use time::OffsetDateTime;

use super::inspection::ObjectInspector;
use crate::{
    model::{Capture, Image, Position, UserId},
    store::{Store, StoreError},
};

/// Users that are listed at once.
const USERS_PER_PAGE: u32 = 1000;
/// Records of one owner that are examined in one turn.
const RECORDS_PER_TURN: u32 = 100;
/// Images that are read at the same time.
const MAX_CONCURRENT: usize = 8;
/// Pause after a failure of the database or of the store.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Failures in a row after which the backfill ends.
const MAX_FAILURES: u32 = 10;

/// Result of a backfill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapturesRead {
    /// Images whose files were read.
    pub read: u64,
    /// Those of them with a time.
    pub taken: u64,
    /// Images that could not be read.
    pub failed: u64,
}

impl fmt::Display for CapturesRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images read, {} with the time taken, {} failed", self.read, self.taken, self.failed)
    }
}

/// Outcome of one image.
enum Outcome {
    /// Recorded, with a time.
    Taken,
    /// Recorded, without a time.
    Timeless,
    /// It was deleted or changed meanwhile, or its object is missing.
    Gone,
}

/// Reads how earlier images were taken.
#[derive(Debug)]
pub struct CaptureBackfill {
    pub(super) store: Arc<Store>,
    pub(super) inspector: Arc<ObjectInspector>,
}

impl CaptureBackfill {
    /// Reads at most `rate` images a second, until all have been. Safe while servers run, and to repeat.
    ///
    /// # Errors
    /// [`StoreError`] if the database or the store fails for a while.
    pub async fn run(&self, rate: NonZeroU32) -> Result<CapturesRead, StoreError> {
        let (mut total, mut failures) = (CapturesRead::default(), 0);
        let mut turns = Turns::new(&self.store);
        loop {
            let second = tokio::time::sleep(Duration::from_secs(1));
            let done = match turns.next(rate).await {
                Ok(images) if images.is_empty() => return Ok(total),
                Ok(images) => self.read_all(&images, &mut total).await,
                Err(error) => Err(error),
            };
            failures = match done {
                Ok(()) => 0,
                Err(error) if failures >= MAX_FAILURES => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "failed to read how images were taken");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    failures + 1
                }
            };
            second.await;
        }
    }

    /// Reads and records these images. An error if none of them could be.
    async fn read_all(&self, images: &[Image], total: &mut CapturesRead) -> Result<(), StoreError> {
        let now = self.store.now().await.inspect_err(|_| total.failed += images.len() as u64)?;
        let captures = stream::iter(images).map(|image| async move { (image, self.read_one(image, now).await) });
        let mut captures = std::pin::pin!(captures.buffer_unordered(MAX_CONCURRENT));
        let (mut has_result, mut last_error) = (false, None);
        // Recorded one by one: those of one owner change the same record.
        while let Some((image, capture)) = captures.next().await {
            let outcome = match capture {
                Ok(Some(capture)) => self.record_one(image, &capture).await,
                Ok(None) => Ok(Outcome::Gone),
                Err(error) if error.is_final() => {
                    tracing::info!(image = %image.id, %error, "the store refuses an image whose time is to be read");
                    Ok(Outcome::Gone)
                }
                Err(error) => Err(error),
            };
            has_result |= outcome.is_ok();
            match outcome {
                Ok(Outcome::Taken) => (total.read, total.taken) = (total.read + 1, total.taken + 1),
                Ok(Outcome::Timeless) => total.read += 1,
                Ok(Outcome::Gone) => {}
                Err(error) => {
                    tracing::warn!(image = %image.id, %error, "failed to read how an image was taken");
                    total.failed += 1;
                    last_error = Some(error);
                }
            }
        }
        last_error.filter(|_| !has_result).map_or(Ok(()), Err)
    }

    async fn read_one(&self, image: &Image, now: OffsetDateTime) -> Result<Option<Capture>, StoreError> {
        let Some(ready) = image.ready() else { return Ok(None) };
        let capture = self.inspector.read_capture(image, ready).await?;
        if capture.is_none() {
            tracing::info!(image = %image.id, "an image whose time is to be read has no object, or another one");
        }
        Ok(capture.map(|capture| capture.without_future(now)))
    }

    async fn record_one(&self, image: &Image, capture: &Capture) -> Result<Outcome, StoreError> {
        Ok(match self.store.record_capture(image, capture).await? {
            true if capture.taken_at.is_some() => Outcome::Taken,
            true => Outcome::Timeless,
            false => Outcome::Gone,
        })
    }
}

/// Earlier images of all users, some of each owner in turn.
struct Turns<'a> {
    store: &'a Store,
    /// The last user that was listed; `None` before the first.
    last_user: Option<String>,
    /// Owners whose turn comes in this round, each with the position after the last turn.
    owners: VecDeque<(UserId, Option<Position>)>,
    /// Owners with more images.
    next_round: VecDeque<(UserId, Option<Position>)>,
    waiting: VecDeque<Image>,
    is_listed: bool,
}

impl<'a> Turns<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            last_user: None,
            owners: VecDeque::new(),
            next_round: VecDeque::new(),
            waiting: VecDeque::new(),
            is_listed: false,
        }
    }

    /// Returns the next images, `limit` at most; an empty list after the last.
    async fn next(&mut self, limit: NonZeroU32) -> Result<Vec<Image>, StoreError> {
        let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
        while self.waiting.len() < limit {
            let Some((owner, after)) = self.owners.front().copied() else {
                if self.find_owners().await? {
                    continue;
                }
                break;
            };
            let page = self.store.images.find_unread_captures(owner, after, RECORDS_PER_TURN).await?;
            self.owners.pop_front();
            match page.end {
                // Records that were read before take no turn.
                Some(end) if page.images.is_empty() => self.owners.push_front((owner, Some(end))),
                Some(end) => self.next_round.push_back((owner, Some(end))),
                None => {}
            }
            self.waiting.extend(page.images);
        }
        Ok(self.waiting.drain(..limit.min(self.waiting.len())).collect())
    }

    /// Lists the next users, or begins the next round. Returns `false` after the last round.
    async fn find_owners(&mut self) -> Result<bool, StoreError> {
        if !self.is_listed {
            let page = self.store.users.ids(self.last_user.as_deref(), USERS_PER_PAGE).await?;
            let last = page.last().map(|last| last.as_ref().map_or_else(Clone::clone, ToString::to_string));
            self.is_listed = last.is_none();
            self.last_user = last.or(self.last_user.take());
            self.owners.extend(page.into_iter().filter_map(Result::ok).map(|user| (user, None)));
            return Ok(true);
        }
        std::mem::swap(&mut self.owners, &mut self.next_round);
        Ok(!self.owners.is_empty())
    }
}
