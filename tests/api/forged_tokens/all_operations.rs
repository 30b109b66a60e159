//! Tests every forged credential against every operation of the OpenAPI document that takes one: each is rejected, no stored data
//! changes, and the audit log contains each with its reason.
//!
//! The position of an operation's credential is read from the document: bearer, path or body. Only the credential of a request is
//! wrong: everything else exists, so that the request would otherwise change something.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, Document, doc};

use super::{Engine, TestApp, URL_SAFE_NO_PAD, Value, base64, forge, header, hmac, json, operations, signed, with};
use crate::{
    app::{PASSWORD, unique_png},
    openapi::Operation,
    process_client::{Client, Process},
    serve::Settings,
};

/// Position of a credential in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Bearer,
    ServiceKey,
    Path,
    RefreshToken,
}

/// Returns the positions at which the operation takes a credential.
fn slots(operation: &Operation) -> Vec<Slot> {
    let has_refresh_token = operation.body().is_some_and(|body| body.get("refreshToken").is_some());
    let all = [
        (Slot::Bearer, operation.is_protected() && !operation.is_admin()),
        (Slot::ServiceKey, operation.is_admin()),
        (Slot::Path, operation.path.contains("{token}")),
        (Slot::RefreshToken, has_refresh_token),
    ];
    all.into_iter().filter_map(|(slot, is_used)| is_used.then_some(slot)).collect()
}

/// A forged credential with the expected answer.
struct Forged {
    /// Description for messages.
    label: &'static str,
    token: String,
    status: u16,
    code: &'static str,
    /// Event and `reason` of its line in the audit log.
    event: &'static str,
    reason: &'static str,
}

/// Returns a forged token that is rejected with 401.
fn forged(label: &'static str, token: String, code: &'static str, reason: &'static str) -> Forged {
    Forged { label, token, status: 401, code, event: "token_refused", reason }
}

/// A user with a session.
struct User {
    id: String,
    client: Client,
    /// Refresh token.
    refresh: String,
    /// Id of the session.
    session: String,
    /// Claims of the access token.
    claims: Value,
    /// Token for Uppy's paths.
    path: String,
}

/// Signs up a user.
async fn user(base: &str) -> User {
    let mut client = Client::at(base);
    let body = json!({ "email": format!("{}@example.com", uuid::Uuid::new_v4().simple()), "password": PASSWORD });
    let (status, session) = client.post("/api/auth/signup", &body).await;
    assert_eq!(status, 201, "{session}");
    let token = session["token"].as_str().unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    client.token = Some(token);
    let (_, uppy) = client.post("/api/uppy/session", &json!({})).await;
    User {
        id: session["user"]["id"].as_str().unwrap().to_owned(),
        refresh: session["refreshToken"].as_str().unwrap().to_owned(),
        session: claims["sid"].as_str().unwrap().to_owned(),
        path: uppy["token"].as_str().unwrap().to_owned(),
        client,
        claims,
    }
}

/// Swaps upper and lower case in the last third, which contains a JWT's signature and a refresh token's secret; except for the last
/// letter, which has unused bits.
fn swap_case(token: &str) -> String {
    let (head, tail) = token.split_at(token.len() * 2 / 3 + 1);
    let (middle, last) = tail.split_at(tail.len() - 1);
    let turned = middle.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
    head.to_owned() + &turned.collect::<String>() + last
}

/// Returns the token without its last character.
fn truncated(token: &str) -> String {
    token[..token.len() - 1].to_owned()
}

/// Returns JWTs with one deviation each, under this header. `genuine` has no deviation; `ended` are the claims of an ended session.
fn forged_jwts(header: &Value, ada: &User, eve: &User, ended: &Value, genuine: &str) -> Vec<Forged> {
    let claims = &ada.claims;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let expired = with(&with(claims, "exp", json!(now - 1)), "iat", json!(now - 600));
    let sign = |claims: &Value| forge(header, claims);
    let made_up = signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, b"a made-up secret of thirty-two bytes");
    vec![
        forged("a made-up secret", made_up, "token_invalid", "invalid"),
        forged("no signature", genuine.rsplit_once('.').unwrap().0.to_owned() + ".", "token_invalid", "invalid"),
        forged("expired", sign(&expired), "token_expired", "expired"),
        forged("a foreign issuer", sign(&with(claims, "iss", json!("https://id.example"))), "token_invalid", "invalid"),
        forged("a foreign audience", sign(&with(claims, "aud", json!("other"))), "token_invalid", "invalid"),
        forged("another user's session", sign(&with(claims, "sid", json!(eve.session))), "session_ended", "session ended"),
        forged("another user", sign(&with(claims, "sub", json!(eve.id))), "session_ended", "session ended"),
        forged(
            "no such session",
            sign(&with(claims, "sid", json!(uuid::Uuid::now_v7().to_string()))),
            "session_ended",
            "session ended",
        ),
        forged("a session that is over", sign(ended), "session_ended", "session ended"),
        forged("the session's id", ada.session.clone(), "token_invalid", "invalid"),
        forged("truncated", truncated(genuine), "token_invalid", "invalid"),
        forged("re-cased", swap_case(genuine), "token_invalid", "invalid"),
        forged("a refresh token", ada.refresh.clone(), "token_invalid", "invalid"),
    ]
}

/// Returns forged service keys, and genuine and forged tokens of users, which are not service keys.
fn forged_keys(key: &str, ada: &User, eve: &User, ended: &Value) -> Vec<Forged> {
    // The head is `vk_<id>_`, with an id of 36 characters.
    let (head, secret) = key.split_at(40);
    let invalid = |label, token| forged(label, token, "token_invalid", "invalid service key");
    let mut all = vec![
        invalid("a user's token", ada.client.token.clone().unwrap()),
        invalid("a token for the path", ada.path.clone()),
        invalid("a made-up secret", format!("{head}{}", "A".repeat(43))),
        invalid("its secret under another key", format!("vk_{}_{secret}", uuid::Uuid::now_v7())),
        invalid("re-cased", head.to_owned() + &swap_case(secret)),
        invalid("truncated", truncated(key)),
        invalid("the key's id", head.to_owned()),
    ];
    all.extend(forged_jwts(&header(), ada, eve, ended, ada.client.token.as_ref().unwrap()));
    for one in &mut all {
        (one.code, one.reason) = ("token_invalid", "invalid service key");
    }
    all
}

/// Returns the forged credentials for a position.
fn forged_for(slot: Slot, ada: &User, eve: &User, ended: &Value, key: &str) -> Vec<Forged> {
    let genuine = ada.client.token.clone().unwrap();
    match slot {
        Slot::ServiceKey => forged_keys(key, ada, eve, ended),
        Slot::Bearer => {
            let mut all = forged_jwts(&header(), ada, eve, ended, &genuine);
            all.push(forged("a service key", key.to_owned(), "token_invalid", "invalid"));
            all.push(forged("a token for the path", ada.path.clone(), "token_invalid", "invalid"));
            all
        }
        Slot::Path => {
            let mut all = forged_jwts(&with(&header(), "typ", json!("uppy+jwt")), ada, eve, ended, &ada.path);
            all.push(forged("an access token", genuine, "token_invalid", "invalid"));
            for one in &mut all {
                one.reason = match one.reason {
                    "invalid" => "invalid in a path",
                    "expired" => "expired in a path",
                    other => other,
                };
            }
            all
        }
        Slot::RefreshToken => panic!("its answers depend on the operation"),
    }
}

/// Returns a refresh token with this session's id and this secret: a byte for the version, 16 of the id and 32 of the secret.
fn refresh_token(session: &str, secret: &[u8]) -> String {
    base64([&[1][..], uuid::Uuid::parse_str(session).unwrap().as_bytes(), secret].concat())
}

/// Returns the forged refresh tokens for an operation, with the audit event that each causes.
fn forged_refresh_tokens(operation: &str, ada: &User, eve: &User, expired: &str) -> Vec<Forged> {
    let (event, is_logout) = match operation {
        "refresh_session" => ("refresh_refused", false),
        "log_out" => ("logout_refused", true),
        _ => panic!("{operation} takes a refresh token: add the audit event of forged ones here"),
    };
    let bytes = |user: &User| URL_SAFE_NO_PAD.decode(&user.refresh).unwrap();
    let (own, eves) = (bytes(ada), bytes(eve));
    let invalid = |label, token, reason| Forged { label, token, status: 401, code: "token_invalid", event, reason };
    let without_session = |label, token| match is_logout {
        // There is no session left to end, which is the requested state.
        true => Forged { label, token, status: 204, code: "", event: "session_not_found", reason: "" },
        false => Forged { label, token, status: 401, code: "session_ended", event, reason: "session ended" },
    };
    let unknown = "unknown secret";
    vec![
        invalid("a made-up secret", refresh_token(&ada.session, &[7; 32]), unknown),
        invalid("another session's secret", refresh_token(&ada.session, &eves[17..]), unknown),
        invalid("its secret under another session", refresh_token(&eve.session, &own[17..]), unknown),
        invalid("another first bit", refresh_token(&ada.session, &[&[own[17] ^ 0x80], &own[18..]].concat()), unknown),
        invalid("another last bit", refresh_token(&ada.session, &[&own[17..48], &[own[48] ^ 1]].concat()), unknown),
        invalid("re-cased", swap_case(&ada.refresh), unknown),
        invalid("truncated", truncated(&ada.refresh), "malformed"),
        invalid("the session's id", ada.session.clone(), "malformed"),
        invalid("another version", base64([&[2], &own[1..]].concat()), "malformed"),
        invalid("an access token", ada.client.token.clone().unwrap(), "malformed"),
        invalid("a token for the path", ada.path.clone(), "malformed"),
        without_session("no such session", refresh_token(&uuid::Uuid::now_v7().to_string(), &own[17..])),
        without_session("a session that has expired", expired.to_owned()),
    ]
}

/// Returns a request that would change something if its credential were valid.
fn request(operation: &Operation, ada: &User, image: &str, slot: Slot, token: &str) -> (String, Option<Value>) {
    let filled = |segment: &str| match segment {
        "{token}" if slot == Slot::Path => token.to_owned(),
        "{id}" if operation.path.contains("/sessions/") => ada.session.clone(),
        "{user}" => ada.id.clone(),
        segment if segment.starts_with('{') => image.to_owned(),
        segment => segment.to_owned(),
    };
    let mut path = operation.path.split('/').map(filled).collect::<Vec<_>>().join("/");
    let parameters = operation.described["parameters"].as_array().into_iter().flatten();
    let required = parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let pair = |parameter: &Value| match parameter["name"].as_str().unwrap() {
        "key" => format!("key=u/{}/{image}", ada.id),
        name => format!("{name}={}", parameter["example"].as_str().unwrap()),
    };
    let query: Vec<_> = required.map(pair).collect();
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let mut body = operation.body().cloned();
    for (name, value) in body.as_mut().and_then(Value::as_object_mut).into_iter().flatten() {
        match name.as_str() {
            "ids" => *value = json!([image]),
            "password" | "currentPassword" => *value = PASSWORD.into(),
            "refreshToken" if slot == Slot::RefreshToken => *value = token.into(),
            _ => {}
        }
    }
    (path, body)
}

/// Returns the documents of every collection.
async fn stored(app: &TestApp) -> BTreeMap<String, Vec<Document>> {
    let mut all = BTreeMap::new();
    let names = app.db.list_collection_names().await.unwrap();
    for name in names.into_iter().filter(|name| !name.starts_with("system.")) {
        let found = app.db.collection::<Document>(&name).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        all.insert(name, found.try_collect().await.unwrap());
    }
    all
}

/// Returns the lines of the audit log by request id.
fn audited(process: &Process) -> BTreeMap<String, Vec<Value>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for line in process.err().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["target"] == "audit" && line["event"].is_string() {
            all.entry(line["span"]["id"].as_str().unwrap_or_default().to_owned()).or_default().push(line);
        }
    }
    all
}

/// A request that was sent with a forged credential, and its expected line in the audit log.
struct Attempt {
    label: String,
    request_id: String,
    event: &'static str,
    reason: &'static str,
}

/// Sends a request with a forged credential, and asserts its answer.
async fn send_forged(
    client: &Client,
    operation: &Operation,
    slot: Slot,
    forged: &Forged,
    (path, body): (String, Option<Value>),
) -> Attempt {
    let mut request = client.http.request(operation.method.clone(), format!("{}{path}", client.base));
    if matches!(slot, Slot::Bearer | Slot::ServiceKey) {
        request = request.bearer_auth(&forged.token);
    }
    if let Some(body) = &body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let label = format!("{} with {} as its {slot:?}", operation.described["operationId"], forged.label);
    let (status, request_id) = (answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap().to_owned());
    let problem: Value = answer.json().await.unwrap_or_default();
    assert_eq!((status, problem["code"].as_str().unwrap_or_default()), (forged.status, forged.code), "{label}");
    Attempt { label, request_id, event: forged.event, reason: forged.reason }
}

/// Asserts that each request has exactly one line in the audit log, the expected one.
async fn assert_audited(process: &Process, attempts: &[Attempt]) {
    let last = &attempts.last().unwrap().request_id;
    let audited = process.wait_for(|process| Some(audited(process)).filter(|all| all.contains_key(last))).await;
    for Attempt { label, request_id, event, reason } in attempts {
        let lines: Vec<_> = audited.get(request_id).into_iter().flatten().collect();
        let is_logged =
            lines.len() == 1 && lines[0]["event"] == *event && lines[0]["reason"].as_str().unwrap_or_default() == *reason;
        assert!(is_logged, "{label}: {event} {reason} in {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_credentials_change_nothing_on_any_operation() {
    let app = TestApp::start().await;
    let settings =
        Settings::for_app(&app).with("RUST_LOG", "audit=info,valet=info").with("RATE_LIMIT", "off").with("SWEEP_INTERVAL", "1h");
    let (process, client) = settings.start_listening().await;
    let (ada, eve) = (user(&client.base).await, user(&client.base).await);
    let (image, _) = ada.client.upload(&unique_png()).await;
    let image = image["id"].as_str().unwrap();
    // A session that has ended, and one that has expired.
    let (signed_out, expired) = (user(&client.base).await, user(&client.base).await);
    assert_eq!(client.post("/api/auth/logout", &json!({ "refreshToken": signed_out.refresh })).await.0, 204);
    let past = doc! { "$set": { "expiresAt": DateTime::now() } };
    let sessions = app.db.collection::<Document>("sessions");
    assert_eq!(sessions.update_one(doc! { "_id": &expired.session }, past).await.unwrap().modified_count, 1);
    // Without this, the TTL index could delete the expired session at any moment.
    app.db
        .run_command(doc! { "collMod": "sessions", "index": { "name": "expiresAt", "expireAfterSeconds": 86_400 } })
        .await
        .unwrap();

    let key = app.create_service_key(&valet::model::Scope::ALL).await.token.unwrap();
    let (before, mut attempts, mut operations_by_slot) = (stored(&app).await, Vec::new(), BTreeMap::<Slot, usize>::new());
    for operation in operations() {
        let name = operation.described["operationId"].as_str().unwrap();
        for slot in slots(&operation) {
            *operations_by_slot.entry(slot).or_default() += 1;
            let all = match slot {
                Slot::RefreshToken => forged_refresh_tokens(name, &ada, &eve, &expired.refresh),
                slot => forged_for(slot, &ada, &eve, &signed_out.claims, &key),
            };
            for forged in all {
                let request = request(&operation, &ada, image, slot, &forged.token);
                attempts.push(send_forged(&client, &operation, slot, &forged, request).await);
            }
            assert!(stored(&app).await == before, "{name}: something changed");
        }
    }
    for (slot, least) in [(Slot::Bearer, 15), (Slot::ServiceKey, 10), (Slot::Path, 6), (Slot::RefreshToken, 2)] {
        assert!(operations_by_slot[&slot] >= least, "{operations_by_slot:?}");
    }
    assert_audited(&process, &attempts).await;
    // The genuine credentials still work.
    assert_eq!(ada.client.get("/api/auth/me").await.0, 200);
    let form = format!("/uppy/{}/s3/params?filename=a.png&type=image/png", ada.path);
    assert_eq!(client.get(&form).await.0, 200);
    for user in [&ada, &eve] {
        let refreshed = client.post("/api/auth/refresh", &json!({ "refreshToken": user.refresh })).await;
        assert_eq!(refreshed.0, 200, "{}", refreshed.1);
        let spent = json!({ "refreshToken": user.refresh });
        assert_eq!(client.post("/api/auth/logout", &spent).await.0, 204);
        assert_eq!(user.client.get("/api/auth/me").await.0, 401);
    }
}
