//! Sends bytes to the store: of whole files, of parts, and bytes that do not match a declaration.

use serde_json::json;

use super::{Live, MISDECLARED, Step};
use crate::{
    app::Answer,
    model::{ImageIndex, UserIndex, reference_model::Model},
};

impl Live<'_> {
    /// Sends the declared bytes with the upload's first presigned PUT.
    pub(super) async fn put(&self, model: &mut Model, step: Step<'_>, index: ImageIndex) {
        let Some(image) = model.images.get(index) else { return };
        let file = image.declared.file;
        if file == MISDECLARED {
            return;
        }
        let Some(outcome) = model.put(index) else { return };
        // The PUT is sent even if the upload has ended since.
        let request = self.uploads.lock().unwrap()[&model.images[index].id].clone();
        let status = self.app.put(&request, self.files[file].clone()).await;
        assert_eq!(status.as_u16(), outcome.0, "{step}");
    }

    /// Writes other bytes directly to the bucket.
    pub(super) async fn plant(&self, model: &mut Model, index: ImageIndex) {
        let Some(image) = model.plant(index) else { return };
        let mut bytes = self.files[image.declared.file].clone();
        *bytes.last_mut().unwrap() ^= 1;
        let key = format!("u/{}/{}", self.users[image.user].id, image.id);
        self.app.bucket_put(&key, Self::content_type(image.declared), bytes).await;
    }

    /// Requests the URL of the first part.
    pub(super) async fn sign_part(&self, user: UserIndex, id: &str) -> Answer {
        self.post(user, &format!("/api/images/{id}/parts"), json!({ "parts": [{ "partNumber": 1 }] }), None).await
    }

    /// Sends the only part of a multipart upload.
    pub(super) async fn put_part(&self, model: &mut Model, step: Step<'_>, index: ImageIndex) {
        let Some(user) = model.put_part(index) else { return };
        let signed = self.sign_part(user, &model.images[index].id).await;
        let bytes = self.bytes(model.images[index].declared.file);
        let put = self.app.put(&signed.json["parts"][0]["request"], bytes).await;
        assert_eq!(put, 200, "{step}: {signed:?}");
    }

    /// Lists the parts of an upload on server and model.
    pub(super) async fn list_parts(&self, model: &Model, step: Step<'_>, user: UserIndex, index: ImageIndex) {
        let answer = self.users[user].get(&Self::path(model, index, "/parts")).await;
        match model.list_parts(user, index) {
            Err(outcome) => step.assert_outcome(&answer, outcome),
            Ok(parts) => assert_eq!(answer.json["parts"].as_array().map(Vec::len), Some(parts), "{step}: {answer:?}"),
        }
    }
}
