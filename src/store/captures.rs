//! Records how an image was taken that became ready before its file was read for that.
//!
//! A time moves the image in the order of the time taken, and to another month of the timeline: one transaction changes the image
//! and the count, so that neither is without the other. Steps of reservations name the `takenSort` that they have read, so a
//! deletion or a settlement at the same time is either before this change or repeated after it.

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
    /// The image as it was read.
    filter: Document,
    set: Document,
    taken_sort: OffsetDateTime,
}

impl Store {
    /// Records how an image was taken, or that its file does not say it. Returns `false` if the image was deleted or changed since it
    /// was read.
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

async fn apply(session: &mut ClientSession, database: &Database, update: Arc<CaptureUpdate>) -> mongodb::error::Result<bool> {
    let (users, images) = (database.collection::<Document>("users"), database.collection::<Document>("images"));
    let CaptureUpdate { user, filter, set, taken_sort } = &*update;
    let find = images.find_one(filter.clone()).projection(doc! { "takenSort": 1, "reservation.place": 1 });
    let Some(image) = find.session(&mut *session).await? else { return Ok(false) };
    images.update_one(filter.clone(), doc! { "$set": set.clone() }).session(&mut *session).await?;
    let place = image.get_document("reservation").map(|reservation| reservation.get_str("place").unwrap_or_default());
    if place.is_ok_and(|place| place != QuotaCounter::Image.as_str()) {
        // Counted by the step that ends its reservation.
        return Ok(true);
    }
    let is = TimelineMonth::of(*taken_sort);
    // An image of the former version has no sort time, and is not counted yet.
    let was = image.get_datetime("takenSort").ok().and_then(|at| sort_time(*at)).map(TimelineMonth::of);
    if was == Some(is) {
        return Ok(true);
    }
    let removed = was.map(|was| doc! { "month": was.to_string(), "timeline": -1_i64 });
    let changes: Vec<_> = removed.into_iter().chain([doc! { "month": is.to_string(), "timeline": 1_i64 }]).collect();
    let set = doc! { "timeline": timeline::with_changes(doc! { "$literal": changes }) };
    users.update_one(doc! { "_id": user.to_string() }, vec![doc! { "$set": set }]).session(session).await?;
    Ok(true)
}
