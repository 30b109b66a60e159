//! Measures the memory of idle event streams, by command:
//! `cargo test --test api -- --ignored --nocapture --exact event_streams::idle_cost::idle_streams_take_a_bounded_amount_of_memory`.

use futures_util::{StreamExt, stream};
use valet::model::Scope;

use super::*;
use crate::{hostile_clients::memory, serve::Settings};

/// Maximum memory of an idle stream, in KiB.
const MAX_KIB: u64 = 40;
/// Number of open streams.
const STREAMS: usize = 2000;
/// Number of streams that a user may have open.
const STREAMS_PER_USER: usize = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "opens 2000 streams, and needs a file descriptor for each in both processes"]
async fn idle_streams_take_a_bounded_amount_of_memory() {
    let app = TestApp::start().await;
    let (process, client) = Settings::for_app(&app).with("RATE_LIMIT", "off").start_listening().await;
    let open = async |token: String| {
        let response = client.http.get(format!("{}/api/events", client.base)).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut events = Events { response, unread: String::new() };
        assert!(events.block(PATIENCE).await.is_some());
        events
    };
    let key = app.create_service_key(&[Scope::TokensCreate]).await;
    let mut tokens = Vec::new();
    for subject in 0..STREAMS / STREAMS_PER_USER {
        let answer = key.post("/api/admin/tokens", json!({ "subject": subject.to_string() })).await;
        tokens.push(answer.json["token"].as_str().unwrap().to_owned());
    }
    // The first stream opens the feed.
    let _first = open(app.user().await.token.unwrap()).await;
    let before = memory(process.id(), "VmRSS");
    let all = tokens.iter().flat_map(|token| std::iter::repeat_n(token.clone(), STREAMS_PER_USER)).take(STREAMS - 1);
    let streams: Vec<_> = stream::iter(all).map(open).buffer_unordered(20).collect().await;
    let opened = memory(process.id(), "VmRSS");
    // Long enough for two checks of each token (every 15 s) and a heartbeat (every 20 s).
    tokio::time::sleep(Duration::from_secs(35)).await;
    let after = memory(process.id(), "VmRSS");
    let each = after.saturating_sub(before) / STREAMS as u64;
    println!("{before} KiB before, {opened} KiB with {} streams, {after} KiB later: {each} KiB each", streams.len());
    assert!(each <= MAX_KIB, "{each} KiB each");
}
