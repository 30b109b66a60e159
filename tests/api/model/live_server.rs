//! The live side: makes each step through the API and compares the answer with the model.

use std::{collections::HashMap, sync::Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Declared, Op, QUOTA, SWEEPS, Which, Who,
    reference_model::{Issued, Model, Object, Outcome, State},
};
use crate::app::{Answer, Caller, TestApp, fixture, sha256};

/// Number of files in the pool.
pub const FILES: usize = 6;
/// A file that is not an image, under an image's name.
const HTML: usize = 3;
/// The digest of the first file with another length, which no bytes match.
const LIE: usize = 5;

/// Returns whether a file's bytes are an image of the declared type.
pub fn is_image(declared: Declared) -> bool {
    declared.file != HTML
}

pub struct Live<'a> {
    app: &'a TestApp,
    users: [Caller<'a>; 2],
    files: Vec<Vec<u8>>,
    /// Presigned PUTs of the tickets, by image.
    uploads: Mutex<HashMap<String, Value>>,
}

impl<'a> Live<'a> {
    pub async fn new(app: &'a TestApp) -> Self {
        let salted = |name: &str, more: usize| {
            let mut bytes = fixture(name);
            bytes.extend(uuid::Uuid::new_v4().as_bytes());
            bytes.resize(bytes.len() + more, 7);
            bytes
        };
        let html = [b"<!doctype html><script>alert(1)</script>", &uuid::Uuid::new_v4().as_bytes()[..]].concat();
        let mut files =
            vec![salted("plain.png", 0), salted("plain.png", 1), salted("plain.jpg", 0), html, salted("plain.png", 6000)];
        files.push(files[0].clone());
        Self { app, users: [app.user().await, app.user().await], files, uploads: Mutex::default() }
    }

    /// Returns the size of every file, and the file that has its digest.
    pub fn sizes(&self) -> Vec<(u64, usize)> {
        (0..FILES).map(|file| (self.size(file) as u64, if file == LIE { 0 } else { file })).collect()
    }

    fn size(&self, file: usize) -> usize {
        self.files[file].len() + usize::from(file == LIE)
    }

    /// Returns as many bytes as are declared.
    fn bytes(&self, file: usize) -> Vec<u8> {
        let mut bytes = self.files[file].clone();
        bytes.resize(self.size(file), 7);
        bytes
    }

    fn name(declared: Declared) -> String {
        format!("{}-{}.png", declared.file, declared.name)
    }

    fn content_type(declared: Declared) -> &'static str {
        if declared.file == 2 { "image/jpeg" } else { "image/png" }
    }

    fn body(&self, declared: Declared) -> Value {
        let mut body = json!({ "fileName": Self::name(declared), "contentType": Self::content_type(declared),
            "size": self.size(declared.file), "sha256": sha256(&self.files[declared.file]) });
        if declared.caption {
            body["caption"] = json!("words");
        }
        body
    }

    fn id(model: &Model, which: Which) -> String {
        model.images.get(which).map_or_else(|| uuid::Uuid::now_v7().to_string(), |image| image.id.clone())
    }

    fn ids(model: &Model, which: &[Which]) -> Value {
        json!({ "ids": which.iter().map(|which| Self::id(model, *which)).collect::<Vec<_>>() })
    }

    async fn post(&self, who: Who, path: &str, body: Value, key: Option<u8>) -> Answer {
        let call = |request: reqwest::RequestBuilder| match key {
            Some(key) => request.header("idempotency-key", format!("key-{key}")).json(&body),
            None => request.json(&body),
        };
        self.users[who].send(Method::POST, path, call).await
    }

    /// Compares a result of an issuing call with the model, and gives a new image its id.
    fn check_issued(
        &self,
        model: &mut Model,
        new: &mut usize,
        issued: Issued,
        (status, ticket, code): (u64, &Value, &str),
        at: usize,
    ) {
        match issued {
            Issued::Refused(refused) => assert_eq!((status, code), (u64::from(refused.0), refused.1), "step {at}"),
            Issued::Opened => {
                assert_eq!(status, 201, "step {at}: {ticket} {code}");
                let id = ticket["id"].as_str().unwrap().to_owned();
                self.uploads.lock().unwrap().insert(id.clone(), ticket["upload"].clone());
                model.images[*new].id = id;
                *new += 1;
            }
            Issued::Known(which) => {
                let image = &model.images[which];
                assert_eq!((status, &ticket["id"]), (200, &json!(image.id)), "step {at}: {ticket} {code}");
                if !image.in_parts {
                    let state = if image.state == State::Ready { "ready" } else { "pending" };
                    assert_eq!(ticket["state"], state, "step {at}");
                    assert_eq!(
                        (ticket["upload"].is_object(), ticket["image"].is_object()),
                        (state == "pending", state == "ready")
                    );
                }
            }
        }
    }

    pub async fn step(&self, model: &mut Model, op: &Op, at: usize) {
        let single = |answer: &Answer, outcome: Outcome| {
            let code = if outcome.0 < 300 { "" } else { outcome.1 };
            assert_eq!(answer.problem(), (outcome.0, code), "step {at}, {op:?}: {answer:?}");
        };
        let each = |answer: &Answer, outcomes: &[Outcome]| {
            let results = answer.json["results"].as_array().unwrap_or_else(|| panic!("step {at}, {op:?}: {answer:?}"));
            let got: Vec<_> = results
                .iter()
                .map(|result| (result["status"].as_u64().unwrap(), result["problem"]["code"].as_str().unwrap_or_default()))
                .collect();
            let code = |outcome: &Outcome| if outcome.0 < 300 { "" } else { outcome.1 };
            let expected: Vec<_> = outcomes.iter().map(|outcome| (u64::from(outcome.0), code(outcome))).collect();
            assert_eq!(got, expected, "step {at}, {op:?}");
        };
        let image = |which: Which, rest: &str, model: &Model| format!("/api/images/{}{rest}", Self::id(model, which));
        let mut new = model.images.len();
        match op {
            Op::Upload(who, declared, key) => {
                let answer = self.post(*who, "/api/images/upload", self.body(*declared), *key).await;
                let issued = model.upload(*who, &[(*declared, *key)])[0];
                let got = (u64::from(answer.status), &answer.json, answer.code());
                self.check_issued(model, &mut new, issued, got, at);
                if let Issued::Known(which) = issued {
                    model.renew(*who, which);
                }
            }
            Op::UploadBatch(who, items, key) => {
                // The key belongs to the first item.
                let keyed: Vec<_> = items.iter().enumerate().map(|(n, item)| (*item, key.filter(|_| n == 0))).collect();
                let bodies = keyed.iter().map(|(item, key)| {
                    let mut body = self.body(*item);
                    if let Some(key) = key {
                        body["idempotencyKey"] = json!(format!("key-{key}"));
                    }
                    body
                });
                let body = json!({ "items": bodies.collect::<Vec<_>>() });
                let answer = self.post(*who, "/api/images/upload/batch", body, None).await;
                assert_eq!(answer.status, 200, "step {at}: {answer:?}");
                let issued = model.upload(*who, &keyed);
                for (n, issued) in issued.into_iter().enumerate() {
                    let result = &answer.json["results"][n];
                    let code = result["problem"]["code"].as_str().unwrap_or_default();
                    self.check_issued(model, &mut new, issued, (result["status"].as_u64().unwrap(), &result["ticket"], code), at);
                    if let Issued::Known(which) = issued {
                        model.renew(*who, which);
                    }
                }
            }
            Op::Unstorable(who) => {
                let mut body = self.body(Declared { file: 0, name: 0, caption: false });
                body["contentType"] = json!("image/svg+xml");
                single(&self.post(*who, "/api/images/upload", body, None).await, (422, "type_not_allowed"));
            }
            Op::Put(which) => self.put(model, *which, at).await,
            Op::Plant(which) => {
                if let Some(image) = model.plant(*which) {
                    let mut bytes = self.files[image.declared.file].clone();
                    *bytes.last_mut().unwrap() ^= 1;
                    let key = format!("u/{}/{}", self.users[image.who].id, image.id);
                    self.app.bucket_put(&key, Self::content_type(image.declared), bytes).await;
                }
            }
            Op::Renew(who, which) => {
                let answer = self.users[*who].post_empty(&image(*which, "/renew", model)).await;
                let outcome = model.renew(*who, *which);
                single(&answer, outcome);
                if outcome.0 == 200 {
                    assert_eq!((answer.id(), &answer.json["state"]), (model.images[*which].id.as_str(), &json!(outcome.1)));
                }
            }
            Op::RenewBatch(who, which) => {
                let answer = self.post(*who, "/api/images/renew", Self::ids(model, which), None).await;
                each(&answer, &which.iter().map(|which| model.renew(*who, *which)).collect::<Vec<_>>());
            }
            Op::Confirm(who, which) => {
                let answer = self.users[*who].post_empty(&image(*which, "/confirm", model)).await;
                single(&answer, model.confirm(*who, &[*which])[0]);
                if answer.status == 200 {
                    self.check_image(model, *which, &answer.json);
                }
            }
            Op::ConfirmBatch(who, which) => {
                let answer = self.post(*who, "/api/images/confirm", Self::ids(model, which), None).await;
                each(&answer, &model.confirm(*who, which));
            }
            Op::Delete(who, which) => {
                let answer = self.users[*who].delete(&image(*which, "", model)).await;
                single(&answer, model.delete(*who, *which));
            }
            Op::DeleteBatch(who, which) => {
                let answer = self.post(*who, "/api/images/delete", Self::ids(model, which), None).await;
                each(&answer, &which.iter().map(|which| model.delete(*who, *which)).collect::<Vec<_>>());
            }
            Op::Get(who, which) => {
                let answer = self.users[*who].get(&image(*which, "", model)).await;
                single(&answer, model.get(*who, *which));
                if answer.status == 200 {
                    self.check_image(model, *which, &answer.json);
                    let read = self.app.http.get(answer.json["url"].as_str().unwrap()).send().await.unwrap();
                    assert!(read.bytes().await.unwrap() == self.bytes(model.images[*which].declared.file), "the declared bytes");
                }
            }
            Op::ReadBatch(who, which) => {
                let answer = self.post(*who, "/api/images/read", Self::ids(model, which), None).await;
                each(&answer, &which.iter().map(|which| model.get(*who, *which)).collect::<Vec<_>>());
            }
            Op::Caption(who, which, clear) => {
                let caption = if *clear { "" } else { "$other words" };
                let answer = self.users[*who].patch(&image(*which, "", model), json!({ "caption": caption })).await;
                single(&answer, model.caption(*who, *which, (!clear).then_some(caption)));
            }
            Op::OpenParts(who, declared, key) => {
                let mut body = self.body(*declared);
                body.as_object_mut().unwrap().remove("sha256");
                let answer = self.post(*who, "/api/images/multipart", body, *key).await;
                let issued = model.open_parts(*who, *declared, *key);
                self.check_issued(model, &mut new, issued, (u64::from(answer.status), &answer.json, answer.code()), at);
            }
            Op::SignPart(who, which) => {
                let answer = self.sign_part(*who, &Self::id(model, *which)).await;
                single(&answer, model.sign_part(*who, *which));
            }
            Op::PutPart(which) => {
                if let Some(who) = model.put_part(*which) {
                    let signed = self.sign_part(who, &model.images[*which].id).await;
                    let bytes = self.bytes(model.images[*which].declared.file);
                    let put = self.app.put(&signed.json["parts"][0]["request"], bytes).await;
                    assert_eq!(put, 200, "step {at}: {signed:?}");
                }
            }
            Op::ListParts(who, which) => {
                let answer = self.users[*who].get(&image(*which, "/parts", model)).await;
                match model.list_parts(*who, *which) {
                    Err(outcome) => single(&answer, outcome),
                    Ok(parts) => assert_eq!(answer.json["parts"].as_array().map(Vec::len), Some(parts), "step {at}: {answer:?}"),
                }
            }
            Op::Sweep(when) => {
                let now = OffsetDateTime::now_utc() + time::Duration::seconds(SWEEPS[*when]);
                let swept = self.app.sweep(now).await;
                assert_eq!(swept.failed, 0, "step {at}: {swept:?}");
                model.sweep(SWEEPS[*when]);
            }
        }
    }

    async fn sign_part(&self, who: Who, id: &str) -> Answer {
        self.post(who, &format!("/api/images/{id}/parts"), json!({ "parts": [{ "partNumber": 1 }] }), None).await
    }

    /// Sends the declared bytes with the upload's first presigned PUT.
    async fn put(&self, model: &mut Model, which: Which, at: usize) {
        let Some(image) = model.images.get(which) else { return };
        let file = image.declared.file;
        if file == LIE {
            return;
        }
        let Some(outcome) = model.put(which) else { return };
        // The PUT is sent even if the upload has ended since.
        let request = self.uploads.lock().unwrap()[&model.images[which].id].clone();
        let status = self.app.put(&request, self.files[file].clone()).await;
        assert_eq!(status.as_u16(), outcome.0, "step {at}, the PUT of {which}");
    }

    fn check_image(&self, model: &Model, which: Which, got: &Value) {
        let image = &model.images[which];
        let declared = image.declared;
        let mut expected = json!({ "id": image.id, "fileName": Self::name(declared), "contentType": Self::content_type(declared),
            "size": image.size });
        if !image.in_parts {
            expected["sha256"] = json!(sha256(&self.files[declared.file]));
        }
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(&got[member], value, "{member}");
        }
        assert_eq!(got.get("caption").and_then(Value::as_str), image.caption.as_deref());
        assert_eq!(got.get("sha256").is_some(), !image.in_parts);
    }

    /// Compares every state in the database and every object in the bucket.
    async fn compare_stores(&self, model: &Model, when: &str) {
        let (images, mut keys) = tokio::join!(self.app.db_all("images"), self.app.bucket_keys());
        let mut states: Vec<_> = images
            .iter()
            .map(|image| (image.get_str("_id").unwrap().to_owned(), image.get_str("state").unwrap().to_owned()))
            .collect();
        let mut expected: Vec<_> = model.images.iter().map(|image| (image.id.clone(), image.state.name().to_owned())).collect();
        states.sort();
        expected.sort();
        assert_eq!(states, expected, "{when}, states");
        let there = model.images.iter().filter(|image| image.object != Object::Nothing);
        let mut expected: Vec<_> = there.map(|image| format!("u/{}/{}", self.users[image.who].id, image.id)).collect();
        keys.sort();
        expected.sort();
        assert_eq!(keys, expected, "{when}, objects");
    }

    /// Compares gallery, open uploads and usage of both users, and the stored data.
    pub async fn compare(&self, model: &Model, when: &str) {
        self.compare_stores(model, when).await;
        for (who, user) in self.users.iter().enumerate() {
            let (bytes, images, pending) = model.usage(who);
            let expected = json!({ "bytes": bytes, "quotaBytes": QUOTA, "images": images, "pending": pending });
            let (me, gallery, open) = tokio::join!(
                user.get("/api/auth/me"),
                user.get("/api/images/gallery?limit=100"),
                user.get("/api/images/pending?limit=100")
            );
            assert_eq!(me.json["usage"], expected, "{when}, usage of {who}");
            self.check_gallery(model, who, gallery.json["images"].as_array().unwrap(), when);
            let mut listed = open.json["uploads"].as_array().unwrap().iter();
            let mine = model.images.iter().rev().filter(|image| image.who == who && image.state == State::Pending);
            for image in mine {
                let got = listed.next().unwrap_or_else(|| panic!("{when}: {} is not listed as open", image.id));
                let kind = if image.in_parts { "multipart" } else { "single" };
                assert_eq!((&got["id"], &got["kind"]), (&json!(image.id), &json!(kind)), "{when}, open uploads of {who}");
                assert_eq!(got.get("caption").and_then(Value::as_str), image.caption.as_deref(), "{when}");
            }
            assert_eq!(listed.next(), None, "{when}, open uploads of {who}");
        }
    }

    /// Expects the newest first; images of the same moment in any order.
    fn check_gallery(&self, model: &Model, who: Who, listed: &[Value], when: &str) {
        let which = |got: &Value| model.images.iter().position(|image| json!(image.id) == got["id"]);
        let got: Vec<_> =
            listed.iter().map(|image| which(image).unwrap_or_else(|| panic!("{when}: {image} belongs to no user"))).collect();
        let mine = |image: &super::reference_model::Image| image.who == who && image.state == State::Ready;
        let mut expected: Vec<_> = (0..model.images.len()).filter(|at| mine(&model.images[*at])).collect();
        let mut sorted = got.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{when}, gallery of {who}");
        expected.sort_by_key(|at| std::cmp::Reverse(model.images[*at].place));
        let places = |order: &[usize]| order.iter().map(|at| model.images[*at].place).collect::<Vec<_>>();
        assert_eq!(places(&got), places(&expected), "{when}, order of {who}'s gallery");
        for (image, which) in listed.iter().zip(got) {
            self.check_image(model, which, image);
        }
    }

    /// Asserts that pages of one and of two show the same images in the same order as one page.
    pub async fn walk_in_small_pages(&self, model: &Model) {
        for (who, user) in self.users.iter().enumerate() {
            for limit in [1, 2] {
                let (mut listed, mut path) = (Vec::new(), format!("/api/images/gallery?limit={limit}"));
                loop {
                    let page = user.get(&path).await;
                    listed.extend(page.json["images"].as_array().unwrap().clone());
                    let Some(cursor) = page.json["nextCursor"].as_str() else { break };
                    path = format!("/api/images/gallery?limit={limit}&cursor={cursor}");
                }
                self.check_gallery(model, who, &listed, &format!("in pages of {limit}"));
            }
        }
    }
}
