//! A client of the load: does one action after the other, with random weights, until the load is stopped.

mod signing_in;
mod uploading;

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::uploading::Fate;
use super::{
    answer::Answer,
    caller::{Caller, Request},
    users::{Account, KnownImage, Person},
};
use crate::journal::{Call, Item};

/// Next action of a client.
#[derive(Debug, Clone, Copy)]
enum Action {
    Upload,
    UploadBatch,
    UploadInParts,
    Renew,
    PageThroughGallery,
    ReadImage,
    Download,
    SetCaption,
    Delete,
    DeleteBatch,
    RequestForeignImage,
    Refresh,
    ReuseRefresh,
    LogOut,
    ReadAccount,
    DeleteAccount,
}

/// Actions with their weights, whose sum is about a hundred.
const ACTIONS: [(u64, Action); 16] = [
    (36, Action::Upload),
    (9, Action::UploadBatch),
    (7, Action::UploadInParts),
    (4, Action::Renew),
    (7, Action::PageThroughGallery),
    (8, Action::ReadImage),
    (5, Action::Download),
    (4, Action::SetCaption),
    (8, Action::Delete),
    (3, Action::DeleteBatch),
    (4, Action::RequestForeignImage),
    (5, Action::Refresh),
    (1, Action::ReuseRefresh),
    (2, Action::LogOut),
    (3, Action::ReadAccount),
    (1, Action::DeleteAccount),
];

/// Tokens of the client, and the id of their user.
#[derive(Default)]
struct Session {
    token: String,
    refresh: String,
    /// The spent refresh token that was exchanged for the current one.
    parent: Option<String>,
    /// The user's id.
    user: String,
}

/// A client: the device of a person, who may have several devices.
pub struct Client {
    caller: Caller,
    people: Arc<Vec<Person>>,
    /// Index of the client's person in `people`.
    me: usize,
    account: Arc<Account>,
    session: Session,
    /// Whether signing in failed after all repetitions; the client then ends.
    gave_up: bool,
}

/// Returns journal items for these images.
pub fn items<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<Item> {
    ids.into_iter().map(|id| Item { id: Some(id.to_owned()), ..Item::default() }).collect()
}

impl Client {
    /// Creates a client of the person whose number follows from the client's number.
    pub fn new(caller: Caller, people: Arc<Vec<Person>>) -> Self {
        let me = caller.number % people.len();
        let account = people[me].account();
        Self { caller, people, me, account, session: Session::default(), gave_up: false }
    }

    /// Signs in, then does random actions until `stop` is cancelled or the client gives up.
    pub async fn run(mut self, stop: CancellationToken) {
        self.sign_in().await;
        self.caller.tally.at_work.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        while !stop.is_cancelled() && !self.gave_up {
            match self.caller.random.weighted(&ACTIONS) {
                Action::Upload => self.upload(None).await,
                Action::UploadBatch => self.upload_batch().await,
                Action::UploadInParts => self.upload_in_parts().await,
                Action::Renew => self.renew().await,
                Action::PageThroughGallery => self.page_through_gallery().await,
                Action::ReadImage => self.read_image().await,
                Action::Download => self.download().await,
                Action::SetCaption => self.set_caption().await,
                Action::Delete => self.delete(1).await,
                Action::DeleteBatch => self.delete(4).await,
                Action::RequestForeignImage => self.request_foreign_image().await,
                // Users of the app have no refresh token, and their backend keeps their accounts.
                Action::Refresh | Action::ReuseRefresh | Action::LogOut | Action::DeleteAccount if self.account.is_app_user() => {
                    self.administer().await;
                }
                Action::Refresh => self.refresh().await,
                Action::ReuseRefresh => self.reuse_refresh().await,
                Action::LogOut => self.log_out().await,
                Action::ReadAccount => self.read_account().await,
                Action::DeleteAccount if self.caller.random.percent(40) => self.delete_account().await,
                Action::DeleteAccount => {}
            }
            self.pause(30).await;
        }
    }

    /// Does each action at least once, whatever the seed. The first client deletes its account.
    pub async fn run_each_action_once(mut self) {
        self.sign_in().await;
        self.caller.tally.at_work.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        for fate in Fate::ALL {
            self.upload(Some(fate)).await;
        }
        self.upload_batch().await;
        self.upload_in_parts().await;
        self.delete(1).await;
        self.delete(2).await;
        self.page_through_gallery().await;
        for _ in 0..3 {
            self.read_image().await;
            self.download().await;
            self.request_foreign_image().await;
        }
        self.set_caption().await;
        self.renew().await;
        self.read_account().await;
        if self.account.is_app_user() {
            return self.administer_everything().await;
        }
        self.reuse_refresh().await;
        self.log_out().await;
        if self.caller.number == 0 {
            self.delete_account().await;
        }
    }

    /// Returns a copy with the same session, for concurrent calls, like another tab of a browser.
    fn concurrent_copy(&mut self) -> Self {
        let session = Session {
            token: self.session.token.clone(),
            refresh: self.session.refresh.clone(),
            parent: None,
            user: self.session.user.clone(),
        };
        let (caller, people, account) = (self.caller.concurrent_copy(), self.people.clone(), self.account.clone());
        Self { caller, people, me: self.me, account, session, gave_up: false }
    }

    /// Pauses for less than `limit_ms` milliseconds.
    async fn pause(&mut self, limit_ms: u64) {
        let pause = self.caller.random.next() % limit_ms;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
    }

    /// Makes a call without a token.
    async fn anonymous(&mut self, purpose: Call, path: &str, body: Value) -> Answer {
        let (path, body) = (path.to_owned(), Some(body));
        let request = Request { call: purpose, method: Method::POST, path, body, idem_key: None, token: None, items: Vec::new() };
        self.caller.call(request).await
    }

    /// Makes a call with the token; if the token has expired, signs in and repeats the call.
    async fn call(&mut self, purpose: Call, method: Method, path: &str, body: Option<Value>, items: Vec<Item>) -> Answer {
        self.call_under_key(purpose, (method, path), body, None, items).await
    }

    /// Makes a call with the token and, if given, an idempotency key; if the token has expired, signs in and repeats the call.
    async fn call_under_key(
        &mut self,
        purpose: Call,
        (method, path): (Method, &str),
        body: Option<Value>,
        idem_key: Option<String>,
        items: Vec<Item>,
    ) -> Answer {
        for _ in 0..3 {
            let token = self.session.token.clone();
            let answer = self
                .caller
                .call(Request {
                    call: purpose,
                    method: method.clone(),
                    path: path.to_owned(),
                    body: body.clone(),
                    idem_key: idem_key.clone(),
                    token: Some(&token),
                    items: items.clone(),
                })
                .await;
            if answer.status != 401 {
                return answer;
            }
            let before = self.account.email.clone();
            self.sign_in().await;
            if self.account.email != before || self.gave_up {
                // The account was deleted, and with it the image of the call.
                return answer;
            }
        }
        Answer::default()
    }

    /// Stores the tokens and the user's id of an answer.
    fn set_session(&mut self, answer: &Answer) {
        let text = |name: &str| answer.json[name].as_str().unwrap_or_default().to_owned();
        let user = answer.json["user"]["id"].as_str().unwrap_or_default().to_owned();
        self.session = Session { token: text("token"), refresh: text("refreshToken"), parent: None, user };
    }

    /// Exchanges the refresh token; signs in again if the server rejects it.
    async fn refresh(&mut self) {
        let spent = self.session.refresh.clone();
        let answer = self.anonymous(Call::Refresh, "/api/auth/refresh", json!({ "refreshToken": spent })).await;
        if answer.ok() {
            self.set_session(&answer);
            self.session.parent = Some(spent);
        } else if answer.status == 401 {
            self.sign_in().await;
        }
    }

    /// Sends a spent refresh token soon after its child was used: it is rejected, and the session continues.
    async fn reuse_refresh(&mut self) {
        self.refresh().await;
        let Some(spent) = self.session.parent.clone() else { return };
        self.refresh().await;
        if self.session.parent.is_some() {
            self.anonymous(Call::RefreshReuse, "/api/auth/refresh", json!({ "refreshToken": spent })).await;
        }
        self.sign_in().await;
    }

    /// Ends the session, and signs in again.
    async fn log_out(&mut self) {
        let session = super::answer::session_of(&self.session.token);
        let body = json!({ "refreshToken": self.session.refresh });
        let items = items(session.as_deref());
        let (path, body) = ("/api/auth/logout".to_owned(), Some(body));
        let request = Request { call: Call::Logout, method: Method::POST, path, body, idem_key: None, token: None, items };
        self.caller.call(request).await;
        self.sign_in().await;
    }

    /// Reads the account with its usage, and the open uploads.
    async fn read_account(&mut self) {
        self.call(Call::Me, Method::GET, "/api/auth/me", None, Vec::new()).await;
        self.call(Call::Pending, Method::GET, "/api/images/pending", None, Vec::new()).await;
    }

    /// Deletes the account, unless another client of the person deletes it; the person continues with a new one.
    async fn delete_account(&mut self) {
        if !Person::claim_deletion(&self.account) {
            return;
        }
        let (account, token) = (self.account.clone(), self.session.token.clone());
        let body = Some(json!({ "password": account.password() }));
        let (path, items) = ("/api/auth/me/delete".to_owned(), Vec::new());
        let request =
            Request { call: Call::DeleteAccount, method: Method::POST, path, body, idem_key: None, token: Some(&token), items };
        let answer = self.caller.call(request).await;
        if answer.status == 401 {
            // The session had ended or the first answer was lost: signing in shows whether the account still exists.
            let body = json!({ "email": account.email, "password": account.password() });
            let answer = self.anonymous(Call::Login, "/api/auth/login", body).await;
            if answer.ok() {
                self.set_session(&answer);
                account.leaving.store(false, std::sync::atomic::Ordering::Relaxed);
                return;
            }
        }
        self.people[self.me].replace_account(&account);
        self.sign_in().await;
    }

    /// Reads the gallery page by page, with other calls in between once in a while.
    async fn page_through_gallery(&mut self) {
        let limit = 1 + self.caller.random.below(8);
        let mut cursor: Option<String> = None;
        for _ in 0..6 {
            let after = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let path = format!("/api/images/gallery?limit={limit}{after}");
            let page = self.call(Call::Gallery, Method::GET, &path, None, Vec::new()).await;
            if self.caller.random.percent(20)
                && let Some(image) = page.json["images"].get(0)
            {
                self.caller.get(&image["url"], image["id"].as_str().unwrap_or_default()).await;
            }
            cursor = page.json["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return;
            }
        }
    }

    /// Returns at most `most` random images or uploads of the account that meet the condition.
    fn pick_own(&mut self, most: usize, condition: impl Fn(&KnownImage) -> bool) -> Vec<KnownImage> {
        self.account.pick(&mut self.caller.random, most, condition)
    }

    /// Reads an image, alone or with others, and sometimes fetches its bytes.
    async fn read_image(&mut self) {
        let known = self.pick_own(5, |known| known.ready);
        let ids: Vec<_> = known.iter().map(|known| known.id.as_str()).collect();
        let Some(first) = ids.first() else { return };
        let answer = if self.caller.random.percent(50) {
            self.call(Call::Image, Method::GET, &format!("/api/images/{first}"), None, items([*first])).await
        } else {
            self.call(Call::Read, Method::POST, "/api/images/read", Some(json!({ "ids": ids })), items(ids.iter().copied())).await
        };
        if answer.ok() && answer.json["url"].is_string() {
            self.caller.get(&answer.json["url"], first).await;
        }
    }

    /// Requests a download URL of an image, and fetches its bytes.
    async fn download(&mut self) {
        let Some(known) = self.pick_own(1, |known| known.ready).pop() else { return };
        let path = format!("/api/images/{}/download", known.id);
        let answer = self.call(Call::Download, Method::GET, &path, None, items([known.id.as_str()])).await;
        if answer.ok() {
            self.caller.get(&answer.json["url"], &known.id).await;
        }
    }

    /// Sets the caption of an image.
    async fn set_caption(&mut self) {
        let Some(known) = self.pick_own(1, |known| known.ready).pop() else { return };
        let body = json!({ "caption": format!("words {}", self.caller.random.below(100)) });
        let path = format!("/api/images/{}", known.id);
        self.call(Call::Caption, Method::PATCH, &path, Some(body), items([known.id.as_str()])).await;
    }

    /// Deletes at most `most` images or uploads with one request.
    async fn delete(&mut self, most: usize) {
        let known = self.pick_own(most, |_| true);
        let ids: Vec<_> = known.iter().map(|known| known.id.as_str()).collect();
        match ids.as_slice() {
            [] => return,
            [id] => drop(self.call(Call::Delete, Method::DELETE, &format!("/api/images/{id}"), None, items([*id])).await),
            ids => {
                let body = Some(json!({ "ids": ids }));
                self.call(Call::Delete, Method::POST, "/api/images/delete", body, items(ids.iter().copied())).await;
            }
        }
        ids.iter().for_each(|id| self.account.forget(id));
    }

    /// Requests another user's image and an unknown one; the checker compares the answers (I7).
    async fn request_foreign_image(&mut self) {
        let other = self.caller.random.below(self.people.len());
        if other == self.me {
            return;
        }
        let foreign = self.people[other].account().pick(&mut self.caller.random, 1, |_| true);
        let Some(KnownImage { id, .. }) = foreign.first() else { return };
        let unknown = uuid::Uuid::now_v7().to_string();
        let (ids, token) = ([id.as_str(), unknown.as_str()], self.session.token.clone());
        let no_body = |_: &str| None;
        match self.caller.random.below(6) {
            0 => self.caller.call_foreign(Method::GET, |id| format!("/api/images/{id}"), no_body, ids, &token).await,
            1 => self.caller.call_foreign(Method::POST, |id| format!("/api/images/{id}/confirm"), no_body, ids, &token).await,
            2 => self.caller.call_foreign(Method::DELETE, |id| format!("/api/images/{id}"), no_body, ids, &token).await,
            3 => self.caller.call_foreign(Method::GET, |id| format!("/api/images/{id}/download"), no_body, ids, &token).await,
            4 => {
                let caption = |_: &str| Some(json!({ "caption": "not mine" }));
                self.caller.call_foreign(Method::PATCH, |id| format!("/api/images/{id}"), caption, ids, &token).await;
            }
            _ => {
                let ids_body = |id: &str| Some(json!({ "ids": [id] }));
                self.caller.call_foreign(Method::POST, |_| "/api/images/read".to_owned(), ids_body, ids, &token).await;
            }
        }
    }
}
