//! Covers the outbox: each change of an image or an account leaves exactly one event, in the same update, and a call that changes
//! nothing leaves none. `fan_out` covers the way from the documents to the deliveries.
//!
//! Routes: POST /api/images/{id}/confirm, POST /api/images/confirm, DELETE /api/images/{id}, POST /api/images/delete, PATCH
//! /api/images/{id}, POST /api/auth/signup, POST /api/auth/me/delete.

mod fan_out;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{TryStreamExt, future::join_all};
use mongodb::{
    bson::{Document, doc},
    change_stream::event::{ChangeStreamEvent, OperationType},
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{
    config::Events,
    model::{EventType, ImageState},
};

use super::app::{Caller, PASSWORD, TestApp, declaration, eventually, unique_png};

/// Types of events, in alphabetical order, by the id of their image, or of their user for events of an account.
type TypesById = BTreeMap<String, Vec<String>>;

/// Starts a server whose changes write events, with an endpoint that receives all of them.
async fn start() -> TestApp {
    let app = TestApp::start_with(|config| config.events = Events::On).await;
    subscribe(&app, "ep-all", &[]).await;
    app
}

/// Inserts an endpoint that receives these types of events.
async fn subscribe(app: &TestApp, id: &str, types: &[&str]) {
    let endpoint = doc! { "_id": id, "url": "https://app.example/hook", "types": types, "state": "on" };
    app.db.collection::<Document>("endpoints").insert_one(endpoint).await.unwrap();
}

/// Returns the documents of a collection that match, in the order of their ids.
async fn documents(app: &TestApp, collection: &str, filter: Document) -> Vec<Document> {
    app.db.collection::<Document>(collection).find(filter).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap()
}

/// Returns the messages of all deliveries to an endpoint, each once.
async fn messages(app: &TestApp, endpoint: &str) -> Vec<Value> {
    let found = documents(app, "deliveries", doc! { "endpoint": endpoint }).await;
    let events: BTreeSet<_> = found.iter().map(|delivery| delivery.get_str("event").unwrap()).collect();
    assert_eq!(events.len(), found.len(), "an event has one delivery");
    found.iter().map(|delivery| serde_json::from_str(delivery.get_str("body").unwrap()).unwrap()).collect()
}

/// Waits until no document has an event; returns the types of the events with deliveries.
async fn delivered_types(app: &TestApp) -> TypesById {
    for collection in ["images", "users"] {
        eventually("all events are fanned out", async || {
            documents(app, collection, doc! { "outbox": { "$exists": true } }).await.is_empty()
        })
        .await;
    }
    let mut types_by_id = TypesById::new();
    for message in messages(app, "ep-all").await {
        let changed = message["data"].get("id").unwrap_or(&message["data"]["user"]).as_str().unwrap();
        types_by_id.entry(changed.to_owned()).or_default().push(message["type"].as_str().unwrap().to_owned());
    }
    types_by_id.values_mut().for_each(|types| types.sort());
    types_by_id
}

/// Opens an upload and sends its bytes without a confirm; returns its id.
async fn put(ada: &Caller<'_>, bytes: Vec<u8>) -> String {
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(ticket.status, 201, "{ticket:?}");
    assert_eq!(ada.app.put(&ticket.json["upload"], bytes).await, 200);
    ticket.id().to_owned()
}

/// Uploads a unique image; returns its id.
async fn ready(ada: &Caller<'_>) -> String {
    ada.upload("a.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned()
}

/// Opens an upload without sending bytes; returns its id.
async fn open(ada: &Caller<'_>) -> String {
    ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned()
}

/// Sends a batch call for these images, which must succeed.
async fn batch(ada: &Caller<'_>, path: &str, ids: &[&String]) {
    assert_eq!(ada.post(path, json!({ "ids": ids })).await.status, 200);
}

/// Makes every transition of an image that a client or the sweeper can make, with each call repeated; returns the expected events.
async fn make_all_transitions(ada: &Caller<'_>) -> TypesById {
    let app = ada.app;
    let mut expected = TypesById::new();
    let mut expect =
        |id: &String, types: &[&str]| expected.insert(id.clone(), types.iter().map(|name| (*name).to_owned()).collect());

    let single = put(ada, unique_png()).await;
    for confirm in join_all([0; 6].map(|_| ada.confirm(&single))).await {
        assert_eq!(confirm.status, 200, "concurrent confirms: {confirm:?}");
    }
    expect(&single, &["image.ready"]);
    let (first, second) = (put(ada, unique_png()).await, put(ada, unique_png()).await);
    batch(ada, "/api/images/confirm", &[&first, &second]).await;
    batch(ada, "/api/images/confirm", &[&first, &second]).await;
    let path = format!("/api/images/{first}");
    for caption in ["$a", "$a", "b", "", ""] {
        assert_eq!(ada.patch(&path, json!({ "caption": caption })).await.status, 200);
    }
    batch(ada, "/api/images/delete", &[&first, &second]).await;
    batch(ada, "/api/images/delete", &[&first, &second]).await;
    expect(&first, &["image.deleted", "image.ready", "image.updated", "image.updated", "image.updated"]);
    expect(&second, &["image.deleted", "image.ready"]);

    let page = put(ada, [b"<html>", &uuid::Uuid::new_v4().as_bytes()[..]].concat()).await;
    assert_eq!((ada.confirm(&page).await.status, ada.confirm(&page).await.status), (422, 422));
    expect(&page, &["image.rejected"]);

    let deleted = ready(ada).await;
    for delete in join_all([0; 6].map(|_| async { ada.delete(&format!("/api/images/{deleted}")).await })).await {
        assert_eq!(delete.status, 204, "concurrent deletes: {delete:?}");
    }
    expect(&deleted, &["image.deleted", "image.ready"]);
    let (one, two, three) = (open(ada).await, open(ada).await, open(ada).await);
    assert_eq!(ada.delete(&format!("/api/images/{one}")).await.status, 204);
    batch(ada, "/api/images/delete", &[&one, &two, &three]).await;
    batch(ada, "/api/images/delete", &[&one, &two, &three]).await;
    [one, two, three].iter().for_each(|id| drop(expect(id, &["image.deleted"])));

    // An upload that is declared again, and then confirmed by the sweeper.
    let bytes = unique_png();
    let again = put(ada, bytes.clone()).await;
    assert_eq!(ada.post("/api/images/upload", declaration("later.png", "image/png", &bytes)).await.id(), again);
    expect(&again, &["image.ready"]);
    let missing = open(ada).await;
    expect(&missing, &["upload.expired"]);
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(2 * 3600)).await;
    for _ in 0..2 {
        app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(3 * 24 * 3600)).await;
    }
    expected
}

/// Asserts that each update that made a transition appended its event; returns the transitions.
fn transitions(changes: &[ChangeStreamEvent<Document>]) -> BTreeSet<(String, String)> {
    let (mut states, mut made) = (BTreeMap::new(), BTreeSet::new());
    for change in changes {
        let id = change.document_key.as_ref().unwrap().get_str("_id").unwrap().to_owned();
        match change.operation_type {
            OperationType::Insert => drop(states.insert(id, "pending".to_owned())),
            OperationType::Update => {
                let updated = &change.update_description.as_ref().unwrap().updated_fields;
                let has_event = updated.keys().any(|field| field == "outbox" || field.starts_with("outbox."));
                let Ok(state) = updated.get_str("state") else { continue };
                let needs_event = EventType::of_transition(ImageState::parse(state).unwrap()).is_some();
                assert_eq!(has_event, needs_event, "the update that made an image {state}: {updated}");
                made.insert((states.insert(id, state.to_owned()).unwrap(), state.to_owned()));
            }
            _ => {}
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_leaves_one_event_in_its_own_update_and_a_repeat_leaves_none() {
    let app = start().await;
    let images = app.db.collection::<Document>("images");
    let mut stream = images.watch().await.unwrap();
    let ada = app.user().await;
    let mut expected = make_all_transitions(&ada).await;
    expected.insert(ada.id.clone(), vec!["account.created".to_owned()]);
    assert_eq!(delivered_types(&app).await, expected);
    // Marks the end of the changes in the stream.
    images.insert_one(doc! { "_id": "last" }).await.unwrap();
    let mut changes = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.try_next()).await;
        let change = next.expect("a change within a minute").unwrap().unwrap();
        if change.document_key.as_ref().unwrap().get_str("_id").ok() == Some("last") {
            break;
        }
        changes.push(change);
    }
    let mut legal = BTreeSet::new();
    for from in ImageState::ALL {
        let next = ImageState::ALL.into_iter().filter(|to| from.may_become(*to) && EventType::of_transition(*to).is_some());
        legal.extend(next.map(|to| (from.as_str().to_owned(), to.as_str().to_owned())));
    }
    let mut made = transitions(&changes);
    // A purge has no event.
    made.retain(|(_, to)| to != "gone");
    assert_eq!(made, legal, "every legal transition with an event was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_describes_the_image_at_the_time_of_the_change() {
    let app = start().await;
    let ada = app.user().await;
    let image = ada.upload("$a.png", "image/png", &unique_png()).await;
    let id = image["id"].as_str().unwrap();
    for caption in ["first", "$second"] {
        ada.patch(&format!("/api/images/{id}"), json!({ "caption": caption })).await;
    }
    ada.delete(&format!("/api/images/{id}")).await;
    delivered_types(&app).await;
    let mut events = messages(&app, "ep-all").await;
    events.retain(|event| event["data"]["id"] == id);
    let data_of =
        |name: &str| events.iter().filter(|event| event["type"] == name).map(|event| &event["data"]).collect::<Vec<_>>();
    let ready = data_of("image.ready")[0];
    for field in ["id", "fileName", "contentType", "size", "sha256", "width", "height", "createdAt", "uploadedAt"] {
        assert_eq!(ready[field], image[field], "{field} of {ready}");
    }
    assert_eq!((&ready["user"], ready.get("caption")), (&json!(ada.id), None));
    let captions: BTreeSet<_> = data_of("image.updated").iter().map(|data| data["caption"].as_str().unwrap()).collect();
    assert_eq!(captions, ["$second", "first"].into());
    assert_eq!(data_of("image.deleted")[0]["caption"], "$second");
    assert!(events.iter().all(|event| !event.to_string().contains("http")), "a message has no URLs: {events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_account_leaves_its_events() {
    let app = start().await;
    let ada = app.user().await;
    let image = ready(&ada).await;
    let deletion = ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await;
    assert_eq!(deletion.status, 204);
    // Signing up again with an address that is taken changes nothing.
    let eve = app.user().await;
    let second_signup = app.anonymous().post("/api/auth/signup", json!({ "email": eve.email, "password": PASSWORD })).await;
    assert_eq!(second_signup.status, 409);
    delivered_types(&app).await;
    app.sweep_after_url_expiry().await;
    let expected = [
        (ada.id.clone(), vec!["account.created".to_owned(), "account.deleted".to_owned()]),
        (eve.id.clone(), vec!["account.created".to_owned()]),
        (image, vec!["image.deleted".to_owned(), "image.ready".to_owned()]),
    ];
    assert_eq!(delivered_types(&app).await, expected.into());
}

#[tokio::test]
async fn server_without_events_writes_none() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = ready(&ada).await;
    ada.patch(&format!("/api/images/{id}"), json!({ "caption": "a" })).await;
    ada.delete(&format!("/api/images/{id}")).await;
    for collection in ["images", "users"] {
        assert_eq!(documents(&app, collection, doc! { "outbox": { "$exists": true } }).await, Vec::<Document>::new());
    }
}
