//! Users of an identity provider, and of the app: `users.identity {issuer, subject}`.

use mongodb::bson::{Document, doc};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    UserDoc, Users,
    deletion::{identity_digest, not_deleted},
    registration::Registration,
};
use crate::{
    model::{Email, Subject, UserId},
    store::{StoreError, driver_events::Operation},
};

/// The account of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityHolder {
    /// The user.
    pub user: UserId,
    /// Whether the account is suspended.
    pub is_suspended: bool,
}

/// The name of a user at an identity provider, or in the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderIdentity {
    /// The provider: the `iss` of its tokens. [`crate::model::Subject::ISSUER`] for the app.
    pub issuer: String,
    /// The name of the user at this provider: the `sub` of the tokens.
    pub subject: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IdentityDoc {
    pub(super) issuer: String,
    pub(super) subject: String,
}

impl IdentityDoc {
    /// Converts the stored identity.
    pub(super) fn into_identity(self) -> ProviderIdentity {
        ProviderIdentity { issuer: self.issuer, subject: self.subject }
    }
}

impl Users {
    /// Inserts a user of an identity provider or of the app. Returns `None` if the user exists already, or another server has
    /// prevented the insertion: the caller looks again.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_identity(
        &self,
        identity: &ProviderIdentity,
        email: Option<&Email>,
        now: OffsetDateTime,
    ) -> Result<Option<UserId>, StoreError> {
        let id = UserId::new();
        let document = UserDoc {
            email: email.map(|email| email.as_str().to_owned()),
            identity: Some(IdentityDoc { issuer: identity.issuer.clone(), subject: identity.subject.clone() }),
            outbox: self.creation_event(email, Some(identity), now),
            ..UserDoc::new(id, now)
        };
        let digest = identity_digest(identity);
        let inserted = self.insert_registered(&self.identities, &digest, id, document, now).await?;
        Ok((inserted == Registration::Inserted).then_some(id))
    }

    /// Returns the account of an identity: two reads by `_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_identity(&self, identity: &ProviderIdentity) -> Result<Option<IdentityHolder>, StoreError> {
        let ProviderIdentity { issuer, subject } = identity;
        // With `$exists`, the query can use the partial index of identities.
        let filter = doc! { "identity.issuer": issuer, "identity.subject": subject, "identity": { "$exists": true } };
        if let Some(holder) = self.identities.holder(&identity_digest(identity)).await? {
            let mut holder_filter = filter.clone();
            holder_filter.insert("_id", holder.user.to_string());
            if let Some(found) = self.find_identity_holder(holder_filter).await? {
                return Ok(Some(found));
            }
        }
        // An account of an earlier version that is not registered yet; earlier versions had no users of the app.
        if self.has_unique_indexes() && issuer != Subject::ISSUER { self.find_identity_holder(filter).await } else { Ok(None) }
    }

    /// Returns the account that matches the filter.
    async fn find_identity_holder(&self, filter: Document) -> Result<Option<IdentityHolder>, StoreError> {
        let ids = self.collection.clone_with_type::<Document>();
        let found = self
            .mongo
            .read(Operation::find(&self.collection), || async {
                ids.find_one(not_deleted(filter.clone())).projection(doc! { "suspendedAt": 1 }).await
            })
            .await?;
        let read = |record: Document| {
            let user = UserId::parse(record.get_str("_id").ok()?)?;
            Some(IdentityHolder { user, is_suspended: record.contains_key("suspendedAt") })
        };
        Ok(found.and_then(read))
    }
}
