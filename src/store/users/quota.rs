//! Quota, in the one document every change to it must touch: an upload reserves its bytes with a hold, and whoever takes the
//! hold away, once, decides whether the bytes stay counted.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};
use time::OffsetDateTime;

use super::{Users, deletion::not_deleted};
use crate::{
    model::{ImageId, Usage, UserId},
    store::{StoreError, datetime, integer},
};

/// How a reservation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// The bytes are counted and the hold is made.
    Yes,
    /// Nothing was counted: over the quota, over the cap of open uploads, or no such user.
    No,
}

impl Users {
    /// What a user holds now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn usage(&self, user: UserId) -> Result<Option<Usage>, StoreError> {
        let projection = doc! { "usedBytes": 1, "images": 1, "pending": { "$size": "$holds" } };
        let counts = self.collection.clone_with_type::<Document>();
        let found = self
            .calls
            .read(|| async {
                counts.find_one(not_deleted(doc! { "_id": user.to_string() })).projection(projection.clone()).await
            })
            .await?;
        let Some(found) = found else { return Ok(None) };
        let count = |field: &'static str| {
            let value = found.get_i64(field).or_else(|_| found.get_i32(field).map(i64::from)).ok();
            value.and_then(|n| u64::try_from(n).ok()).ok_or(StoreError::Corrupt {
                collection: "users",
                id: user.to_string(),
                field,
            })
        };
        Ok(Some(Usage { bytes: count("usedBytes")?, images: count("images")?, pending: count("pending")? }))
    }

    /// Counts uploads' bytes and makes their holds, if both the quota and the cap of open uploads allow all of them.
    /// One conditional update: of any number at once, exactly those that fit succeed.
    ///
    /// # Errors
    /// [`StoreError`]; holds without an image may then remain, which the sweeper settles.
    pub async fn reserve(
        &self,
        user: UserId,
        uploads: &[(ImageId, u64)],
        (quota, max_pending): (u64, u32),
        now: OffsetDateTime,
    ) -> Result<Reserved, StoreError> {
        let bytes = uploads.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let places = (max_pending as usize).checked_sub(uploads.len());
        let (Some(room), Some(free)) = (quota.checked_sub(bytes), places) else { return Ok(Reserved::No) };
        let mut filter = not_deleted(doc! { "_id": user.to_string(), "usedBytes": { "$lte": integer(room) } });
        // With this place in the array free, there are places for all.
        filter.insert(format!("holds.{free}"), doc! { "$exists": false });
        let hold =
            |(image, bytes): &(ImageId, u64)| doc! { "image": image.to_string(), "bytes": integer(*bytes), "at": datetime(now) };
        let holds: Vec<_> = uploads.iter().map(hold).collect();
        let update = doc! { "$inc": { "usedBytes": integer(bytes) }, "$push": { "holds": { "$each": holds } } };
        let done = self.calls.run(async { self.collection.update_one(filter, update).await }).await?;
        Ok(if done.matched_count == 1 { Reserved::Yes } else { Reserved::No })
    }

    /// The upload became an image: its bytes stay counted, but for `surplus` that did not come. Does nothing when the hold
    /// is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn keep_held(&self, user: UserId, image: ImageId, surplus: u64) -> Result<bool, StoreError> {
        self.take_hold(user, image, kept(surplus)).await
    }

    /// [`Users::keep_held`] for many, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn keep_all_held(&self, user: UserId, images: &[(ImageId, u64)]) -> Result<(), StoreError> {
        let moves = images.iter().map(|(image, surplus)| hold_taken(user, *image, kept(*surplus)));
        self.calls.update_each(&self.collection, moves.map(|(filter, update)| (filter, update.into()))).await.map(drop)
    }

    /// The upload came to nothing: its bytes are free again. Does nothing when the hold is gone.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_held(&self, user: UserId, image: ImageId, bytes: u64) -> Result<bool, StoreError> {
        self.take_hold(user, image, doc! { "usedBytes": -integer(bytes) }).await
    }

    /// [`Users::release_held`] for many, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn release_all_held(&self, user: UserId, uploads: &[(ImageId, u64)]) -> Result<(), StoreError> {
        let moves = uploads.iter().map(|(image, bytes)| hold_taken(user, *image, doc! { "usedBytes": -integer(*bytes) }));
        self.calls.update_each(&self.collection, moves.map(|(filter, update)| (filter, update.into()))).await.map(drop)
    }

    /// The holds' uploads are still open: each is not looked at again before its time has come. One round trip.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn postpone_holds(&self, user: UserId, until: &[(ImageId, OffsetDateTime)]) -> Result<(), StoreError> {
        let moves = until.iter().map(|(image, at)| {
            let filter = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
            (filter, doc! { "$set": { "holds.$.at": datetime(*at) } }.into())
        });
        self.calls.update_each(&self.collection, moves).await.map(drop)
    }

    async fn take_hold(&self, user: UserId, image: ImageId, increment: Document) -> Result<bool, StoreError> {
        let (filter, update) = hold_taken(user, image, increment);
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// In the transaction that takes ready images away: their bytes are free, and they are not counted any more. Where a
    /// server died between an image's confirmation and [`Users::keep_held`], it never was: its hold goes instead.
    pub(in crate::store) async fn drop_images(
        &self,
        user: UserId,
        images: &[(String, i64)],
        session: &mut ClientSession,
    ) -> mongodb::error::Result<()> {
        let ids: Vec<_> = images.iter().map(|(id, _)| id.as_str()).collect();
        let is_taken = doc! { "$in": ["$$this.image", ids] };
        let held = doc! { "$filter": { "input": "$holds", "cond": is_taken.clone() } };
        // What is counted for an image is its hold's while that is there.
        let unless_held = |id: &str, n: i64| doc! { "$cond": [{ "$in": [id, "$holds.image"] }, 0_i64, n] };
        let mut freed = vec![doc! { "$sum": { "$map": { "input": held, "in": "$$this.bytes" } } }];
        freed.extend(images.iter().map(|(id, bytes)| unless_held(id, *bytes)));
        let counted: Vec<_> = images.iter().map(|(id, _)| unless_held(id, 1)).collect();
        let set = doc! {
            "usedBytes": { "$subtract": ["$usedBytes", { "$add": freed }] },
            "images": { "$subtract": ["$images", { "$add": counted }] },
            "holds": { "$filter": { "input": "$holds", "cond": { "$not": [is_taken] } } },
        };
        let filter = doc! { "_id": user.to_string() };
        self.collection.update_one(filter, vec![doc! { "$set": set }]).session(session).await.map(drop)
    }

    /// Holds made, or to be looked at, before `before`, by user, of at most `limit` users: what servers that died may have
    /// left unsettled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn old_holds(&self, before: OffsetDateTime, limit: i64) -> Result<Vec<(UserId, Vec<(ImageId, u64)>)>, StoreError> {
        let before = datetime(before);
        let filter = doc! { "holds.at": { "$lt": before } };
        let found = self
            .calls
            .read(|| async { self.collection.find(filter.clone()).limit(limit).await?.try_collect::<Vec<_>>().await })
            .await?;
        let mut holds = Vec::new();
        for user in found {
            let Some(id) = UserId::parse(&user.id) else { continue };
            let old = user.holds.iter().filter_map(|hold| {
                let is_old = hold.get_datetime("at").is_ok_and(|at| *at < before);
                let image = hold.get_str("image").ok().and_then(ImageId::parse);
                let bytes = hold.get_i64("bytes").ok().and_then(|n| u64::try_from(n).ok());
                image.zip(bytes).filter(|_| is_old)
            });
            holds.push((id, old.collect()));
        }
        Ok(holds)
    }
}

/// The change to a user when an upload became an image.
fn kept(surplus: u64) -> Document {
    doc! { "images": 1_i64, "usedBytes": -integer(surplus) }
}

/// Takes a hold, once: who comes second finds none.
fn hold_taken(user: UserId, image: ImageId, increment: Document) -> (Document, Document) {
    let filter = doc! { "_id": user.to_string(), "holds.image": image.to_string() };
    (filter, doc! { "$pull": { "holds": { "image": image.to_string() } }, "$inc": increment })
}
