//! The workers' queue, and the results of workers. The field `rendering` is a request for an image's pictures: `since`, the time at
//! which it was made; `due`, the time at which a worker attempts it next (both are removed when it ends); `attempts`, the number of
//! attempts that began; `written`, if objects may exist at the keys of the pictures; `failure`, the reason why there are no
//! pictures. The field `pictures` has the sizes of the pictures that were made.
//!
//! `rendering.due` orders the workers' queue ([`ImageQueue::Workers`]); raising it to the end of the lease claims an image.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, RawDocument, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;

use super::{
    Images,
    elements::{Elements, Value},
    inventory::not_purged,
    owned,
    queue::{ClaimOutcome, ImageQueue, Lease, QueuedImage},
};
use crate::{
    model::{ContentType, Dimensions, Image, ImageState, Rendering, RenderingFailure, ThumbHash},
    store::{StoreError, datetime, driver_events::Operation, entries, instant, whole_number},
};

/// Maximum number of pictures of an image.
const MAX_PICTURES: usize = 2;

/// Images without pictures among the records that were read.
#[derive(Debug)]
pub struct UnrenderedPage {
    /// The images.
    pub images: Vec<QueuedImage>,
    /// The id of the last record; `None` if there are no records after it.
    pub last: Option<String>,
}

/// Pictures that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePictures {
    /// Their sizes, the smaller one first.
    pub sizes: Vec<Dimensions>,
    /// The placeholder, for an image that has none.
    pub thumb_hash: ThumbHash,
}

/// Returns the expression of `rendering` that asks for pictures now.
pub(super) fn requested() -> Document {
    doc! { "since": "$$NOW", "due": "$$NOW" }
}

/// Reads the fields of an image's rendering. If they are damaged, assumes objects at the keys of the pictures, so that these are
/// removed with the image.
pub(super) fn read(rendering: Option<&Bson>, pictures: Option<&Bson>) -> Option<Rendering> {
    if rendering.is_none() && pictures.is_none() {
        return None;
    }
    let Some(Bson::Document(rendering)) = rendering else { return Some(Rendering { is_written: true, ..Rendering::default() }) };
    let attempts = whole_number(rendering, "attempts").unwrap_or(0);
    let made = doc! { "pictures": pictures.cloned().unwrap_or(Bson::Null) };
    let dimensions = |picture: &Document| {
        let side = |name| whole_number(picture, name).and_then(|side| u32::try_from(side).ok());
        Some(Dimensions { width: side("width")?, height: side("height")? })
    };
    Some(Rendering {
        is_written: rendering.contains_key("written"),
        attempts: u32::try_from(attempts).unwrap_or(0),
        failure: rendering.get_str("failure").ok().and_then(RenderingFailure::parse),
        pictures: entries(&made, "pictures").map_while(dimensions).take(MAX_PICTURES).collect(),
    })
}

/// Reads the sizes of the pictures of a gallery's row, up to a damaged one.
pub(super) fn raw_pictures(pictures: &RawDocument) -> [Option<Dimensions>; MAX_PICTURES] {
    let mut sizes = Elements::of(pictures.as_bytes()).map_while(|picture| match picture?.1 {
        Value::Document(picture) => raw_size(picture),
        _ => None,
    });
    [sizes.next(), sizes.next()]
}

/// Reads the size of a picture; `None` if it is damaged.
fn raw_size(picture: &RawDocument) -> Option<Dimensions> {
    let side = |name| match picture.get(name).ok().flatten()?.into() {
        Value::Integer(n) => u32::try_from(n).ok(),
        _ => None,
    };
    Some(Dimensions { width: side("width")?, height: side("height")? })
}

impl Images {
    /// Claims an image whose pictures are due, and counts the attempt. The lease begins now by the database's clock, or at `now` if
    /// that is later. If the worker dies, the image is due again after the lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_rendering(
        &self,
        queued: &QueuedImage,
        now: OffsetDateTime,
        lease: Duration,
    ) -> Result<ClaimOutcome, StoreError> {
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let attempts = doc! { "$cond": [{ "$isNumber": "$rendering.attempts" }, "$rendering.attempts", 0_i64] };
        let set = doc! {
            "rendering.due": { "$add": [{ "$max": ["$$NOW", datetime(now)] }, lease_ms] },
            "rendering.attempts": { "$add": [attempts, 1_i64] },
        };
        // Replaces a damaged rendering by one that assumes objects at the keys of the pictures.
        let is_document = doc! { "$eq": [{ "$type": "$rendering" }, "object"] };
        let readable = doc! { "rendering": { "$cond": [is_document, "$rendering", { "written": true }] } };
        let records = self.collection.clone_with_type::<Document>();
        let claim = async {
            let update = records.find_one_and_update(queued.filter(), vec![doc! { "$set": readable }, doc! { "$set": set }]);
            update.return_document(ReturnDocument::After).await
        };
        let Some(record) = self.mongo.run(Operation::find_and_modify(&self.collection), claim).await? else {
            return Ok(ClaimOutcome::Lost);
        };
        let corrupt = || StoreError::Corrupt { collection: "images", id: queued.id(), field: "rendering.due" };
        let due = record.get_document("rendering").and_then(|rendering| rendering.get_datetime("due"));
        let ends = due.map(|due| instant(*due)).map_err(|_| corrupt())?;
        let lease = Lease { now: ends - lease, ends };
        Ok(match super::read(record) {
            Ok(image) => ClaimOutcome::Image(Box::new(image), lease),
            Err(error) => ClaimOutcome::Unreadable(error, lease),
        })
    }

    /// Records that objects may exist at the keys of the pictures, and that they may be written until the end of the lease, before
    /// any is written: the image's deletion then removes them, also those that arrive after it. Returns `false` if the image was
    /// deleted or replaced, or is no longer claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_pictures(&self, image: &Image, lease: Lease) -> Result<bool, StoreError> {
        let update = doc! { "$set": { "rendering.written": true }, "$max": { "urlsDieAt": datetime(lease.ends) } };
        self.update_one(claimed(image, lease), update).await
    }

    /// Records the pictures, which ends the rendering. Returns `false` if the image was deleted or replaced, or is no longer
    /// claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_pictures(&self, image: &Image, lease: Lease, made: &MadePictures) -> Result<bool, StoreError> {
        let size = |size: &Dimensions| doc! { "width": i64::from(size.width), "height": i64::from(size.height) };
        let sizes: Vec<_> = made.sizes.iter().map(size).collect();
        let set = doc! {
            "pictures": { "$literal": sizes },
            "thumbHash": { "$ifNull": ["$thumbHash", { "$literal": made.thumb_hash.to_string() }] },
        };
        let update = vec![doc! { "$set": set }, doc! { "$unset": work_fields() }, doc! { "$unset": ["rendering.attempts"] }];
        self.mongo.update_one(&self.collection, claimed(image, lease), update).await
    }

    /// Records the reason why there are no pictures, which ends the rendering of a claimed image. Returns `false` if the image is
    /// no longer claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fail_rendering(&self, claimed: &QueuedImage, failure: RenderingFailure) -> Result<bool, StoreError> {
        let update = vec![doc! { "$set": { "rendering.failure": failure.as_str() } }, doc! { "$unset": work_fields() }];
        self.mongo.update_one(&self.collection, claimed.filter(), update).await
    }

    /// Ends the rendering of a claimed image that is not ready any more. Returns `false` if the image is no longer claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn drop_rendering(&self, claimed: &QueuedImage) -> Result<bool, StoreError> {
        self.mongo.update_one(&self.collection, claimed.filter(), vec![doc! { "$unset": work_fields() }]).await
    }

    /// Makes a claimed image due again at `due`. Returns `false` if the image is no longer claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry_rendering(&self, claimed: &QueuedImage, due: OffsetDateTime) -> Result<bool, StoreError> {
        self.update_one(claimed.filter(), doc! { "$set": { "rendering.due": datetime(due) } }).await
    }

    /// Makes a claimed image due again at `due`, without counting the attempt: an outage or a stop has ended it. Returns `false` if
    /// the image is no longer claimed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_rendering(&self, claimed: &QueuedImage, due: OffsetDateTime) -> Result<bool, StoreError> {
        let update = doc! { "$set": { "rendering.due": datetime(due) }, "$inc": { "rendering.attempts": -1_i64 } };
        self.update_one(claimed.filter(), update).await
    }

    /// Returns the ready images among the `limit` records after this id whose pictures were never requested.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_unrendered(&self, after: Option<&str>, limit: u32) -> Result<UnrenderedPage, StoreError> {
        let mut filter = not_purged();
        filter.insert("_id", doc! { "$gt": after.unwrap_or_default() });
        let records = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(filter.clone()).projection(doc! { "user": 1, "state": 1, "rendering": 1, "pictures": 1 });
            find.sort(doc! { "_id": 1 }).limit(limit.into()).await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        let is_ready = |record: &&Document| record.get_str("state").is_ok_and(|state| state == ImageState::Ready.as_str());
        let is_new = |record: &&Document| read(record.get("rendering"), record.get("pictures")).is_none();
        // These images are in no queue: nothing reads the time at which they are due.
        let epoch = OffsetDateTime::UNIX_EPOCH;
        let images =
            found.iter().filter(is_ready).filter(is_new).map(|record| QueuedImage::read(ImageQueue::Workers, record, epoch));
        let is_full = found.len() >= limit as usize;
        let last = found.last().filter(|_| is_full).and_then(|last| last.get_str("_id").ok());
        Ok(UnrenderedPage { images: images.collect(), last: last.map(str::to_owned) })
    }

    /// Returns the images after this id, `limit` at most, that no worker could decode.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_unsupported(&self, after: Option<&str>, limit: u32) -> Result<Vec<QueuedImage>, StoreError> {
        let filter = doc! { "rendering.failure": unsupported(), "_id": { "$gt": after.unwrap_or_default() } };
        let records = self.collection.clone_with_type::<Document>();
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(filter.clone()).projection(doc! { "user": 1 });
            find.sort(doc! { "_id": 1 }).limit(limit.into()).await?.try_collect::<Vec<_>>().await
        });
        // These images are in no queue: nothing reads the time at which they are due.
        let epoch = OffsetDateTime::UNIX_EPOCH;
        Ok(found.await?.iter().map(|record| QueuedImage::read(ImageQueue::Workers, record, epoch)).collect())
    }

    /// Asks workers again for the pictures of those of these images that a command can convert (HEIC, HEIF and AVIF), and returns
    /// the number of new requests.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn request_conversions(&self, images: &[QueuedImage]) -> Result<u64, StoreError> {
        let types = [ContentType::Heic, ContentType::Heif, ContentType::Avif].map(ContentType::as_str).to_vec();
        let requests = images.iter().map(|image| {
            let filter = doc! {
                "_id": image.id.clone(),
                "user": image.user.clone(),
                "state": ImageState::Ready.as_str(),
                "contentType": { "$in": &types },
                "rendering.failure": unsupported(),
            };
            let set = doc! { "rendering.since": "$$NOW", "rendering.due": "$$NOW" };
            let earlier_result = vec!["rendering.failure", "rendering.attempts"];
            (filter, Bson::from(vec![doc! { "$set": set }, doc! { "$unset": earlier_result }]))
        });
        self.mongo.update_each(&self.collection, requests).await
    }

    /// Asks workers for the pictures of those of these images that are still ready and have no request, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn request_renderings(&self, images: &[QueuedImage]) -> Result<u64, StoreError> {
        let requests = images.iter().map(|image| {
            let filter = doc! {
                "_id": image.id.clone(),
                "user": image.user.clone(),
                "state": ImageState::Ready.as_str(),
                "rendering": { "$exists": false },
            };
            (filter, Bson::from(vec![doc! { "$set": { "rendering": requested() } }]))
        });
        self.mongo.update_each(&self.collection, requests).await
    }
}

/// Returns the fields that an image has only while it waits for a worker.
fn work_fields() -> Vec<&'static str> {
    vec!["rendering.due", "rendering.since"]
}

/// Returns the failure of images that no worker could decode.
pub(super) fn unsupported() -> &'static str {
    RenderingFailure::Unsupported.as_str()
}

/// Returns a filter for a claimed image that is ready and has the same bytes.
fn claimed(image: &Image, lease: Lease) -> Document {
    let mut filter = owned(image.user, image.id, ImageState::Ready);
    filter.insert("key", image.key.as_str());
    filter.insert("etag", image.ready().map(|ready| ready.etag.clone()));
    filter.insert("rendering.due", datetime(lease.ends));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_rendering_may_have_objects_and_has_no_pictures() {
        assert_eq!(read(None, None), None);
        let pending = Bson::from(doc! { "since": "damaged", "attempts": "x", "failure": 7 });
        assert_eq!(read(Some(&pending), None), Some(Rendering::default()));
        let damaged = Rendering { is_written: true, ..Rendering::default() };
        for rendering in [Some(&Bson::Null), Some(&Bson::Int32(7)), None] {
            assert_eq!(read(rendering, Some(&Bson::Null)), Some(damaged.clone()));
        }
        let written = Bson::from(doc! { "written": Bson::Null });
        for pictures in [Bson::Int32(1), Bson::Array(vec![Bson::Null]), doc! { "width": 1 }.into()] {
            assert_eq!(read(Some(&written), Some(&pictures)), Some(damaged.clone()));
        }
        let sizes = Bson::Array(vec![doc! { "width": 640_i64, "height": 480_i32 }.into(), doc! { "width": -1 }.into()]);
        let found = read(Some(&written), Some(&sizes)).map(|rendering| rendering.pictures);
        assert_eq!(found, Some(vec![Dimensions { width: 640, height: 480 }]));
    }
}
