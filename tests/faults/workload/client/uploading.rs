//! Uploads of a client, from bytes to a ready image, with all possible interruptions: alone, in batches, in parts, and renewed.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Client, items};
use crate::{
    journal::{Call, Item},
    workload::{answer::Answer, users::File},
};

/// Course of an upload after its client has received the URL.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// PUT, then confirm.
    Plain,
    /// The client sends no byte, as if it were closed.
    NeverSent,
    /// The client sends no confirm after the PUT, as if it were closed; the sweeper confirms.
    NeverConfirmed,
    SentTwice,
    WrongBytes,
    /// The PUT's answer is lost, so the PUT is repeated.
    AnswerLost,
    /// Confirmed three times at the same time.
    ConfirmedAtOnce,
    ConfirmedAgain,
    /// The URL is renewed before the PUT.
    RenewedFirst,
    /// Confirmed before the PUT, and again after it.
    ConfirmedEarly,
    /// Deleted while its URL is valid, and sent again.
    DeletedAndReplayed,
}

impl Fate {
    /// All fates.
    pub(super) const ALL: [Self; 11] = [
        Self::Plain,
        Self::NeverSent,
        Self::NeverConfirmed,
        Self::SentTwice,
        Self::WrongBytes,
        Self::AnswerLost,
        Self::ConfirmedAtOnce,
        Self::ConfirmedAgain,
        Self::RenewedFirst,
        Self::ConfirmedEarly,
        Self::DeletedAndReplayed,
    ];
}

/// Fates with their weights, whose sum is a hundred.
const FATES: [(u64, Fate); 11] = [
    (50, Fate::Plain),
    (6, Fate::NeverSent),
    (8, Fate::NeverConfirmed),
    (6, Fate::SentTwice),
    (4, Fate::WrongBytes),
    (6, Fate::AnswerLost),
    (4, Fate::ConfirmedAtOnce),
    (5, Fate::ConfirmedAgain),
    (4, Fate::RenewedFirst),
    (3, Fate::ConfirmedEarly),
    (4, Fate::DeletedAndReplayed),
];

/// Returns the journal's item for a declaration.
fn journal_item(file: &File, idem_key: Option<&String>) -> Item {
    Item {
        sha256: Some(file.sha256.clone()),
        size: Some(file.bytes.len() as u64),
        content_type: Some(file.content_type.to_owned()),
        idem_key: idem_key.cloned(),
        ..Item::default()
    }
}

/// Returns the body of an upload request for a file.
fn declaration(file: &File) -> Value {
    crate::files::declaration("sea.png", file.content_type, &file.bytes)
}

impl Client {
    /// Returns a new file in most cases, sometimes one that was uploaded before or one that is not an image.
    fn pick_file(&mut self) -> Arc<File> {
        if self.caller.random.percent(15)
            && let Some(known) = self.pick_own(1, |_| true).pop()
        {
            return known.file;
        }
        let random = &mut self.caller.random;
        Arc::new(if random.percent(4) { File::html(random) } else { File::new(random) })
    }

    /// Returns a new idempotency key in `percent` of a hundred cases.
    fn random_key(&mut self, percent: u64) -> Option<String> {
        let random = &mut self.caller.random;
        random.percent(percent).then(|| format!("key-{:016x}", random.next()))
    }

    /// Adds the upload of a ticket to the account's images; returns its id.
    fn remember(&self, ticket: &Value, file: &Arc<File>) -> Option<String> {
        let id = ticket["id"].as_str()?;
        if ticket["state"] == "ready" {
            self.account.remember_ready(id, file);
        } else {
            self.account.remember_open(id, file);
        }
        Some(id.to_owned())
    }

    /// Uploads a file with this fate, or with a random one.
    pub(super) async fn upload(&mut self, fate: Option<Fate>) {
        let file = if fate.is_some() { Arc::new(File::new(&mut self.caller.random)) } else { self.pick_file() };
        let (fate, key) = (fate.unwrap_or_else(|| self.caller.random.weighted(&FATES)), self.random_key(40));
        let mut body = declaration(&file);
        let preview = if self.caller.random.percent(12) { Some(File::new(&mut self.caller.random)) } else { None };
        let preview = preview.filter(|preview| preview.content_type == "image/jpeg");
        if let Some(preview) = &preview {
            body["preview"] =
                json!({ "contentType": preview.content_type, "size": preview.bytes.len(), "sha256": preview.sha256 });
        }
        let mut ticket = self.open_upload(&body, &file, key.as_ref()).await;
        if key.is_some() && self.caller.random.percent(25) {
            ticket = self.open_upload(&body, &file, key.as_ref()).await;
        }
        let Some(id) = self.remember(&ticket.json, &file) else { return };
        if let Some(preview) = &preview
            && ticket.json["previewUpload"].is_object()
            && self.caller.random.percent(80)
        {
            self.caller.put(&ticket.json["previewUpload"], journal_item(preview, None), &preview.bytes).await;
        }
        if ticket.json["upload"].is_object() {
            self.act_out(&id, &file, ticket.json["upload"].clone(), fate).await;
        }
    }

    /// Requests an upload of one file.
    async fn open_upload(&mut self, body: &Value, file: &File, key: Option<&String>) -> Answer {
        let items = vec![journal_item(file, key)];
        let method_and_path = (Method::POST, "/api/images/upload");
        self.call_under_key(Call::Issue, method_and_path, Some(body.clone()), key.cloned(), items).await
    }

    /// Sends and confirms an open upload as its fate says.
    async fn act_out(&mut self, id: &str, file: &Arc<File>, upload: Value, fate: Fate) {
        match fate {
            Fate::NeverSent => return,
            Fate::RenewedFirst => {
                let path = format!("/api/images/{id}/renew");
                let renewed = self.call(Call::Renew, Method::POST, &path, None, items([id])).await;
                self.send(id, file, &renewed.json["upload"]).await;
            }
            Fate::WrongBytes => {
                self.caller.put(&upload, Item { id: Some(id.to_owned()), ..Item::default() }, &file.other_bytes()).await;
            }
            Fate::AnswerLost => {
                let item = Item { id: Some(id.to_owned()), ..journal_item(file, None) };
                self.caller.put_and_hang_up(&upload, &item, &file.bytes).await;
                self.send(id, file, &upload).await;
            }
            Fate::ConfirmedEarly => {
                self.confirm(id, file).await;
                self.send(id, file, &upload).await;
            }
            _ => self.send(id, file, &upload).await,
        }
        match fate {
            Fate::NeverConfirmed => return,
            Fate::SentTwice => self.send(id, file, &upload).await,
            Fate::ConfirmedAtOnce => return self.confirm_at_once(id, file).await,
            Fate::DeletedAndReplayed => {
                self.call(Call::Delete, Method::DELETE, &format!("/api/images/{id}"), None, items([id])).await;
                self.account.forget(id);
                self.send(id, file, &upload).await;
            }
            _ => {}
        }
        self.confirm(id, file).await;
        if matches!(fate, Fate::ConfirmedAgain) {
            self.confirm(id, file).await;
        }
    }

    /// Sends a PUT by the documented rules for clients: after 403 it renews the URL and repeats the PUT, once.
    async fn send(&mut self, id: &str, file: &Arc<File>, upload: &Value) {
        let item = Item { id: Some(id.to_owned()), ..journal_item(file, None) };
        if upload.is_object() && self.caller.put(upload, item.clone(), &file.bytes).await == 403 {
            let path = format!("/api/images/{id}/renew");
            let renewed = self.call(Call::Renew, Method::POST, &path, None, items([id])).await;
            if renewed.json["upload"].is_object() {
                self.caller.put(&renewed.json["upload"], item, &file.bytes).await;
            }
        }
    }

    /// Confirms an upload, and applies the answer to the account's images.
    async fn confirm(&mut self, id: &str, file: &Arc<File>) {
        let path = format!("/api/images/{id}/confirm");
        let answer = self.call(Call::Confirm, Method::POST, &path, None, items([id])).await;
        self.apply_outcome(id, file, answer.status);
    }

    /// Marks an image of the account as ready, or removes it, by the status of a confirm.
    fn apply_outcome(&self, id: &str, file: &Arc<File>, status: u16) {
        match status {
            200 => self.account.remember_ready(id, file),
            404 | 410 | 422 => self.account.forget(id),
            _ => {}
        }
    }

    /// Sends three confirms at the same time.
    async fn confirm_at_once(&mut self, id: &str, file: &Arc<File>) {
        let path = format!("/api/images/{id}/confirm");
        let mut copies = [self.concurrent_copy(), self.concurrent_copy(), self.concurrent_copy()];
        let calls = copies.iter_mut().map(|copy| copy.call(Call::Confirm, Method::POST, &path, None, items([id])));
        for answer in futures_util::future::join_all(calls).await {
            self.apply_outcome(id, file, answer.status);
        }
    }

    /// Opens several uploads with one request, sends most of them, and confirms those that were sent with one request.
    pub(super) async fn upload_batch(&mut self) {
        let count = 2 + self.caller.random.below(4);
        let files: Vec<_> = (0..count).map(|_| (self.pick_file(), self.random_key(30))).collect();
        let item_of = |(file, key): &(Arc<File>, Option<String>)| {
            let mut item = declaration(file);
            if let Some(key) = key {
                item["idempotencyKey"] = json!(key);
            }
            item
        };
        let body = json!({ "items": files.iter().map(item_of).collect::<Vec<_>>() });
        let declarations = files.iter().map(|(file, key)| journal_item(file, key.as_ref())).collect();
        let answer = self.call(Call::Issue, Method::POST, "/api/images/upload/batch", Some(body), declarations).await;
        let mut sent = Vec::new();
        for (result, (file, _)) in answer.results().to_vec().iter().zip(&files) {
            let ticket = &result["ticket"];
            let Some(id) = self.remember(ticket, file) else { continue };
            if !self.caller.random.percent(90) {
                continue;
            }
            self.send(&id, file, &ticket["upload"]).await;
            sent.push((id, file.clone()));
        }
        let ids: Vec<_> = sent.iter().map(|(id, _)| id.as_str()).collect();
        if ids.is_empty() {
            return;
        }
        let body = Some(json!({ "ids": ids }));
        let answer = self.call(Call::Confirm, Method::POST, "/api/images/confirm", body, items(ids.iter().copied())).await;
        for (result, (id, file)) in answer.results().iter().zip(&sent) {
            self.apply_outcome(id, file, result["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or(0));
        }
    }

    /// Uploads in one part: more than one would need at least 5 MiB.
    pub(super) async fn upload_in_parts(&mut self) {
        let (file, key) = (Arc::new(File::new(&mut self.caller.random)), self.random_key(50));
        let mut body = json!({ "fileName": "big.png", "contentType": file.content_type, "size": file.bytes.len() });
        if self.caller.random.percent(50) {
            body["partChecksums"] = json!("sha256");
        }
        let with_checksums = body.get("partChecksums").is_some();
        let declarations = vec![Item { idem_key: key.clone(), ..journal_item(&file, None) }];
        let method_and_path = (Method::POST, "/api/images/multipart");
        let ticket = self.call_under_key(Call::Issue, method_and_path, Some(body), key, declarations).await;
        let Some(id) = ticket.json["id"].as_str().map(str::to_owned) else { return };
        self.account.remember_open(&id, &file);
        let part = if with_checksums { json!({ "partNumber": 1, "sha256": file.sha256 }) } else { json!({ "partNumber": 1 }) };
        let path = format!("/api/images/{id}/parts");
        let body = Some(json!({ "parts": [part] }));
        let signed = self.call(Call::Parts, Method::POST, &path, body, items([id.as_str()])).await;
        let request = signed.json["parts"][0]["request"].clone();
        if request.is_object() && self.caller.random.percent(90) {
            let item = Item { id: Some(id.clone()), ..journal_item(&file, None) };
            self.caller.put(&request, item, &file.bytes).await;
        }
        if self.caller.random.percent(20) {
            self.call(Call::Parts, Method::GET, &path, None, items([id.as_str()])).await;
        }
        if self.caller.random.percent(85) {
            self.confirm(&id, &file).await;
        }
    }

    /// Renews the URLs of up to three open uploads with one request, then sends and confirms these uploads.
    pub(super) async fn renew(&mut self) {
        let known = self.pick_own(3, |known| !known.ready);
        let ids: Vec<_> = known.iter().map(|known| known.id.as_str()).collect();
        if ids.is_empty() {
            return;
        }
        let body = Some(json!({ "ids": ids }));
        let answer = self.call(Call::Renew, Method::POST, "/api/images/renew", body, items(ids.iter().copied())).await;
        for (result, known) in answer.results().to_vec().iter().zip(&known) {
            if result["ticket"]["upload"].is_object() {
                self.send(&known.id, &known.file, &result["ticket"]["upload"]).await;
                self.confirm(&known.id, &known.file).await;
            }
        }
    }
}
