//! The deployment's id in the database: `meta {_id: "deployment", id}`, written once.

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};

use super::{Calls, Store, StoreError, is_duplicate};
use crate::model::{DeploymentId, ImageState};

const COLLECTION: &str = "meta";
const NAME: &str = "deployment";

/// Reads the id.
pub(super) async fn read(calls: &Calls) -> Result<Option<DeploymentId>, StoreError> {
    let meta = calls.database().collection::<Document>(COLLECTION);
    let found = calls.read(|| async { meta.find_one(doc! { "_id": NAME }).await }).await?;
    found.map(|found| id_of(&found)).transpose()
}

fn id_of(found: &Document) -> Result<DeploymentId, StoreError> {
    found.get_str("id").ok().and_then(DeploymentId::parse).ok_or(StoreError::Corrupt {
        collection: COLLECTION,
        id: NAME.to_owned(),
        field: "id",
    })
}

impl Store {
    /// Returns the id of the deployment that this database belongs to; `None` before the first start.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deployment_id(&self) -> Result<Option<DeploymentId>, StoreError> {
        read(&self.calls).await
    }

    /// Writes `id` unless there is one already. Returns the one that is there afterwards: of several servers at their first
    /// start, all get the same.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_deployment_id(&self, id: DeploymentId) -> Result<DeploymentId, StoreError> {
        let meta = self.calls.database().collection::<Document>(COLLECTION);
        let update = doc! { "$setOnInsert": { "id": id.to_string() } };
        let write = meta.update_one(doc! { "_id": NAME }, update).upsert(true);
        match self.calls.run(async { write.await }).await {
            Ok(_) => {}
            // Two upserts at once: one of them may find the other's document.
            Err(StoreError::Database(error)) if is_duplicate(&error) => {}
            Err(error) => return Err(error),
        }
        self.deployment_id().await?.ok_or(StoreError::Contention { what: "the deployment's id" })
    }

    /// Whether any image is ready.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_ready_image(&self) -> Result<bool, StoreError> {
        let images = self.calls.database().collection::<Document>("images");
        let ready = doc! { "state": ImageState::Ready.as_str() };
        let found = self.calls.read(|| async {
            images.find(ready.clone()).projection(doc! { "_id": 1 }).limit(1).await?.try_collect::<Vec<_>>().await
        });
        Ok(!found.await?.is_empty())
    }
}
