//! What the sweeper asks and writes. `due` is when it looks next, and the lease of the sweeper that looks: raising it is
//! the claim.

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Images, document::ImageDoc, owned};
use crate::{
    model::{Image, ImageState},
    store::{StoreError, datetime, instant},
};

impl Images {
    /// Images that are due at `now`, the longest due first, and until when each is claimed or was to be looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self, now: OffsetDateTime, limit: u32) -> Result<Vec<(Image, OffsetDateTime)>, StoreError> {
        let filter = doc! { "due": { "$lte": datetime(now) } };
        let found: Vec<ImageDoc> = self
            .calls
            .read(|| async {
                self.collection.find(filter.clone()).sort(doc! { "due": 1 }).limit(i64::from(limit)).await?.try_collect().await
            })
            .await?;
        // A document that cannot be read must not keep the others from being swept.
        let with_due = |doc: ImageDoc| {
            let due = doc.due.map_or(now, instant);
            let read = doc.into_image().inspect_err(|error| tracing::error!(%error, "an image that is due cannot be read"));
            Some((read.ok()?, due))
        };
        Ok(found.into_iter().filter_map(with_due).collect())
    }

    /// Claims an image that is due, by raising `due` to the end of the lease. Of any number of sweepers one succeeds;
    /// when it dies, the image is due again after the lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, image: &Image, due: OffsetDateTime, lease_ends: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, image.state);
        filter.insert("due", datetime(due));
        self.moved(filter, doc! { "$set": { "due": datetime(lease_ends) } }).await
    }

    /// Looks again at `due`, unless the image moved on or `due` was raised past the lease meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone(&self, image: &Image, lease_ends: OffsetDateTime, due: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, image.state);
        filter.insert("due", datetime(lease_ends));
        self.moved(filter, doc! { "$set": { "due": datetime(due) } }).await
    }

    /// Looks at a pending image at `due` at the latest.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn look_soon(&self, image: &Image, due: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = owned(image.user, image.id, ImageState::Pending);
        self.moved(filter, doc! { "$min": { "due": datetime(due) } }).await
    }

    /// [`Images::postpone`] for many, each to its own time, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_all(&self, images: &[(&Image, OffsetDateTime)], lease_ends: OffsetDateTime) -> Result<(), StoreError> {
        let postponed = images.iter().map(|(image, due)| {
            let mut filter = owned(image.user, image.id, image.state);
            filter.insert("due", datetime(lease_ends));
            (filter, doc! { "$set": { "due": datetime(*due) } }.into())
        });
        self.calls.update_each(&self.collection, postponed).await.map(drop)
    }

    /// A tombstone's end: its object is deleted and no URL lives that could bring it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_gone(&self, image: &Image) -> Result<bool, StoreError> {
        let update = doc! {
            "$set": { "state": ImageState::Gone.as_str(), "goneFrom": image.state.as_str() },
            "$currentDate": { "goneAt": true },
            "$unset": { "due": "" },
        };
        self.counted(ImageState::Gone, owned(image.user, image.id, image.state), update).await
    }

    /// A ready image's end of clearing: nothing lies beside it, and no URL lives that could bring something. Does nothing
    /// when it is no longer claimed until `lease_ends`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_strays(&self, image: &Image, lease_ends: OffsetDateTime) -> Result<bool, StoreError> {
        let mut filter = owned(image.user, image.id, ImageState::Ready);
        filter.insert("due", datetime(lease_ends));
        self.moved(filter, doc! { "$unset": { "strays": "", "due": "" } }).await
    }

    /// How many images are due, counted up to `most`, and since when the first of them is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backlog(&self, now: OffsetDateTime, most: u32) -> Result<(u32, Option<OffsetDateTime>), StoreError> {
        let due = self.collection.clone_with_type::<Document>();
        let found = self.calls.read(|| async {
            let found = due.find(doc! { "due": { "$lte": datetime(now) } }).sort(doc! { "due": 1 }).limit(i64::from(most));
            found.projection(doc! { "due": 1, "_id": 0 }).await?.try_collect::<Vec<_>>().await
        });
        let found = found.await?;
        let first = found.first().and_then(|first| first.get_datetime("due").ok());
        Ok((u32::try_from(found.len()).unwrap_or(most), first.map(|due| instant(*due))))
    }
}
