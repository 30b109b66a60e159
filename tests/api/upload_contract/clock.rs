//! Covers the clock of the sweeper, which is the database's (requirement D8). A relay in front of MongoDB shifts the time that the
//! server receives.

use std::sync::Arc;

use mongodb::bson::{DateTime, Document, doc};

use crate::app::{TestApp, unique_png};
use crate::mongodb_relay::start_server_behind_relay;

const HOUR_MS: i64 = 3_600_000;

/// Adds milliseconds to the `localTime` of a `hello`, a BSON date: type 9, the name, eight bytes of milliseconds.
fn shift_clock(message: &mut [u8], shift: i64) {
    const FIELD: &[u8] = b"\x09localTime\0";
    if let Some(at) = message.windows(FIELD.len()).position(|window| window == FIELD) {
        let at = at + FIELD.len();
        let millis = i64::from_le_bytes(message[at..at + 8].try_into().unwrap());
        message[at..at + 8].copy_from_slice(&(millis + shift).to_le_bytes());
    }
}

/// Starts a server whose MongoDB has a clock that is `shift` milliseconds off.
async fn start_server_with_clock(app: &TestApp, shift: i64) -> TestApp {
    start_server_behind_relay(app, Arc::new(|_| {}), Arc::new(move |reply| shift_clock(reply, shift))).await
}

#[tokio::test]
async fn d8_sweeper_uses_the_clock_of_the_database() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let slow = start_server_with_clock(&app, -3 * HOUR_MS).await;

    // The upload's time ended over two hours ago by this machine's clock; by the database's clock it has not ended.
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * HOUR_MS);
    let images = app.db.collection::<Document>("images");
    let original = app.db_image(ticket.id()).await.unwrap();
    let over = doc! { "urlsDieAt": past, "expiresAt": past, "due": past };
    images.update_one(doc! { "_id": ticket.id() }, doc! { "$set": over }).await.unwrap();
    slow.app.valet.sweeper.sweep().await.unwrap();
    assert_eq!(app.db_state(ticket.id()).await, "pending", "nothing is swept early");

    // The upload's time has just begun by this machine's clock; by the database's clock it has ended.
    images.replace_one(doc! { "_id": ticket.id() }, original).await.unwrap();
    app.app.valet.sweeper.sweep().await.unwrap();
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    let fast = start_server_with_clock(&app, 25 * HOUR_MS).await;
    let began = std::time::Instant::now();
    while app.db_state(ticket.id()).await != "gone" {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{}", app.db_state(ticket.id()).await);
        fast.app.valet.sweeper.sweep().await.unwrap();
    }
}
