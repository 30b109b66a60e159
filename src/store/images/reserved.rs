//! What the sweeper asks of reservations: images whose own no longer fits their state, and which images there are at all.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{Images, owned_by_ids};
use crate::{
    model::{Image, ImageId, ImageState, UserId},
    store::{StoreError, datetime},
};

/// As much of an image as its former hold needs.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The image's state; a state that cannot be read counts as pending, which takes nothing away.
    pub state: ImageState,
    /// Whether the image carries a reservation.
    pub is_reserved: bool,
    /// Whether the document only keeps an insertion from succeeding: see [`Images::preclude`].
    pub was_precluded: bool,
    /// Reserved bytes that did not come.
    pub surplus: u64,
}

impl Images {
    /// Images that are ready or gone and still carry a reservation that is due, the longest due first: what servers left that
    /// died, or that know no reservations. Tombstones are not among them: each comes to the sweeper by its own `due`. What
    /// cannot be read is answered as an error, with its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unsettled(
        &self,
        state: ImageState,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Result<Image, (String, StoreError)>>, StoreError> {
        let filter = doc! { "state": state.as_str(), "reservation.due": { "$lte": datetime(now) } };
        let documents = self.collection.clone_with_type::<Document>();
        let found = self.calls.read(|| async {
            let find = documents.find(filter.clone()).sort(doc! { "reservation.due": 1 }).limit(i64::from(limit));
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: Document| {
            let id = document.get_str("_id").unwrap_or_default().to_owned();
            super::read(document).map_err(|error| (id, error))
        };
        Ok(found.await?.into_iter().map(read).collect())
    }

    /// Looks at those of these reservations that are due at `now` again at `later`.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_settling(&self, ids: &[String], now: OffsetDateTime, later: OffsetDateTime) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let filter = doc! { "_id": { "$in": ids }, "reservation.due": { "$lte": datetime(now) } };
        let update = doc! { "$set": { "reservation.due": datetime(later) } };
        self.calls.run(async { self.collection.update_many(filter, update).await }).await.map(drop)
    }

    /// Those of these images that exist, whatever else their documents hold.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standings(&self, user: UserId, ids: &[ImageId]) -> Result<HashMap<ImageId, Standing>, StoreError> {
        let documents = self.collection.clone_with_type::<Document>();
        let projection = doc! { "state": 1, "size": 1, "reserved": 1, "preview.size": 1, "reservation": 1, "neverIssued": 1 };
        let found = self.calls.read(|| async {
            let find = documents.find(owned_by_ids(user, ids)).projection(projection.clone());
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |document: &Document| {
            let size = document.get_i64("size").unwrap_or_default();
            let preview = document.get_document("preview").and_then(|preview| preview.get_i64("size")).unwrap_or_default();
            let reserved = document.get_i64("reserved").unwrap_or(size);
            let standing = Standing {
                state: document.get_str("state").ok().and_then(ImageState::parse).unwrap_or(ImageState::Pending),
                is_reserved: document.contains_key("reservation"),
                was_precluded: document.get_bool("neverIssued").unwrap_or(false),
                surplus: u64::try_from(reserved - size - preview).unwrap_or(0),
            };
            Some((ImageId::parse(document.get_str("_id").ok()?)?, standing))
        };
        Ok(found.await?.iter().filter_map(read).collect())
    }
}
