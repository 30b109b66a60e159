//! The deployment's id in the database, `meta {_id: "deployment", id}`, written once; and what the records say about a bucket.

use std::fmt;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};

use super::{Store, StoreError, database_probe::DatabaseProbe, images::not_purged, is_duplicate};
use crate::model::{DeploymentId, ImageId, ImageState};

const COLLECTION: &str = "meta";
const NAME: &str = "deployment";

fn id_of(found: &Document) -> Result<DeploymentId, StoreError> {
    found.get_str("id").ok().and_then(DeploymentId::parse).ok_or(StoreError::Corrupt {
        collection: COLLECTION,
        id: NAME.to_owned(),
        field: "id",
    })
}

impl Store {
    /// Returns the examiner of this database.
    #[must_use]
    pub fn probe(&self) -> DatabaseProbe {
        DatabaseProbe::with_client(&self.mongo)
    }

    /// Writes `id` unless there is one already. Returns the one that is there afterwards: of several servers at their first
    /// start, all get the same.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_deployment_id(&self, id: DeploymentId) -> Result<DeploymentId, StoreError> {
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let update = doc! { "$setOnInsert": { "id": id.to_string() } };
        let write = meta.update_one(doc! { "_id": NAME }, update).upsert(true);
        match self.mongo.run(async { write.await }).await {
            Ok(_) => {}
            // Two upserts at once: one of them may find the other's document.
            Err(StoreError::Database(error)) if is_duplicate(&error) => {}
            Err(error) => return Err(error),
        }
        self.probe().deployment_id().await?.ok_or(StoreError::Contention { what: "the deployment's id" })
    }

    /// Writes `id` in the place of one that cannot be read.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn replace_deployment_id(&self, id: DeploymentId) -> Result<(), StoreError> {
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let update = doc! { "$set": { "id": id.to_string() } };
        let write = meta.update_one(doc! { "_id": NAME }, update).upsert(true);
        self.mongo.run(async { write.await }).await.map(drop)
    }
}

/// A collection that is empty in a restored database, though others refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Accounts count images, and there is no record of any.
    Images,
    /// There are images, and no account.
    Users,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Users => "users",
        })
    }
}

impl DatabaseProbe {
    /// Returns the collection that is missing from a database that was restored in part.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing(&self) -> Result<Option<Missing>, StoreError> {
        if !self.has_any("images", doc! {}).await? {
            // A deleted account ends without its images.
            let counts = doc! { "images": { "$gt": 0 }, "deletedAt": { "$exists": false } };
            return Ok(self.has_any("users", counts).await?.then_some(Missing::Images));
        }
        let is_abandoned = !self.has_any("users", doc! {}).await? && self.has_ready_image().await?;
        Ok(is_abandoned.then_some(Missing::Users))
    }

    /// Returns the id of the deployment that this database belongs to; `None` before the first start.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deployment_id(&self) -> Result<Option<DeploymentId>, StoreError> {
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let found = self.mongo.read(|| async { meta.find_one(doc! { "_id": NAME }).await }).await?;
        found.map(|found| id_of(&found)).transpose()
    }

    /// Returns whether any image is ready.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_ready_image(&self) -> Result<bool, StoreError> {
        self.has_image(doc! { "state": ImageState::Ready.as_str() }).await
    }

    /// Returns whether there is a record of any of these images.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn knows_any(&self, images: &[ImageId]) -> Result<bool, StoreError> {
        let mut filter = not_purged();
        filter.insert("_id", doc! { "$in": images.iter().map(ToString::to_string).collect::<Vec<_>>() });
        self.has_image(filter).await
    }

    async fn has_image(&self, filter: Document) -> Result<bool, StoreError> {
        self.has_any("images", filter).await
    }

    async fn has_any(&self, collection: &str, filter: Document) -> Result<bool, StoreError> {
        let records = self.mongo.database().collection::<Document>(collection);
        let found = self.mongo.read(|| async {
            records.find(filter.clone()).projection(doc! { "_id": 1 }).limit(1).await?.try_collect::<Vec<_>>().await
        });
        Ok(!found.await?.is_empty())
    }
}
