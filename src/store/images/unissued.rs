//! Uploads that never came to be: a server reserved their bytes and died, or its insertion is still on its way.

use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Images, StoreError, datetime};
use crate::{
    model::{ImageId, ImageState, ObjectKey, UserId},
    store::{integer, is_duplicate},
};

impl Images {
    /// Takes the place of an image that was never inserted, by a record that is gone already: should its insertion be on
    /// its way still, it is refused, however late it comes. `false` when there is such an image.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn preclude(&self, user: UserId, id: ImageId, bytes: u64, now: OffsetDateTime) -> Result<bool, StoreError> {
        let now = datetime(now);
        let record = doc! {
            "_id": id.to_string(),
            "user": user.to_string(),
            "key": ObjectKey::final_for(user, id).as_str(),
            "state": ImageState::Purged.as_str(),
            // As every record has them; of the upload nothing is known but its length.
            "fileName": "never issued",
            "contentType": "image/jpeg",
            "size": integer(bytes),
            "createdAt": now,
            "expiresAt": now,
            "urlsDieAt": now,
            "goneAt": now,
            // What was reserved for it is to be taken back.
            "neverIssued": true,
        };
        let records = self.collection.clone_with_type::<Document>();
        match self.calls.run(async { records.insert_one(record).await }).await {
            Ok(_) => Ok(true),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
