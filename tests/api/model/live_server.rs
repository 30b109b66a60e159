//! The server under test: makes each step through the API and compares the answer with the model. `opening` opens uploads, `bytes`
//! sends bytes to the store, `comparison` compares everything that is stored.

mod bytes;
mod comparison;
mod opening;

use std::{collections::HashMap, fmt, sync::Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Declared, ImageIndex, Op, SWEEPS, UserIndex,
    reference_model::{Model, Outcome},
};
use crate::app::{Answer, Caller, TestApp, fixture, sha256};

/// Number of files in the pool.
pub const FILES: usize = 6;
/// Index of a file that is not an image, and is declared as one.
const HTML: usize = 3;
/// Index of a file that is declared with the digest of the first file and another size, which no bytes match.
const MISDECLARED: usize = 5;

/// Returns whether the bytes of the declared file are an image of the declared type.
pub fn is_image(declared: Declared) -> bool {
    declared.file != HTML
}

/// One step of a sequence; its text names the step in a failed assertion.
#[derive(Clone, Copy)]
struct Step<'a> {
    at: usize,
    op: &'a Op,
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "step {}, {:?}", self.at, self.op)
    }
}

/// Returns the problem code of an answer with this outcome; empty if it is a success.
fn code(outcome: Outcome) -> &'static str {
    if outcome.0 < 300 { "" } else { outcome.1 }
}

impl Step<'_> {
    /// Asserts the answer to a call about one image.
    fn assert_outcome(self, answer: &Answer, outcome: Outcome) {
        assert_eq!(answer.problem(), (outcome.0, code(outcome)), "{self}: {answer:?}");
    }

    /// Asserts the results of a call about several images.
    fn assert_outcomes(self, answer: &Answer, outcomes: &[Outcome]) {
        let results = answer.json["results"].as_array().unwrap_or_else(|| panic!("{self}: {answer:?}"));
        let actual: Vec<_> = results
            .iter()
            .map(|result| (result["status"].as_u64().unwrap(), result["problem"]["code"].as_str().unwrap_or_default()))
            .collect();
        let expected: Vec<_> = outcomes.iter().map(|outcome| (u64::from(outcome.0), code(*outcome))).collect();
        assert_eq!(actual, expected, "{self}");
    }
}

/// The server under test, with its two users and the pool of files.
pub struct Live<'a> {
    app: &'a TestApp,
    users: [Caller<'a>; 2],
    files: Vec<Vec<u8>>,
    /// First presigned PUT of each upload, by the image's id.
    uploads: Mutex<HashMap<String, Value>>,
}

impl<'a> Live<'a> {
    /// Signs up the users and creates the files.
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
        (0..FILES).map(|file| (self.size(file) as u64, if file == MISDECLARED { 0 } else { file })).collect()
    }

    /// Returns the declared size of a file, which is wrong for the file [`MISDECLARED`].
    fn size(&self, file: usize) -> usize {
        self.files[file].len() + usize::from(file == MISDECLARED)
    }

    /// Returns the file's bytes, extended to the declared size.
    fn bytes(&self, file: usize) -> Vec<u8> {
        let mut bytes = self.files[file].clone();
        bytes.resize(self.size(file), 7);
        bytes
    }

    /// Returns the declared file name.
    fn name(declared: Declared) -> String {
        format!("{}-{}.png", declared.file, declared.name)
    }

    /// Returns the declared type.
    fn content_type(declared: Declared) -> &'static str {
        if declared.file == 2 { "image/jpeg" } else { "image/png" }
    }

    /// Returns the body of an upload request.
    fn body(&self, declared: Declared) -> Value {
        let mut body = json!({ "fileName": Self::name(declared), "contentType": Self::content_type(declared),
            "size": self.size(declared.file), "sha256": sha256(&self.files[declared.file]) });
        if declared.caption {
            body["caption"] = json!("words");
        }
        body
    }

    /// Returns the id of an image of the model, or an unknown id.
    fn id(model: &Model, index: ImageIndex) -> String {
        model.images.get(index).map_or_else(|| uuid::Uuid::now_v7().to_string(), |image| image.id.clone())
    }

    /// Returns the path of an image, and of a call about it.
    fn path(model: &Model, index: ImageIndex, call: &str) -> String {
        format!("/api/images/{}{call}", Self::id(model, index))
    }

    /// Returns the body of a batch for these images.
    fn ids(model: &Model, indexes: &[ImageIndex]) -> Value {
        json!({ "ids": indexes.iter().map(|index| Self::id(model, *index)).collect::<Vec<_>>() })
    }

    /// Sends a POST as a user, with this idempotency key if there is one.
    async fn post(&self, user: UserIndex, path: &str, body: Value, key: Option<u8>) -> Answer {
        let call = |request: reqwest::RequestBuilder| match key {
            Some(key) => request.header("idempotency-key", format!("key-{key}")).json(&body),
            None => request.json(&body),
        };
        self.users[user].send(Method::POST, path, call).await
    }

    /// Makes a batch call for these images.
    async fn post_ids(&self, model: &Model, user: UserIndex, path: &str, indexes: &[ImageIndex]) -> Answer {
        self.post(user, path, Self::ids(model, indexes), None).await
    }

    /// Makes a step through the API, and compares the answer with the model.
    pub async fn step(&self, model: &mut Model, op: &Op, at: usize) {
        let step = Step { at, op };
        match op {
            Op::Upload(user, declared, key) => self.upload(model, step, *user, *declared, *key).await,
            Op::UploadBatch(user, items, key) => self.upload_batch(model, step, *user, items, *key).await,
            Op::Unstorable(user) => self.upload_unstorable(step, *user).await,
            Op::OpenParts(user, declared, key) => self.open_parts(model, step, *user, *declared, *key).await,
            Op::Put(index) => self.put(model, step, *index).await,
            Op::Plant(index) => self.plant(model, *index).await,
            Op::PutPart(index) => self.put_part(model, step, *index).await,
            Op::SignPart(user, index) => {
                let answer = self.sign_part(*user, &Self::id(model, *index)).await;
                step.assert_outcome(&answer, model.sign_part(*user, *index));
            }
            Op::ListParts(user, index) => self.list_parts(model, step, *user, *index).await,
            Op::Renew(user, index) => self.renew(model, step, *user, *index).await,
            Op::RenewBatch(user, indexes) => {
                let answer = self.post_ids(model, *user, "/api/images/renew", indexes).await;
                step.assert_outcomes(&answer, &indexes.iter().map(|index| model.renew(*user, *index)).collect::<Vec<_>>());
            }
            Op::Confirm(user, index) => self.confirm(model, step, *user, *index).await,
            Op::ConfirmBatch(user, indexes) => {
                let answer = self.post_ids(model, *user, "/api/images/confirm", indexes).await;
                step.assert_outcomes(&answer, &model.confirm(*user, indexes));
            }
            Op::Delete(user, index) => {
                let answer = self.users[*user].delete(&Self::path(model, *index, "")).await;
                step.assert_outcome(&answer, model.delete(*user, *index));
            }
            Op::DeleteBatch(user, indexes) => {
                let answer = self.post_ids(model, *user, "/api/images/delete", indexes).await;
                step.assert_outcomes(&answer, &indexes.iter().map(|index| model.delete(*user, *index)).collect::<Vec<_>>());
            }
            Op::Get(user, index) => self.get(model, step, *user, *index).await,
            Op::ReadBatch(user, indexes) => {
                let answer = self.post_ids(model, *user, "/api/images/read", indexes).await;
                step.assert_outcomes(&answer, &indexes.iter().map(|index| model.get(*user, *index)).collect::<Vec<_>>());
            }
            Op::Caption(user, index, clear) => {
                let caption = if *clear { "" } else { "$other words" };
                let answer = self.users[*user].patch(&Self::path(model, *index, ""), json!({ "caption": caption })).await;
                step.assert_outcome(&answer, model.caption(*user, *index, (!clear).then_some(caption)));
            }
            Op::Sweep(when) => self.sweep(model, step, SWEEPS[*when]).await,
        }
    }

    /// Renews an upload on server and model.
    async fn renew(&self, model: &mut Model, step: Step<'_>, user: UserIndex, index: ImageIndex) {
        let answer = self.users[user].post_empty(&Self::path(model, index, "/renew")).await;
        let outcome = model.renew(user, index);
        step.assert_outcome(&answer, outcome);
        if outcome.0 == 200 {
            assert_eq!((answer.id(), &answer.json["state"]), (model.images[index].id.as_str(), &json!(outcome.1)));
        }
    }

    /// Confirms an upload on server and model.
    async fn confirm(&self, model: &mut Model, step: Step<'_>, user: UserIndex, index: ImageIndex) {
        let answer = self.users[user].post_empty(&Self::path(model, index, "/confirm")).await;
        step.assert_outcome(&answer, model.confirm(user, &[index])[0]);
        if answer.status == 200 {
            self.check_image(model, index, &answer.json);
        }
    }

    /// Reads an image on server and model, and fetches its bytes.
    async fn get(&self, model: &Model, step: Step<'_>, user: UserIndex, index: ImageIndex) {
        let answer = self.users[user].get(&Self::path(model, index, "")).await;
        step.assert_outcome(&answer, model.get(user, index));
        if answer.status == 200 {
            self.check_image(model, index, &answer.json);
            let read = self.app.http.get(answer.json["url"].as_str().unwrap()).send().await.unwrap();
            assert!(
                read.bytes().await.unwrap() == self.bytes(model.images[index].declared.file),
                "the URL returns the declared bytes"
            );
        }
    }

    /// Sweeps at a time this many seconds from now.
    async fn sweep(&self, model: &mut Model, step: Step<'_>, offset: i64) {
        let swept = self.app.sweep(OffsetDateTime::now_utc() + time::Duration::seconds(offset)).await;
        assert_eq!(swept.failed, 0, "{step}: {swept:?}");
        model.sweep(offset);
    }

    /// Asserts that an image of the API equals that of the model.
    fn check_image(&self, model: &Model, index: ImageIndex, actual: &Value) {
        let image = &model.images[index];
        let declared = image.declared;
        let mut expected = json!({ "id": image.id, "fileName": Self::name(declared), "contentType": Self::content_type(declared),
            "size": image.size });
        if !image.in_parts {
            expected["sha256"] = json!(sha256(&self.files[declared.file]));
        }
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(&actual[member], value, "{member}");
        }
        assert_eq!(actual.get("caption").and_then(Value::as_str), image.caption.as_deref());
        assert_eq!(actual.get("sha256").is_some(), !image.in_parts);
    }
}
