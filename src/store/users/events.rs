//! Events of accounts, and the subjects by which identity providers and the app name users: `users {outbox, formerSubject}`.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{ProviderIdentity, Users};
use crate::{
    model::{Email, EventType},
    store::{StoreError, datetime, driver_events::Operation},
};

impl Users {
    /// Returns the outbox of a new account.
    pub(super) fn creation_event(
        &self,
        email: Option<&Email>,
        identity: Option<&ProviderIdentity>,
        now: OffsetDateTime,
    ) -> Vec<Document> {
        let mut data = doc! { "createdAt": datetime(now) };
        data.extend(email.map(|email| ("email".to_owned(), Bson::from(email.as_str()))));
        data.extend(identity.map(|identity| ("subject".to_owned(), Bson::from(identity.subject.as_str()))));
        self.outbox.initial(EventType::AccountCreated, datetime(now), data)
    }

    /// Returns the fields that the claim of an account for deletion sets for its event. The subject stays until the record is
    /// removed, because the events of the account's images name it.
    pub(super) fn deletion_event(&self) -> Document {
        let data = doc! { "createdAt": "$createdAt", "subject": "$identity.subject" };
        let event = self.outbox.user_value(EventType::AccountDeleted, data);
        event.map_or_else(Document::new, |event| doc! { "outbox": event, "formerSubject": "$identity.subject" })
    }

    /// Returns the subjects of those of these users that have one: users of an identity provider or of the app.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_subjects(&self, users: &[&str]) -> Result<HashMap<String, String>, StoreError> {
        let records = self.collection.clone_with_type::<Document>();
        let projection = doc! { "identity.subject": 1, "formerSubject": 1 };
        let found = self.mongo.read(Operation::find(&self.collection), || async {
            let find = records.find(doc! { "_id": { "$in": users } }).projection(projection.clone());
            find.await?.try_collect::<Vec<_>>().await
        });
        let read = |record: &Document| {
            let identity = record.get_document("identity").and_then(|identity| identity.get_str("subject"));
            let subject = identity.or_else(|_| record.get_str("formerSubject")).ok()?;
            Some((record.get_str("_id").ok()?.to_owned(), subject.to_owned()))
        };
        Ok(found.await?.iter().filter_map(read).collect())
    }
}
