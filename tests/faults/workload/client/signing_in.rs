//! Signing in: with a password, or by the app's backend, which also manages its users with its service key.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Client, items};
use crate::{
    cluster::QUOTA,
    journal::{Call, Item},
    workload::{answer::Answer, caller::Request},
};

impl Client {
    /// Signs in, or signs up a new account; waits while another client of the same person deletes the account.
    pub(super) async fn sign_in(&mut self) {
        loop {
            let account = self.people[self.me].account();
            self.account = account.clone();
            self.caller.user.clone_from(&account.email);
            if account.is_app_user() {
                return self.sign_in_by_backend().await;
            }
            let body = json!({ "email": account.email, "password": account.password() });
            let mut session = None;
            let signed_up = account.signed_up.get_or_try_init(async || {
                let answer = self.anonymous(Call::Signup, "/api/auth/signup", body.clone()).await;
                let exists = answer.ok() || answer.status == 409;
                session = answer.ok().then_some(answer);
                if exists { Ok(()) } else { Err(()) }
            });
            if signed_up.await.is_err() {
                self.gave_up = true;
                return;
            }
            let answer = match session {
                Some(session) => session,
                None => self.anonymous(Call::Login, "/api/auth/login", body).await,
            };
            if answer.ok() {
                return self.set_session(&answer);
            }
            if answer.status == 0 || answer.status >= 500 {
                self.gave_up = true;
                return;
            }
            self.pause(200).await;
        }
    }

    /// Gets a token from the app's backend, which creates it with its service key.
    async fn sign_in_by_backend(&mut self) {
        let body = json!({ "subject": self.account.email, "expiresIn": 3600 });
        let answer = self.call_with_key(Call::Login, (Method::POST, "/api/admin/tokens"), Some(body), Vec::new()).await;
        if answer.ok() {
            self.set_session(&answer);
        } else {
            self.gave_up = true;
        }
    }

    /// Makes one call of the app's backend about the user.
    pub(super) async fn administer(&mut self) {
        let number = self.caller.random.below(4);
        self.make_admin_call(number).await;
    }

    /// Makes each call of the app's backend about the user once.
    pub(super) async fn administer_everything(&mut self) {
        for number in 0..4 {
            self.make_admin_call(number).await;
        }
    }

    /// Makes the call of the app's backend with this number, from 0 to 3.
    async fn make_admin_call(&mut self, number: usize) {
        let user = format!("/api/admin/users/{}", self.session.user);
        match number {
            0 => {
                let by_subject = format!("/api/admin/users?subject={}", self.account.email);
                self.call_with_key(Call::Administer, (Method::GET, &by_subject), None, Vec::new()).await;
            }
            1 => {
                let quota = Some(json!({ "bytes": QUOTA }));
                self.call_with_key(Call::Administer, (Method::PUT, &format!("{user}/quota")), quota, Vec::new()).await;
            }
            2 => {
                self.call_with_key(Call::Gallery, (Method::GET, &format!("{user}/images")), None, Vec::new()).await;
            }
            _ => {
                let Some(known) = self.pick_own(1, |_| true).pop() else { return };
                let (path, item) = (format!("{user}/images/{}", known.id), items([known.id.as_str()]));
                self.call_with_key(Call::Delete, (Method::DELETE, &path), None, item).await;
                self.account.forget(&known.id);
            }
        }
    }

    /// Makes a call with the service key of the app's backend.
    async fn call_with_key(
        &mut self,
        purpose: Call,
        (method, path): (Method, &str),
        body: Option<Value>,
        items: Vec<Item>,
    ) -> Answer {
        let (path, key) = (path.to_owned(), self.caller.key.clone());
        self.caller.call(Request { call: purpose, method, path, body, idem_key: None, token: Some(&key), items }).await
    }
}
