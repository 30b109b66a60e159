//! Covers attempts to create an image's object by a copy or from its parts. However often they fail, they move neither the end of
//! the upload nor the sweeper's claim, and one that is cancelled does not delay the next.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mongodb::bson::DateTime;
use valet::config::Finalize;

use super::*;
use crate::{
    app::{Caller, eventually},
    relay::{Answer, RelayedRequest, empty_answer, relay_s3},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The call that creates the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creation {
    Copy,
    Complete,
}

impl Creation {
    const ALL: [Self; 2] = [Self::Copy, Self::Complete];

    /// Returns whether the request is this call, for an object under `u/`.
    fn is_made_by(self, request: &RelayedRequest) -> bool {
        let is_of_user = request.path().contains("/u/");
        is_of_user
            && match self {
                Self::Copy => request.parts.headers.contains_key("x-amz-copy-source"),
                Self::Complete => request.parts.method == "POST" && request.query().contains("uploadId="),
            }
    }

    /// Returns the lifetime of an upload that ends with this call.
    fn ttl(self) -> Duration {
        match self {
            Self::Copy => DAY,
            Self::Complete => 7 * DAY,
        }
    }

    /// Opens an upload and sends its bytes; returns its id.
    async fn send(self, ada: &Caller<'_>) -> String {
        let bytes = unique_png();
        let (ticket, put) = match self {
            Self::Copy => {
                let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
                let put = ticket.json["upload"].clone();
                (ticket, put)
            }
            Self::Complete => {
                let body = json!({ "fileName": "a.png", "contentType": "image/png", "size": bytes.len(), "partSize": 5 << 20 });
                let ticket = ada.post("/api/images/multipart", body).await;
                let parts = json!({ "parts": [{ "partNumber": 1 }] });
                let signed = ada.post(&format!("/api/images/{}/parts", ticket.id()), parts).await;
                (ticket, signed.json["parts"][0]["request"].clone())
            }
        };
        assert_eq!(ada.app.put(&put, bytes).await, 200, "{ticket:?}");
        ticket.id().to_owned()
    }
}

/// Starts a server that copies every object before it confirms it.
async fn start_copying_server() -> TestApp {
    TestApp::start_with(|config| config.s3.finalize = Finalize::Copy).await
}

/// Starts a second server that copies too, and for which `answer` answers the calls that create an object.
async fn start_server_answering<A>(
    app: &TestApp,
    creation: Creation,
    answer: impl Fn(RelayedRequest) -> A + Clone + Send + Sync + 'static,
) -> TestApp
where
    A: Future<Output = Answer> + Send + 'static,
{
    let endpoint = relay_s3(app, move |request| {
        let answer = answer.clone();
        async move { if creation.is_made_by(&request) { answer(request).await } else { request.forward().await } }
    })
    .await;
    TestApp::start_second_server(app, |config| {
        config.s3.endpoint = Some(endpoint.parse().unwrap());
        config.s3.finalize = Finalize::Copy;
    })
    .await
}

/// Returns a time in the image's document.
async fn time_of(app: &TestApp, id: &str, field: &str) -> OffsetDateTime {
    let millis = app.db_image(id).await.unwrap().get_datetime(field).unwrap().timestamp_millis();
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap()
}

/// Returns the number of failed sweeps in the image's document.
async fn failures(app: &TestApp, id: &str) -> i64 {
    app.db_image(id).await.unwrap().get_i64("sweepFailures").unwrap_or(0)
}

/// Each sweep runs at the time for which the one before has scheduled it.
#[tokio::test]
async fn an_upload_whose_object_is_never_created_is_tried_less_often_and_rejected_a_week_after_its_end() {
    for creation in Creation::ALL {
        let app = start_copying_server().await;
        let ada = app.user().await;
        let id = creation.send(&ada).await;
        let ends = OffsetDateTime::now_utc() + creation.ttl();
        let second_server = start_server_answering(&app, creation, |_| async { empty_answer(403) }).await;
        let (mut tried, mut due) = (0, time_of(&app, &id, "due").await);
        loop {
            let swept = second_server.sweep(due).await;
            if swept.rejected == 1 {
                break;
            }
            tried += 1;
            assert_eq!((swept.failed, failures(&app, &id).await), (1, tried), "{creation:?} at {due}: {swept:?}");
            let next = time_of(&app, &id, "due").await;
            // A minute after the first failure, twice as long after each further one, and a day at most.
            let wait = (HOUR / 60) * 2_u32.pow(u32::try_from(tried).unwrap() - 1).min(24 * 60);
            assert!((next - due - wait).abs() < HOUR / 60, "{creation:?}: {} after {tried} failures", next - due);
            due = next;
            assert!(due < ends + 8 * DAY + QUIET, "{creation:?}: still pending at {due}");
        }
        assert!(due >= ends + 7 * DAY, "{creation:?}: an operator has a week, not {}", due - ends);
        assert_eq!(ada.confirm(&id).await.problem(), (422, "object_mismatch"), "{creation:?}");
        second_server.sweep(due + QUIET).await;
        assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], 0, "{creation:?}: the reservation has ended");
    }
}

/// A client repeats confirm after the upload's end.
#[tokio::test]
async fn no_attempt_of_a_client_moves_the_end_of_an_upload_or_its_position_in_the_queue() {
    let invalid_argument = "<Error><Code>InvalidArgument</Code></Error>";
    for (creation, status, body) in [
        (Creation::Copy, 403, ""),
        (Creation::Copy, 503, ""),
        (Creation::Complete, 403, ""),
        (Creation::Complete, 400, invalid_argument),
    ] {
        let app = start_copying_server().await;
        let ada = app.user().await;
        let id = creation.send(&ada).await;
        let second_server = start_server_answering(&app, creation, move |_| async move {
            let mut answer = empty_answer(status);
            *answer.body_mut() = body.into();
            answer
        })
        .await;
        let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 7_200_000);
        let images = app.db.collection::<Document>("images");
        let over = doc! { "due": past, "expiresAt": past, "urlsDieAt": past };
        images.update_one(doc! { "_id": &id }, doc! { "$set": over.clone() }).await.unwrap();
        for _ in 0..2 {
            let answer = Caller { app: &second_server, ..ada.clone() }.confirm(&id).await;
            assert!(matches!(answer.status, 409 | 422 | 503), "{creation:?} {status}: {answer:?}");
        }
        let image = app.db_image(&id).await.unwrap();
        for (field, value) in &over {
            assert_eq!(image.get(field), Some(value), "{creation:?} {status}: {field}");
        }
        let swept = second_server.sweep(OffsetDateTime::now_utc()).await;
        if body == invalid_argument {
            assert_eq!((swept.expired, swept.failed), (1, 0), "{creation:?} {status}: {swept:?}");
            // The last attempt may still write: the tombstone lasts until then.
            let image = app.db_image(&id).await.unwrap();
            assert!(*image.get_datetime("urlsDieAt").unwrap() > DateTime::now(), "{image}");
        } else {
            assert_eq!((swept.failed, failures(&app, &id).await), (1, 1), "{creation:?} {status}: {swept:?}");
        }
    }
}

/// The store takes longer for a copy (24 s) than the normal lane waits (20 s).
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_copy_is_made_in_the_slow_lane() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    let id = Creation::Copy.send(&ada).await;
    let copies = Arc::new(AtomicUsize::new(0));
    let made = copies.clone();
    let second_server = start_server_answering(&app, Creation::Copy, move |request| {
        copies.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(Duration::from_secs(24)).await;
            request.forward().await
        }
    })
    .await;
    let swept = second_server.sweep(after(QUIET)).await;
    assert_eq!((swept.confirmed, swept.failed, made.load(SeqCst)), (1, 0, 2), "{swept:?}");
    assert_eq!(app.db_state(&id).await, "ready");
    // The sweeper also removes the copy of the cancelled attempt, which the store has made in the meantime.
    app.sweep(after(2 * QUIET)).await;
    assert_eq!(app.bucket_keys().await, [app.db_image(&id).await.unwrap().get_str("key").unwrap()]);
}

/// The client hangs up, and repeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_is_cancelled_while_it_copies_does_not_delay_the_next() {
    let app = start_copying_server().await;
    let ada = app.user().await;
    let id = Creation::Copy.send(&ada).await;
    let copies = Arc::new(AtomicUsize::new(0));
    let made = copies.clone();
    let second_server = start_server_answering(&app, Creation::Copy, move |request| {
        let is_first = made.fetch_add(1, SeqCst) == 0;
        async move {
            if is_first {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            request.forward().await
        }
    })
    .await;
    let confirm = second_server
        .http
        .post(format!("{}/api/images/{id}/confirm", second_server.base))
        .bearer_auth(ada.token.as_ref().unwrap());
    let confirm = tokio::spawn(confirm.send());
    eventually("the confirm copies", async || copies.load(SeqCst) >= 1).await;
    confirm.abort();
    assert!(confirm.await.unwrap_err().is_cancelled());
    let began = std::time::Instant::now();
    assert_eq!(Caller { app: &second_server, ..ada.clone() }.confirm(&id).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
