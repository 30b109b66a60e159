//! Covers providers that rotate keys, fail, or misbehave: known keys stay valid, and no call waits long.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;

use super::{
    TestApp, app_with, app_without_keys, eventually,
    provider::{Behavior, Key, Provider, hs256},
    read_account, until_keys_are_known,
};

/// Pause between two fetches of keys, shorter than the default one to keep the tests short.
const PAUSE: Duration = Duration::from_millis(400);

/// Starts a server that may fetch the provider's keys again after [`PAUSE`].
async fn app_of(provider: &Provider) -> TestApp {
    app_with(provider, |accounts| accounts.provider.as_mut().unwrap().refresh_pause = PAUSE).await
}

#[tokio::test]
async fn new_key_is_fetched_and_a_withdrawn_one_is_rejected() {
    let (old, new) = (Key::rsa(), Key::ec());
    let provider = Provider::start(&[("old", &old)]).await;
    let app = app_with(&provider, |accounts| {
        let provider = accounts.provider.as_mut().unwrap();
        (provider.refresh_pause, provider.refresh_every) = (PAUSE, Duration::from_secs(2));
    })
    .await;
    let (by_old, by_new) = (old.token("old", &provider.claims("ada")), new.token("new", &provider.claims("ada")));
    assert_eq!(read_account(&app, by_old.clone()).await.status, 200);
    assert_eq!(read_account(&app, by_new.clone()).await.problem(), (401, "token_invalid"));
    provider.publish(vec![new.jwk("new")]);
    eventually("the new key is known", async || read_account(&app, by_new.clone()).await.status == 200).await;
    assert_eq!(read_account(&app, by_old).await.problem(), (401, "token_invalid"));
    // The tokens do not make the server fetch the keys: it notices the withdrawal by its next fetch in the background.
    provider.publish(vec![old.jwk("old")]);
    let by_new = new.token("new", &provider.claims("ada"));
    let began = Instant::now();
    while read_account(&app, by_new.clone()).await.status == 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "a withdrawn key is still accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn known_keys_work_during_an_outage() {
    let (key, new) = (Key::rsa(), Key::rsa());
    let provider = Provider::start(&[("rsa", &key)]).await;
    let app = app_of(&provider).await;
    let local = app.user().await;
    let token = key.token("rsa", &provider.claims("ada"));
    assert_eq!(read_account(&app, token.clone()).await.status, 200);
    tokio::time::sleep(PAUSE).await;
    provider.behave(Behavior::Failing(500));
    let unknown = new.token("new", &provider.claims("ada"));
    for _ in 0..3 {
        let answer = read_account(&app, unknown.clone()).await;
        assert_eq!(answer.problem(), (503, "unavailable"), "an unknown key may be a new one: {answer:?}");
        assert_eq!(read_account(&app, token.clone()).await.status, 200);
        assert_eq!(local.get("/api/auth/me").await.status, 200);
        tokio::time::sleep(PAUSE).await;
    }
    // A token signed with another key under a known key id is forged, whatever state the provider is in.
    assert_eq!(read_account(&app, new.token("rsa", &provider.claims("ada"))).await.problem(), (401, "token_invalid"));
    provider.publish(vec![key.jwk("rsa"), new.jwk("new")]);
    provider.behave(Behavior::Well);
    eventually("the new key is known", async || read_account(&app, unknown.clone()).await.status == 200).await;
}

#[tokio::test]
async fn server_starts_without_its_provider() {
    let (key, other_provider) = (Key::ed(), Provider::start(&[]).await);
    let provider = Provider::start(&[("ed", &key)]).await;
    let token = || key.token("ed", &provider.claims("ada"));
    let other_issuer_metadata = json!({ "issuer": other_provider.issuer, "jwks_uri": format!("{}/keys", provider.issuer) });
    let with_keys_at = |uri: &str| json!({ "issuer": provider.issuer, "jwks_uri": uri });
    let behaviors = [
        ("failing", Behavior::Failing(404)),
        ("redirecting", Behavior::Redirecting(format!("{}/keys", other_provider.issuer))),
        ("endless", Behavior::Endless),
        ("of another issuer", Behavior::Configured(other_issuer_metadata)),
        ("keys over plain HTTP", Behavior::Configured(with_keys_at("http://192.0.2.1/keys"))),
        ("keys from a file", Behavior::Configured(with_keys_at("file:///etc/hostname"))),
        ("keys without an address", Behavior::Configured(with_keys_at(""))),
        ("no configuration", Behavior::Configured(json!([]))),
        ("keys at a closed port", Behavior::Configured(with_keys_at("http://127.0.0.1:1/keys"))),
    ];
    for (case, behavior) in behaviors {
        provider.behave(behavior);
        let app = app_without_keys(&provider, |accounts| accounts.provider.as_mut().unwrap().refresh_pause = PAUSE).await;
        let answer = read_account(&app, token()).await;
        assert_eq!(answer.problem(), (503, "unavailable"), "{case}: {answer:?}");
        assert_eq!(app.user().await.get("/api/auth/me").await.status, 200, "{case}");
        assert_eq!(read_account(&app, hs256(b"x", &json!({ "alg": "HS256" }), &json!({}))).await.status, 401, "{case}");
        provider.behave(Behavior::Well);
        until_keys_are_known(&app, &provider).await;
        assert_eq!(read_account(&app, token()).await.status, 200, "{case}: the provider answers again");
    }
    assert_eq!(other_provider.fetches(), 0, "no redirect is followed");
}

#[tokio::test]
async fn unresponsive_provider_delays_no_request_long() {
    let (key, new) = (Key::ed(), Key::ed());
    let provider = Provider::start(&[("ed", &key)]).await;
    let app = app_of(&provider).await;
    let token = key.token("ed", &provider.claims("ada"));
    assert_eq!(read_account(&app, token.clone()).await.status, 200);
    tokio::time::sleep(PAUSE).await;
    provider.behave(Behavior::Silent);
    let known_answers = Cell::new(0);
    let unknown = join_all((0..20).map(|n| {
        let (app, token) = (&app, new.token(&format!("new-{n}"), &provider.claims("ada")));
        let known_answers = &known_answers;
        async move {
            let began = Instant::now();
            (read_account(app, token).await.status, began.elapsed(), known_answers.get())
        }
    }));
    let calls_with_known_key = async {
        for count in 1..=30 {
            assert_eq!(read_account(&app, token.clone()).await.status, 200);
            known_answers.set(count);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (unknown, ()) = tokio::join!(unknown, calls_with_known_key);
    assert!(unknown.iter().all(|(status, took, _)| *status == 503 && *took < Duration::from_secs(20)), "{unknown:?}");
    // If calls with the known key waited for the fetch too, at most one of them would be answered before it ends.
    assert!(unknown.iter().all(|(_, _, known_answers)| *known_answers >= 2), "a known key causes no wait: {unknown:?}");
}

#[tokio::test]
async fn flood_of_unknown_keys_causes_one_fetch_per_pause() {
    let (key, thief) = (Key::ed(), Key::ed());
    let provider = Provider::start(&[("ed", &key)]).await;
    let pause = Duration::from_secs(2);
    let app = app_with(&provider, |accounts| accounts.provider.as_mut().unwrap().refresh_pause = pause).await;
    assert_eq!(read_account(&app, key.token("ed", &provider.claims("ada"))).await.status, 200);
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < pause * 2 || sent < 400 {
        let flood = (0..40).map(|n| read_account(&app, thief.token(&format!("{sent}-{n}"), &provider.claims("ada"))));
        assert!(join_all(flood).await.iter().all(|answer| answer.problem() == (401, "token_invalid")));
        sent += 40;
    }
    // The first fetch, one for the first unknown key, and one after each pause.
    let max_fetches = 2 + began.elapsed().as_secs() / pause.as_secs();
    assert!((2..=max_fetches).contains(&(provider.fetches() as u64)), "{} fetches, {sent} tokens", provider.fetches());
}
