//! Covers rate limits: rejected clients, the headers of their answers, and clients that must not be affected.
//!
//! Routes: POST /api/auth/login, POST /api/auth/signup, PUT /api/auth/password.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use valet::config::Rate;

use super::{
    app::{Answer, Caller, PASSWORD, TestApp, declaration, unique_png},
    isolation::call_with,
    openapi::{Operation, operations},
};

/// Starts a server with production limits except for `change`; it trusts the tests' address as a proxy.
async fn start_throttled(change: impl FnOnce(&mut valet::config::RateLimits)) -> TestApp {
    TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits::default();
        change(&mut config.limits);
        config.proxies.0.push("127.0.0.1".parse().unwrap());
    })
    .await
}

/// Sends a POST from `address`.
async fn post_from(app: &TestApp, address: &str, path: &str, body: Value) -> Answer {
    app.anonymous().send(Method::POST, path, |request| request.json(&body).header("x-forwarded-for", address)).await
}

/// Signs in from this address.
async fn log_in(app: &TestApp, address: &str, email: &str, password: &str) -> Answer {
    post_from(app, address, "/api/auth/login", json!({ "email": email, "password": password })).await
}

/// Asserts that a request was rejected: 429, Retry-After of at most `longest` seconds, and the limit's name
/// (draft-ietf-httpapi-ratelimit-headers-11).
fn assert_refused(answer: &Answer, policy: &str, longest: u64) {
    assert_eq!(answer.problem(), (429, "rate_limited"), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), policy);
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=longest).contains(&wait), "{wait}");
    let name = policy.split(';').next().unwrap();
    assert_eq!(answer.header("ratelimit"), format!("{name};r=0;t={wait}"));
}

#[tokio::test]
async fn a6_wrong_passwords_are_throttled_without_locking_the_owner_out() {
    let app = start_throttled(|limits| limits.login_failures = Rate::new(5, 600)).await;
    let ada = app.user().await;
    for _ in 0..5 {
        assert_eq!(log_in(&app, "198.51.100.1", &ada.email, "another password").await.status, 401);
    }
    assert_refused(&log_in(&app, "198.51.100.1", &ada.email, "another password").await, "\"login-failures\";q=5;w=600", 120);
    assert_eq!(
        log_in(&app, "198.51.100.1", &ada.email.to_uppercase(), PASSWORD).await.status,
        429,
        "the correct password is throttled too"
    );
    assert_eq!(log_in(&app, "198.51.100.2", &ada.email, PASSWORD).await.status, 200, "the owner is in another network");
    let bob = app.user().await;
    assert_eq!(
        log_in(&app, "198.51.100.1", &bob.email, PASSWORD).await.status,
        200,
        "other accounts at this address are not limited"
    );
    for _ in 0..5 {
        assert_eq!(log_in(&app, "198.51.100.1", "nobody@example.com", "another password").await.status, 401);
    }
    assert_eq!(
        log_in(&app, "198.51.100.1", "nobody@example.com", "x").await.status,
        429,
        "unknown addresses have the same limit"
    );
}

#[tokio::test]
async fn a6_right_password_resets_the_count() {
    let app = start_throttled(|limits| limits.login_failures = Rate::new(3, 600)).await;
    let ada = app.user().await;
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(log_in(&app, "198.51.100.1", &ada.email, "another password").await.status, 401);
        }
        assert_eq!(log_in(&app, "198.51.100.1", &ada.email, PASSWORD).await.status, 200);
    }
}

/// With default limits and concurrent attempts: attempts in progress count.
#[tokio::test]
async fn a6_concurrent_guesses_are_limited() {
    let app = start_throttled(|_| {}).await;
    let ada = app.user().await;
    let mut tried = 0;
    for _ in 0..11 {
        let answers =
            futures_util::future::join_all((0..10).map(|_| log_in(&app, "198.51.100.1", &ada.email, "another password"))).await;
        tried += answers.iter().filter(|answer| answer.status == 401).count();
        assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 429 | 503)), "{answers:?}");
    }
    // 25 an hour of one address for one account; one more is permitted after 144 seconds.
    assert!((1..=26).contains(&tried), "{tried}");
    assert_eq!(log_in(&app, "198.51.100.1", &ada.email, PASSWORD).await.status, 429);
    assert_eq!(log_in(&app, "203.0.113.2", &ada.email, PASSWORD).await.status, 200);
}

/// A stolen session can use up only its own password attempts, not those of other sessions.
#[tokio::test]
async fn password_attempts_are_counted_per_session() {
    let app = start_throttled(|limits| {
        limits.password = Rate::new(2, 24 * 60 * 60);
        limits.login_failures = Rate::new(2, 24 * 60 * 60);
    })
    .await;
    let thief = app.user().await;
    let login = app.anonymous().post("/api/auth/login", json!({ "email": thief.email, "password": PASSWORD })).await;
    let owner = Caller { token: login.json["token"].as_str().map(str::to_owned), ..app.anonymous() };
    let guess = async || thief.post("/api/auth/me/delete", json!({ "password": "another password" })).await.status;
    assert_eq!((guess().await, guess().await, guess().await), (401, 401, 429));
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites" });
    assert_eq!(owner.put("/api/auth/password", change).await.status, 204);
}

#[tokio::test]
async fn a6_password_change_counts_guesses() {
    let app = start_throttled(|limits| limits.login_failures = Rate::new(3, 600)).await;
    let ada = app.user().await;
    let change = async |current: &str| {
        ada.put("/api/auth/password", json!({ "currentPassword": current, "newPassword": "seven green kites" })).await
    };
    for _ in 0..3 {
        assert_eq!(change("another password").await.status, 401);
    }
    assert_refused(&change(PASSWORD).await, "\"login-failures\";q=3;w=600", 200);
}

#[tokio::test]
async fn l3_each_limit_counts_by_its_own_key() {
    let app = start_throttled(|limits| {
        limits.signup = Rate::new(2, 60);
        limits.login = Rate::new(2, 60);
        limits.refresh = Rate::new(2, 60);
        limits.upload = Rate::new(2, 60);
    })
    .await;
    let (ada, bob) = (app.user().await, app.user().await);
    let unique = || json!({ "email": format!("{}@example.com", uuid::Uuid::new_v4().simple()), "password": PASSWORD });
    let sign_up = async |address: &str| post_from(&app, address, "/api/auth/signup", unique()).await;
    assert_refused(&sign_up("127.0.0.1").await, "\"signup\";q=2;w=60", 30);
    assert_eq!(sign_up("198.51.100.1").await.status, 201);

    for _ in 0..2 {
        assert_eq!(log_in(&app, "2001:db8::1", &ada.email, PASSWORD).await.status, 200);
    }
    assert_refused(&log_in(&app, "2001:db8::2", &bob.email, PASSWORD).await, "\"login\";q=2;w=60", 30);
    assert_eq!(log_in(&app, "2001:db8:0:1::2", &bob.email, PASSWORD).await.status, 200);

    let refresh = async |address: &str| post_from(&app, address, "/api/auth/refresh", json!({ "refreshToken": "x" })).await;
    for _ in 0..2 {
        assert_eq!(refresh("198.51.100.1").await.status, 401);
    }
    assert_refused(&refresh("198.51.100.1").await, "\"refresh\";q=2;w=60", 30);
    assert_eq!(refresh("198.51.100.2").await.status, 401);

    let png = unique_png();
    let open_upload =
        async |caller: &super::app::Caller<'_>| caller.post("/api/images/upload", declaration("a.png", "image/png", &png)).await;
    assert_eq!((open_upload(&ada).await.status, open_upload(&ada).await.status), (201, 200));
    assert_refused(&open_upload(&ada).await, "\"upload\";q=2;w=60", 30);
    assert_eq!(open_upload(&bob).await.status, 201, "the limit counts users, not addresses");
}

#[tokio::test]
async fn untrusted_client_cannot_choose_its_address() {
    let app = TestApp::start_with(|config| {
        config.limits = valet::config::RateLimits { refresh: Rate::new(2, 60), ..Default::default() };
    })
    .await;
    let refresh =
        async |address: &str| post_from(&app, address, "/api/auth/refresh", json!({ "refreshToken": "x" })).await.status;
    assert_eq!(
        (refresh("198.51.100.1").await, refresh("198.51.100.2").await, refresh("198.51.100.3").await),
        (401, 401, 429),
        "no proxy is trusted, so the connection's address counts"
    );
}

/// Sends wrong passwords for an account, each from another network, until the account's limit is reached; returns their number.
async fn guess_until_refused(app: &TestApp, email: &str) -> usize {
    for at in 0.. {
        let answer = log_in(app, &format!("10.{}.{}.1", at / 256, at % 256), email, "another password").await;
        if answer.status == 429 {
            assert_refused(&answer, "\"account-failures\";q=8;w=86400", 86_400 / 8);
            return at;
        }
        assert_eq!(answer.status, 401);
    }
    unreachable!()
}

/// Clients in many networks guess an account's password: on every server, logins from unknown networks are limited, and logins
/// from networks from which the owner has signed in before are not.
#[tokio::test(flavor = "multi_thread")]
async fn a8_guesses_from_many_networks_are_counted_by_account_without_locking_the_owner_out() {
    let change = |config: &mut valet::config::Config| {
        config.limits = valet::config::RateLimits { account_failures: Rate::new(8, 86_400), ..Default::default() };
        config.proxies.0.push("127.0.0.1".parse().unwrap());
    };
    let app = TestApp::start_with(change).await;
    let ada = app.user().await;
    // Ada has signed up from 127.0.0.1, and signs in once from another network.
    assert_eq!(log_in(&app, "198.51.100.7", &ada.email, PASSWORD).await.status, 200);
    assert_eq!(guess_until_refused(&app, &ada.email).await, 8);
    let second_server = TestApp::start_second_server(&app, change).await;
    assert_eq!(guess_until_refused(&second_server, &ada.email).await, 8);
    for server in [&app, &second_server] {
        for known in ["127.0.0.1", "198.51.100.7", "198.51.100.200"] {
            assert_eq!(log_in(server, known, &ada.email, "another password").await.status, 401, "{known}");
            assert_eq!(log_in(server, known, &ada.email, PASSWORD).await.status, 200, "{known}");
        }
        for strange in ["203.0.113.1", "198.51.101.7", "2001:db8::1"] {
            assert_eq!(log_in(server, strange, &ada.email, PASSWORD).await.status, 429, "{strange}");
        }
    }
    // In her session she can change her password during the attack.
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites over the bay" });
    assert_eq!(ada.put("/api/auth/password", change).await.status, 204);
    assert_eq!(guess_until_refused(&app, "nobody@example.com").await, 8, "unknown addresses have the same limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_networks_of_a_deleted_account_are_forgotten() {
    let app = start_throttled(|_| {}).await;
    let (ada, bob) = (app.user().await, app.user().await);
    assert_eq!(log_in(&app, "198.51.100.7", &ada.email, PASSWORD).await.status, 200);
    let stored_networks = async || {
        use futures_util::TryStreamExt;
        let known_networks = app.db.collection::<mongodb::bson::Document>("knownNetworks");
        let records: Vec<_> = known_networks.find(mongodb::bson::doc! {}).await.unwrap().try_collect().await.unwrap();
        let mut ids: Vec<_> = records.iter().map(|record| record.get_str("_id").unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let records = |user: &str, networks: [&str; 2]| networks.map(|network| format!("{user}/{network}"));
    let (test_networks, home_networks) = (["127.0.0.0/24", "127.0.0.1/32"], ["198.51.100.0/24", "198.51.100.7/32"]);
    let mut expected =
        [records(&ada.id, test_networks), records(&ada.id, home_networks), records(&bob.id, test_networks)].concat();
    expected.sort();
    assert_eq!(stored_networks().await, expected);
    assert_eq!(ada.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    app.sweep(time::OffsetDateTime::now_utc()).await;
    assert_eq!(stored_networks().await, records(&bob.id, test_networks));
}

/// The database has the latest 200 networks of an account, from however many IPv6 networks its owner signs in.
#[tokio::test(flavor = "multi_thread")]
async fn a8_number_of_stored_networks_is_bounded() {
    use mongodb::bson::{DateTime, Document, doc};
    let app = start_throttled(|_| {}).await;
    let ada = app.user().await;
    let known_networks = app.db.collection::<Document>("knownNetworks");
    let old = (0..300).map(|at| doc! { "_id": format!("{}/2001:db8:0:{at:x}::/64", ada.id), "at": DateTime::from_millis(at) });
    known_networks.insert_many(old).await.unwrap();
    assert_eq!(log_in(&app, "198.51.100.7", &ada.email, PASSWORD).await.status, 200);
    assert_eq!(known_networks.count_documents(doc! {}).await.unwrap(), 200);
    for kept in ["127.0.0.1/32", "198.51.100.7/32", "198.51.100.0/24", "2001:db8:0:12b::/64"] {
        let id = format!("{}/{kept}", ada.id);
        assert!(known_networks.find_one(doc! { "_id": &id }).await.unwrap().is_some(), "{id}");
    }
}

/// Neighbours in the owner's network use up that network's attempts, four times those of an address, but not those of the owner's
/// address.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_do_not_lock_the_owner_out() {
    let app = start_throttled(|limits| limits.login_failures = Rate::new(2, 24 * 60 * 60)).await;
    for (owner, neighbours) in [
        ("198.51.100.200", ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"]),
        ("2001:db8:7:ff00::9", ["2001:db8:7:100::1", "2001:db8:7:101::1", "2001:db8:7:200::1", "2001:db8:7:201::1"]),
    ] {
        let ada = app.user().await;
        assert_eq!(log_in(&app, owner, &ada.email, PASSWORD).await.status, 200);
        let second_server = TestApp::start_second_server(&app, |config| config.clone_from(&app.config)).await;
        for server in [&app, &second_server] {
            for at in 0..8 {
                assert_eq!(log_in(server, neighbours[at / 2], &ada.email, "another password").await.status, 401, "{at}");
            }
            let stranger = if owner.contains(':') { "2001:db8:7:300::1" } else { "198.51.100.5" };
            assert_refused(&log_in(server, stranger, &ada.email, PASSWORD).await, "\"login-failures\";q=8;w=86400", 86_400 / 8);
            for _ in 0..3 {
                assert_eq!(log_in(server, owner, &ada.email, "another password").await.status, 401);
                assert_eq!(log_in(server, owner, &ada.email, PASSWORD).await.status, 200, "{owner}");
            }
            // The owner's address has its own limit.
            for status in [401, 401, 429] {
                assert_eq!(log_in(server, owner, &ada.email, "another password").await.status, status);
            }
        }
    }
}

/// Sessions can be ended even if the user's limits and permits are used up: for that, each session has a limit of its own.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_can_be_ended_during_a_flood() {
    let app = start_throttled(|limits| {
        limits.calls = Rate::new(3, 24 * 60 * 60);
        limits.refresh = Rate::new(1, 24 * 60 * 60);
    })
    .await;
    let email = app.user().await.email;
    let sign_in = async |address: &str| {
        let session = log_in(&app, address, &email, PASSWORD).await.json;
        let caller = Caller { token: session["token"].as_str().map(str::to_owned), ..app.anonymous() }.with_address(address);
        (caller, session["refreshToken"].clone())
    };
    let (thief, stolen) = sign_in("198.51.100.66").await;
    let (owner, own) = sign_in("203.0.113.5").await;
    while thief.get("/api/auth/me").await.status != 429 {}
    assert_eq!(owner.get("/api/auth/me").await.status, 429, "all calls of the user have one limit");
    // Calls to end sessions from a stolen session use up that session's limit; from the owner's session, that of the caller's
    // network.
    let owner_in_thiefs_network = owner.with_address("198.51.100.66");
    for flooder in [&thief, &owner_in_thiefs_network] {
        while flooder.get("/api/auth/sessions").await.status != 429 {}
    }
    let sessions = owner.get("/api/auth/sessions").await;
    assert_eq!(sessions.status, 200);
    let sessions: Vec<_> = sessions.json["sessions"].as_array().unwrap().iter().filter(|one| one["current"] == false).collect();
    for session in sessions {
        assert_eq!(owner.delete(&format!("/api/auth/sessions/{}", session["id"].as_str().unwrap())).await.status, 204);
    }
    assert_eq!(thief.get("/api/auth/sessions").await.problem(), (401, "session_ended"));
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "seven green kites over the bay" });
    assert_eq!(owner.put("/api/auth/password", change).await.status, 204);
    // A session can be ended even if the limit of refreshes is used up.
    for status in [401, 429] {
        assert_eq!(owner.post("/api/auth/refresh", json!({ "refreshToken": stolen })).await.status, status);
    }
    assert_eq!(owner.post("/api/auth/logout", json!({ "refreshToken": own })).await.status, 204);
    let (owner, _) = {
        let session = log_in(&app, "203.0.113.5", &email, "seven green kites over the bay").await.json;
        (Caller { token: session["token"].as_str().map(str::to_owned), ..app.anonymous() }, ())
    };
    let deleted = owner.post("/api/auth/me/delete", json!({ "password": "seven green kites over the bay" })).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
}

/// Another user calls every operation from the owner's address until it is rejected, then logout with malformed and forged tokens.
#[tokio::test(flavor = "multi_thread")]
async fn logout_is_answered_during_a_flood_from_the_owners_address() {
    const HOME: &str = "203.0.113.5";
    let app = start_throttled(|limits| {
        let few = Rate::new(4, 24 * 60 * 60);
        (limits.signup, limits.login, limits.password, limits.refresh) = (few, few, few, few);
        (limits.calls, limits.upload, limits.urls, limits.s3) = (few, few, few, few);
    })
    .await;
    let (eve, ada) = (app.user().await.with_address(HOME), app.user().await);
    let session = log_in(&app, HOME, &ada.email, PASSWORD).await.json;
    let ada = Caller { token: session["token"].as_str().map(str::to_owned), ..ada }.with_address(HOME);
    let list = async || ada.get("/api/auth/sessions").await;
    let current =
        list().await.json["sessions"].as_array().unwrap().iter().find(|one| one["current"] == true).unwrap()["id"].clone();
    let mut limited = Vec::new();
    let id = |operation: &Operation| operation.described["operationId"].as_str().unwrap().to_owned();
    for operation in
        operations().into_iter().filter(|one| !one.is_admin() && id(one) != "log_out" && !one.path.contains("{token}"))
    {
        for _ in 0..24 {
            if call_with(&eve, &operation, "x").await.status == 429 {
                limited.push(id(&operation));
                break;
            }
        }
    }
    assert!(limited.len() > 20 && limited.contains(&"refresh_session".to_owned()), "{limited:?}");
    let log_out = async |token: String| post_from(&app, HOME, "/api/auth/logout", json!({ "refreshToken": token })).await.status;
    let id = uuid::Uuid::parse_str(current.as_str().unwrap()).unwrap();
    let forged = |n: u8| URL_SAFE_NO_PAD.encode([&[1][..], id.as_bytes(), &[n; 32]].concat());
    while log_out("malformed".to_owned()).await != 429 {}
    for n in 0..30 {
        // Each token has its own limit: a forged token uses up only its own.
        assert_eq!(log_out(forged(n)).await, 401);
    }
    while log_out(forged(0)).await != 429 {}
    assert_eq!(list().await.status, 200);
    let own = session["refreshToken"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(log_out(own.to_owned()).await, 204);
    }
    assert_eq!(list().await.problem(), (401, "session_ended"));
}
