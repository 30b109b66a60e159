//! Sends bytes to the store: of whole files, of parts, and bytes that do not match a declaration.

use serde_json::json;

use super::{Live, MISDECLARED, Step};
use crate::{
    app::Answer,
    model::{Which, Who, reference_model::Model},
};

impl Live<'_> {
    /// Sends the declared bytes with the upload's first presigned PUT.
    pub(super) async fn put(&self, model: &mut Model, step: Step<'_>, which: Which) {
        let Some(image) = model.images.get(which) else { return };
        let file = image.declared.file;
        if file == MISDECLARED {
            return;
        }
        let Some(outcome) = model.put(which) else { return };
        // The PUT is sent even if the upload has ended since.
        let request = self.uploads.lock().unwrap()[&model.images[which].id].clone();
        let status = self.app.put(&request, self.files[file].clone()).await;
        assert_eq!(status.as_u16(), outcome.0, "{step}");
    }

    /// Writes other bytes directly to the bucket.
    pub(super) async fn plant(&self, model: &mut Model, which: Which) {
        let Some(image) = model.plant(which) else { return };
        let mut bytes = self.files[image.declared.file].clone();
        *bytes.last_mut().unwrap() ^= 1;
        let key = format!("u/{}/{}", self.users[image.who].id, image.id);
        self.app.bucket_put(&key, Self::content_type(image.declared), bytes).await;
    }

    /// Requests the URL of the first part.
    pub(super) async fn sign_part(&self, who: Who, id: &str) -> Answer {
        self.post(who, &format!("/api/images/{id}/parts"), json!({ "parts": [{ "partNumber": 1 }] }), None).await
    }

    /// Sends the only part of a multipart upload.
    pub(super) async fn put_part(&self, model: &mut Model, step: Step<'_>, which: Which) {
        let Some(who) = model.put_part(which) else { return };
        let signed = self.sign_part(who, &model.images[which].id).await;
        let bytes = self.bytes(model.images[which].declared.file);
        let put = self.app.put(&signed.json["parts"][0]["request"], bytes).await;
        assert_eq!(put, 200, "{step}: {signed:?}");
    }

    /// Lists the parts of an upload on server and model.
    pub(super) async fn list_parts(&self, model: &Model, step: Step<'_>, who: Who, which: Which) {
        let answer = self.users[who].get(&Self::path(model, which, "/parts")).await;
        match model.list_parts(who, which) {
            Err(outcome) => step.assert_outcome(&answer, outcome),
            Ok(parts) => assert_eq!(answer.json["parts"].as_array().map(Vec::len), Some(parts), "{step}: {answer:?}"),
        }
    }
}
