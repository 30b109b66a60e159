//! Reads time, camera and position from the files of images that an earlier version made ready: the first bytes of each file by one
//! ranged GET, and further ranges if the metadata lies deeper.
//!
//! Owners take turns, and the rate is bounded. Each result is recorded with its image, even if the file has no metadata, so an
//! interrupted backfill continues with the images that are left.

use std::{collections::VecDeque, fmt, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use time::OffsetDateTime;

use super::{inspection::ObjectInspector, permanent_failures::concerns_only_record};
use crate::{
    model::{Capture, Image, Position, UserId},
    store::{Store, StoreError},
};

/// Maximum number of users that one query returns.
const USERS_PER_PAGE: u32 = 1000;
/// Records of one owner that are examined in one turn.
const RECORDS_PER_TURN: u32 = 100;
/// Maximum number of images that are read at the same time.
const MAX_CONCURRENT: usize = 8;
/// Pause after a failure of the database or of the store.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Failures in a row after which the backfill tries again; one more ends it.
const MAX_FAILURES: u32 = 10;

/// Result of a backfill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapturesRead {
    /// Images whose files were read.
    pub read: u64,
    /// Images among them whose file has the time taken.
    pub taken: u64,
    /// Images that could not be read; the next run reads them.
    pub failed: u64,
    /// Images whose object the store refuses to return, such as an archived one. They are not read again.
    pub refused: u64,
    /// Images whose object is missing, or is not the one that was confirmed. The next run looks for it again.
    pub missing: u64,
}

impl fmt::Display for CapturesRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, taken, failed, refused, missing } = self;
        write!(f, "{read} images read, {taken} with the time taken, {failed} failed")?;
        write!(f, ", {refused} refused by the store, {missing} without their object")
    }
}

/// Outcome of one image.
enum Outcome {
    /// Recorded, with a time.
    Taken,
    /// Recorded, without a time.
    Timeless,
    /// Recorded, because the store refuses to return the object.
    Refused,
    /// Not recorded, because the object is missing or is not the one that was confirmed.
    Missing,
    /// Not recorded, because the image was deleted or changed meanwhile.
    Changed,
}

/// Reads how images of an earlier version were taken.
#[derive(Debug)]
pub struct CaptureBackfill {
    pub(super) store: Arc<Store>,
    pub(super) inspector: Arc<ObjectInspector>,
}

impl CaptureBackfill {
    /// Reads at most `rate` images a second, until every image has been read. Safe while servers run, and to repeat.
    ///
    /// # Errors
    /// [`StoreError`] if the database or the store fails for a while.
    pub async fn run(&self, rate: NonZeroU32) -> Result<CapturesRead, StoreError> {
        let (mut total, mut failures) = (CapturesRead::default(), 0);
        let mut turns = Turns::new(&self.store);
        loop {
            let one_second = tokio::time::sleep(Duration::from_secs(1));
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
            one_second.await;
        }
    }

    /// Reads these images and records the results. Returns an error if every image failed because the database or the store fails.
    async fn read_all(&self, images: &[Image], total: &mut CapturesRead) -> Result<(), StoreError> {
        let now = self.store.now().await.inspect_err(|_| total.failed += images.len() as u64)?;
        let captures = stream::iter(images).map(|image| async move { (image, self.read_one(image, now).await) });
        let mut captures = std::pin::pin!(captures.buffer_unordered(MAX_CONCURRENT));
        let (mut has_result, mut last_error) = (false, None);
        // Recorded one by one: images of one owner change the same user's record.
        while let Some((image, capture)) = captures.next().await {
            let outcome = match capture {
                Ok(Some(capture)) => self.record_one(image, &capture).await,
                Ok(None) => self.note_missing(image).await,
                Err(error @ StoreError::ObjectRejected { .. }) => self.record_refusal(image, &error).await,
                Err(error) => Err(error),
            };
            has_result |= outcome.is_ok();
            match outcome {
                Ok(Outcome::Taken) => (total.read, total.taken) = (total.read + 1, total.taken + 1),
                Ok(Outcome::Timeless) => total.read += 1,
                Ok(Outcome::Refused) => total.refused += 1,
                Ok(Outcome::Missing) => total.missing += 1,
                Ok(Outcome::Changed) => {}
                Err(error) => {
                    tracing::warn!(image = %image.id, %error, "failed to read how an image was taken");
                    total.failed += 1;
                    last_error = Some(error);
                }
            }
        }
        match last_error.filter(|_| !has_result) {
            // One owner's images may all fail, while the store returns those of the others.
            Some(error) if !concerns_only_record(&self.inspector.objects, &error).await => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads how an image was taken; `None` if its object is missing or was replaced.
    async fn read_one(&self, image: &Image, now: OffsetDateTime) -> Result<Option<Capture>, StoreError> {
        let Some(ready) = image.ready() else { return Ok(None) };
        Ok(self.inspector.read_capture(image, ready).await?.map(|capture| capture.without_future(now)))
    }

    /// Logs an image whose object is missing or was replaced, unless the image was deleted meanwhile.
    async fn note_missing(&self, image: &Image) -> Result<Outcome, StoreError> {
        let found = self.store.images.find_owned(image.user, image.id).await?;
        if found.is_none_or(|found| found.ready().is_none()) {
            return Ok(Outcome::Changed);
        }
        tracing::warn!(image = %image.id, "an image whose time is to be read has no object, or another one");
        Ok(Outcome::Missing)
    }

    /// Records that the store refuses to return an image's object.
    async fn record_refusal(&self, image: &Image, error: &StoreError) -> Result<Outcome, StoreError> {
        tracing::warn!(image = %image.id, %error, "the store refuses an image whose time is to be read");
        let is_recorded = self.store.images.record_refused_capture(image).await?;
        Ok(if is_recorded { Outcome::Refused } else { Outcome::Changed })
    }

    /// Records how an image was taken.
    async fn record_one(&self, image: &Image, capture: &Capture) -> Result<Outcome, StoreError> {
        Ok(match self.store.record_capture(image, capture).await? {
            true if capture.taken_at.is_some() => Outcome::Taken,
            true => Outcome::Timeless,
            false => Outcome::Changed,
        })
    }
}

/// Images of all users that were not read yet, some of each owner in turn.
struct Turns<'a> {
    store: &'a Store,
    /// The last user that was listed; `None` before the first.
    last_user: Option<String>,
    /// Owners whose turn comes in this round, each with the position after the last turn.
    owners: VecDeque<(UserId, Option<Position>)>,
    /// Owners with more images.
    next_round: VecDeque<(UserId, Option<Position>)>,
    /// Images that were found and not returned yet.
    waiting: VecDeque<Image>,
    /// Whether all users were listed.
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
                // A page of images that were all read before does not count as the owner's turn.
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
