//! Estimates of how many images of all users are in each state, and of their bytes, for metrics.
//!
//! Counting a state exactly scans one index entry per image, and every insertion would pay for an index. Instead the number of
//! documents, which the database maintains, is divided in the proportions of a random sample: the cost is the same at a
//! thousand images and at a billion.

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};

use super::Images;
use crate::{
    model::ImageState,
    store::{StoreError, driver_events::Operation},
};

/// Documents in the sample. MongoDB reads the whole collection if it has fewer than twenty times as many.
const SAMPLE_DOCUMENTS: u32 = 1000;

/// Estimated number and bytes of the images in one state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StateCount {
    /// Images.
    pub images: f64,
    /// Their share of the owners' quotas, in bytes.
    pub bytes: f64,
}

impl Images {
    /// Estimates each state in the order of [`ImageState::ALL`]: exact up to `SAMPLE_DOCUMENTS` documents, above that within two
    /// or three percent of all images.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_by_state(&self) -> Result<[(ImageState, StateCount); ImageState::ALL.len()], StoreError> {
        let images = self.collection.clone_with_type::<Document>();
        let total =
            self.mongo.read(Operation::count(&self.collection), || async { images.estimated_document_count().await }).await?
                as f64;
        // A damaged record counts as an image of no bytes: a single non-numeric value would make the whole `$add` fail.
        let numeric = |field: &str| doc! { "$cond": [{ "$isNumber": field }, field, 0_i64] };
        let declared = doc! { "$add": [numeric("$size"), numeric("$preview.size")] };
        let pending = doc! { "$eq": ["$state", ImageState::Pending.as_str()] };
        let reserved = doc! { "$cond": [{ "$isNumber": "$reserved" }, "$reserved", declared.clone()] };
        let bytes = doc! { "$cond": [pending, reserved, declared] };
        let sums = doc! { "_id": "$state", "images": { "$sum": 1_i64 }, "bytes": { "$sum": bytes } };
        let pipeline = [doc! { "$sample": { "size": i64::from(SAMPLE_DOCUMENTS) } }, doc! { "$group": sums }];
        let found: Vec<Document> = self
            .mongo
            .read(Operation::aggregate(&self.collection), || async {
                images.aggregate(pipeline.clone()).await?.try_collect().await
            })
            .await?;
        let sampled: f64 = found.iter().map(|state| number(state, "images")).sum();
        let scale = if sampled > 0.0 { total.max(sampled) / sampled } else { 0.0 };
        Ok(ImageState::ALL.map(|state| {
            let found = found.iter().find(|found| found.get_str("_id").is_ok_and(|name| name == state.as_str()));
            let scaled = |field| found.map_or(0.0, |found| number(found, field) * scale);
            (state, StateCount { images: scaled("images"), bytes: scaled("bytes") })
        }))
    }
}

/// Returns a number of any width; the server chooses one for a sum.
fn number(document: &Document, field: &str) -> f64 {
    match document.get(field) {
        Some(Bson::Int32(n)) => f64::from(*n),
        Some(Bson::Int64(n)) => *n as f64,
        Some(Bson::Double(n)) => *n,
        _ => 0.0,
    }
}
