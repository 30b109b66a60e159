//! Covers users of an identity provider (OIDC), against a provider that the test runs.
//!
//! Routes: GET /api/auth/me, POST /api/auth/me/delete.

mod algorithm_confusion;
mod outage;
pub mod provider;

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{config, domain::doctor};

use super::app::{Answer, Caller, PASSWORD, TestApp, eventually, unique_png};
use provider::{AUDIENCE, Key, Provider};

/// Starts a server that accepts tokens of this provider.
async fn app_of(provider: &Provider) -> TestApp {
    app_with(provider, |_| {}).await
}

/// Starts a server that accepts tokens of this provider, with further settings, and waits until it knows the provider's keys.
async fn app_with(provider: &Provider, change: impl FnOnce(&mut config::Accounts)) -> TestApp {
    let app = app_without_keys(provider, change).await;
    until_keys_are_known(&app, provider).await;
    app
}

/// Waits until the server knows a key that the provider publishes: until then a token that names the key is answered with 503.
async fn until_keys_are_known(app: &TestApp, provider: &Provider) {
    let forged = Key::ed().sign(&provider.header(), &provider.claims("nobody"));
    eventually("the provider's keys are known", async || read_account(app, forged.clone()).await.status == 401).await;
}

/// Starts a server that accepts tokens of this provider, with further settings; it may not know the provider's keys yet.
async fn app_without_keys(provider: &Provider, change: impl FnOnce(&mut config::Accounts)) -> TestApp {
    let settings = config::OidcProvider::new(provider.issuer.clone(), vec!["other".to_owned(), AUDIENCE.to_owned()]);
    TestApp::start_with(|config| {
        config.accounts.provider = Some(settings);
        change(&mut config.accounts);
    })
    .await
}

/// Returns a caller with this token.
fn bearer(app: &TestApp, token: String) -> Caller<'_> {
    Caller { app, token: Some(token), id: String::new(), email: String::new(), address: None }
}

/// Reads the account of a token's user.
async fn read_account(app: &TestApp, token: String) -> Answer {
    bearer(app, token).get("/api/auth/me").await
}

#[tokio::test]
async fn tokens_of_all_three_algorithms_are_accepted_and_a_subject_is_one_user() {
    let keys = [Key::rsa(), Key::ec(), Key::ed()];
    let named: Vec<_> = ["rsa", "ec", "ed"].into_iter().zip(&keys).collect();
    let provider = Provider::start(&named).await;
    let app = app_of(&provider).await;
    let mut ids = Vec::new();
    for (kid, key) in &named {
        let answer = read_account(&app, key.token(kid, &provider.claims("ada"))).await;
        assert_eq!(answer.status, 200, "{kid}: {answer:?}");
        assert!(answer.json.get("email").is_none(), "{answer:?}");
        ids.push(answer.json["id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = read_account(&app, keys[0].token("rsa", &provider.claims("bob"))).await;
    assert_ne!(other.json["id"], ids[0]);
    let ada = bearer(&app, keys[1].token("ec", &provider.claims("ada")));
    let image = ada.upload("sea.png", "image/png", &unique_png()).await;
    assert_eq!(ada.get("/api/images/gallery").await.json["images"][0]["id"], image["id"]);
    assert_eq!(ada.get("/api/auth/sessions").await.json, json!({ "sessions": [] }));
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites over the bay" });
    assert_eq!(ada.put("/api/auth/password", change).await.problem(), (403, "local_accounts_only"));
    // Local accounts keep working.
    assert_eq!(app.user().await.get("/api/auth/me").await.status, 200);
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn variations_between_providers_are_accepted() {
    let key = Key::rsa();
    let provider = Provider::start(&[("rsa", &key)]).await;
    let app = app_of(&provider).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for (typ, change) in [
        // First, because the leeway is 30 s.
        (json!("JWT"), json!({ "exp": now - 20, "iat": now - 60 })),
        (json!("at+jwt"), json!({})),
        (json!("application/AT+JWT"), json!({})),
        (Value::Null, json!({})),
        (json!("JWT"), json!({ "aud": ["somebody", AUDIENCE] })),
        (json!("JWT"), json!({ "aud": ["other"] })),
        (json!("JWT"), json!({ "aud": null, "token_use": "access", "client_id": AUDIENCE })),
        (json!("JWT"), json!({ "exp": (now + 60) as f64 + 0.5, "iat": now as f64 - 0.5, "nbf": now })),
        (json!("JWT"), json!({ "iat": now + 20, "nbf": now + 20 })),
        (json!("JWT"), json!({ "roles": [{}], "azp": 1, "email": 5, "nonce": "x" })),
    ] {
        let mut claims = provider.claims("ada");
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let mut header = json!({ "alg": "RS256", "kid": "rsa", "typ": typ, "x5t": "x" });
        header.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let answer = read_account(&app, key.sign(&header, &claims)).await;
        assert_eq!(answer.status, 200, "{header} {claims}: {answer:?}");
    }
}

#[tokio::test]
async fn tokens_for_other_services_are_rejected() {
    let key = Key::rsa();
    let provider = Provider::start(&[("rsa", &key)]).await;
    let app = app_of(&provider).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let assert_rejected = async |claims: Value, code: &str| {
        let answer = read_account(&app, key.token("rsa", &claims)).await;
        assert_eq!(answer.problem(), (401, code), "{claims}: {answer:?}");
    };
    for claim in ["iss", "sub", "aud", "exp", "iat"] {
        let valid = provider.claims("ada");
        let mut incomplete = valid.clone();
        incomplete.as_object_mut().unwrap().remove(claim);
        assert_rejected(incomplete, "token_invalid").await;
        for wrong in [Value::Null, json!({}), json!([]), json!([1]), json!(true), json!("x"), json!("")] {
            let mut claims = valid.clone();
            if claim == "sub" && wrong == json!("x") {
                continue;
            }
            claims[claim] = wrong;
            assert_rejected(claims, "token_invalid").await;
        }
    }
    for change in [
        json!({ "iss": format!("{}/", provider.issuer) }),
        json!({ "iss": provider.issuer.to_uppercase() }),
        json!({ "aud": ["photo", "photos "] }),
        json!({ "aud": "somebody", "client_id": AUDIENCE, "azp": AUDIENCE, "token_use": "access" }),
        json!({ "sub": "x".repeat(256) }),
        json!({ "iat": now + 60 }),
        json!({ "nbf": now + 60 }),
        json!({ "nbf": "soon" }),
        json!({ "nbf": 1e300 }),
        json!({ "exp": -1 }),
        json!({ "exp": 1e19 }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": now - 20, "iat": now - 10 }),
        json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        json!({ "cnf": { "jkt": "x" } }),
    ] {
        let mut claims = provider.claims("ada");
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_rejected(claims, "token_invalid").await;
    }
    let mut without_audience = provider.claims("ada");
    without_audience.as_object_mut().unwrap().remove("aud");
    without_audience["client_id"] = AUDIENCE.into();
    assert_rejected(without_audience.clone(), "token_invalid").await;
    without_audience["token_use"] = "access".into();
    without_audience["client_id"] = "somebody".into();
    assert_rejected(without_audience, "token_invalid").await;
    let mut expired = provider.claims("ada");
    (expired["iat"], expired["exp"]) = (json!(now - 600), json!(now - 31));
    assert_rejected(expired, "token_expired").await;
    for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "", "JWS"] {
        let token = key.sign(&json!({ "alg": "RS256", "kid": "rsa", "typ": typ }), &provider.claims("ada"));
        assert_eq!(read_account(&app, token).await.problem(), (401, "token_invalid"), "{typ}");
    }
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 0, "no user was created");
}

#[tokio::test]
async fn fifty_concurrent_first_requests_create_one_user() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let token = key.token("ed", &provider.claims("ada"));
    let answers = join_all((0..50).map(|_| read_account(&app, token.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json["id"] == answers[0].json["id"]), "{answers:?}");
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(provider.fetches(), 1, "one fetch of keys suffices");
}

/// An email address in a provider's token gives no access to the local account with that address, and the local password gives none
/// to the provider's user.
#[tokio::test]
async fn email_address_of_a_provider_gives_no_access_to_a_local_account() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let ada = app.user().await;
    ada.upload("mine.png", "image/png", &unique_png()).await;
    let with_email = |subject: &str, email: &str, verified: Value| {
        let mut claims = provider.claims(subject);
        (claims["email"], claims["email_verified"]) = (email.into(), verified);
        key.token("ed", &claims)
    };
    let twin = read_account(&app, with_email("twin", &ada.email, json!(true))).await;
    assert_eq!((twin.status, twin.json["email"].as_str()), (200, Some(ada.email.as_str())));
    assert_ne!(twin.json["id"], ada.id.as_str());
    assert_eq!(twin.json["usage"]["images"], 0);
    for (subject, email, verified) in [
        ("unverified", "eve@example.com", json!(false)),
        ("silent", "eve@example.com", Value::Null),
        ("odd", "eve@example.com", json!(1)),
        ("malformed", "no address", json!(true)),
    ] {
        let answer = read_account(&app, with_email(subject, email, verified)).await;
        assert!(answer.status == 200 && answer.json.get("email").is_none(), "{subject}: {answer:?}");
    }
    assert_eq!(
        read_account(&app, with_email("as text", "bob@example.com", json!("true"))).await.json["email"],
        "bob@example.com"
    );
    let authenticate = async |route: &str, email: &str| {
        let answer = app.anonymous().post(&format!("/api/auth/{route}"), json!({ "email": email, "password": PASSWORD })).await;
        (answer.status, answer.json["user"]["id"].clone())
    };
    assert_eq!(authenticate("login", &ada.email).await, (200, ada.id.as_str().into()));
    assert_eq!(authenticate("login", "bob@example.com").await.0, 401);
    assert_eq!(authenticate("signup", "bob@example.com").await.0, 201, "the address is free for a local account");
}

#[tokio::test]
async fn without_local_accounts_only_provider_tokens_are_accepted() {
    let key = Key::ec();
    let provider = Provider::start(&[("ec", &key)]).await;
    let with_local = app_of(&provider).await;
    let ada = with_local.user().await;
    let provider_only = TestApp::start_second_server(&with_local, |config| {
        config.accounts = with_local.config.accounts.clone();
        config.accounts.local = false;
    })
    .await;
    let credentials = json!({ "email": ada.email, "password": PASSWORD });
    let token = json!({ "refreshToken": "x" });
    for (path, body) in [("signup", &credentials), ("login", &credentials), ("refresh", &token), ("logout", &token)] {
        let answer = provider_only.anonymous().post(&format!("/api/auth/{path}"), body.clone()).await;
        assert_eq!(answer.problem(), (403, "local_accounts_only"), "{path}");
    }
    assert_eq!(read_account(&provider_only, ada.token.clone().unwrap()).await.problem(), (401, "token_invalid"));
    assert_eq!(read_account(&provider_only, key.token("ec", &provider.claims("ada"))).await.status, 200);
    // Without a provider setting, the provider's tokens are rejected.
    let without_provider = TestApp::start_second_server(&with_local, |_| {}).await;
    assert_eq!(read_account(&without_provider, key.token("ec", &provider.claims("ada"))).await.problem(), (401, "token_invalid"));
    assert_eq!(read_account(&without_provider, ada.token.clone().unwrap()).await.status, 200);
}

#[tokio::test]
async fn check_command_probes_the_provider() {
    let key = Key::ec();
    let provider = Provider::start(&[("ec", &key)]).await;
    let app = app_of(&provider).await;
    let provider_answer = async |config: &config::Config| {
        doctor::run(config, doctor::Options::default()).await.answer("sign-in: provider's keys").cloned()
    };
    assert_eq!(provider_answer(&app.config).await, Some(doctor::Answer::Yes("1 keys".to_owned())));
    let mut other = app.config.clone();
    other.accounts.provider.as_mut().unwrap().issuer.push('/');
    assert!(matches!(provider_answer(&other).await, Some(doctor::Answer::No(why)) if why.contains("byte for byte")));
    other.accounts.provider = None;
    assert!(matches!(provider_answer(&other).await, Some(doctor::Answer::Skipped(_))));
}

/// A provider's user confirms a deletion with a fresh token; tokens from before the deletion do not recreate the account.
#[tokio::test]
async fn provider_user_deletes_the_account_with_a_fresh_token() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let issued = |ago: i64| {
        let mut claims = provider.claims("ada");
        (claims["iat"], claims["exp"]) = (json!(now - ago), json!(now + 600));
        bearer(&app, key.token("ed", &claims))
    };
    // A token may be 300 s old for a deletion.
    let (old, fresh) = (issued(301), issued(60));
    old.upload("mine.png", "image/png", &unique_png()).await;
    let id = old.get("/api/auth/me").await.json["id"].as_str().unwrap().to_owned();
    let rejected = old.post("/api/auth/me/delete", json!({})).await;
    assert_eq!(rejected.problem(), (401, "token_too_old"));
    assert_eq!(rejected.header("www-authenticate"), "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"");
    assert_eq!(fresh.post("/api/auth/me/delete", json!({})).await.status, 204);
    for token in [&old, &fresh, &issued(0)] {
        assert_eq!(token.get("/api/auth/me").await.problem(), (401, "session_ended"));
    }
    let swept = OffsetDateTime::now_utc();
    while app.app.valet.sweeper.sweep_once(swept).await.unwrap().may_have_more {}
    assert!(app.bucket_keys().await.is_empty());
    // Long after the deletion a new sign-in creates another account.
    let users = app.db.collection::<Document>("users");
    let past = mongodb::bson::DateTime::from_millis((now - 600) * 1000);
    users.update_one(doc! { "_id": &id }, doc! { "$set": { "deletedAt": past } }).await.unwrap();
    let new_account = issued(0).get("/api/auth/me").await;
    assert!(
        new_account.status == 200 && new_account.json["id"] != id.as_str() && new_account.json["usage"]["images"] == 0,
        "{new_account:?}"
    );
    let later = swept + std::time::Duration::from_secs(8 * 24 * 60 * 60);
    while app.app.valet.sweeper.sweep_once(later).await.unwrap().may_have_more {}
    assert!(users.find_one(doc! { "_id": &id }).await.unwrap().is_none(), "in the end the record is deleted");
}

/// The record of a deletion stays for seven days, so older tokens are rejected, whatever their `exp` is. A path token ends with the
/// access token that opened it.
#[tokio::test]
async fn tokens_expire_before_a_deletion_is_forgotten() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let week = 7 * 24 * 60 * 60;
    let issued = |ago: i64, exp: i64| {
        let mut claims = provider.claims("ada");
        (claims["iat"], claims["exp"]) = (json!(now - ago), json!(exp));
        bearer(&app, key.token("ed", &claims))
    };
    let month = now + 30 * 24 * 60 * 60;
    for ago in [week - 30, week, 2 * week] {
        assert_eq!(issued(ago, month).get("/api/auth/me").await.problem(), (401, "token_expired"), "{ago}");
    }
    assert_eq!(issued(week - 90, month).get("/api/auth/me").await.status, 200);
    // With the leeway of 30 s, the first token is valid for another 20 s and the second one for 60 s; path tokens end with them. A
    // fresh token gets a path token with the full lifetime of an hour.
    for (token, most) in [(issued(600, now - 10), 20), (issued(week - 90, month), 60)] {
        let seconds_left = token.post_empty("/api/uppy/session").await.json["expiresIn"].as_i64().unwrap();
        // 15 s of slack for a busy machine.
        assert!((most - 15..=most).contains(&seconds_left), "{seconds_left} of {most}");
    }
    assert_eq!(issued(0, month).post_empty("/api/uppy/session").await.json["expiresIn"], 3600);
}

/// Uppy's path token ends with the account, because the provider's sessions are unknown to Valet.
#[tokio::test]
async fn provider_user_can_open_an_uppy_session() {
    let key = Key::ed();
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let ada = bearer(&app, key.token("ed", &provider.claims("ada")));
    let path = format!("/uppy/{}/s3/params?filename=a.png&type=image/png", ada.uppy().await);
    assert_eq!(app.anonymous().get(&path).await.status, 200);
    let app_without_provider = TestApp::start_second_server(&app, |_| {}).await;
    assert_eq!(
        app_without_provider.anonymous().get(&path).await.problem(),
        (401, "session_ended"),
        "without a provider setting, the token is rejected"
    );
    assert_eq!(ada.post("/api/auth/me/delete", json!({})).await.status, 204);
    assert_eq!(app.anonymous().get(&path).await.problem(), (401, "session_ended"));
}
