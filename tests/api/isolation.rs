//! What is another user's is answered like what does not exist, on every route that names an image, and stays as it was.

use mongodb::bson::{Document, doc};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    app::{Answer, Caller, TestApp, unique_png},
    openapi::{Operation, operations},
};

fn of_one_image() -> Vec<Operation> {
    let found: Vec<_> = operations().into_iter().filter(|operation| operation.path.starts_with("/api/images/{id}")).collect();
    assert!(found.len() >= 6, "{}", found.len());
    found
}

async fn call(caller: &Caller<'_>, operation: &Operation, id: &str) -> Answer {
    let body = operation.body().cloned();
    caller
        .send(operation.method.clone(), &operation.path_of(id), |request| match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
}

/// All that an answer says, but for what differs between any two answers.
fn essence(answer: &Answer) -> (u16, Value, Vec<(String, String)>, usize) {
    let mut json = answer.json.clone();
    if let Some(members) = json.as_object_mut() {
        members.remove("requestId");
    }
    (answer.status, json, sorted(&answer.headers), answer.text.len())
}

fn sorted(headers: &HeaderMap) -> Vec<(String, String)> {
    let differs = |name: &str| matches!(name, "date" | "x-request-id");
    let mut headers: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !differs(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    headers
}

/// Everything that is stored, of both users.
async fn stored(app: &TestApp) -> (Vec<Document>, Vec<Document>, Vec<String>) {
    let all = async |name: &str| {
        use futures_util::TryStreamExt;
        let found = app.db.collection::<Document>(name).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        found.try_collect().await.unwrap()
    };
    (all("images").await, all("users").await, app.bucket_keys().await)
}

/// Nothing of yours in any state, by the name of the state.
async fn images_of(ada: &Caller<'_>) -> Vec<(&'static str, String)> {
    let png = unique_png();
    let ready = ada.upload("private.png", "image/png", &png).await["id"].as_str().unwrap().to_owned();
    let captioned = ada.patch(&format!("/api/images/{ready}"), json!({ "caption": "private words" })).await;
    assert_eq!(captioned.status, 200);
    let open = async || ada.issue("private.png", "image/png", &unique_png()).await.id().to_owned();
    let (pending, sent) = (open().await, unique_png());
    let ticket = ada.issue("private.png", "image/png", &sent).await;
    assert_eq!(ada.app.put(&ticket.json["upload"], sent).await, 200);
    // What confirm refuses: the declared digest, and no image.
    let text = format!("no image {}", uuid::Uuid::new_v4()).into_bytes();
    let rejected = ada.issue("private.png", "image/png", &text).await;
    assert_eq!(ada.app.put(&rejected.json["upload"], text).await, 200);
    assert_eq!(ada.confirm(rejected.id()).await.problem(), (422, "content_mismatch"));
    let deleted = open().await;
    assert_eq!(ada.delete(&format!("/api/images/{deleted}")).await.status, 204);
    let deleted_ready = ada.upload("private.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    assert_eq!(ada.delete(&format!("/api/images/{deleted_ready}")).await.status, 204);
    vec![
        ("ready", ready),
        ("pending", pending),
        ("uploaded", ticket.id().to_owned()),
        ("rejected", rejected.id().to_owned()),
        ("deleted", deleted),
        ("deleted when ready", deleted_ready),
    ]
}

#[tokio::test]
async fn c1_another_users_image_is_as_no_image_on_every_route() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let images = images_of(&ada).await;
    let before = stored(&app).await;
    for operation in of_one_image() {
        for (state, id) in &images {
            let what = format!("{} {} of a {state} image", operation.method, operation.path);
            let nothing = call(&eve, &operation, &uuid::Uuid::now_v7().to_string()).await;
            assert_eq!(nothing.problem(), (404, "not_found"), "{what}");
            let foreign = call(&eve, &operation, id).await;
            assert_eq!(essence(&foreign), essence(&nothing), "{what}");
            assert!(!foreign.text.contains(id.as_str()) && !foreign.text.contains("private"), "{what}: {foreign:?}");
            let stranger = call(&app.anonymous(), &operation, id).await;
            assert_eq!(stranger.problem(), (401, "token_missing"), "{what}");
        }
    }
    assert!(stored(&app).await == before, "something changed");
    for path in ["/api/images/gallery", "/api/images/pending"] {
        let page = eve.get(path).await;
        assert!(page.json.as_object().unwrap().values().all(|list| list == &json!([])), "{page:?}");
    }
    assert_eq!(eve.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

/// That the sweep above would see a difference: its owner gets other answers on each of these routes.
#[tokio::test]
async fn the_owner_gets_another_answer_on_every_route() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    // The routes of parts are for another kind of upload; their own tests see their owner's answers.
    for operation in of_one_image().into_iter().filter(|operation| !operation.path.ends_with("/parts")) {
        let image = ada.upload("mine.png", "image/png", &unique_png()).await;
        let answer = call(&ada, &operation, image["id"].as_str().unwrap()).await;
        assert!(matches!(answer.status, 200 | 204), "{} {}: {answer:?}", operation.method, operation.path);
    }
}

/// No spelling of an id, nor something that a database could take for a query, is more than an unknown id.
#[tokio::test]
async fn other_spellings_of_an_id_name_nothing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = ada.upload("mine.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let before = stored(&app).await;
    for operation in of_one_image() {
        let nothing = essence(&call(&ada, &operation, &uuid::Uuid::now_v7().to_string()).await);
        for other in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("%7B{id}%7D"),
            format!("urn:uuid:{id}"),
            format!("{id}%00"),
            format!("%20{id}"),
            format!("{id}%2F..%2F{id}"),
            id[..35].to_owned(),
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "%7B%22%24ne%22%3Anull%7D".to_owned(),
            "[$ne]".to_owned(),
            "null".to_owned(),
            "x".repeat(4000),
        ] {
            let answer = call(&ada, &operation, &other).await;
            assert_eq!(essence(&answer), nothing, "{} {} {other}", operation.method, operation.path);
        }
    }
    assert!(stored(&app).await == before, "something changed");
}
