//! Covers the writes that a request waits for: the update that counts a step is not one of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Document, TestApp, unique_png};
use crate::{
    crashes::put_upload,
    mongodb_relay::{command, start_server_behind_relay},
};

/// Maximum time for which the relay holds back the update that counts steps; an answer to the request ends it earlier.
const HELD_FOR: Duration = Duration::from_secs(3);

/// A request that ends reservations.
#[derive(Debug, Clone, Copy)]
enum EndingRequest {
    Confirm,
    RejectedConfirm,
    BatchConfirm,
    OpenUploadDeletion,
}

/// Returns whether a command writes.
fn is_write(command: &Document) -> bool {
    ["insert", "update", "delete", "findAndModify"].iter().any(|name| command.contains_key(name))
}

/// Returns whether a command removes steps from a user's record.
fn counts_steps(command: &Document) -> bool {
    let updates =
        command.get_array("updates").into_iter().flatten().filter_map(|update| update.as_document()?.get_document("q").ok());
    updates.into_iter().any(|filter| filter.contains_key("settling.step"))
}

/// A request that ends reservations is answered when its step is announced and taken, while the update that counts the step is
/// still under way. A deletion makes one more write, which postpones the tombstone.
#[tokio::test(flavor = "multi_thread")]
async fn request_waits_for_the_announcement_and_the_transition() {
    use EndingRequest::{BatchConfirm, Confirm, OpenUploadDeletion, RejectedConfirm};
    let app = TestApp::start().await;
    let (writes, is_answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let watch = {
        let (writes, is_answered) = (writes.clone(), is_answered.clone());
        move |message: &mut [u8]| {
            let Some(command) = command(message) else { return };
            if counts_steps(&command) {
                let began = Instant::now();
                tokio::task::block_in_place(|| {
                    while !is_answered.load(Relaxed) && began.elapsed() < HELD_FOR {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            // If the request waited for the counting update, that update would be a write too many here, after `HELD_FOR`.
            if is_write(&command) && !is_answered.load(Relaxed) {
                writes.fetch_add(1, Relaxed);
            }
        }
    };
    let watched = start_server_behind_relay(&app, Arc::new(watch), Arc::new(|_| {})).await;
    let ada = watched.user().await;
    let html = || [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
    for (ending, expected_writes) in [(Confirm, 2), (RejectedConfirm, 2), (BatchConfirm, 2), (OpenUploadDeletion, 3)] {
        let bytes = if matches!(ending, RejectedConfirm) { html() } else { unique_png() };
        let put = async |bytes| put_upload(&ada, bytes).await.id().to_owned();
        let id = put(bytes).await;
        let others = [put(unique_png()).await, put(unique_png()).await];
        writes.store(0, Relaxed);
        is_answered.store(false, Relaxed);
        let request = match ending {
            Confirm | RejectedConfirm => watched.http.post(format!("{}/api/images/{id}/confirm", watched.base)),
            BatchConfirm => {
                let ids = json!({ "ids": [&id, &others[0], &others[1]] });
                watched.http.post(format!("{}/api/images/confirm", watched.base)).json(&ids)
            }
            OpenUploadDeletion => watched.http.delete(format!("{}/api/images/{id}", watched.base)),
        };
        // Sent without `Caller`, which waits for counts.
        let answer = request.bearer_auth(ada.token.as_deref().unwrap()).send().await.unwrap();
        is_answered.store(true, Relaxed);
        let status = match ending {
            Confirm | BatchConfirm => 200,
            RejectedConfirm => 422,
            OpenUploadDeletion => 204,
        };
        assert_eq!((answer.status().as_u16(), writes.load(Relaxed)), (status, expected_writes), "{ending:?}");
    }
    watched.app.valet.confirmation.wait_for_counts().await;
    app.audit().await;
}
