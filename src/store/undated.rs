//! Repairs records of the sweeper's queues whose `due` is missing or not a date: no query for due records returns them.

use mongodb::{
    bson::{Document, doc},
    options::Hint,
};
use time::OffsetDateTime;

use super::{Store, StoreError, datetime, driver_events::Operation, images::Undated};

/// BSON types other than `date`, as `$type` names them, without the deprecated `dbPointer`, `symbol` and `javascriptWithScope`.
/// MongoDB turns them into ranges of the index on `due`, so a query for them reads no record with a date.
const OTHER_TYPES: [&str; 17] = [
    "double",
    "string",
    "object",
    "array",
    "binData",
    "undefined",
    "objectId",
    "bool",
    "null",
    "regex",
    "javascript",
    "int",
    "timestamp",
    "long",
    "decimal",
    "minKey",
    "maxKey",
];

impl Store {
    /// Makes images and deleted accounts due at `now` whose `due` is missing or not a date. Returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn make_undated_due(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let is_undated = doc! { "due": { "$type": OTHER_TYPES.to_vec() } };
        let is_missing = doc! { "deletedAt": { "$exists": true }, "due": { "$exists": false } };
        let mut dated = self.set_due("images", is_undated.clone(), None, now).await?;
        dated += self.set_due("users", is_undated, None, now).await?;
        dated += self.set_due("users", is_missing, None, now).await?;
        for undated in Undated::ALL {
            // With the index's name as a hint, the database rejects the update if the index is missing, and does not read every
            // image.
            dated += self.set_due("images", undated.filter(), Some(undated.index()), now).await?;
        }
        Ok(dated)
    }

    /// Sets `due` of the records that match, through the named index if one is given. Returns their number.
    async fn set_due(
        &self,
        collection: &str,
        filter: Document,
        index: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let records = self.mongo.database().collection::<Document>(collection);
        let update = records.update_many(filter, doc! { "$set": { "due": datetime(now) } });
        let update = match index {
            Some(name) => update.hint(Hint::Name(name.to_owned())),
            None => update,
        };
        Ok(self.mongo.run(Operation::update(&records), async { update.await }).await?.modified_count)
    }
}
