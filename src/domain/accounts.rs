//! Signing up and in.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{
    Valet,
    credentials::{Busy, Caller, Password, TokenError},
};
use crate::{
    model::{Email, InvalidEmail, SessionId, Usage, User, UserId},
    store::{Session, StoreError},
};

/// A sign-in: what a client keeps.
#[derive(Debug)]
pub struct SignedIn {
    /// Who signed in.
    pub user: User,
    /// The access token.
    pub token: SecretString,
    /// How long the token lives.
    pub expires_in: Duration,
}

/// Why nobody was signed up.
#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    /// Not an address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// Not a password to protect an account with; the rest of the sentence says why.
    #[error("the password {0}")]
    WeakPassword(&'static str),
    /// The address has an account.
    #[error("the email address has an account already")]
    EmailTaken,
    /// Too many at once.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Not known whether it happened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// No such account, or not its password: the same answer after the same time.
    #[error("the email address or the password is wrong")]
    InvalidCredentials,
    /// Too many at once.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Valet {
    /// Makes an account and signs in. The unique index decides who owns an address.
    ///
    /// # Errors
    /// [`SignUpError`].
    pub async fn sign_up(&self, email: &str, password: &str, now: OffsetDateTime) -> Result<SignedIn, SignUpError> {
        let email = Email::parse(email)?;
        let password = Password::new(password);
        if let Some(weakness) = password.weakness() {
            return Err(SignUpError::WeakPassword(weakness));
        }
        let hash = self.passwords.hash(password).await?;
        let user = self.store.users.insert(&email, &hash, now).await?.ok_or(SignUpError::EmailTaken)?;
        tracing::info!(user = %user.id, "signed up");
        Ok(self.start_session(user, now).await?)
    }

    /// Signs in. An unknown address costs what a wrong password costs.
    ///
    /// # Errors
    /// [`LogInError`].
    pub async fn log_in(&self, email: &str, password: &str, now: OffsetDateTime) -> Result<SignedIn, LogInError> {
        let account = match Email::parse(email) {
            Ok(email) => self.store.users.find_by_email(&email).await?,
            Err(InvalidEmail) => None,
        };
        // What is too long to be a password was never hashed; it is not hashed now, either.
        let password = if password.len() > 4 * Password::MAX_BYTES { Password::new("") } else { Password::new(password) };
        let hash = account.as_ref().map(|account| account.password_hash.clone());
        if !self.passwords.verify(password, hash).await? {
            tracing::info!(user = account.map(|account| account.user.id.to_string()), "login refused");
            return Err(LogInError::InvalidCredentials);
        }
        let account = account.ok_or(LogInError::InvalidCredentials)?;
        tracing::info!(user = %account.user.id, "logged in");
        Ok(self.start_session(account.user, now).await?)
    }

    async fn start_session(&self, user: User, now: OffsetDateTime) -> Result<SignedIn, StoreError> {
        let session = Session { id: SessionId::new(), user: user.id, expires_at: now + self.session_ttl };
        self.store.sessions.insert(&session, now).await?;
        let caller = Caller { user: user.id, session: session.id };
        let token =
            self.tokens.issue(caller, now).ok_or(StoreError::Credentials { reason: "no token could be signed".to_owned() })?;
        Ok(SignedIn { user, token, expires_in: self.tokens.ttl() })
    }

    /// Who holds this access token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn authenticate(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        self.tokens.verify(token, now)
    }

    /// The user and what they hold. `None` when the account is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn me(&self, user: UserId) -> Result<Option<(User, Usage)>, StoreError> {
        let (account, usage) = tokio::try_join!(self.store.users.find(user), self.store.users.usage(user))?;
        Ok(account.zip(usage).map(|(account, usage)| (account.user, usage)))
    }

    /// Bytes that a user may hold.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        self.uploads.quota_bytes
    }
}
