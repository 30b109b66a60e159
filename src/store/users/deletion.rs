//! Accounts on their way out: `users {deletedAt, due, formerIdentity}`. The claim takes all that lets anybody in; what is left is
//! the tombstone that the sweeper works from, until nothing of the account is live.

use aws_lc_rs::digest;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{Account, Users, passwords::version};
use crate::{
    model::UserId,
    store::{StoreError, datetime, instant},
};

/// An account whose deletion goes on.
#[derive(Debug, Clone, Copy)]
pub struct Deletion {
    /// Whose.
    pub user: UserId,
    /// When the sweeper was to look at it, or the end of a lease.
    pub due: OffsetDateTime,
    /// When it was claimed.
    pub at: OffsetDateTime,
    /// Whether its owner was an identity provider's, whose tokens of before must not make it anew.
    pub is_foreign: bool,
}

/// A deletion that is due.
#[derive(Debug, Clone)]
pub enum DeletionDue {
    /// Its record can be read.
    Readable(Deletion),
    /// Its record is damaged.
    Unreadable {
        /// The record's id.
        id: Bson,
        /// What its `due` is.
        due: OffsetDateTime,
    },
}

/// What is kept of an identity: enough to know it again.
fn former(issuer: &str, subject: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(issuer.as_bytes());
    context.update(&[0]);
    context.update(subject.as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Users {
    /// Takes the account from its owner, unless its password was changed since it was read: nobody can sign in, upload or
    /// use its address from here on. `false` when it was changed, or claimed before.
    ///
    /// # Errors
    /// [`StoreError`]; whether it happened is then to be asked again.
    pub async fn claim_deletion(&self, account: &Account, now: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": account.user.id.to_string(), "passwordVersion": version(account) });
        let mut set = doc! { "deletedAt": datetime(now), "due": datetime(now) };
        if let Some((issuer, subject)) = &account.identity {
            set.insert("formerIdentity", former(issuer, subject));
        }
        let unset = doc! { "email": "", "emailKey": "", "passwordHash": "", "keptSession": "", "identity": "" };
        let update = doc! { "$set": set, "$unset": unset };
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// Whether a user of this identity was deleted at `issued_at` or later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn was_deleted(&self, (issuer, subject): (&str, &str), issued_at: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "formerIdentity": former(issuer, subject), "deletedAt": { "$gte": datetime(issued_at) } };
        let ids = self.collection.clone_with_type::<Document>();
        Ok(self.calls.read(|| async { ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await }).await?.is_some())
    }

    /// Deletions that are due, the longest due first, those whose records cannot be read included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deletions_due(&self, now: OffsetDateTime, limit: i64) -> Result<Vec<DeletionDue>, StoreError> {
        let filter = doc! { "due": { "$lte": datetime(now) } };
        let projection = doc! { "due": 1, "deletedAt": 1, "formerIdentity": 1 };
        let users = self.collection.clone_with_type::<Document>();
        let found = self
            .calls
            .read(|| async {
                use futures_util::TryStreamExt;
                let find = users.find(filter.clone()).projection(projection.clone()).sort(doc! { "due": 1 }).limit(limit);
                find.await?.try_collect::<Vec<_>>().await
            })
            .await?;
        let read = |user: &Document| {
            let due = user.get_datetime("due").map_or(now, |due| instant(*due));
            let id = user.get("_id").cloned().unwrap_or(Bson::Null);
            let known = id.as_str().and_then(UserId::parse).zip(user.get_datetime("deletedAt").ok());
            match known {
                Some((user_id, at)) => {
                    let is_foreign = user.contains_key("formerIdentity");
                    DeletionDue::Readable(Deletion { user: user_id, due, at: instant(*at), is_foreign })
                }
                None => DeletionDue::Unreadable { id, due },
            }
        };
        Ok(found.iter().map(read).collect())
    }

    /// Looks again at `to` at a record of [`DeletionDue::Unreadable`], so that it keeps no other waiting.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_unreadable(&self, id: &Bson, due: OffsetDateTime, to: OffsetDateTime) -> Result<(), StoreError> {
        let filter = doc! { "_id": id.clone(), "due": datetime(due) };
        let update = doc! { "$set": { "due": datetime(to) } };
        self.calls.run(async { self.collection.update_one(filter, update).await }).await.map(drop)
    }

    /// Moves a deletion's `due`, for a lease or to look again. `false` when somebody else did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn move_deletion(&self, user: UserId, due: OffsetDateTime, to: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "_id": user.to_string(), "due": datetime(due), "deletedAt": { "$exists": true } };
        let update = doc! { "$set": { "due": datetime(to) } };
        Ok(self.calls.run(async { self.collection.update_one(filter, update).await }).await?.matched_count == 1)
    }

    /// The end of a deletion under this lease: the record goes, unless an upload is still being opened, a
    /// step of a reservation is under way, or one of the former version's holds counts an upload.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn finish_deletion(&self, user: UserId, lease: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! {
            "_id": user.to_string(),
            "due": datetime(lease),
            "deletedAt": { "$exists": true },
            "opening.image": { "$exists": false },
            "settling.image": { "$exists": false },
            "holds.image": { "$exists": false },
        };
        Ok(self.calls.run(async { self.collection.delete_one(filter).await }).await?.deleted_count == 1)
    }
}

/// The account, unless its owner has deleted it.
pub(super) fn not_deleted(mut filter: Document) -> Document {
    filter.insert("deletedAt", doc! { "$exists": false });
    filter
}
