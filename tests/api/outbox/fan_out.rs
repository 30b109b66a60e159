//! Covers fan-out: one delivery for each event and endpoint, whatever is repeated, interrupted or damaged.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use mongodb::bson::Bson;
use valet::{
    domain::event_fan_out::FannedOut,
    model::{ImageId, UserId},
    state::AppState,
    store::{ProviderIdentity, Store},
};

use super::*;

/// Connects an application with events to the database of a server without them, so that only the test fans out.
async fn app_with_events(app: &TestApp) -> AppState {
    let mut config = app.config.clone();
    config.events = Events::On;
    AppState::connect(&config).await.unwrap()
}

/// Returns the ids of a user and an image in the types of the model.
fn ids(caller: &Caller<'_>, image: &str) -> (UserId, ImageId) {
    (UserId::parse(&caller.id).unwrap(), ImageId::parse(image).unwrap())
}

/// Sets a caption, which appends an event to the image's outbox.
async fn caption(valet: &AppState, image: (UserId, ImageId), text: &str) {
    valet.valet.gallery.set_caption(image.0, image.1, text, OffsetDateTime::now_utc()).await.unwrap();
}

/// Fans out all events that exist now.
async fn fan_out(valet: &AppState) -> FannedOut {
    valet.valet.event_fan_out.fan_out_once(OffsetDateTime::now_utc()).await.unwrap()
}

/// Polls `work` at most `max_polls` times and then drops it, like a crash. Returns whether it completed.
async fn poll_at_most(max_polls: u32, work: impl Future) -> bool {
    let (mut work, mut polls) = (pin!(work), 0);
    poll_fn(|context| {
        polls += 1;
        match work.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polls >= max_polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_fan_out_that_is_interrupted_anywhere_makes_each_delivery_once() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    subscribe(&app, "ep-updates", &["image.updated"]).await;
    subscribe(&app, "ep-accounts", &["account.created"]).await;
    let valet = app_with_events(&app).await;
    let (ada, eve) = (app.user().await, app.user().await);
    let images = [ids(&ada, &ready(&ada).await), ids(&eve, &ready(&eve).await)];
    let mut made = 0;
    for max_polls in 1..200 {
        for image in images {
            caption(&valet, image, &format!("{max_polls}")).await;
            made += 1;
        }
        let completed = poll_at_most(max_polls, valet.valet.event_fan_out.fan_out_once(OffsetDateTime::now_utc())).await;
        if completed {
            assert!(max_polls > 4, "the fan-out makes calls that can be interrupted");
            break;
        }
    }
    fan_out(&valet).await;
    for (endpoint, expected) in [("ep-all", made), ("ep-updates", made), ("ep-accounts", 0)] {
        assert_eq!(messages(&app, endpoint).await.len(), expected, "{endpoint}");
    }
    assert_eq!(documents(&app, "images", doc! { "outbox": { "$exists": true } }).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_stays_in_its_document_until_its_deliveries_are_inserted() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let ada = app.user().await;
    caption(&valet, ids(&ada, &ready(&ada).await), "a").await;
    let set_validator = async |validator: Document| {
        app.db.run_command(doc! { "collMod": "deliveries", "validator": validator }).await.unwrap();
    };
    set_validator(doc! { "_id": { "$type": "int" } }).await;
    assert!(valet.valet.event_fan_out.fan_out_once(OffsetDateTime::now_utc()).await.is_err(), "no delivery can be inserted");
    assert_eq!(documents(&app, "images", doc! { "outbox.0": { "$exists": true } }).await.len(), 1);
    set_validator(doc! {}).await;
    fan_out(&valet).await;
    assert_eq!(messages(&app, "ep-all").await.len(), 1);
}

/// If failures counted as done, the next round would begin at once, for as long as they last.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_fail_are_not_counted_as_done() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let ada = app.user().await;
    let stuck = ready(&ada).await;
    ready(&ada).await;
    fan_out(&valet).await;
    app.db
        .collection::<Document>("images")
        .update_one(doc! { "_id": &stuck }, doc! { "$set": { "etag": "stuck" } })
        .await
        .unwrap();
    for image in documents(&app, "images", doc! {}).await {
        caption(&valet, ids(&ada, image.get_str("_id").unwrap()), "a").await;
    }
    let set_validator = async |validator: Document| {
        app.db.run_command(doc! { "collMod": "images", "validator": validator }).await.unwrap();
    };
    set_validator(doc! { "etag": { "$ne": "stuck" } }).await;
    assert_eq!(fan_out(&valet).await, FannedOut { events: 1, failed: 1, more: false });
    assert_eq!(fan_out(&valet).await, FannedOut { events: 0, failed: 1, more: false });
    set_validator(doc! {}).await;
    assert_eq!(fan_out(&valet).await, FannedOut { events: 1, failed: 0, more: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_fan_out_at_once_make_each_delivery_once() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let servers = [app_with_events(&app).await, app_with_events(&app).await, app_with_events(&app).await];
    let ada = app.user().await;
    let image = ids(&ada, &ready(&ada).await);
    for round in 0..20 {
        caption(&servers[0], image, &format!("{round}")).await;
        let text = format!("{round} again");
        let more = caption(&servers[1], image, &text);
        let (_, _, _, ()) = tokio::join!(fan_out(&servers[0]), fan_out(&servers[1]), fan_out(&servers[2]), more);
    }
    fan_out(&servers[0]).await;
    assert_eq!(messages(&app, "ep-all").await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_outbox_delays_no_other_event() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let ada = app.user().await;
    let images = app.db.collection::<Document>("images");
    let at = mongodb::bson::DateTime::from_millis(0);
    let entries = [Bson::Null, 7.into(), doc! { "at": at }.into(), doc! { "id": "x", "at": 7, "type": "y" }.into()];
    let damaged: [Bson; 2] = [Bson::Array(entries.to_vec()), doc! { "at": at }.into()];
    let mut expected = Vec::new();
    for outbox in damaged {
        let id = ready(&ada).await;
        images.update_one(doc! { "_id": &id }, doc! { "$set": { "outbox": outbox.clone() } }).await.unwrap();
        caption(&valet, ids(&ada, &id), "after the damage").await;
        expected.push(id);
    }
    fan_out(&valet).await;
    let received: BTreeSet<_> =
        messages(&app, "ep-all").await.iter().map(|message| message["data"]["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(received, expected.iter().cloned().collect());
    assert_eq!(fan_out(&valet).await, FannedOut::default(), "nothing is left in the queue");
    let first = app.db_image(&expected[0]).await.unwrap();
    assert_eq!(first.get_array("outboxUnreadable").unwrap().len(), 4, "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn update_replaces_the_previous_update_in_a_full_outbox() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let ada = app.user().await;
    let image = ids(&ada, &ready(&ada).await);
    for number in 0..105 {
        caption(&valet, image, &format!("{number}")).await;
    }
    let captions = |image: Document| {
        let events = image.get_array("outbox").unwrap().clone();
        let caption = |event: &Bson| event.as_document()?.get_document("data").ok()?.get_str("caption").ok().map(str::to_owned);
        events.iter().filter_map(caption).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (0..99).chain([104]).map(|number| number.to_string()).collect();
    assert_eq!(
        captions(app.db_image(&image.1.to_string()).await.unwrap()),
        expected,
        "the newest update replaces the last one in an outbox of 100 events"
    );
    valet.valet.deletion.delete(image.0, image.1, OffsetDateTime::now_utc()).await.unwrap();
    while fan_out(&valet).await.more {}
    let types: Vec<_> = messages(&app, "ep-all").await.iter().map(|message| message["type"].clone()).collect();
    assert_eq!(types.iter().filter(|name| **name == "image.deleted").count(), 1, "an event of another type is added");
    assert_eq!(types.len(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_is_appended_during_a_fan_out_is_not_removed() {
    let app = TestApp::start().await;
    let valet = app_with_events(&app).await;
    let store = Store::open(&app.config.mongo).await.unwrap();
    let ada = app.user().await;
    let image = ids(&ada, &ready(&ada).await);
    caption(&valet, image, "first").await;
    let found = store.outboxes.find(valet::store::EventSource::Images, &[], 10).await.unwrap();
    caption(&valet, image, "second").await;
    store.outboxes.remove_all(&found).await.unwrap();
    let left = app.db_image(&image.1.to_string()).await.unwrap();
    let left = left.get_array("outbox").unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].as_document().unwrap().get_document("data").unwrap().get_str("caption").unwrap(), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_of_one_user_do_not_delay_those_of_another() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let (ada, eve) = (app.user().await, app.user().await);
    let event = |n: i64| doc! { "id": format!("e{n}"), "type": "image.ready", "at": mongodb::bson::DateTime::from_millis(n) };
    // More than one round fans out for one user.
    let records = (0..350).map(|n| doc! { "_id": format!("crowd-{n}"), "user": &ada.id, "state": "x", "outbox": [event(n)] });
    app.db.collection::<Document>("images").insert_many(records).await.unwrap();
    let eves_image = ready(&eve).await;
    caption(&valet, ids(&eve, &eves_image), "later than all").await;
    let round = fan_out(&valet).await;
    assert!(round.more && round.events < 350, "{round:?}");
    assert!(messages(&app, "ep-all").await.iter().any(|message| message["data"]["id"] == eves_image), "in the first round");
    while fan_out(&valet).await.more {}
    assert_eq!(messages(&app, "ep-all").await.len(), 351);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_outlives_its_events() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let ada = app.user().await;
    let image = ids(&ada, &ready(&ada).await);
    let (now, after_url_expiry) = (OffsetDateTime::now_utc(), OffsetDateTime::now_utc() + Duration::from_secs(2 * 3600));
    valet.valet.deletion.delete(image.0, image.1, now).await.unwrap();
    for hours in 0..3 {
        valet.valet.sweeper.sweep_once(after_url_expiry + Duration::from_secs(hours * 3600)).await.unwrap();
    }
    assert_eq!(app.db_state(&image.1.to_string()).await, "deleting", "the image's event is not fanned out yet");
    fan_out(&valet).await;
    for hours in 4..7 {
        valet.valet.sweeper.sweep_once(after_url_expiry + Duration::from_secs(hours * 3600)).await.unwrap();
    }
    assert_eq!(app.db_state(&image.1.to_string()).await, "gone");
    assert_eq!(messages(&app, "ep-all").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_name_the_subject_of_a_deleted_user() {
    let app = TestApp::start().await;
    subscribe(&app, "ep-all", &[]).await;
    let valet = app_with_events(&app).await;
    let store = Store::open(&app.config.mongo).await.unwrap().with_events(Arc::default());
    let now = OffsetDateTime::now_utc();
    let identity = ProviderIdentity { issuer: "https://id.example".to_owned(), subject: "sub-7".to_owned() };
    let user = store.users.insert_identity(&identity, None, now).await.unwrap().unwrap();
    assert_eq!(store.users.insert_identity(&identity, None, now).await.unwrap(), None, "a repeat changes nothing");
    let account = store.users.find(user).await.unwrap().unwrap();
    assert!(store.users.claim_deletion(&account, now).await.unwrap());
    assert!(!store.users.claim_deletion(&account, now).await.unwrap(), "a repeat changes nothing");
    let event = doc! { "id": "e1", "type": "image.deleted", "at": mongodb::bson::DateTime::now() };
    let image = doc! { "_id": "orphan", "user": user.to_string(), "state": "deleting", "outbox": [event] };
    app.db.collection::<Document>("images").insert_one(image).await.unwrap();
    fan_out(&valet).await;
    let messages = messages(&app, "ep-all").await;
    let types: BTreeSet<_> = messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["account.created", "account.deleted", "image.deleted"].into());
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message["data"]["subject"] == "sub-7"), "{messages:?}");
}
