//! Kills servers while a user of an identity provider visits for the first time, deletes the account, and comes back.

use super::{
    Call, Client, Document, Fuse, Method, Settings, TestApp, assert_nothing_is_left, doc, documents, json, kill_at_every_call,
    unique_png,
};
use crate::oidc::provider::{AUDIENCE, Key, Provider};

/// A subject of the provider, its current token, and its account if it has one.
struct Visitor {
    subject: String,
    token: String,
    account: Option<String>,
}

/// An identity provider, and a server that accepts its tokens and is not killed.
struct World {
    app: TestApp,
    key: Key,
    provider: Provider,
}

impl World {
    async fn new() -> Self {
        let key = Key::ed();
        let provider = Provider::start(&[("ed", &key)]).await;
        let settings = valet::config::OidcProvider::new(provider.issuer.clone(), vec![AUDIENCE.to_owned()]);
        let app = TestApp::start_with(|config| config.accounts.provider = Some(settings)).await;
        Self { app, key, provider }
    }

    /// Returns the settings of a server that aborts itself after the number of calls in the fuse's file.
    fn settings(&self, fuse: &Fuse) -> Settings {
        let settings = fuse.settings(&self.app).with("RATE_LIMIT", "off");
        settings.with("OIDC_ISSUER", &self.provider.issuer).with("OIDC_AUDIENCE", AUDIENCE)
    }

    /// Returns a valid token of the provider for a subject.
    fn token(&self, subject: &str) -> String {
        self.key.token("ed", &self.provider.claims(subject))
    }

    /// Returns a subject that has not visited yet. The server that will be killed fetches the provider's keys for another subject
    /// first.
    async fn stranger(&self, client: &Client) -> Visitor {
        let other = read_account(self.token(&uuid::Uuid::new_v4().to_string()));
        assert_eq!(other.send(&client.http, &client.base).await.unwrap().0, 200);
        let subject = uuid::Uuid::new_v4().to_string();
        Visitor { token: self.token(&subject), subject, account: None }
    }

    /// Returns a subject with an account and an image, which the surviving server has never seen.
    async fn member(&self, client: &Client) -> Visitor {
        let visitor = self.stranger(client).await;
        let mut signed = Client::at(client.base.clone());
        signed.token = Some(visitor.token.clone());
        signed.upload(&unique_png()).await;
        let (_, account) = signed.get("/api/auth/me").await;
        Visitor { account: account["id"].as_str().map(str::to_owned), ..visitor }
    }

    /// Returns the accounts of a subject that are not deleted.
    async fn accounts(&self, visitor: &Visitor) -> Vec<String> {
        let filter = doc! { "identity.issuer": &self.provider.issuer, "identity.subject": &visitor.subject };
        let found = documents(&self.app, "users", filter).await;
        assert!(found.iter().all(|user| !user.contains_key("deletedAt")), "{found:?}");
        found.iter().map(|user| user.get_str("_id").unwrap().to_owned()).collect()
    }

    /// Moves all deletions a minute into the past, so that a current token is newer than the deletions despite differences between
    /// the clocks.
    async fn db_age_deletions(&self) {
        let users = self.app.db.collection::<Document>("users");
        let aged = vec![doc! { "$set": { "deletedAt": { "$subtract": ["$deletedAt", 60_000] } } }];
        users.update_many(doc! { "deletedAt": { "$exists": true } }, aged).await.unwrap();
    }
}

/// Returns the call that a first visit makes.
fn read_account(token: String) -> Call {
    Call { method: Method::GET, path: "/api/auth/me".to_owned(), body: None, token: Some(token), status: 200 }
}

/// Returns the call that deletes the account.
fn delete(token: String) -> Call {
    let path = "/api/auth/me/delete".to_owned();
    Call { method: Method::POST, path, body: Some(json!({})), token: Some(token), status: 204 }
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_a_first_visit() {
    let world = World::new().await;
    let fuse = Fuse::new();
    let visit = async |client: &Client| {
        let visitor = world.stranger(client).await;
        let call = read_account(visitor.token.clone());
        (visitor, call)
    };
    let judge = async |visitor: &Visitor, call: &Call| {
        let before = world.accounts(visitor).await;
        let again = call.repeat(&world.app).await;
        assert_eq!(again.status, 200, "{again:?}");
        let after = world.accounts(visitor).await;
        assert!(after.len() == 1 && (before.is_empty() || before == after), "{before:?}, then {after:?}");
        !before.is_empty()
    };
    let deaths = kill_at_every_call((&world.settings(&fuse), &fuse), visit, judge).await;
    assert!(deaths.before > 0 && deaths.after > 0, "{deaths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_a_providers_users_deletion() {
    let world = World::new().await;
    let fuse = Fuse::new();
    let leave = async |client: &Client| {
        let visitor = world.member(client).await;
        let call = delete(visitor.token.clone());
        (visitor, call)
    };
    let judge = async |visitor: &Visitor, call: &Call| {
        let account = visitor.account.as_ref().unwrap();
        let accounts = world.accounts(visitor).await;
        let happened = accounts.is_empty();
        assert!(happened || accounts == [account.clone()], "{accounts:?}");
        let again = call.repeat(&world.app).await;
        let expected = if happened { (401, "session_ended") } else { (204, "") };
        assert_eq!(again.problem(), expected, "{again:?}");
        assert_eq!(world.accounts(visitor).await, Vec::<String>::new(), "an older token does not recreate the account");
        assert_nothing_is_left(&world.app, account).await;
        happened
    };
    let deaths = kill_at_every_call((&world.settings(&fuse), &fuse), leave, judge).await;
    assert!(deaths.before > 0 && deaths.after > 0, "{deaths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_a_return_after_a_deletion() {
    let world = World::new().await;
    let fuse = Fuse::new();
    let come_back = async |client: &Client| {
        let visitor = world.member(client).await;
        let (status, answer) = delete(visitor.token.clone()).send(&client.http, &client.base).await.unwrap();
        assert_eq!(status, 204, "{answer}");
        world.db_age_deletions().await;
        let call = read_account(world.token(&visitor.subject));
        (visitor, call)
    };
    let judge = async |visitor: &Visitor, call: &Call| {
        let before = world.accounts(visitor).await;
        let again = call.repeat(&world.app).await;
        assert_eq!((again.status, &again.json["usage"]["images"]), (200, &json!(0)), "{again:?}");
        let after = world.accounts(visitor).await;
        assert!(after.len() == 1 && (before.is_empty() || before == after), "{before:?}, then {after:?}");
        assert_ne!(Some(&after[0]), visitor.account.as_ref(), "a new account instead of the deleted one");
        assert_nothing_is_left(&world.app, visitor.account.as_ref().unwrap()).await;
        !before.is_empty()
    };
    let deaths = kill_at_every_call((&world.settings(&fuse), &fuse), come_back, judge).await;
    assert!(deaths.before > 0 && deaths.after > 0, "{deaths:?}");
}
