//! The deployment's record in the database, `meta {_id: "deployment", id, stamp, formerStamp}`; and the queries that show whether
//! the database is complete, and whether it belongs to a bucket.
//!
//! `id` is written once. `stamp` is the time of the latest stamp and `formerStamp` that of the one before: the bucket's marker has
//! one of the two, unless the database or the bucket was restored from a backup.

use std::{fmt, time::Duration};

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Document, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;

use super::{
    Store, StoreError, database_probe::DatabaseProbe, datetime, driver_events::Operation, images::not_purged, instant,
    is_duplicate,
};
use crate::model::{DeploymentId, ImageId, ImageState};

/// Collection of the record.
const COLLECTION: &str = "meta";
/// `_id` of the record.
const NAME: &str = "deployment";

/// The deployment that a database belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeploymentRecord {
    /// Id of the deployment.
    pub id: DeploymentId,
    /// Time of the latest stamp; `None` before the first.
    pub stamp: Option<OffsetDateTime>,
    /// Time of the stamp before the latest.
    pub earlier_stamp: Option<OffsetDateTime>,
}

impl DeploymentRecord {
    /// Reads the record of the deployment.
    fn read(found: &Document) -> Result<Self, StoreError> {
        let id = found.get_str("id").ok().and_then(DeploymentId::parse).ok_or(StoreError::Corrupt {
            collection: COLLECTION,
            id: NAME.to_owned(),
            field: "id",
        })?;
        let stamp = |field| found.get_datetime(field).ok().map(|at| instant(*at));
        Ok(Self { id, stamp: stamp("stamp"), earlier_stamp: stamp("formerStamp") })
    }
}

/// Returns the expression of the next stamp: later than the latest one, even if a new primary's clock is behind.
fn next_stamp() -> Document {
    // The sum is null where there is no stamp yet, and null is less than any date.
    doc! { "$max": ["$$NOW", { "$add": ["$stamp", 1_i64] }] }
}

impl Store {
    /// Returns the probe of this database.
    #[must_use]
    pub fn probe(&self) -> DatabaseProbe {
        DatabaseProbe::with_client(&self.mongo)
    }

    /// Writes `id` unless the record has an id. Returns the record: several servers at their first start all get the same.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_deployment_id(&self, id: DeploymentId) -> Result<DeploymentRecord, StoreError> {
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let update = doc! { "$setOnInsert": { "id": id.to_string() } };
        let write = meta.update_one(doc! { "_id": NAME }, update).upsert(true);
        match self.mongo.run(Operation::update(&meta), async { write.await }).await {
            Ok(_) => {}
            // Of two upserts at once, one may fail because the other has inserted the document.
            Err(StoreError::Database(error)) if is_duplicate(&error) => {}
            Err(error) => return Err(error),
        }
        self.probe().read_deployment().await?.ok_or(StoreError::Contention { subject: "the deployment's id" })
    }

    /// Replaces the record, readable or not, by one with `id`, a new stamp and no stamp before it.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn replace_deployment(&self, id: DeploymentId) -> Result<DeploymentRecord, StoreError> {
        let is_readable = doc! { "$eq": [{ "$type": "$stamp" }, "date"] };
        let stamp = doc! { "$cond": [is_readable, next_stamp(), "$$NOW"] };
        let set = doc! { "$set": { "id": id.to_string(), "stamp": stamp } };
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let update = meta.find_one_and_update(doc! { "_id": NAME }, vec![set, doc! { "$unset": "formerStamp" }]);
        let update = update.upsert(true).return_document(ReturnDocument::After);
        let replaced = self.mongo.run(Operation::find_and_modify(&meta), async { update.await }).await?;
        DeploymentRecord::read(&replaced.ok_or(StoreError::Contention { subject: "the deployment's id" })?)
    }

    /// Stamps the record if it is still `record` and its stamp at least `age` old, by the database's clock. Returns `None` if
    /// another server stamped it, or if its stamp is younger.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stamp_deployment(
        &self,
        record: &DeploymentRecord,
        age: Duration,
    ) -> Result<Option<DeploymentRecord>, StoreError> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let filter = doc! {
            "_id": NAME,
            "id": record.id.to_string(),
            // Null also matches the absent field.
            "stamp": record.stamp.map(datetime),
            // An absent field is less than any date.
            "$expr": { "$lte": ["$stamp", { "$subtract": ["$$NOW", age] }] },
        };
        let set = doc! { "$set": { "formerStamp": "$stamp", "stamp": next_stamp() } };
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let update = meta.find_one_and_update(filter, vec![set]).return_document(ReturnDocument::After);
        self.mongo
            .run(Operation::find_and_modify(&meta), async { update.await })
            .await?
            .map(|stamped| DeploymentRecord::read(&stamped))
            .transpose()
    }
}

/// A collection that is empty in a restored database, though others refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingCollection {
    /// Accounts count images, and there is no record of an image.
    Images,
    /// There are ready images, and no account.
    Users,
}

impl fmt::Display for MissingCollection {
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
    pub async fn missing_collection(&self) -> Result<Option<MissingCollection>, StoreError> {
        if !self.has_any("images", doc! {}).await? {
            // The record of a deleted account may outlive those of its images.
            let counts_images = doc! { "images": { "$gt": 0 }, "deletedAt": { "$exists": false } };
            return Ok(self.has_any("users", counts_images).await?.then_some(MissingCollection::Images));
        }
        let is_abandoned = !self.has_any("users", doc! {}).await? && self.has_ready_image().await?;
        Ok(is_abandoned.then_some(MissingCollection::Users))
    }

    /// Returns the deployment that this database belongs to; `None` before the first start.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_deployment(&self) -> Result<Option<DeploymentRecord>, StoreError> {
        let meta = self.mongo.database().collection::<Document>(COLLECTION);
        let found = self.mongo.read(Operation::find(&meta), || async { meta.find_one(doc! { "_id": NAME }).await }).await?;
        found.map(|found| DeploymentRecord::read(&found)).transpose()
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
    pub async fn has_any_image(&self, images: &[ImageId]) -> Result<bool, StoreError> {
        let mut filter = not_purged();
        filter.insert("_id", doc! { "$in": images.iter().map(ToString::to_string).collect::<Vec<_>>() });
        self.has_image(filter).await
    }

    /// Returns whether an image matches.
    async fn has_image(&self, filter: Document) -> Result<bool, StoreError> {
        self.has_any("images", filter).await
    }

    /// Returns whether a document of the collection matches.
    async fn has_any(&self, collection: &str, filter: Document) -> Result<bool, StoreError> {
        let records = self.mongo.database().collection::<Document>(collection);
        let found = self.mongo.read(Operation::find(&records), || async {
            records.find(filter.clone()).projection(doc! { "_id": 1 }).limit(1).await?.try_collect::<Vec<_>>().await
        });
        Ok(!found.await?.is_empty())
    }
}
