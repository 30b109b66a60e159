//! Account deletion: `users {deletedAt, due, formerIdentity, neverInserted, deletionFailures}`. The claim removes all credentials
//! from the record. The rest is a tombstone by which the sweeper deletes the account's data; it is removed at the end.

use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{Account, ProviderIdentity, Users, passwords::version_filter};
use crate::{
    model::{Sha256, Subject, UserId},
    store::{Postponement, StoreError, datetime, driver_events::Operation, instant, whole_number},
};

/// The deletion of an account.
#[derive(Debug, Clone, Copy)]
pub struct Deletion {
    /// The user.
    pub user: UserId,
    /// Time at which the sweeper processes it next, or the end of a lease.
    pub due: OffsetDateTime,
    /// Time at which the account was claimed for deletion.
    pub at: OffsetDateTime,
    /// Whether the account belonged to a user of an identity provider, whose earlier tokens must not create it again.
    pub has_provider_identity: bool,
    /// Whether the record only makes an insertion fail: there is nothing else to delete.
    pub was_never_inserted: bool,
    /// Consecutive failures that no repeat cures.
    pub failures: u32,
}

/// A deletion that is due.
#[derive(Debug, Clone)]
pub enum DeletionDue {
    /// An account whose record can be read.
    Readable(Deletion),
    /// An account whose record is damaged.
    Unreadable {
        /// The record's id.
        id: Bson,
        /// The value of its `due`, as it is stored.
        due: Bson,
    },
}

/// Returns the digest under which an identity is registered, and recognized after its deletion.
pub(super) fn identity_digest(identity: &ProviderIdentity) -> String {
    hex::encode(Sha256::of([identity.issuer.as_str(), "\0", &identity.subject]).to_bytes())
}

impl Users {
    /// Claims an account for deletion, unless its password was changed since it was read: from here on, signing in and uploading
    /// are impossible, and another account can take its address. Returns `false` if the password was changed, or the account was
    /// claimed before.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must then read whether it happened.
    pub async fn claim_deletion(&self, account: &Account, now: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": account.user.id.to_string(), "passwordVersion": version_filter(account) });
        let mut set = doc! { "deletedAt": datetime(now), "due": datetime(now) };
        // An app's backend, unlike an old token, may create its user again.
        if let Some(identity) = account.identity.as_ref().filter(|identity| identity.issuer != Subject::ISSUER) {
            set.insert("formerIdentity", identity_digest(identity));
        }
        set.extend(self.deletion_event());
        let unset = ["email", "emailKey", "passwordHash", "keptSession", "identity"];
        let update = vec![doc! { "$set": set }, doc! { "$unset": unset.to_vec() }];
        let claimed = self.mongo.update_one(&self.collection, filter, update).await?;
        self.outbox.wake();
        Ok(claimed)
    }

    /// Returns whether a user of this identity was deleted at `issued_at` or later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn was_deleted(&self, identity: &ProviderIdentity, issued_at: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "formerIdentity": identity_digest(identity), "deletedAt": { "$gte": datetime(issued_at) } };
        let ids = self.collection.clone_with_type::<Document>();
        Ok(self
            .mongo
            .read(Operation::find(&self.collection), || async {
                ids.find_one(filter.clone()).projection(doc! { "_id": 1 }).await
            })
            .await?
            .is_some())
    }

    /// Returns due deletions, the longest due first, including those whose records cannot be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_due_deletions(&self, now: OffsetDateTime, limit: i64) -> Result<Vec<DeletionDue>, StoreError> {
        let filter = doc! { "due": { "$lte": datetime(now) } };
        let projection = doc! { "due": 1, "deletedAt": 1, "formerIdentity": 1, "neverInserted": 1, "deletionFailures": 1 };
        let users = self.collection.clone_with_type::<Document>();
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                use futures_util::TryStreamExt;
                let find = users.find(filter.clone()).projection(projection.clone()).sort(doc! { "due": 1 }).limit(limit);
                find.await?.try_collect::<Vec<_>>().await
            })
            .await?;
        let read = |user: &Document| {
            let value = |field: &str| user.get(field).cloned().unwrap_or(Bson::Null);
            let (id, stored_due) = (value("_id"), value("due"));
            // A time that does not convert back to the stored value counts as unreadable: the claim compares the two.
            let due = stored_due.as_datetime().map(|due| instant(*due)).filter(|due| Bson::from(datetime(*due)) == stored_due);
            let user_id = id.as_str().and_then(UserId::parse).filter(|_| user.contains_key("deletedAt"));
            match user_id.zip(due) {
                Some((user_id, due)) => {
                    // A record without a readable time was claimed when it became due, at the latest.
                    let at = user.get_datetime("deletedAt").map_or(due, |at| instant(*at));
                    let has_provider_identity = user.contains_key("formerIdentity");
                    let was_never_inserted = user.get_bool("neverInserted").unwrap_or(false);
                    let failures = whole_number(user, "deletionFailures").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                    DeletionDue::Readable(Deletion {
                        user: user_id,
                        due,
                        at,
                        has_provider_identity,
                        was_never_inserted,
                        failures,
                    })
                }
                None => DeletionDue::Unreadable { id, due: stored_due },
            }
        };
        Ok(found.iter().map(read).collect())
    }

    /// Postpones a record of [`DeletionDue::Unreadable`], so that it does not block the others.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_unreadable(&self, id: &Bson, due: &Bson, to: Postponement) -> Result<(), StoreError> {
        let filter = doc! { "_id": id, "due": due };
        let update = doc! { "$set": postponement_fields(to) };
        self.mongo.update_one(&self.collection, filter, update).await.map(drop)
    }

    /// Claims a deletion by moving its `due` to the end of a lease. Returns `false` if another server claimed it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_due_deletion(&self, user: UserId, due: OffsetDateTime, to: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! { "_id": user.to_string(), "due": datetime(due), "deletedAt": { "$exists": true } };
        // An unreadable time of the claim is replaced once, so that all later readers get the same time.
        let is_readable = doc! { "$eq": [{ "$type": "$deletedAt" }, "date"] };
        let at = doc! { "$cond": [is_readable, "$deletedAt", datetime(due)] };
        let update = vec![doc! { "$set": { "due": datetime(to), "deletedAt": at } }];
        self.mongo.update_one(&self.collection, filter, update).await
    }

    /// Ends the lease of a deletion, and reschedules the deletion.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_deletion(&self, user: UserId, lease_ends: OffsetDateTime, to: Postponement) -> Result<(), StoreError> {
        let filter = doc! { "_id": user.to_string(), "due": datetime(lease_ends), "deletedAt": { "$exists": true } };
        let update = doc! { "$set": postponement_fields(to) };
        self.mongo.update_one(&self.collection, filter, update).await.map(drop)
    }

    /// Returns the number of deletions that failed at least `failures` times in a row, counted up to `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_stuck_deletions(&self, failures: u32, most: u32) -> Result<u32, StoreError> {
        // `due` is indexed, and only deleted accounts have it.
        let filter = doc! { "due": { "$exists": true }, "deletionFailures": { "$gte": i64::from(failures) } };
        let count = self.mongo.read(Operation::aggregate(&self.collection), || async {
            self.collection.count_documents(filter.clone()).limit(most.into()).await
        });
        Ok(u32::try_from(count.await?).unwrap_or(most))
    }

    /// Returns whether the user's record has entries of uploads or reservations that are older than `before`, or that cannot be
    /// read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_abandoned_entries(&self, user: UserId, before: OffsetDateTime) -> Result<bool, StoreError> {
        let records = self.collection.clone_with_type::<Document>();
        let projection = doc! { "opening": 1, "settling": 1, "holds": 1 };
        let query = || async { records.find_one(doc! { "_id": user.to_string() }).projection(projection.clone()).await };
        let found = self.mongo.read(Operation::find(&self.collection), query).await?.unwrap_or_default();
        let is_young = |entry: &Bson| {
            let at = entry.as_document().and_then(|entry| entry.get_datetime("at").ok());
            at.is_some_and(|at| *at >= datetime(before))
        };
        let is_abandoned = |field| match found.get(field) {
            None | Some(Bson::Null) => false,
            Some(Bson::Array(entries)) => !entries.iter().all(is_young),
            Some(_) => true,
        };
        Ok(["opening", "settling", "holds"].into_iter().any(is_abandoned))
    }

    /// Removes the entries of a deleted account's uploads and reservations, also those that cannot be read.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn discard_entries(&self, user: UserId) -> Result<(), StoreError> {
        let filter = doc! { "_id": user.to_string(), "deletedAt": { "$exists": true } };
        // An earlier version cannot read a record without `holds`.
        let update = doc! { "$set": { "opening": [], "settling": [], "holds": [] } };
        self.mongo.update_one(&self.collection, filter, update).await.map(drop)
    }

    /// Removes the record of a deleted account while its lease ends at `lease_ends`, unless an upload is still being opened, a
    /// step of a reservation is in progress, a hold of an earlier version counts an upload, or an event of the account waits.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn finish_deletion(&self, user: UserId, lease_ends: OffsetDateTime) -> Result<bool, StoreError> {
        let filter = doc! {
            "_id": user.to_string(),
            "due": datetime(lease_ends),
            "deletedAt": { "$exists": true },
            "opening.image": { "$exists": false },
            "settling.image": { "$exists": false },
            "holds.image": { "$exists": false },
        };
        self.mongo.delete_one(&self.collection, self.outbox.require_empty(filter)).await
    }
}

/// Returns the fields that postpone a deletion.
fn postponement_fields(to: Postponement) -> Document {
    doc! { "due": datetime(to.due), "deletionFailures": i64::from(to.failures) }
}

/// Restricts a filter to accounts that are not deleted.
pub(super) fn not_deleted(mut filter: Document) -> Document {
    filter.insert("deletedAt", doc! { "$exists": false });
    filter
}
