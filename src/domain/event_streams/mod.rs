//! Event streams of the app's clients: each receives the changes of its user's images as they are made, on any server.
//!
//! Each server has one feed of changes for all its streams, which is open while a stream is open. Streams announce changes and
//! contain no data beside ids, so a client reads changed images with an ordinary call. If a server cannot know which changes a
//! client missed, the client receives a reset, and reads again what it shows.

mod hub;
mod mailbox;
pub mod schedule;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::hub::{FeedBegin, Hub};
pub use self::{
    hub::{MAX_STREAMS_PER_USER, StreamStart, Subscription, TooManyStreams},
    mailbox::Notice,
};
use crate::{
    model::UserId,
    store::{ChangeFeed, FeedError, FeedStart, Store, request_origin, without_failpoints},
};

/// How far the first feed goes back, so that the clients of a server that was restarted can resume.
const LOOK_BACK: Duration = Duration::from_secs(60);
/// Time for which the feed stays open without streams.
const LINGER: Duration = Duration::from_secs(60);
/// Time for which a new stream waits for the feed.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Time for which a server that stops waits for the driver, which ends the cursor of a feed in a task of its own.
const CURSOR_END: Duration = Duration::from_millis(100);
/// Pause after a failure of the database.
const BACKOFF: Duration = Duration::from_millis(500);

/// Why an event stream cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// Too many streams are open.
    #[error(transparent)]
    TooMany(#[from] TooManyStreams),
    /// The database does not send changes, or the server stops.
    #[error("no changes are received")]
    Unavailable,
}

/// The event streams of this server.
#[derive(Debug)]
pub struct EventStreams {
    store: Arc<Store>,
    hub: Arc<Hub>,
}

impl EventStreams {
    /// Creates the service without streams.
    pub(super) fn new(store: Arc<Store>, max_streams: usize) -> Self {
        Self { store, hub: Hub::new(max_streams) }
    }

    /// Lowers the limit of open streams to `max_streams`, unless it is lower already. Open streams stay open.
    pub fn lower_limit(&self, max_streams: usize) {
        self.hub.lower_limit(max_streams);
    }

    /// Opens a stream of a user's changes, which counts for the network of the request. Once it is returned, it receives all
    /// changes after its start.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub async fn open(&self, user: UserId, start: StreamStart) -> Result<Subscription, OpenStreamError> {
        let network = request_origin::current().map(|origin| origin.site);
        let mut subscription = self.hub.reserve(user, network)?;
        match tokio::time::timeout(OPEN_DEADLINE, self.hub.wait_until_live()).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(OpenStreamError::Unavailable),
        }
        subscription.start(start);
        Ok(subscription)
    }

    /// Feeds the streams until `stop`, then ends them.
    pub async fn run_until(&self, stop: CancellationToken) {
        let run = async {
            loop {
                if !self.hub.is_used() {
                    self.hub.wanted.notified().await;
                    continue;
                }
                self.feed_streams().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = without_failpoints(run) => {}
        }
        if self.hub.close() {
            tokio::time::sleep(CURSOR_END).await;
        }
    }

    /// Feeds the streams until no stream has been open for [`LINGER`].
    async fn feed_streams(&self) {
        let mut start = FeedStart::Ago(LOOK_BACK);
        loop {
            match self.store.image_changes.open(start.clone()).await {
                Ok(mut feed) => {
                    if !matches!(start, FeedStart::Resumed(_)) {
                        self.hub.begin(FeedBegin { position: feed.position(), opened_at: feed.opened_at });
                    }
                    match self.forward(&mut feed).await {
                        Ok(()) => return,
                        Err(error) => start = self.next_start(error, FeedStart::Resumed(feed.point())).await,
                    }
                }
                Err(error) => start = self.next_start(error, start).await,
            }
            if self.hub.end_if_unused(LINGER, Instant::now()) {
                return;
            }
        }
    }

    /// Forwards changes until no stream has been open for [`LINGER`].
    async fn forward(&self, feed: &mut ChangeFeed) -> Result<(), FeedError> {
        loop {
            match feed.next().await? {
                Some(change) => self.hub.publish(change, Instant::now()),
                None => self.hub.advance(feed.position(), Instant::now()),
            }
            if self.hub.end_if_unused(LINGER, Instant::now()) {
                return Ok(());
            }
        }
    }

    /// Waits after an error, unless the database is new, and returns the start of the next feed.
    async fn next_start(&self, error: FeedError, retry: FeedStart) -> FeedStart {
        let start = match error {
            // Usual for the first feed of a new database.
            FeedError::Lost if matches!(retry, FeedStart::Ago(_)) => return FeedStart::Now,
            FeedError::Lost => {
                tracing::warn!("lost the feed of changes; resetting all event streams");
                FeedStart::Now
            }
            FeedError::Dropped(token) => {
                tracing::warn!(
                    "lost the feed of changes, because its collection was dropped or renamed; resetting all event streams"
                );
                FeedStart::AfterDrop(token)
            }
            FeedError::Store(error) => {
                tracing::warn!(%error, "failed to read the feed of changes");
                retry
            }
        };
        tokio::time::sleep(BACKOFF).await;
        start
    }
}
