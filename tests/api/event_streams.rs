//! Covers event streams: their events and the users who get them, on several servers; resuming, resets, limits and heartbeats.
//! `endings` covers the ends of streams. `tests/faults/event_streams.rs` kills the primary under them.
//!
//! Routes: GET /api/events.

mod endings;
mod idle_cost;

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use reqwest::Response;
use serde_json::json;
use valet::metrics::METRICS;

use super::app::{Caller, TestApp, declaration, eventually, unique_png};

/// Longest wait for an event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client's stream.
pub struct Events {
    response: Response,
    /// Text that was received and not yet returned.
    unread: String,
}

/// A block of a stream: an event, a comment or a bare position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    pub id: String,
    pub event: String,
    pub data: String,
    pub is_comment: bool,
}

impl Frame {
    /// Parses a block of a stream.
    fn parse(block: &str) -> Self {
        let mut frame = Self::default();
        for line in block.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => frame.id = value.to_owned(),
                ("event", value) => frame.event = value.to_owned(),
                ("data", value) => frame.data = value.to_owned(),
                ("retry", value) => assert!(value.parse::<u32>().is_ok(), "{line}"),
                (":", "") => frame.is_comment = true,
                _ => panic!("unknown line: {line}"),
            }
        }
        frame
    }

    /// Returns the event's type and the id of its image; the id of a reset is empty.
    fn type_and_image(&self) -> (&str, String) {
        let data: serde_json::Value = serde_json::from_str(&self.data).unwrap();
        assert!(data.as_object().unwrap().keys().all(|name| name == "id"), "the data has only an id: {data}");
        (&self.event, data["id"].as_str().unwrap_or_default().to_owned())
    }
}

impl Events {
    /// Opens a stream; returns it after its first frame, which has no event.
    pub async fn open(caller: &Caller<'_>, last_event_id: Option<&str>) -> (Self, Frame) {
        let response = request(caller, last_event_id).await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-store".to_owned(), "no".to_owned()));
        let mut events = Self { response, unread: String::new() };
        let first = events.block(PATIENCE).await.expect("a first frame");
        assert!(first.event.is_empty(), "{first:?}");
        (events, first)
    }

    /// Waits for the next block, for at most `patience`; `None` at the end of the stream.
    pub async fn block(&mut self, patience: Duration) -> Option<Frame> {
        let read = async {
            loop {
                if let Some((block, rest)) = self.unread.split_once("\n\n") {
                    let frame = Frame::parse(block);
                    self.unread = rest.to_owned();
                    return Some(frame);
                }
                let chunk = self.response.chunk().await.ok()??;
                self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(patience, read).await.expect("the server sends a block in time")
    }

    /// Waits for the next event, and skips heartbeats, for at most [`PATIENCE`].
    pub async fn event(&mut self) -> Frame {
        let event = async {
            loop {
                let frame = self.block(PATIENCE).await.expect("the stream stays open");
                if !frame.event.is_empty() {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, event).await.expect("an event, and not only heartbeats")
    }

    /// Waits for the end of the stream, for at most `patience`; returns the time until then.
    pub async fn end(&mut self, patience: Duration) -> Duration {
        let began = Instant::now();
        while self.block(patience).await.is_some() {
            assert!(began.elapsed() < patience, "the stream stays open");
        }
        began.elapsed()
    }
}

/// Requests an event stream, after the event of this id if there is one.
pub async fn request(caller: &Caller<'_>, last_event_id: Option<&str>) -> Response {
    let request = caller.app.http.get(format!("{}/api/events", caller.app.base)).bearer_auth(caller.token.as_ref().unwrap());
    let request = last_event_id.into_iter().fold(request, |request, id| request.header("last-event-id", id));
    let request = caller.address.iter().fold(request, |request, address| request.header("x-forwarded-for", address));
    request.send().await.unwrap()
}

/// Returns the same user as a client of another server.
fn on_server<'a>(caller: &Caller<'_>, app: &'a TestApp) -> Caller<'a> {
    Caller { app, token: caller.token.clone(), id: caller.id.clone(), email: caller.email.clone(), address: None }
}

/// Uploads a unique image; returns its id.
async fn upload(caller: &Caller<'_>) -> String {
    caller.upload("sea.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned()
}

/// Inserts records of ready images. Only the fields that events need have true values.
async fn db_insert_ready(app: &TestApp, user: &str, count: usize) {
    let ids = (0..count).map(|_| valet::model::ImageId::new().to_string());
    let records: Vec<_> = ids.map(|id| doc! { "_id": id, "user": user, "state": "ready" }).collect();
    app.db.collection::<Document>("images").insert_many(records).await.unwrap();
}

/// Sets the caption of all images of the user.
async fn db_caption(app: &TestApp, user: &str, caption: &str) {
    let update = doc! { "$set": { "caption": caption } };
    app.db.collection::<Document>("images").update_many(doc! { "user": user }, update).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_all_clients_of_their_user_and_no_other_user() {
    let first = TestApp::start().await;
    let second = TestApp::start_second_server(&first, |_| {}).await;
    let (ada, bob) = (first.user().await, first.user().await);
    let (mut ada_on_first, _) = Events::open(&ada, None).await;
    let (mut ada_on_second, _) = Events::open(&on_server(&ada, &second), None).await;
    let (mut bobs_events, _) = Events::open(&bob, None).await;

    let image = upload(&ada).await;
    assert_eq!(ada.patch(&format!("/api/images/{image}"), json!({ "caption": "The sea" })).await.status, 200);
    assert_eq!(ada.patch(&format!("/api/images/{image}"), json!({ "caption": "The sea" })).await.status, 200, "no change");
    assert_eq!(ada.patch(&format!("/api/images/{image}"), json!({ "caption": "" })).await.status, 200);
    assert_eq!(ada.delete(&format!("/api/images/{image}")).await.status, 204);
    let text = b"not an image".repeat(9);
    let ticket = ada.open_upload("text.png", "image/png", &text).await;
    assert_eq!(first.put(&ticket.json["upload"], text).await, 200);
    assert_eq!(ada.confirm(ticket.id()).await.status, 422);
    let pending = ada.post("/api/images/upload", declaration("b.png", "image/png", &unique_png())).await;
    assert_eq!(on_server(&ada, &second).delete(&format!("/api/images/{}", pending.id())).await.status, 204);
    let bobs_image = upload(&bob).await;

    let ids = [&image, &image, &image, &image, ticket.id(), pending.id()];
    let types = ["image.ready", "image.updated", "image.updated", "image.deleted", "image.rejected", "image.deleted"];
    for (image, event) in ids.into_iter().zip(types) {
        assert_eq!(ada_on_first.event().await.type_and_image(), (event, image.to_owned()));
        assert_eq!(ada_on_second.event().await.type_and_image(), (event, image.to_owned()));
    }
    assert_eq!(bobs_events.event().await.type_and_image(), ("image.ready", bobs_image));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_announced_image_by_image() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let images = [upload(&ada).await, upload(&ada).await, upload(&ada).await];
    let (mut events, _) = Events::open(&ada, None).await;
    assert_eq!(ada.post("/api/images/delete", json!({ "ids": images })).await.status, 200);
    let (mut deleted, mut positions) = (Vec::new(), Vec::new());
    for _ in &images {
        let frame = events.event().await;
        let (event, image) = frame.type_and_image();
        assert_eq!(event, "image.deleted");
        deleted.push(image);
        positions.push(frame.id);
    }
    deleted.sort();
    positions.dedup();
    assert_eq!((deleted, positions.len()), (images.to_vec(), 3), "UUIDv7 are in the order of their creation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_resumes_on_any_server() {
    let first = TestApp::start().await;
    let second = TestApp::start_second_server(&first, |_| {}).await;
    let ada = first.user().await;
    let (mut events, start) = Events::open(&ada, None).await;
    let (known, missed) = (upload(&ada).await, upload(&ada).await);
    let frame = events.event().await;
    assert_eq!(frame.type_and_image(), ("image.ready", known.clone()));
    drop(events);
    // The feed of the second server starts only now, from the client's position.
    for app in [&first, &second] {
        let ada = on_server(&ada, app);
        let (mut resumed, _) = Events::open(&ada, Some(&frame.id)).await;
        assert_eq!(resumed.event().await.type_and_image(), ("image.ready", missed.clone()));
        let (mut from_start, _) = Events::open(&ada, Some(&start.id)).await;
        assert_eq!(from_start.event().await.type_and_image(), ("image.ready", known.clone()));
        assert_eq!(from_start.event().await.type_and_image(), ("image.ready", missed.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_position_is_unknown_is_reset() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    // Positions in the past and in the future, an id of another kind, and another text.
    for unknown in ["1-2-3", "4000000000-1-0", "0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44", "?"] {
        let (mut events, first) = Events::open(&ada, Some(unknown)).await;
        assert_eq!(first.id, "", "a client that loses the reset gets it again");
        let reset = events.event().await;
        assert_eq!(reset.type_and_image(), ("reset", String::new()), "{unknown}");
        let image = upload(&ada).await;
        assert_eq!(events.event().await.type_and_image(), ("image.ready", image.clone()), "{unknown}");
        drop(events);
        let (mut resumed, _) = Events::open(&ada, Some(&reset.id)).await;
        assert_eq!(resumed.event().await.type_and_image(), ("image.ready", image), "a reset has a position, too");
    }
}

/// Dropping the collection ends the feed, which cannot be resumed.
#[tokio::test(flavor = "multi_thread")]
async fn all_clients_are_reset_after_the_feed_was_lost() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let (mut adas_events, position) = Events::open(&ada, None).await;
    let (mut bobs_events, _) = Events::open(&bob, None).await;
    upload(&ada).await;
    assert_eq!(adas_events.event().await.event, "image.ready");
    app.db.collection::<Document>("images").drop().await.unwrap();
    assert_eq!(adas_events.event().await.type_and_image(), ("reset", String::new()));
    assert_eq!(bobs_events.event().await.type_and_image(), ("reset", String::new()));
    let (mut resumed, _) = Events::open(&ada, Some(&position.id)).await;
    assert_eq!(resumed.event().await.event, "reset");
    // While nothing is written, a feed that began at the drop would end again and again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    db_insert_ready(&app, &bob.id, 1).await;
    db_caption(&app, &bob.id, "later").await;
    assert_eq!(bobs_events.event().await.event, "image.updated", "the new feed delivers events");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_above_the_limit_of_its_user_is_rejected() {
    // One network has half of the streams.
    let start = TestApp::start_with(|config| {
        config.load.max_event_streams = 14;
        config.proxies.0.push("127.0.0.1".parse().unwrap());
    });
    let app = start.await;
    let (ada, bob) = (app.user().await, app.user().await);
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(Events::open(&ada, None).await.0);
    }
    let rejected = ada.get("/api/events").await;
    assert_eq!((rejected.problem(), rejected.header("retry-after")), ((429, "rate_limited"), "30"), "{rejected:?}");
    assert!(rejected.json["detail"].as_str().unwrap().starts_with("5 event streams of this user are open"), "{rejected:?}");
    open.push(Events::open(&bob, None).await.0);
    open.push(Events::open(&bob, None).await.0);
    let rejected = bob.get("/api/events").await;
    assert_eq!((rejected.problem(), rejected.header("retry-after")), ((503, "unavailable"), "30"), "{rejected:?}");
    let elsewhere = bob.with_address("198.51.100.9");
    open.push(Events::open(&elsewhere, None).await.0);
    // Closed streams no longer count.
    open.clear();
    eventually("the server notices the closed streams", async || request(&ada, None).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_hold_no_permits_and_are_counted() {
    let app = TestApp::start_with(|config| config.load.max_requests = 2).await;
    let ada = app.user().await;
    let (mut first, _) = Events::open(&ada, None).await;
    let (_second, _) = Events::open(&ada, None).await;
    let (_third, _) = Events::open(&ada, None).await;
    let image = upload(&ada).await;
    assert_eq!(first.event().await.type_and_image(), ("image.ready", image));
    assert!(METRICS.event_streams.get() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_carry_a_position_from_which_another_server_resumes() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (mut events, start) = Events::open(&ada, None).await;
    // Heartbeats are 20 s apart; a busy machine may be late.
    let heartbeat = events.block(Duration::from_secs(40)).await.unwrap();
    assert!(heartbeat.is_comment && heartbeat.event.is_empty() && heartbeat.data.is_empty(), "{heartbeat:?}");
    assert_ne!(heartbeat.id, start.id, "the position moves on without events");
    let image = upload(&ada).await;
    let restarted = TestApp::start_second_server(&app, |_| {}).await;
    let (mut resumed, _) = Events::open(&on_server(&ada, &restarted), Some(&heartbeat.id)).await;
    assert_eq!(resumed.event().await.type_and_image(), ("image.ready", image), "the stream resumes without a reset");
}
