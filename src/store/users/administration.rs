//! Administration of users by an app's backend: `users {suspendedAt, quotaBytes}`, and lists of accounts.

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Document, doc},
    options::{Collation, CollationStrength},
};
use time::OffsetDateTime;

use super::{
    Account, Counted, ID_PATTERN, Users,
    deletion::not_deleted,
    quota::{read_usage, usage_projection},
};
use crate::{
    model::{Email, Subject, Usage, UserId},
    store::{StoreError, datetime, driver_events::Operation, integer},
};

/// Name of the index of accounts by address, also of accounts that do not sign in with it.
pub(super) const BY_ADDRESS: &str = "address";

/// Returns the rules by which the index [`BY_ADDRESS`] compares: letters of both cases are equal.
pub(super) fn address_collation() -> Collation {
    Collation::builder().locale("en").strength(CollationStrength::Secondary).build()
}

/// Accounts to list.
#[derive(Debug, Clone)]
pub enum UserFilter {
    /// All accounts.
    All,
    /// Accounts with this address.
    Email(Email),
    /// These accounts.
    Ids(Vec<UserId>),
}

/// An account with its counters.
#[derive(Debug, Clone)]
pub struct CountedAccount {
    /// The account.
    pub account: Account,
    /// The storage used.
    pub usage: Usage,
}

/// A page of accounts.
#[derive(Debug)]
pub struct AccountPage<Entry = CountedAccount> {
    /// The readable accounts, in the order of their creation.
    pub accounts: Vec<Entry>,
    /// The last record if more may follow, whether it is readable or not.
    pub next: Option<UserId>,
}

impl Users {
    /// Returns accounts with their counters in the order of their creation, after `after`, in one query for at most `limit`
    /// records. An unreadable record is logged and left out; a record without a user id is not an account.
    pub(in crate::store) async fn page(
        &self,
        users: &UserFilter,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<AccountPage<Counted<CountedAccount>>, StoreError> {
        let after = after.map_or_else(String::new, |after| after.to_string());
        let mut filter = not_deleted(doc! { "_id": { "$gt": &after, "$regex": ID_PATTERN } });
        match users {
            UserFilter::All => {}
            UserFilter::Email(email) => drop(filter.insert("email", email.as_str())),
            UserFilter::Ids(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                filter.insert("_id", doc! { "$in": ids, "$gt": &after });
            }
        }
        let raw = self.collection.clone_with_type::<Document>();
        let mut projection = Self::account_projection();
        projection.extend(usage_projection());
        let query = || async {
            // One record more than a page shows whether another page follows.
            let find = raw.find(filter.clone()).sort(doc! { "_id": 1 }).limit(i64::from(limit) + 1);
            let mut find = find.projection(projection.clone());
            if matches!(users, UserFilter::Email(_)) {
                find = find.collation(address_collation());
            }
            find.await?.try_collect::<Vec<_>>().await
        };
        let mut found = self.mongo.read(Operation::find(&self.collection), query).await?;
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let last = found.last().filter(|_| has_more);
        let next = last.and_then(|last| UserId::parse(last.get_str("_id").ok()?));
        Ok(AccountPage { accounts: found.into_iter().filter_map(readable).collect(), next })
    }

    /// Suspends an account; the time of an earlier suspension stays. Returns `false` if the account does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn suspend(&self, user: UserId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let since = doc! { "$ifNull": ["$suspendedAt", datetime(now)] };
        let filter = not_deleted(doc! { "_id": user.to_string() });
        self.mongo.update_one(&self.collection, filter, vec![doc! { "$set": { "suspendedAt": since } }]).await
    }

    /// Ends the suspension of an account. Returns `false` if the account does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn resume(&self, user: UserId) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": user.to_string() });
        self.mongo.update_one(&self.collection, filter, doc! { "$unset": { "suspendedAt": "" } }).await
    }

    /// Sets an account's own quota, or removes it. Returns `false` if the account does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn set_quota(&self, user: UserId, bytes: Option<u64>) -> Result<bool, StoreError> {
        let filter = not_deleted(doc! { "_id": user.to_string() });
        let update = match bytes {
            Some(bytes) => doc! { "$set": { "quotaBytes": integer(bytes) } },
            None => doc! { "$unset": { "quotaBytes": "" } },
        };
        self.mongo.update_one(&self.collection, filter, update).await
    }

    /// Sets the address of an app's user. Local accounts and users of an identity provider stay as they are.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn set_app_user_email(&self, user: UserId, email: &Email) -> Result<(), StoreError> {
        let filter = not_deleted(doc! { "_id": user.to_string(), "identity.issuer": Subject::ISSUER });
        self.mongo.update_one(&self.collection, filter, doc! { "$set": { "email": email.as_str() } }).await.map(drop)
    }
}

/// Returns the account of a record. An unreadable record is logged, and does not make the rest of a page unreadable.
fn readable(record: Document) -> Option<Counted<CountedAccount>> {
    let id = record.get_str("_id").unwrap_or_default().to_owned();
    let counted = read_usage(&record, &id).map(|usage| Counted::new(usage, &record));
    let counted = counted.and_then(|Counted { value: usage, announced }| {
        Ok(Counted { value: CountedAccount { account: Users::read_account(record)?, usage }, announced })
    });
    counted.inspect_err(|error| tracing::error!(%error, "failed to read an account")).ok()
}
