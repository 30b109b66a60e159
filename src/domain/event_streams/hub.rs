//! The open event streams of this server, and the latest changes, from which a client resumes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::mailbox::{Mailbox, Notice};
use crate::{
    domain::shares::{Share, Shares},
    metrics::METRICS,
    model::{EventPosition, NetworkPrefix, UserId},
    store::ImageChange,
};

/// Maximum number of streams of one user on one server: a few devices and tabs.
pub const MAX_STREAMS_PER_USER: usize = 5;
/// Maximum number of recent changes in memory, from which clients resume: about 2 MB.
const MAX_RECENT: usize = 20_000;
/// Maximum age of these changes.
const RECENT_TIME: Duration = Duration::from_secs(10 * 60);
/// Largest lead of a client's position over the latest one here: another server may be ahead. A client whose position is later was
/// connected before the database was restored.
const MAX_LEAD_SECONDS: u32 = 60;

/// Why no stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyStreams {
    /// The user has [`MAX_STREAMS_PER_USER`].
    #[error("too many event streams of the user")]
    OfUser,
    /// The server has as many as its setting permits, or the network has as many as one network may.
    #[error("too many event streams of the server or of the network")]
    OfServer,
}

/// State of the feed of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No feed is open: no stream needs it, or it is being opened.
    Idle,
    /// All changes after the hub's position will arrive.
    Live,
    /// The server stops.
    Closed,
}

/// Positions at which a feed begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedBegin {
    /// The position after which the feed has all changes.
    pub(super) position: EventPosition,
    /// The database's latest write when it was opened.
    pub(super) opened_at: EventPosition,
}

/// The open streams, the state of their feed, and the permits for further streams.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// Wakes the task that opens the feed.
    pub(super) wanted: Notify,
    /// Permits of streams, shared between networks, so that no network takes all of them.
    permits: Arc<Shares<Option<NetworkPrefix>>>,
}

/// The open streams and the changes that they may need.
#[derive(Debug)]
struct State {
    /// Mailboxes of the open streams, by user.
    streams: HashMap<UserId, Vec<Arc<Mailbox>>>,
    /// Number of open streams.
    count: usize,
    /// Time since which no stream is open.
    unused_since: Option<Instant>,
    /// The latest changes, with the time at which each arrived, the oldest first.
    recent: VecDeque<(Instant, ImageChange)>,
    /// All changes after this position are in `recent`, or the feed has not reached them.
    floor: EventPosition,
    /// The position that the feed has reached.
    reached: EventPosition,
    /// The database's latest write when the feed was opened, which the feed may not have reached yet.
    opened_at: EventPosition,
}

/// Position after which the messages of a stream begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStart {
    /// Now.
    Now,
    /// After this position, which an earlier stream announced.
    After(EventPosition),
    /// At an unknown position: the client sent a text that no stream announced.
    Unknown,
}

/// An open stream, until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    user: UserId,
    mailbox: Arc<Mailbox>,
    _permit: Share<Option<NetworkPrefix>>,
    /// The position after which the messages begin.
    start: EventPosition,
}

impl Hub {
    /// Creates a hub without streams.
    pub(super) fn new(max_streams: usize) -> Arc<Self> {
        let origin = EventPosition::before(0, 0);
        let state = State {
            streams: HashMap::new(),
            count: 0,
            unused_since: None,
            recent: VecDeque::new(),
            floor: origin,
            reached: origin,
            opened_at: origin,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            phase: watch::Sender::new(Phase::Idle),
            wanted: Notify::new(),
            permits: Shares::new(max_streams),
        })
    }

    /// Lowers the limit of open streams to `max_streams`, unless it is lower already. Open streams stay open.
    pub(super) fn lower_limit(&self, max_streams: usize) {
        self.permits.lower_total(max_streams);
    }

    /// Reserves a stream of this user for a client in `network`. It receives no message before [`Subscription::start`].
    pub(super) fn reserve(
        self: &Arc<Self>,
        user: UserId,
        network: Option<NetworkPrefix>,
    ) -> Result<Subscription, TooManyStreams> {
        let mut state = self.state.lock();
        if state.streams.get(&user).is_some_and(|streams| streams.len() >= MAX_STREAMS_PER_USER) {
            return Err(TooManyStreams::OfUser);
        }
        let permit = self.permits.take(network, 1).ok_or(TooManyStreams::OfServer)?;
        let mailbox = Arc::<Mailbox>::default();
        state.streams.entry(user).or_default().push(mailbox.clone());
        state.count += 1;
        state.unused_since = None;
        let start = state.reached;
        drop(state);
        METRICS.event_streams.inc();
        self.wanted.notify_one();
        Ok(Subscription { hub: self.clone(), user, mailbox, _permit: permit, start })
    }

    /// Waits until changes arrive; returns `false` if the server stops.
    pub(super) async fn wait_until_live(&self) -> bool {
        let mut phase = self.phase.subscribe();
        phase.wait_for(|phase| *phase != Phase::Idle).await.is_ok_and(|phase| *phase == Phase::Live)
    }

    /// Begins to publish the changes of a new feed. Streams that are open already are reset, because they may have missed changes.
    pub(super) fn begin(&self, feed: FeedBegin) {
        let mut state = self.state.lock();
        state.recent.clear();
        (state.floor, state.reached, state.opened_at) = (feed.position, feed.position, feed.opened_at);
        // Streams that wait for their first feed have missed none.
        if *self.phase.borrow() == Phase::Live {
            for mailbox in state.streams.values().flatten() {
                mailbox.reset(feed.opened_at);
            }
        }
        drop(state);
        self.enter(Phase::Idle, Phase::Live);
    }

    /// Changes the phase to `to` if it is `from`.
    fn enter(&self, from: Phase, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_from = *phase == from;
            if is_from {
                *phase = to;
            }
            is_from
        });
    }

    /// Hands a change to the streams of its owner.
    pub(super) fn publish(&self, change: ImageChange, now: Instant) {
        let mut state = self.state.lock();
        state.reached = change.position;
        state.recent.push_back((now, change));
        state.forget_old(now);
        for mailbox in state.streams.get(&change.user).into_iter().flatten() {
            mailbox.push(change);
        }
    }

    /// Notes that the feed has reached a position without further changes.
    pub(super) fn advance(&self, position: EventPosition, now: Instant) {
        let mut state = self.state.lock();
        state.reached = state.reached.max(position);
        state.forget_old(now);
    }

    /// Ends the feed if no stream was open for `linger`; returns whether it did.
    pub(super) fn end_if_unused(&self, linger: Duration, now: Instant) -> bool {
        let state = self.state.lock();
        let is_unused = state.unused_since.is_some_and(|since| now.saturating_duration_since(since) >= linger);
        if is_unused {
            self.enter(Phase::Live, Phase::Idle);
        }
        is_unused
    }

    /// Returns whether a stream is open.
    pub(super) fn is_used(&self) -> bool {
        self.state.lock().count > 0
    }

    /// Ends all streams; returns whether a feed was open.
    pub(super) fn close(&self) -> bool {
        let before = self.phase.send_replace(Phase::Closed);
        self.state.lock().streams.values().flatten().for_each(|mailbox| mailbox.close());
        before == Phase::Live
    }
}

impl State {
    /// Removes changes that are too old or too many for a stream to resume from.
    fn forget_old(&mut self, now: Instant) {
        while let Some((at, change)) = self.recent.front()
            && (self.recent.len() > MAX_RECENT || now.saturating_duration_since(*at) > RECENT_TIME)
        {
            self.floor = change.position;
            self.recent.pop_front();
        }
    }

    /// Returns the latest known position.
    fn latest(&self) -> EventPosition {
        self.reached.max(self.opened_at)
    }

    /// Returns whether all changes after a client's position are known.
    fn covers(&self, position: EventPosition) -> bool {
        position >= self.floor && position.seconds <= self.latest().seconds.saturating_add(MAX_LEAD_SECONDS)
    }
}

impl Subscription {
    /// Starts the messages. They begin with a reset if changes after the start may be unknown here.
    pub(super) fn start(&mut self, at: StreamStart) {
        let state = self.hub.state.lock();
        // Changes that arrived since the stream was reserved are among the recent ones.
        self.mailbox.clear();
        match at {
            StreamStart::Now => self.start = state.latest(),
            StreamStart::After(after) if state.covers(after) => {
                self.start = after;
                let recent = state.recent.iter().map(|(_, change)| *change);
                let missed = recent.filter(|change| change.user == self.user && change.position > after);
                missed.for_each(|change| self.mailbox.push(change));
            }
            StreamStart::After(_) | StreamStart::Unknown => {
                self.start = state.latest();
                self.mailbox.reset(self.start);
            }
        }
    }

    /// Returns the position after which the messages begin; `None` if they begin with a reset, which a client must not skip by
    /// resuming at a later position.
    #[must_use]
    pub fn start_position(&self) -> Option<EventPosition> {
        (!self.mailbox.begins_with_reset()).then_some(self.start)
    }

    /// Waits for the next message; `None` when the server stops. Loses no message if it is cancelled.
    pub async fn next(&self) -> Option<Notice> {
        loop {
            match self.mailbox.take().await {
                Some(Notice::Reset(position)) => {
                    METRICS.event_stream_resets.inc();
                    return Some(Notice::Reset(position));
                }
                // The feed has not reached the start of the stream yet.
                Some(Notice::Changed(change)) if change.position <= self.start => {}
                other => return other,
            }
        }
    }

    /// Returns the position up to which the client has received all changes; `None` while messages wait.
    #[must_use]
    pub fn received_position(&self) -> Option<EventPosition> {
        let state = self.hub.state.lock();
        self.mailbox.is_empty().then_some(state.reached.max(self.start))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        if let Some(streams) = state.streams.get_mut(&self.user) {
            streams.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if streams.is_empty() {
                state.streams.remove(&self.user);
            }
        }
        state.count -= 1;
        if state.count == 0 {
            state.unused_since = Some(Instant::now());
        }
        METRICS.event_streams.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
