//! Opens uploads, single and multipart.

use serde_json::{Value, json};

use super::{Live, Step};
use crate::{
    app::Answer,
    model::{
        Declared, UserIndex,
        reference_model::{Model, Opening, State},
    },
};

/// A ticket in an answer, or the code of the problem instead.
struct Ticket<'a> {
    status: u64,
    json: &'a Value,
    code: &'a str,
}

impl<'a> Ticket<'a> {
    /// Returns the ticket in the answer to a call with one item.
    fn of_answer(answer: &'a Answer) -> Self {
        Self { status: u64::from(answer.status), json: &answer.json, code: answer.code() }
    }

    /// Returns the ticket in a result of a call with several items.
    fn of_result(result: &'a Value) -> Self {
        let code = result["problem"]["code"].as_str().unwrap_or_default();
        Self { status: result["status"].as_u64().unwrap(), json: &result["ticket"], code }
    }
}

impl Live<'_> {
    /// Opens an upload on server and model.
    pub(super) async fn upload(&self, model: &mut Model, step: Step<'_>, user: UserIndex, declared: Declared, key: Option<u8>) {
        let answer = self.post(user, "/api/images/upload", self.body(declared), key).await;
        let opening = model.upload(user, &[(declared, key)])[0];
        self.check_opening(model, step, opening, &Ticket::of_answer(&answer));
        if let Opening::Known(index) = opening {
            model.renew(user, index);
        }
    }

    /// Opens uploads with one request on server and model.
    pub(super) async fn upload_batch(
        &self,
        model: &mut Model,
        step: Step<'_>,
        user: UserIndex,
        items: &[Declared],
        key: Option<u8>,
    ) {
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
        let answer = self.post(user, "/api/images/upload/batch", body, None).await;
        assert_eq!(answer.status, 200, "{step}: {answer:?}");
        let opening = model.upload(user, &keyed);
        for (n, opening) in opening.into_iter().enumerate() {
            self.check_opening(model, step, opening, &Ticket::of_result(&answer.json["results"][n]));
            if let Opening::Known(index) = opening {
                model.renew(user, index);
            }
        }
    }

    /// Declares a type that is not allowed.
    pub(super) async fn upload_unstorable(&self, step: Step<'_>, user: UserIndex) {
        let mut body = self.body(Declared { file: 0, name: 0, caption: false });
        body["contentType"] = json!("image/svg+xml");
        let answer = self.post(user, "/api/images/upload", body, None).await;
        step.assert_outcome(&answer, (422, "type_not_allowed"));
    }

    /// Opens a multipart upload on server and model.
    pub(super) async fn open_parts(
        &self,
        model: &mut Model,
        step: Step<'_>,
        user: UserIndex,
        declared: Declared,
        key: Option<u8>,
    ) {
        let mut body = self.body(declared);
        body.as_object_mut().unwrap().remove("sha256");
        let answer = self.post(user, "/api/images/multipart", body, key).await;
        let opening = model.open_parts(user, declared, key);
        self.check_opening(model, step, opening, &Ticket::of_answer(&answer));
    }

    /// Compares a ticket with the model, and sets the id of a new image in the model.
    fn check_opening(&self, model: &mut Model, step: Step<'_>, opening: Opening, &Ticket { status, json, code }: &Ticket<'_>) {
        match opening {
            Opening::Rejected(rejected) => assert_eq!((status, code), (u64::from(rejected.0), rejected.1), "{step}"),
            Opening::Opened => {
                assert_eq!(status, 201, "{step}: {json} {code}");
                let id = json["id"].as_str().unwrap().to_owned();
                self.uploads.lock().unwrap().insert(id.clone(), json["upload"].clone());
                let opened = model.images.iter_mut().find(|image| image.id.is_empty());
                opened.expect("the model has opened it, too").id = id;
            }
            Opening::Known(index) => {
                let image = &model.images[index];
                assert_eq!((status, &json["id"]), (200, &json!(image.id)), "{step}: {json} {code}");
                if !image.in_parts {
                    let state = if image.state == State::Ready { "ready" } else { "pending" };
                    assert_eq!(json["state"], state, "{step}");
                    let (is_pending, is_ready) = (state == "pending", state == "ready");
                    assert_eq!((json["upload"].is_object(), json["image"].is_object()), (is_pending, is_ready), "{step}");
                }
            }
        }
    }
}
