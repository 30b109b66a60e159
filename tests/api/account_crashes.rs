//! Covers every operation under `/api/auth/` on a server that is killed after each of its calls to MongoDB: the operation has
//! happened completely or not at all, and a repeat gets the documented answer.
//!
//! The operations are read from the OpenAPI document, so a new one without a scenario fails. `provider` covers users of an
//! identity provider, `operator` covers `valet passwd`.
//!
//! Routes: POST /api/auth/signup, POST /api/auth/login, POST /api/auth/refresh, POST /api/auth/logout, GET /api/auth/me, POST
//! /api/auth/me/delete, PUT /api/auth/password, GET /api/auth/sessions, DELETE /api/auth/sessions/{id}.

mod operator;
mod provider;

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    app::{Answer, Caller, PASSWORD, TestApp, eventually, unique_png},
    crashes::{ABORTED, Fuse},
    openapi::operations,
    process_client::{Client, Ended},
    serve::Settings,
};

/// Password that `change_password` and `valet passwd` set.
const NEW_PASSWORD: &str = "seven green kites over the bay";

/// A session of the scene's user.
struct SignIn<'a> {
    caller: Caller<'a>,
    refresh: String,
    id: String,
}

/// Subject of an operation: a user with two sessions and an image, on the server that is not killed.
struct Scene<'a> {
    app: &'a TestApp,
    email: String,
    user: String,
    /// The session that makes the call.
    own: SignIn<'a>,
    /// Another session, possibly an attacker's.
    other: SignIn<'a>,
}

/// A request, and its status without a crash.
#[derive(Clone)]
struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
    token: Option<String>,
    status: u16,
}

impl Call {
    /// Sends the call to a server and returns status and body. The error is a connection that the killed server closed.
    async fn send(&self, http: &reqwest::Client, base: &str) -> reqwest::Result<(u16, Value)> {
        let mut request = http.request(self.method.clone(), format!("{base}{}", self.path)).timeout(Duration::from_secs(30));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
    }

    /// Repeats the call on the surviving server, as a client does.
    async fn repeat(&self, app: &TestApp) -> Answer {
        let caller = Caller { app, token: self.token.clone(), id: String::new(), email: String::new(), address: None };
        caller
            .send(self.method.clone(), &self.path, |request| match &self.body {
                Some(body) => request.json(body),
                None => request,
            })
            .await
    }
}

/// Sends a POST without a token.
async fn post(app: &TestApp, path: &str, body: Value) -> Answer {
    app.anonymous().post(path, body).await
}

/// Signs in.
async fn log_in(app: &TestApp, email: &str, password: &str) -> Answer {
    post(app, "/api/auth/login", json!({ "email": email, "password": password })).await
}

/// Returns the session id in an access token.
fn session_id(token: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["sid"].as_str().unwrap().to_owned()
}

/// Returns the documents of a collection that match, in the order of their ids.
async fn documents(app: &TestApp, collection: &str, filter: Document) -> Vec<Document> {
    let found = app.db.collection::<Document>(collection).find(filter).sort(doc! { "_id": 1 }).await.unwrap();
    found.try_collect().await.unwrap()
}

impl<'a> SignIn<'a> {
    /// Reads the session from the answer to a sign-in.
    fn of(app: &'a TestApp, email: &str, answer: &Answer) -> Self {
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let token = answer.json["token"].as_str().unwrap().to_owned();
        let id = session_id(&token);
        let user = answer.json["user"]["id"].as_str().unwrap().to_owned();
        let caller = Caller { app, token: Some(token), id: user, email: email.to_owned(), address: None };
        Self { caller, refresh: answer.json["refreshToken"].as_str().unwrap().to_owned(), id }
    }

    /// Returns whether the server accepts the session's access token.
    async fn is_alive(&self) -> bool {
        let me = self.caller.get("/api/auth/me").await;
        assert!(me.status == 200 || me.problem() == (401, "session_ended"), "{me:?}");
        me.status == 200
    }

    /// Asserts that access token and refresh token work.
    async fn assert_alive(&self, case: &str) {
        assert!(self.is_alive().await, "{case}");
        assert_eq!(
            post(self.caller.app, "/api/auth/refresh", json!({ "refreshToken": self.refresh })).await.status,
            200,
            "{case}"
        );
    }

    /// Asserts that neither token works.
    async fn assert_ended(&self, case: &str) {
        assert!(!self.is_alive().await, "{case}");
        let refresh = post(self.caller.app, "/api/auth/refresh", json!({ "refreshToken": self.refresh })).await;
        assert_eq!(refresh.problem(), (401, "session_ended"), "{case}");
    }
}

impl<'a> Scene<'a> {
    async fn new(app: &'a TestApp) -> Self {
        let user = app.user().await;
        user.upload("mine.png", "image/png", &unique_png()).await;
        let own = SignIn::of(app, &user.email, &log_in(app, &user.email, PASSWORD).await);
        let other = SignIn::of(app, &user.email, &log_in(app, &user.email, PASSWORD).await);
        Self { app, email: user.email, user: user.id, own, other }
    }

    /// Returns the call for an operation.
    fn call(&self, operation: &str, method: &Method, path: &str) -> Call {
        let fresh = format!("new-{}", self.email);
        let (body, is_signed, status) = match operation {
            "sign_up" => (Some(json!({ "email": fresh, "password": PASSWORD })), false, 201),
            "log_in" => (Some(json!({ "email": self.email, "password": PASSWORD })), false, 200),
            "refresh_session" => (Some(json!({ "refreshToken": self.own.refresh })), false, 200),
            "log_out" => (Some(json!({ "refreshToken": self.own.refresh })), false, 204),
            "get_me" | "list_sessions" => (None, true, 200),
            "change_password" => (Some(json!({ "currentPassword": PASSWORD, "newPassword": NEW_PASSWORD })), true, 204),
            "delete_account" => (Some(json!({ "password": PASSWORD })), true, 204),
            "end_session" => (None, true, 204),
            _ => panic!("{operation} has no scenario: add its request here, and the expected state after a crash to `judge`"),
        };
        let token = self.own.caller.token.clone().filter(|_| is_signed);
        Call { method: method.clone(), path: path.replace("{id}", &self.other.id), body, token, status }
    }

    /// Asserts the state after the crash, makes the repeat and asserts its answer. Returns whether the operation had happened.
    async fn judge(&self, operation: &str, call: &Call) -> bool {
        match operation {
            "sign_up" => self.judge_sign_up(call).await,
            "log_in" | "get_me" | "list_sessions" => {
                assert_eq!(call.repeat(self.app).await.status, 200);
                self.own.assert_alive("the session continues").await;
                self.other.assert_alive("the session continues").await;
                true
            }
            "refresh_session" => self.judge_refresh(call).await,
            "log_out" | "end_session" => self.judge_end(operation, call).await,
            "change_password" => self.judge_password(call).await,
            "delete_account" => self.judge_deletion(call).await,
            _ => panic!("{operation} has no scenario"),
        }
    }

    /// Asserts that the sign-up happened wholly or not at all, and that a repeat is safe; returns whether it happened.
    async fn judge_sign_up(&self, call: &Call) -> bool {
        let body = call.body.as_ref().unwrap();
        let email = body["email"].as_str().unwrap();
        let happened = log_in(self.app, email, PASSWORD).await.status == 200;
        let again = call.repeat(self.app).await;
        let expected = if happened { (409, "email_taken") } else { (201, "") };
        assert_eq!(again.problem(), expected);
        assert_eq!(log_in(self.app, email, PASSWORD).await.status, 200, "log in, as the answer says");
        let accounts = documents(self.app, "users", doc! { "emailKey": email }).await;
        assert_eq!(accounts.len(), 1);
        let keys = documents(self.app, "emails", doc! { "_id": email }).await;
        assert_eq!(keys[0].get("user"), accounts[0].get("_id"));
        happened
    }

    /// Asserts that the token was exchanged at most once, also by a repeat; returns whether the killed call exchanged it.
    async fn judge_refresh(&self, call: &Call) -> bool {
        let session = || documents(self.app, "sessions", doc! { "_id": &self.own.id });
        let happened = session().await[0].get_i64("generation").unwrap() == 1;
        let again = call.repeat(self.app).await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!(session().await[0].get_i64("generation").unwrap(), 1, "a single exchange despite the repeat");
        SignIn::of(self.app, &self.email, &again).assert_alive("tokens of the repeated answer").await;
        self.other.assert_alive("another session").await;
        happened
    }

    /// Asserts that `log_out` or `end_session` ended that session and no other; returns whether the killed call ended it.
    async fn judge_end(&self, operation: &str, call: &Call) -> bool {
        let (ended, continuing) = if operation == "log_out" { (&self.own, &self.other) } else { (&self.other, &self.own) };
        let happened = documents(self.app, "sessions", doc! { "_id": &ended.id }).await.is_empty();
        let again = call.repeat(self.app).await;
        let expected = if happened && operation == "end_session" { 404 } else { 204 };
        assert_eq!(again.status, expected, "{again:?}");
        ended.assert_ended("after the repeat").await;
        continuing.assert_alive("the other session").await;
        happened
    }

    /// Asserts that exactly one of the two passwords is valid; returns whether it is the new one.
    async fn judge_password(&self, call: &Call) -> bool {
        let is_valid = async |password: &str| log_in(self.app, &self.email, password).await.status == 200;
        let happened = is_valid(NEW_PASSWORD).await;
        assert_eq!(is_valid(PASSWORD).await, !happened, "exactly one password is valid");
        // A client may never repeat the call, so check before the repeat.
        if happened {
            self.other.assert_ended("the password change ended the other sessions").await;
        } else {
            assert!(self.other.is_alive().await, "nothing has happened");
        }
        assert!(self.own.is_alive().await);
        let again = call.repeat(self.app).await;
        assert_eq!(again.status, 204, "happened: {happened}; {again:?}");
        assert!(is_valid(NEW_PASSWORD).await && !is_valid(PASSWORD).await);
        self.other.assert_ended("after the repeat").await;
        self.own.assert_alive("the calling session").await;
        happened
    }

    /// Asserts that the deletion happened wholly or not at all; returns whether it happened.
    async fn judge_deletion(&self, call: &Call) -> bool {
        let happened = log_in(self.app, &self.email, PASSWORD).await.status == 401;
        if happened {
            self.own.assert_ended("a deleted account").await;
            self.other.assert_ended("a deleted account").await;
            assert_eq!(call.repeat(self.app).await.problem(), (401, "session_ended"));
        } else {
            let gallery = self.own.caller.get("/api/images/gallery").await;
            assert_eq!(gallery.json["images"].as_array().unwrap().len(), 1, "{gallery:?}");
            assert_eq!(call.repeat(self.app).await.status, 204);
            self.other.assert_ended("after the repeat").await;
        }
        let body = json!({ "email": self.email, "password": PASSWORD });
        assert_eq!(post(self.app, "/api/auth/signup", body).await.status, 201, "the address is free");
        assert_nothing_is_left(self.app, &self.user).await;
        happened
    }
}

/// Sweeps until no session, key or live image of a deleted account exists.
async fn assert_nothing_is_left(app: &TestApp, user: &str) {
    eventually("nothing of the account is left", async || {
        // Ends the leases (120 s) of servers that were killed while they swept, as time would. The sweeper's clock is not ahead: it
        // would take the sign-ups and uploads of calls beside this one for those of dead servers.
        let ended = doc! { "$set": { "due": DateTime::from_millis(0) } };
        for (collection, field) in [("users", "_id"), ("images", "user")] {
            let leased = doc! { field: user, "due": { "$exists": true } };
            app.db.collection::<Document>(collection).update_many(leased, ended.clone()).await.unwrap();
        }
        app.app.valet.sweeper.sweep_once(OffsetDateTime::now_utc()).await.unwrap();
        let mut left = documents(app, "images", doc! { "user": user, "state": { "$in": ["pending", "ready"] } }).await;
        for collection in ["sessions", "emails", "identities"] {
            left.extend(documents(app, collection, doc! { "user": user }).await);
        }
        left.is_empty()
    })
    .await;
}

/// Numbers of crashes: before the operation took effect, and after it.
#[derive(Debug, Default)]
struct Deaths {
    before: u32,
    after: u32,
}

/// Sends a call to a server that is killed after 1, 2, 3 … calls to MongoDB and S3, until one answers. Judges each crash. `scene`
/// creates the call and its subject, with the server that will be killed.
async fn kill_at_every_call<S>(
    (settings, fuse): (&Settings, &Fuse),
    scene: impl AsyncFn(&Client) -> (S, Call),
    judge: impl AsyncFn(&S, &Call) -> bool,
) -> Deaths {
    let (mut deaths, mut busy_answers, mut calls) = (Deaths::default(), 0, 1);
    loop {
        let (process, client) = settings.start_listening().await;
        let (scene, call) = scene(&client).await;
        fuse.set(calls);
        let answer = call.send(&client.http, &client.base).await;
        fuse.remove();
        let is_answered = match answer {
            Ok((503 | 504, problem)) => {
                // The machine is too busy: try again with the same number of calls.
                busy_answers += 1;
                assert!(busy_answers < 10, "{} {}: {problem}", call.method, call.path);
                continue;
            }
            Ok((status, body)) => {
                assert_eq!(status, call.status, "{} {}: {body}", call.method, call.path);
                // The process's own sweep may be in progress, and would interfere with the sweeps of `judge`.
                drop(process);
                true
            }
            Err(_) => {
                let Ended { status, err: log, .. } = process.wait_for_end(Duration::from_secs(30)).await;
                assert_eq!(status.signal(), Some(ABORTED), "{log}");
                false
            }
        };
        let happened = judge(&scene, &call).await;
        if is_answered {
            return deaths;
        }
        *(if happened { &mut deaths.after } else { &mut deaths.before }) += 1;
        calls += 1;
        assert!(calls < 50, "{} {} is not answered after 50 crashes", call.method, call.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_killed_at_every_call_of_every_operation_of_accounts_and_sessions() {
    let app = &TestApp::start().await;
    let all: Vec<_> = operations().into_iter().filter(|operation| operation.path.starts_with("/api/auth/")).collect();
    assert!(all.len() >= 9, "{}", all.len());
    let killed = stream::iter(all).map(async |operation| {
        let name = operation.described["operationId"].as_str().unwrap().to_owned();
        let fuse = Fuse::new();
        let settings = fuse.settings(app).with("RATE_LIMIT", "off");
        let new_scene = async |_: &Client| {
            let scene = Scene::new(app).await;
            let call = scene.call(&name, &operation.method, &operation.path);
            (scene, call)
        };
        let judge = async |scene: &Scene<'_>, call: &Call| scene.judge(&name, call).await;
        let deaths = kill_at_every_call((&settings, &fuse), new_scene, judge).await;
        (name, deaths)
    });
    let deaths: BTreeMap<_, _> = killed.buffer_unordered(2).collect().await;
    for (name, deaths) in &deaths {
        assert!(deaths.before + deaths.after >= 2, "{name}: the failpoint was never reached: {deaths:?}");
    }
    // Each operation that changes something was interrupted both before and after the change.
    for name in ["sign_up", "refresh_session", "log_out", "change_password", "delete_account", "end_session"] {
        assert!(deaths[name].before > 0 && deaths[name].after > 0, "{name}: {:?}", deaths[name]);
    }
}
