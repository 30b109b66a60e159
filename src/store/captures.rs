//! Records the time taken, the camera and the location of images that became ready before confirm read these from files.
//!
//! A time taken moves the image in the gallery's order, and to another month of the timeline: one transaction changes the image
//! and the counts of the months. Steps of reservations are conditional on the `takenSort` that they have read, so a deletion or a
//! settlement at the same time is either before this change or repeated after it.

use std::sync::Arc;

use futures_util::FutureExt;
use mongodb::{
    ClientSession, Database,
    bson::{Document, doc},
};
use time::OffsetDateTime;

use super::{Store, StoreError, datetime, images, sort_time, users::timeline};
use crate::model::{Capture, Image, QuotaCounter, TimelineMonth, UserId};

/// The change of one image.
#[derive(Debug)]
struct CaptureUpdate {
    user: UserId,
    /// Filter for the image as it was read.
    filter: Document,
    /// Fields to set.
    set: Document,
    taken_sort: OffsetDateTime,
}

impl Store {
    /// Records the time taken, the camera and the location, or that the image's file has none of them. Returns `false` if the image
    /// was deleted or changed since it was read.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn record_capture(&self, image: &Image, capture: &Capture) -> Result<bool, StoreError> {
        let (filter, mut set) = (images::as_unread(image), images::capture_fields(capture));
        let Some(taken_at) = capture.taken_at else { return self.images.set_capture(filter, set).await };
        let taken_sort = taken_at.sort_time();
        set.insert("takenSort", datetime(taken_sort));
        let update = Arc::new(CaptureUpdate { user: image.user, filter, set, taken_sort });
        self.transact(update, |session, database, update| apply(session, database, update).boxed()).await
    }
}

/// Sets the image's fields, and moves its count to the month of the new time. Returns whether the image was as it was read.
async fn apply(session: &mut ClientSession, database: &Database, update: Arc<CaptureUpdate>) -> mongodb::error::Result<bool> {
    let (users, images) = (database.collection::<Document>("users"), database.collection::<Document>("images"));
    let CaptureUpdate { user, filter, set, taken_sort } = &*update;
    let find = images.find_one(filter.clone()).projection(doc! { "takenSort": 1, "reservation.place": 1 });
    let Some(image) = find.session(&mut *session).await? else { return Ok(false) };
    images.update_one(filter.clone(), doc! { "$set": set.clone() }).session(&mut *session).await?;
    let counter = image.get_document("reservation").map(|reservation| reservation.get_str("place").unwrap_or_default());
    if counter.is_ok_and(|counter| counter != QuotaCounter::Image.as_str()) {
        // The timeline does not count the image until the step that ends its reservation.
        return Ok(true);
    }
    let month = TimelineMonth::of(*taken_sort);
    // An image of an earlier version has no sort time, and the timeline does not count it yet.
    let month_before = image.get_datetime("takenSort").ok().and_then(|at| sort_time(*at)).map(TimelineMonth::of);
    if month_before == Some(month) {
        return Ok(true);
    }
    let removed = month_before.map(|before| doc! { "month": before.to_string(), "timeline": -1_i64 });
    let added = doc! { "month": month.to_string(), "timeline": 1_i64 };
    let changes: Vec<_> = removed.into_iter().chain([added]).collect();
    let set = doc! { "timeline": timeline::with_changes(doc! { "$literal": changes }) };
    users.update_one(doc! { "_id": user.to_string() }, vec![doc! { "$set": set }]).session(session).await?;
    Ok(true)
}
