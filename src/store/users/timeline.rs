//! The timeline: `timeline: {"2024-12": 3, …}` in a user's document, the number of ready images by month of their `takenSort`.
//! The steps of reservations change it in the same update as the counters of the quota, so that it costs no query over the
//! images.

use mongodb::bson::{Document, doc};

use super::{Counted, Users, deletion::not_deleted};
use crate::{
    model::{TimelineMonth, UserId},
    store::{StoreError, driver_events::Operation, whole_number},
};

impl Users {
    /// Returns the months in the user's record, the latest first, with the number of images. `None` if the user does not exist.
    pub(in crate::store) async fn timeline(
        &self,
        user: UserId,
    ) -> Result<Option<Counted<Vec<(TimelineMonth, u64)>>>, StoreError> {
        let users = self.collection.clone_with_type::<Document>();
        let filter = not_deleted(doc! { "_id": user.to_string() });
        let find = || async { users.find_one(filter.clone()).projection(doc! { "timeline": 1, "settling": 1 }).await };
        let found = self.mongo.read(Operation::find(&self.collection), find).await?;
        Ok(found.map(|found| {
            let counts = found.get_document("timeline").ok();
            let count = |counts: &Document, name: &str| {
                let count = u64::try_from(whole_number(counts, name)?).ok().filter(|count| *count > 0)?;
                Some((TimelineMonth::parse(name)?, count))
            };
            let mut months: Vec<_> =
                counts.into_iter().flat_map(|counts| counts.keys().filter_map(|name| count(counts, name))).collect();
            months.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
            Counted::new(months, &found)
        }))
    }
}

/// Returns an expression of the timeline after these entries of `settling`. Its cost is the number of stored months
/// times the number of months that the entries name. A timeline that is damaged does not make the step fail.
pub(in crate::store) fn with_changes(entries: Document) -> Document {
    let with_month =
        doc! { "$filter": { "input": entries, "as": "entry", "cond": { "$eq": [{ "$type": "$$entry.month" }, "string"] } } };
    let sum_of = |input: &str, month_of_one: Document, value: &str| {
        let matching = doc! { "$filter": { "input": input, "as": "one", "cond": { "$eq": [month_of_one, "$$month"] } } };
        doc! { "$sum": { "$map": { "input": matching, "as": "one", "in": value } } }
    };
    let before = sum_of("$$before", doc! { "$ifNull": ["$$one.k", null] }, "$$one.v");
    let added = sum_of("$$changes", doc! { "$ifNull": ["$$one.month", null] }, "$$one.timeline");
    // The union with an empty set leaves each month once.
    let changed = doc! { "$map": {
        "input": { "$setUnion": [{ "$map": { "input": "$$changes", "as": "one", "in": "$$one.month" } }, []] },
        "as": "month",
        "in": { "k": "$$month", "v": { "$add": [before, added] } },
    } };
    let stored = doc! { "$cond": [{ "$eq": [{ "$type": "$timeline" }, "object"] }, "$timeline", {}] };
    doc! { "$let": {
        "vars": { "changes": with_month, "before": { "$objectToArray": stored.clone() } },
        "in": { "$mergeObjects": [stored, { "$arrayToObject": changed }] },
    } }
}
