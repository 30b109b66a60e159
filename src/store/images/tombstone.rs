//! Tombstones for uploads that were reserved but never inserted: the server died, or its insertion is still in flight.

use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Images, StoreError, datetime};
use crate::{
    model::{ImageId, ImageState, ObjectKey, UserId},
    store::{driver_events::Operation, integer, is_duplicate},
};

impl Images {
    /// Inserts a tombstone, purged from the beginning, with the id of an image that was never inserted, so that a delayed insertion
    /// fails with a duplicate key. Returns `false` if the image exists.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_purged(&self, user: UserId, id: ImageId, bytes: u64, now: OffsetDateTime) -> Result<bool, StoreError> {
        let now = datetime(now);
        let record = doc! {
            "_id": id.to_string(),
            "user": user.to_string(),
            "key": ObjectKey::final_for(user, id).as_str(),
            "state": ImageState::Purged.as_str(),
            // Placeholders in required fields: only the upload's size is known.
            "fileName": "never issued",
            "contentType": "image/jpeg",
            "size": integer(bytes),
            "createdAt": now,
            "expiresAt": now,
            "urlsDieAt": now,
            "goneAt": now,
            // Marks that the reservation of the upload must be released.
            "neverIssued": true,
        };
        let records = self.collection.clone_with_type::<Document>();
        match self.mongo.run(Operation::insert(&self.collection), async { records.insert_one(record).await }).await {
            Ok(_) => Ok(true),
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
