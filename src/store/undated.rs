//! Records of the sweeper's queues whose `due` is not a date: no query for what is due by now returns them.

use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Store, StoreError, datetime};

/// Every BSON type but `date`, as `$type` names them. MongoDB turns them into ranges of the index on `due`: the look reads none
/// of the records with a date.
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
    /// Makes images and deleted accounts due at `now` whose `due` is not a date, and deleted accounts that have none. Returns
    /// their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn date_undated(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let is_undated = doc! { "due": { "$type": OTHER_TYPES.to_vec() } };
        let is_missing = doc! { "deletedAt": { "$exists": true }, "due": { "$exists": false } };
        let mut dated = 0;
        for (collection, filter) in [("images", &is_undated), ("users", &is_undated), ("users", &is_missing)] {
            let records = self.mongo.database().collection::<Document>(collection);
            let update = doc! { "$set": { "due": datetime(now) } };
            dated += self.mongo.run(async { records.update_many(filter.clone(), update).await }).await?.modified_count;
        }
        Ok(dated)
    }
}
