//! The app's own users: accounts of identities `{issuer: "app", subject}`, for which the app's backend creates access tokens.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{audit::audit, service_keys::Authorized, sessions::Sessions};
use crate::{
    model::{Email, InvalidEmail, InvalidSubject, Subject},
    store::{Account, ProviderIdentity, Store, StoreError},
};

/// Shortest lifetime of a token, in seconds.
pub const MIN_LIFETIME_SECONDS: u32 = 60;
/// Longest lifetime of a token, in seconds: a day. Tokens cannot be refreshed; the backend can create another at any time.
pub const MAX_LIFETIME_SECONDS: u32 = 24 * 60 * 60;
/// Attempts at finding or creating a user who is deleted meanwhile.
const MAX_ATTEMPTS: u32 = 5;

/// A token to create.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// The user's name in the app.
    pub subject: &'a str,
    /// Lifetime in seconds; `None` for that of the server's access tokens.
    pub expires_in: Option<u64>,
    /// Address of the user, which replaces the stored address; `None` keeps the stored one.
    pub email: Option<&'a str>,
}

/// A token of an app's user.
#[derive(Debug)]
pub struct AppToken {
    /// The access token.
    pub token: SecretString,
    /// Lifetime of the token.
    pub expires_in: Duration,
    /// Account of the token's user.
    pub account: Account,
}

/// Why no token was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// The text is not a subject.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
    /// The text is not an email address.
    #[error(transparent)]
    Email(#[from] InvalidEmail),
    /// The lifetime is out of range.
    #[error("the lifetime must be from {MIN_LIFETIME_SECONDS} to {MAX_LIFETIME_SECONDS} seconds")]
    Lifetime,
    /// The user is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The database failed; a token may have been created. A repeat is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The app's own users.
#[derive(Debug)]
pub struct AppUsers {
    store: Arc<Store>,
    sessions: Arc<Sessions>,
    default_lifetime: Duration,
}

impl AppUsers {
    /// Creates the service. `default_lifetime` is the lifetime of a token whose request does not name one.
    pub(super) fn new(store: &Arc<Store>, sessions: &Arc<Sessions>, default_lifetime: Duration) -> Self {
        Self { store: store.clone(), sessions: sessions.clone(), default_lifetime }
    }

    /// Creates an access token for the app's user of this subject, and first the user if the subject is new. The token has a
    /// session, but no refresh token.
    ///
    /// # Errors
    /// [`CreateTokenError`].
    pub async fn create_token(
        &self,
        key: &Authorized,
        new: NewToken<'_>,
        now: OffsetDateTime,
    ) -> Result<AppToken, CreateTokenError> {
        let subject = Subject::parse(new.subject)?;
        let email = new.email.map(Email::parse).transpose()?;
        let expires_in = self.lifetime(new.expires_in)?;
        let account = self.find_or_create(key, &subject, email.as_ref(), now).await?;
        if account.suspended_at.is_some() {
            return Err(CreateTokenError::Suspended);
        }
        let token = self.sessions.start_app_session(&account, key.key_id(), expires_in, now).await?;
        audit!("token_created", user = %account.user.id, key = key.key_name(), "created a token for a user of the app");
        Ok(AppToken { token, expires_in, account })
    }

    /// Returns the lifetime of a token: the requested one in seconds, or the default.
    fn lifetime(&self, requested: Option<u64>) -> Result<Duration, CreateTokenError> {
        match requested {
            None => Ok(self.default_lifetime.min(Duration::from_secs(MAX_LIFETIME_SECONDS.into()))),
            Some(seconds) if (u64::from(MIN_LIFETIME_SECONDS)..=u64::from(MAX_LIFETIME_SECONDS)).contains(&seconds) => {
                Ok(Duration::from_secs(seconds))
            }
            Some(_) => Err(CreateTokenError::Lifetime),
        }
    }

    /// Returns the account of a subject, with this address. Of concurrent calls for a new subject, one creates the account.
    async fn find_or_create(
        &self,
        key: &Authorized,
        subject: &Subject,
        email: Option<&Email>,
        now: OffsetDateTime,
    ) -> Result<Account, StoreError> {
        let users = &self.store.users;
        let identity = ProviderIdentity { issuer: Subject::ISSUER.to_owned(), subject: subject.as_str().to_owned() };
        for _ in 0..MAX_ATTEMPTS {
            let user = match users.find_identity(&identity).await? {
                Some(holder) => holder.user,
                None => {
                    // Another call may have created the user meanwhile.
                    let Some(user) = users.insert_identity(&identity, email, now).await? else { continue };
                    audit!("account_created", %user, key = key.key_name(), "created an account for a user of the app");
                    user
                }
            };
            // Deleted meanwhile: the next attempt creates the user again.
            let Some(mut account) = users.find(user).await? else { continue };
            if let Some(email) = email.filter(|email| account.user.email.as_ref() != Some(*email)) {
                users.set_app_user_email(user, email).await?;
                account.user.email = Some(email.clone());
            }
            return Ok(account);
        }
        Err(StoreError::Contention { subject: "a user who is deleted during creation" })
    }
}
