//! Covers sign-up, login and access tokens under /api/auth.
//!
//! Routes: POST /api/auth/signup, POST /api/auth/login, GET /api/auth/me.

use mongodb::bson::{Document, doc};
use serde_json::json;

use super::app::{PASSWORD, TestApp};

#[tokio::test]
async fn sign_up_log_in_and_me_return_the_same_user() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let login = app.anonymous().post("/api/auth/login", json!({ "email": ada.email.to_uppercase(), "password": PASSWORD })).await;
    assert_eq!(login.status, 200);
    assert_eq!((login.json["tokenType"].as_str(), login.json["expiresIn"].as_u64()), (Some("Bearer"), Some(7200)));
    let me = ada.get("/api/auth/me").await;
    assert_eq!(me.status, 200);
    assert_eq!(me.json["id"], ada.id.as_str());
    assert_eq!(me.json["email"], ada.email.as_str());
    assert_eq!(me.json["usage"], json!({ "bytes": 0, "quotaBytes": 10_737_418_240_u64, "images": 0, "pending": 0 }));
    let created = me.json["createdAt"].as_str().unwrap();
    assert!(created.len() == 20 && created.ends_with('Z'), "whole seconds: {created}");
    assert_eq!(me.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a8_fifty_sign_ups_of_one_address_make_one_account() {
    let app = TestApp::start().await;
    let anonymous = app.anonymous();
    let addresses: Vec<_> = (0..50).map(|n| if n % 2 == 0 { "Same@Example.com" } else { "same@example.COM" }).collect();
    let sign_up = |email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        let anonymous = &anonymous;
        async move {
            loop {
                // Each hash takes a core: on a slow machine some sign-ups get 503, and are repeated.
                let answer = anonymous.post("/api/auth/signup", body.clone()).await;
                if answer.status != 503 {
                    return answer;
                }
            }
        }
    };
    let answers = futures_util::future::join_all(addresses.iter().map(|email| sign_up(email))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let taken = answers.iter().filter(|answer| answer.problem() == (409, "email_taken")).count();
    assert_eq!((made, made + taken), (1, answers.len()), "{answers:?}");
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn invalid_accounts_are_rejected_with_the_field() {
    let app = TestApp::start().await;
    let sign_up = async |email: &str, password: &str| {
        let answer = app.anonymous().post("/api/auth/signup", json!({ "email": email, "password": password })).await;
        (
            answer.status,
            answer.code().to_owned(),
            answer.json["errors"][0]["field"].as_str().unwrap_or_default().to_owned(),
            answer.text,
        )
    };
    for email in ["", "ada", "ada@localhost", "a b@example.com", "ada@example.com\u{0}"] {
        let (status, code, field, _) = sign_up(email, PASSWORD).await;
        assert_eq!((status, code.as_str(), field.as_str()), (422, "invalid_email", "email"), "{email:?}");
    }
    for password in ["", "short", "elevenchars", &"x".repeat(1025)] {
        let (status, code, field, text) = sign_up("ada@example.com", password).await;
        assert_eq!((status, code.as_str(), field.as_str()), (422, "weak_password", "password"));
        assert!(password.is_empty() || !text.contains(password), "{text}");
    }
    let unusual: String = ('a'..='z').rev().step_by(3).chain('é'..='ü').chain("🦀🐌🌋🪁".chars()).collect();
    assert_eq!(sign_up("ada@example.com", &unusual.repeat(5)).await.0, 201, "no rules of composition, no truncation");
}

#[tokio::test]
async fn a5_unknown_address_and_wrong_password_get_the_same_answer() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = async |email: &str, password: &str| {
        let answer = app.anonymous().post("/api/auth/login", json!({ "email": email, "password": password })).await;
        let mut json = answer.json.clone();
        json.as_object_mut().unwrap().remove("requestId");
        (answer.status, json)
    };
    let wrong = log_in(&ada.email, "another password").await;
    assert_eq!((wrong.0, wrong.1["code"].as_str()), (401, Some("invalid_credentials")));
    assert_eq!(log_in("nobody@example.com", "another password").await, wrong);
    assert_eq!(log_in("not an address", "x").await, wrong);
    assert_eq!(log_in(&ada.email, &format!("{PASSWORD}x")).await, wrong);
    assert_eq!(log_in("nobody@example.com", &"x".repeat(3000)).await, wrong);
}

#[tokio::test]
async fn a4_common_passwords_are_rejected_with_the_reason() {
    let app = TestApp::start().await;
    for password in ["passwordpassword", "qwertyuiopasdfghjkl", "valetvaletvalet", "charles.babbage", "charles.babbage1791"] {
        let body = json!({ "email": "charles.babbage@example.com", "password": password });
        let answer = app.anonymous().post("/api/auth/signup", body).await;
        assert_eq!(answer.problem(), (422, "weak_password"), "{password}");
        assert_eq!(answer.json["errors"][0]["field"], "password");
        let rule = answer.json["errors"][0]["message"].as_str().unwrap();
        assert!(rule.contains("must not be") && rule.contains("words"), "{rule}");
        assert!(!answer.text.contains(password), "{}", answer.text);
    }
    assert_eq!(app.db.collection::<Document>("users").count_documents(doc! {}).await.unwrap(), 0);
}

/// Both take the same time, measured as a generous ratio of medians because machines are shared. Without the dummy hash the times
/// would differ by a factor of about a thousand.
#[tokio::test]
async fn a5_unknown_address_costs_as_much_hashing_as_a_wrong_password() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let measure = async || {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..15 {
            for (email, times) in ["nobody@example.com", &ada.email].iter().zip(&mut times) {
                let began = std::time::Instant::now();
                app.anonymous().post("/api/auth/login", json!({ "email": email, "password": "another password" })).await;
                times.push(began.elapsed());
            }
        }
        times.iter_mut().for_each(|times| times.sort());
        // The medians of 15 times.
        times[0][7].as_secs_f64() / times[1][7].as_secs_f64()
    };
    // Other programs may delay the calls of one kind, but not each time.
    let mut ratios = Vec::new();
    while ratios.last().is_none_or(|ratio| !(0.5..2.0).contains(ratio)) {
        assert!(ratios.len() < 5, "{ratios:?}");
        ratios.push(measure().await);
    }
}

#[tokio::test]
async fn a1_stored_password_is_an_argon2id_hash() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let users = app.db.collection::<Document>("users");
    let hash =
        async |id: &str| users.find_one(doc! { "_id": id }).await.unwrap().unwrap().get_str("passwordHash").unwrap().to_owned();
    let (ada_hash, bob_hash) = (hash(&ada.id).await, hash(&bob.id).await);
    assert!(ada_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{ada_hash}");
    assert_ne!(ada_hash, bob_hash, "salted");
}

#[tokio::test]
async fn only_valid_tokens_are_accepted() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let me = async |authorization: Option<String>| {
        let answer = app
            .anonymous()
            .send(reqwest::Method::GET, "/api/auth/me", |request| match authorization {
                Some(value) => request.header("authorization", value),
                None => request,
            })
            .await;
        (answer.status, answer.code().to_owned(), answer.header("www-authenticate").to_owned())
    };
    let token = ada.token.clone().unwrap();
    assert_eq!(me(Some(format!("Bearer {token}"))).await.0, 200);
    assert_eq!(me(None).await, (401, "token_missing".into(), "Bearer".into()));
    for empty in ["", "Bearer", "bearer ", "Bearer   "] {
        assert_eq!(me(Some(empty.into())).await.1, "token_missing", "{empty:?}");
    }
    for forged in [
        format!("Bearer {token}x"),
        format!("Basic {token}"),
        token.clone(),
        "Bearer a.b.c".into(),
        format!("Bearer {}", &token[..token.len() - 8]),
    ] {
        let (status, code, _) = me(Some(forged.clone())).await;
        assert_eq!((status, code.as_str()), (401, "token_invalid"), "{forged}");
    }
    assert_eq!(
        ada.get(&format!("/api/auth/me?access_token={token}")).await.status,
        200,
        "the token in the header is used, not that in the query"
    );
    assert_eq!(
        app.anonymous().get(&format!("/api/auth/me?access_token={token}")).await.problem(),
        (401, "token_missing"),
        "a token in the query is ignored"
    );
    let short_lived =
        TestApp::start_second_server(&app, |config| config.tokens.access_ttl = std::time::Duration::from_secs(1)).await;
    let expired = short_lived.user().await.token.unwrap();
    // Longer than the lifetime of 1 s, because tokens have whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let expired = me(Some(format!("Bearer {expired}"))).await;
    assert_eq!(expired, (401, "token_expired".into(), "Bearer error=\"invalid_token\"".into()));
}
