//! Covers isolation of users: on every operation of the OpenAPI document, another user's data is answered like unknown data and
//! stays unchanged.
//!
//! The operations and the positions of their ids are read from the document, so new operations are covered automatically.
//!
//! Routes: all.

use mongodb::bson::{Document, doc};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{
    app::{Answer, Caller, TestApp, unique_png},
    openapi::{Operation, operations},
};

/// Returns all operations whose path names an image.
fn operations_on_an_image() -> Vec<Operation> {
    let found: Vec<_> = operations().into_iter().filter(|operation| operation.path.starts_with("/api/images/{id}")).collect();
    assert!(found.len() >= 6, "{}", found.len());
    found
}

/// Calls an operation for this image, with the body of the document's example.
async fn call(caller: &Caller<'_>, operation: &Operation, id: &str) -> Answer {
    let body = operation.body().cloned();
    caller
        .send(operation.method.clone(), &operation.path_of(id), |request| match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
}

/// Returns whether an operation takes an id: as a segment of its path, or in lists of its body.
pub fn takes_an_id(operation: &Operation) -> bool {
    operation.path.replace("{token}", "").contains('{') || operation.body().is_some_and(|body| body.get("ids").is_some())
}

/// Returns the path with this id wherever it takes one, a token of the caller where it takes one, and the document's examples for
/// other parameters.
async fn path_with(caller: &Caller<'_>, operation: &Operation, id: &str) -> String {
    let token = if operation.is_by_path_token() { caller.uppy().await } else { String::new() };
    let filled = |segment: &str| match segment {
        "{token}" => token.clone(),
        "{partNumber}" => "1".to_owned(),
        segment if segment.starts_with('{') => id.to_owned(),
        segment => segment.to_owned(),
    };
    let path = operation.path.split('/').map(filled).collect::<Vec<_>>().join("/");
    if !operation.is_by_path_token() {
        return path;
    }
    let parameters = operation.described["parameters"].as_array().unwrap().iter();
    let required = parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let pair = |parameter: &Value| match parameter["name"].as_str().unwrap() {
        // The key of an upload consists of its owner and its id.
        "key" => format!("key=u/{}/{id}", caller.id),
        name => format!("{name}={}", parameter["example"].as_str().unwrap()),
    };
    let query: Vec<_> = required.map(pair).collect();
    format!("{path}?{}", query.join("&"))
}

/// Calls an operation with this id wherever it takes one.
pub async fn call_with(caller: &Caller<'_>, operation: &Operation, id: &str) -> Answer {
    let path = path_with(caller, operation, id).await;
    let mut body = operation.body().cloned();
    if let Some(ids) = body.as_mut().and_then(|body| body.get_mut("ids")) {
        *ids = json!([id]);
    }
    let send = |request: reqwest::RequestBuilder| match body {
        Some(body) => request.json(&body),
        None => request,
    };
    caller.send(operation.method.clone(), &path, send).await
}

/// Returns [`comparable`] without the requested id.
fn comparable_without_id(answer: &Answer, id: &str) -> (u16, String, Vec<(String, String)>) {
    let (status, mut json, headers, _) = comparable(answer);
    for result in json.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(problem) = result.get_mut("problem").and_then(Value::as_object_mut) {
            problem.remove("requestId");
        }
    }
    (status, json.to_string().replace(id, "ID"), headers)
}

/// Returns everything in an answer except parts that differ between any two answers.
fn comparable(answer: &Answer) -> (u16, Value, Vec<(String, String)>, usize) {
    let mut json = answer.json.clone();
    if let Some(members) = json.as_object_mut() {
        members.remove("requestId");
    }
    (answer.status, json, compared_headers(&answer.headers), answer.text.len())
}

/// Returns the headers that must be equal in two answers.
fn compared_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let differs = |name: &str| matches!(name, "date" | "x-request-id");
    let mut headers: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !differs(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    headers
}

/// Records and object keys of all users.
#[derive(PartialEq)]
struct Stored {
    images: Vec<Document>,
    users: Vec<Document>,
    sessions: Vec<Document>,
    keys: Vec<String>,
}

/// Returns everything that is stored.
async fn stored(app: &TestApp) -> Stored {
    let all = async |name: &str| {
        use futures_util::TryStreamExt;
        let found = app.db.collection::<Document>(name).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        found.try_collect().await.unwrap()
    };
    Stored {
        images: all("images").await,
        users: all("users").await,
        sessions: all("sessions").await,
        keys: app.bucket_keys().await,
    }
}

/// Creates an image in each state; returns their ids with the state's name.
async fn images_of(ada: &Caller<'_>) -> Vec<(&'static str, String)> {
    let png = unique_png();
    let ready = ada.upload("private.png", "image/png", &png).await["id"].as_str().unwrap().to_owned();
    let captioned = ada.patch(&format!("/api/images/{ready}"), json!({ "caption": "private words" })).await;
    assert_eq!(captioned.status, 200);
    let open = async || ada.open_upload("private.png", "image/png", &unique_png()).await.id().to_owned();
    let (pending, sent) = (open().await, unique_png());
    let ticket = ada.open_upload("private.png", "image/png", &sent).await;
    assert_eq!(ada.app.put(&ticket.json["upload"], sent).await, 200);
    // Content that confirm rejects: the digest matches, but it is not an image.
    let text = format!("no image {}", uuid::Uuid::new_v4()).into_bytes();
    let rejected = ada.open_upload("private.png", "image/png", &text).await;
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
async fn c1_another_users_image_is_answered_like_an_unknown_one_on_every_route() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let images = images_of(&ada).await;
    let before = stored(&app).await;
    for operation in operations_on_an_image() {
        for (state, id) in &images {
            let case = format!("{} {} of a {state} image", operation.method, operation.path);
            let for_unknown_id = call(&eve, &operation, &uuid::Uuid::now_v7().to_string()).await;
            assert_eq!(for_unknown_id.problem(), (404, "not_found"), "{case}");
            let for_foreign_id = call(&eve, &operation, id).await;
            assert_eq!(comparable(&for_foreign_id), comparable(&for_unknown_id), "{case}");
            assert!(
                !for_foreign_id.text.contains(id.as_str()) && !for_foreign_id.text.contains("private"),
                "{case}: {for_foreign_id:?}"
            );
            let for_anonymous = call(&app.anonymous(), &operation, id).await;
            assert_eq!(for_anonymous.problem(), (401, "token_missing"), "{case}");
        }
    }
    assert!(stored(&app).await == before, "no operation changes another user's records");
    for path in ["/api/images/gallery", "/api/images/pending"] {
        let page = eve.get(path).await;
        assert!(page.json.as_object().unwrap().values().all(|list| list == &json!([])), "{page:?}");
    }
    assert_eq!(eve.get("/api/auth/me").await.json["usage"]["bytes"], 0);
}

/// Returns the ids of everything that a user can have: images in every state, a multipart upload, a session, the account itself.
async fn ids_of_everything(ada: &Caller<'_>) -> Vec<(&'static str, String)> {
    let mut all = images_of(ada).await;
    let declaration = json!({ "fileName": "private.png", "contentType": "image/png", "size": 12 << 20, "partSize": 6 << 20 });
    let parts = ada.post("/api/images/multipart", declaration).await;
    assert_eq!(parts.status, 201, "{parts:?}");
    all.push(("in parts", parts.id().to_owned()));
    let uppy = format!("/uppy/{}/s3", ada.uppy().await);
    let form = ada.app.anonymous().get(&format!("{uppy}/params?filename=private.png&type=image/png")).await;
    all.push(("form", form.json["fields"]["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()));
    let in_uppys_parts = json!({ "filename": "private.png", "type": "image/png", "metadata": {} });
    let in_uppys_parts = ada.app.anonymous().post(&format!("{uppy}/multipart"), in_uppys_parts).await;
    all.push(("in Uppy's parts", in_uppys_parts.json["uploadId"].as_str().unwrap().to_owned()));
    let sessions = ada.get("/api/auth/sessions").await;
    all.push(("session", sessions.json["sessions"][0]["id"].as_str().unwrap().to_owned()));
    all.push(("account", ada.id.clone()));
    // An open form makes the server sweep often, so everything that such a sweep would change is swept now.
    ada.app.sweep(time::OffsetDateTime::now_utc()).await;
    all
}

#[tokio::test]
async fn another_users_id_is_answered_like_an_unknown_one_on_every_operation_and_method() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let all = ids_of_everything(&ada).await;
    let before = stored(&app).await;
    // No user's token is accepted by operations of service keys: tests/api/service_keys.rs.
    let with_id: Vec<_> = operations().into_iter().filter(|one| takes_an_id(one) && !one.is_admin()).collect();
    assert!(with_id.len() >= 13, "{}", with_id.len());
    for operation in &with_id {
        let unknown = uuid::Uuid::now_v7().to_string();
        let for_unknown_id = call_with(&eve, operation, &unknown).await;
        let case = format!("{} {}", operation.method, operation.path);
        assert!(matches!(for_unknown_id.status, 200 | 404), "{case}: {for_unknown_id:?}");
        let is_not_found = |result: &Value| result["status"] == 404 && result["problem"]["code"] == "not_found";
        let results = for_unknown_id.json["results"].as_array();
        assert_eq!(
            for_unknown_id.status == 200,
            results.is_some_and(|all| all.len() == 1 && all.iter().all(is_not_found)),
            "{case}: {for_unknown_id:?}"
        );
        for (state, id) in &all {
            let for_foreign_id = call_with(&eve, operation, id).await;
            assert_eq!(
                comparable_without_id(&for_foreign_id, id),
                comparable_without_id(&for_unknown_id, &unknown),
                "{case} of ada's {state}"
            );
        }
    }
    // Undocumented methods are answered alike for both ids.
    let paths: std::collections::BTreeSet<_> = with_id.iter().map(|operation| operation.path.clone()).collect();
    for path in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"]
            .map(|name| reqwest::Method::from_bytes(name.as_bytes()).unwrap())
        {
            if with_id.iter().any(|operation| operation.path == path && operation.method == method) {
                continue;
            }
            let token = if path.starts_with("/uppy/") { eve.uppy().await } else { String::new() };
            let call_undocumented = async |id: &str| {
                let filled = |segment: &str| match segment {
                    "{token}" => token.clone(),
                    segment if segment.starts_with('{') => id.to_owned(),
                    segment => segment.to_owned(),
                };
                let path = path.split('/').map(filled);
                comparable(&eve.send(method.clone(), &path.collect::<Vec<_>>().join("/"), |request| request).await)
            };
            let for_unknown_id = call_undocumented(&uuid::Uuid::now_v7().to_string()).await;
            for (state, id) in &all {
                assert_eq!(call_undocumented(id).await, for_unknown_id, "{method} {path} of ada's {state}");
            }
        }
    }
    assert!(stored(&app).await == before, "no operation changes another user's records");
}

/// Operations without an id show and change only the caller's own data. The calls of `/api/auth/` come last, because they may end
/// or change the caller's session.
#[tokio::test]
async fn operations_without_an_id_show_no_data_of_other_users() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let all = ids_of_everything(&ada).await;
    let before = stored(&app).await;
    let mut operations_checked = 0;
    let mut without_id: Vec<_> = operations()
        .into_iter()
        .filter(|one| (one.is_protected() && !one.is_admin() || one.is_by_path_token()) && !takes_an_id(one))
        .collect();
    without_id.sort_by_key(|operation| (operation.path.starts_with("/api/auth/"), operation.path.ends_with("/delete")));
    for operation in without_id {
        operations_checked += 1;
        let answer = call_with(&eve, &operation, "").await;
        let case = format!("{} {}", operation.method, operation.path);
        assert!(answer.status < 500, "{case}: {answer:?}");
        let adas_values = all.iter().map(|(_, id)| id.as_str()).chain([ada.email.as_str(), "private"]);
        for text in adas_values {
            assert!(!answer.text.contains(text), "{case} shows {text}: {answer:?}");
        }
    }
    assert!(operations_checked >= 6, "{operations_checked}");
    let after = stored(&app).await;
    let adas_documents = |documents: &[Document]| {
        let is_hers = |document: &&Document| document.get_str("user").or(document.get_str("_id")).is_ok_and(|id| id == ada.id);
        documents.iter().filter(is_hers).cloned().collect::<Vec<_>>()
    };
    assert_eq!(adas_documents(&after.images), adas_documents(&before.images));
    assert_eq!(adas_documents(&after.users), adas_documents(&before.users));
    assert_eq!(adas_documents(&after.sessions), adas_documents(&before.sessions));
    let adas_keys = |keys: &[String]| keys.iter().filter(|key| key.contains(&ada.id)).cloned().collect::<Vec<_>>();
    assert_eq!(adas_keys(&after.keys), adas_keys(&before.keys));
}

/// Control for `c1_another_users_image_is_answered_like_an_unknown_one_on_every_route`: the owner gets a different answer.
#[tokio::test]
async fn owner_gets_a_different_answer_on_every_route() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    // The routes of parts require another kind of upload; their own tests cover the owner's answers.
    for operation in operations_on_an_image().into_iter().filter(|operation| !operation.path.ends_with("/parts")) {
        let image = ada.upload("mine.png", "image/png", &unique_png()).await;
        let answer = call(&ada, &operation, image["id"].as_str().unwrap()).await;
        assert!(matches!(answer.status, 200 | 204), "{} {}: {answer:?}", operation.method, operation.path);
    }
}

/// No other spelling of an id, and no text that a database could read as a query, finds more than an unknown id does.
#[tokio::test]
async fn other_spellings_of_an_id_are_unknown() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let id = ada.upload("mine.png", "image/png", &unique_png()).await["id"].as_str().unwrap().to_owned();
    let before = stored(&app).await;
    for operation in operations_on_an_image() {
        let for_unknown_id = comparable(&call(&ada, &operation, &uuid::Uuid::now_v7().to_string()).await);
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
            assert_eq!(comparable(&answer), for_unknown_id, "{} {} {other}", operation.method, operation.path);
        }
    }
    assert!(stored(&app).await == before, "no operation changes another user's records");
}
