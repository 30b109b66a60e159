//! Tests of the hub: which changes reach a stream, resuming, resets, limits of streams, and the end of the feed.

use futures_util::FutureExt;

use super::*;
use crate::model::{EventType, ImageId};

/// Returns the position of the first change in this second.
fn at(seconds: u32) -> EventPosition {
    EventPosition { seconds, increment: 1, changes: 1 }
}

/// Returns a change of an image of this user.
fn change(user: UserId, seconds: u32) -> ImageChange {
    ImageChange { position: at(seconds), user, image: ImageId::new(), event: EventType::ImageReady }
}

/// Returns a hub with a feed that begins at second 940, of a database whose latest write is at second 1000.
fn hub_with_feed(max_streams: usize) -> Arc<Hub> {
    let hub = Hub::new(max_streams);
    hub.begin(FeedBegin { position: at(940), opened_at: at(1000) });
    hub
}

/// Opens and starts a stream of this user.
fn open(hub: &Arc<Hub>, user: UserId, start: StreamStart) -> Subscription {
    let mut stream = hub.reserve(user, None).unwrap();
    stream.start(start);
    stream
}

/// Returns the notices that wait in a stream.
fn waiting(stream: &Subscription) -> Vec<Notice> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
}

#[test]
fn a_change_reaches_all_streams_of_its_owner_and_no_other() {
    let hub = hub_with_feed(10);
    let (ada, bob) = (UserId::new(), UserId::new());
    let (phone, tab, other) =
        (open(&hub, ada, StreamStart::Now), open(&hub, ada, StreamStart::Now), open(&hub, bob, StreamStart::Now));
    let made = change(ada, 1001);
    hub.publish(made, Instant::now());
    assert_eq!(waiting(&phone), [Notice::Changed(made)]);
    assert_eq!(waiting(&tab), [Notice::Changed(made)]);
    assert_eq!(waiting(&other), []);
    assert_eq!(other.received_position(), Some(at(1001)));
}

#[test]
fn changes_before_the_start_are_not_sent() {
    let hub = hub_with_feed(10);
    let user = UserId::new();
    let stream = open(&hub, user, StreamStart::Now);
    hub.publish(change(user, 960), Instant::now());
    assert_eq!(waiting(&stream), [], "the feed begins earlier, for streams that resume");
    assert_eq!(stream.received_position(), Some(at(1000)));
}

#[test]
fn a_stream_resumes_where_its_client_was() {
    let hub = hub_with_feed(10);
    let (ada, bob) = (UserId::new(), UserId::new());
    let (first, second, foreign) = (change(ada, 1001), change(ada, 1003), change(bob, 1002));
    [first, foreign, second].into_iter().for_each(|change| hub.publish(change, Instant::now()));
    assert_eq!(waiting(&open(&hub, ada, StreamStart::After(at(1000)))), [Notice::Changed(first), Notice::Changed(second)]);
    assert_eq!(waiting(&open(&hub, ada, StreamStart::After(at(1001)))), [Notice::Changed(second)]);
    let ahead = open(&hub, ada, StreamStart::After(at(1004)));
    assert_eq!(waiting(&ahead), [], "another server was ahead of this one");
    let (known, new) = (change(ada, 1004), change(ada, 1005));
    [known, new].into_iter().for_each(|change| hub.publish(change, Instant::now()));
    assert_eq!(waiting(&ahead), [Notice::Changed(new)]);
}

#[test]
fn a_stream_that_cannot_resume_begins_with_a_reset() {
    let hub = hub_with_feed(10);
    let user = UserId::new();
    hub.publish(change(user, 1001), Instant::now());
    let reset = [Notice::Reset(at(1001))];
    // A position before the feed, an unknown one, and one that leads by more than `MAX_LEAD_SECONDS`.
    for start in [StreamStart::After(at(939)), StreamStart::Unknown, StreamStart::After(at(1062))] {
        let stream = open(&hub, user, start);
        assert_eq!(stream.start_position(), None, "a client that loses the reset must get it again");
        assert_eq!(waiting(&stream), reset, "{start:?}");
    }
    assert_eq!(open(&hub, user, StreamStart::Now).start_position(), Some(at(1001)));
    assert_eq!(waiting(&open(&hub, user, StreamStart::After(at(940)))).len(), 1, "the feed's start is covered");
}

#[test]
fn old_changes_are_removed_and_cause_a_reset() {
    let hub = hub_with_feed(10);
    let (user, now) = (UserId::new(), Instant::now());
    hub.publish(change(user, 1001), now);
    hub.advance(at(1700), now + RECENT_TIME + Duration::from_secs(1));
    assert_eq!(waiting(&open(&hub, user, StreamStart::After(at(1000)))), [Notice::Reset(at(1700))]);
    assert_eq!(waiting(&open(&hub, user, StreamStart::After(at(1001)))), []);
    for seconds in 0..=u32::try_from(MAX_RECENT).unwrap() {
        hub.publish(change(user, 2000 + seconds), now);
    }
    assert_eq!(hub.state.lock().recent.len(), MAX_RECENT);
    assert_eq!(
        waiting(&open(&hub, user, StreamStart::After(at(1999)))).len(),
        1,
        "a client from before the removed change gets a reset"
    );
}

#[test]
fn a_lost_feed_resets_open_streams() {
    let hub = hub_with_feed(10);
    let user = UserId::new();
    let stream = open(&hub, user, StreamStart::Now);
    hub.publish(change(user, 1001), Instant::now());
    hub.begin(FeedBegin { position: at(1100), opened_at: at(1100) });
    assert_eq!(waiting(&stream), [Notice::Reset(at(1100))]);
    assert_eq!(waiting(&open(&hub, user, StreamStart::After(at(1001)))), [Notice::Reset(at(1100))]);
}

#[test]
fn streams_are_limited_by_user_and_server_until_they_are_dropped() {
    let hub = hub_with_feed(7);
    let (ada, bob) = (UserId::new(), UserId::new());
    let network = |n: u8| Some(NetworkPrefix::site([198, 51, n, 1].into()));
    let mut streams: Vec<_> = (0..5).map(|n| hub.reserve(ada, network(n)).unwrap()).collect();
    assert_eq!(streams.len(), MAX_STREAMS_PER_USER);
    assert_eq!(hub.reserve(ada, network(5)).unwrap_err(), TooManyStreams::OfUser);
    streams.extend([6, 7].map(|n| hub.reserve(bob, network(n)).unwrap()));
    assert_eq!(hub.reserve(bob, network(8)).unwrap_err(), TooManyStreams::OfServer);
    drop(streams);
    let network_streams: Vec<_> = std::iter::from_fn(|| hub.reserve(UserId::new(), network(0)).ok()).collect();
    assert_eq!(network_streams.len(), 4, "one network has half of the streams");
    assert!(hub.reserve(ada, network(1)).is_ok());
    hub.lower_limit(4);
    assert_eq!(hub.reserve(ada, network(1)).unwrap_err(), TooManyStreams::OfServer);
    drop(network_streams);
    let state = hub.state.lock();
    assert_eq!((state.count, state.streams.len()), (0, 0));
}

#[test]
fn the_feed_ends_after_a_time_without_streams() {
    let hub = hub_with_feed(10);
    let linger = Duration::from_secs(60);
    let stream = open(&hub, UserId::new(), StreamStart::Now);
    let later = Instant::now() + linger * 2;
    assert!(!hub.end_if_unused(linger, later), "a stream is open");
    drop(stream);
    assert!(!hub.end_if_unused(linger, Instant::now()), "its client may come back");
    assert!(hub.end_if_unused(linger, later) && *hub.phase.borrow() == Phase::Idle);
}
