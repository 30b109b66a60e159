//! Pages of a user's images.

use super::{
    Images,
    document::readable,
    elements::{Elements, Value},
    gallery_row::GalleryRecord,
    positions::{FIRST_ID, position_of_id, taken_position},
};
use crate::{
    model::{GalleryOrder, Image, ImageId, ImageState, Position, UserId},
    store::{FIRST_SORT_TIME, StoreError, datetime, driver_events::Operation, instant, is_sort_time},
};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::{
    bson::{Bson, Document, RawDocumentBuf, doc},
    raw_batch_cursor::RawBatch,
};

/// A page of ready images, in the gallery's order.
#[derive(Debug)]
pub struct RawGalleryPage {
    user: UserId,
    order: GalleryOrder,
    answer: Option<RawBatch>,
    /// Number of records.
    length: usize,
}

impl RawGalleryPage {
    /// Wraps the database's response.
    ///
    /// # Errors
    /// [`StoreError`] when it is malformed.
    fn new(user: UserId, order: GalleryOrder, answer: Option<RawBatch>) -> Result<Self, StoreError> {
        let documents = answer.as_ref().map(RawBatch::doc_slices).transpose().map_err(StoreError::Database)?;
        let elements = documents.into_iter().flat_map(|documents| Elements::of(documents.as_bytes()));
        let is_record = |element| matches!(element, Some((_, Value::Document(_))));
        let records: Option<Vec<()>> = elements.map(|element| is_record(element).then_some(())).collect();
        let malformed = || StoreError::Corrupt { collection: "images", id: String::new(), field: "a page" };
        let length = records.ok_or_else(malformed)?.len();
        Ok(Self { user, order, answer, length })
    }

    /// Returns the records, readable or not.
    pub fn records(&self) -> impl Iterator<Item = GalleryRecord<'_>> {
        let documents = self.answer.as_ref().and_then(|answer| answer.doc_slices().ok());
        let elements = documents.into_iter().flat_map(|documents| Elements::of(documents.as_bytes()));
        elements.map_while(|element| match element {
            Some((_, Value::Document(document))) => Some(GalleryRecord { user: self.user, document }),
            _ => None,
        })
    }

    /// Returns whether any record is readable. If none is, each is logged.
    #[must_use]
    pub fn has_readable(&self) -> bool {
        let is_readable = self.records().any(GalleryRecord::is_readable);
        // `row()` logs each record that it cannot read.
        is_readable || self.records().filter_map(GalleryRecord::row).count() > 0
    }

    /// Returns the number of records, readable or not.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the position of the last record that has one, readable or not.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        let position = |GalleryRecord { document, .. }: GalleryRecord<'_>| {
            let id = document.get("_id").ok().flatten().map_or(FIRST_ID, position_of_id);
            match self.order {
                GalleryOrder::Uploaded => Some(Position { at: Some(instant(document.get_datetime("uploadedAt").ok()?)), id }),
                GalleryOrder::Taken => Some(taken_position(document.get("takenSort").ok().flatten(), id)),
            }
        };
        self.records().collect::<Vec<_>>().into_iter().rev().find_map(position)
    }
}

/// Minimum number of pending records that are read at once, so that a user's unreadable records take few queries.
const MIN_BATCH: usize = 100;
/// A text after all image ids, which are hexadecimal.
const AFTER_ALL_IDS: &str = "g";

impl Images {
    /// Returns ready images in this order, newest first, after `after`: one index scan that examines exactly the returned records,
    /// in one response.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page_owned_ready(
        &self,
        user: UserId,
        order: GalleryOrder,
        after: Option<Position>,
        limit: u32,
    ) -> Result<RawGalleryPage, StoreError> {
        let answer = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                let find = self.collection.find(ready_after(user, order, after)).sort(newest_first(order));
                // A negative limit has the database answer in one batch and close the cursor.
                let find = find.limit(-i64::from(limit)).batch_size(limit);
                find.batch().await?.next().await.transpose()
            })
            .await?;
        RawGalleryPage::new(user, order, answer)
    }

    /// Returns pending images, newest first. An unreadable record is logged and left out; the next record takes its position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_owned_pending(&self, user: UserId, after: Option<Position>, limit: u32) -> Result<Vec<Image>, StoreError> {
        let records = self.collection.clone_with_type::<RawDocumentBuf>();
        let (limit, mut page) = (limit as usize, Vec::new());
        let mut after = after.map_or_else(|| AFTER_ALL_IDS.to_owned(), |after| after.id.to_string());
        loop {
            let wanted = limit.saturating_sub(page.len()).max(MIN_BATCH);
            let find = || {
                let find = records.find(pending_after(user, &after)).sort(newest_first(GalleryOrder::Uploaded));
                find.limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            };
            let found = self
                .mongo
                .read(Operation::find(&self.collection), || async { find().await?.try_collect::<Vec<_>>().await })
                .await?;
            page.extend(found.iter().filter_map(|record| readable(record)));
            let last = found.last().filter(|_| found.len() == wanted && page.len() < limit);
            let Some(last) = last.and_then(|last| last.get_str("_id").ok()) else { break };
            after = last.to_owned();
        }
        page.truncate(limit);
        Ok(page)
    }
}

/// Returns the field that orders a gallery's images.
fn sort_field(order: GalleryOrder) -> &'static str {
    match order {
        GalleryOrder::Uploaded => "uploadedAt",
        GalleryOrder::Taken => "takenSort",
    }
}

/// Returns the sort of a page.
pub(super) fn newest_first(order: GalleryOrder) -> Document {
    doc! { sort_field(order): -1, "_id": -1 }
}

/// Returns a filter for ready images after a position. Comparisons match only values of the same type: an image without a
/// readable `uploadedAt`, such as one outside of the years that a position can have, has no position in the order of uploads. In
/// the order of the time taken, images of an earlier version, which have no `takenSort`, come last.
pub(super) fn ready_after(user: UserId, order: GalleryOrder, after: Option<Position>) -> Document {
    let mut filter = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str() };
    let (field, id_before) = (sort_field(order), |id: ImageId| doc! { "$lt": id.to_string() });
    match (after, order) {
        (Some(Position { at: Some(at), id }), _) => {
            let at = Bson::DateTime(datetime(at));
            let mut earlier = doc! { "$lt": at.clone() };
            if order == GalleryOrder::Uploaded {
                earlier.insert("$gte", FIRST_SORT_TIME);
            }
            let same_time_filter = doc! { field: not_a_list(doc! { "$eq": at }), "_id": id_before(id) };
            let mut following = vec![same_time_filter, doc! { field: not_a_list(earlier) }];
            if order == GalleryOrder::Taken {
                following.push(doc! { field: not_a_list(doc! { "$eq": null }) });
            }
            filter.insert("$or", following);
        }
        (Some(Position { at: None, id }), GalleryOrder::Taken) => {
            filter.extend(doc! { field: not_a_list(doc! { "$eq": null }), "_id": id_before(id) });
        }
        (_, GalleryOrder::Uploaded) => drop(filter.insert(field, not_a_list(is_sort_time()))),
        (None, GalleryOrder::Taken) => drop(filter.insert(field, not_a_list(Document::new()))),
    }
    filter
}

/// Returns the condition for single values alone. A comparison matches a list if one value in it matches, and a list is sorted by
/// its greatest value: it would be found at the front of every page.
fn not_a_list(mut condition: Document) -> Document {
    condition.insert("$not", doc! { "$type": "array" });
    condition
}

/// Returns a filter for pending images after the `_id` of a record, in the same index: all lack `uploadedAt`, so their ids order
/// them.
fn pending_after(user: UserId, id: &str) -> Document {
    doc! { "user": user.to_string(), "state": ImageState::Pending.as_str(), "uploadedAt": null, "_id": { "$lt": id } }
}
