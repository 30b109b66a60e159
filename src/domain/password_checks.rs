//! Verifies passwords, and counts the attempts in their limits.

use std::sync::Arc;

use super::{
    audit::audit,
    authentication::NoLocalAccount,
    credentials::{
        Caller,
        passwords::{Password, PasswordMatch, Passwords},
    },
    hash_pool::{HashPermit, Overloaded},
    password_rules,
    throttle::{ClientInfo, LoginAttempt, Throttle, Throttled},
};
use crate::{
    model::{RequestOrigin, SessionId},
    store::{Account, Store, StoreError},
};

/// Maximum length of a password before its normalization, which shortens a character from four bytes to one at most.
const MAX_UNNORMALIZED_BYTES: usize = 4 * password_rules::MAX_BYTES;

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// The account does not exist, or the password is wrong: the same answer after the same time.
    #[error("the email address or the password is wrong")]
    InvalidCredentials,
    /// The account is suspended. Only the right password reveals it.
    #[error("the account is suspended")]
    Suspended,
    /// Local accounts are disabled, or the caller has none.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Too many logins from the client's networks, or too many wrong passwords.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Too many passwords are being hashed.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the session of a caller who must enter a password. A caller without a session has no password.
fn session_of(caller: Caller) -> Result<SessionId, LogInError> {
    caller.session().ok_or(LogInError::NoLocalAccount(NoLocalAccount::Foreign))
}

/// Checks of passwords: their limits, and the verification.
#[derive(Debug)]
pub(super) struct PasswordChecks {
    pub(super) store: Arc<Store>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) passwords: Arc<Passwords>,
}

impl PasswordChecks {
    /// Counts a call in which the caller must enter the password. Returns the origin of the request, and a permit to hash the
    /// password.
    pub(super) fn admit_password_check(
        &self,
        caller: Caller,
        client: &ClientInfo,
    ) -> Result<(RequestOrigin, HashPermit), LogInError> {
        self.throttle.count_login(client)?;
        self.throttle.count_password_check(session_of(caller)?)?;
        let origin = client.request_origin(Some(caller.user));
        Ok((origin, self.passwords.acquire(origin)?))
    }

    /// Counts an attempt at the caller's own password, in the limit of the caller's session.
    pub(super) fn count_attempt_of(&self, caller: Caller) -> Result<LoginAttempt<'_>, LogInError> {
        Ok(self.throttle.count_attempt_in_session(session_of(caller)?)?)
    }

    /// Returns the account if the password matches. If there is no account, the verification takes the same time. Replaces a hash
    /// that was made with other parameters than the current ones.
    pub(super) async fn verify_password(
        &self,
        account: Option<Account>,
        password: &str,
        attempt: LoginAttempt<'_>,
        permit: &HashPermit,
    ) -> Result<Account, LogInError> {
        // An empty password is verified in place of one that cannot have been accepted, to bound the work.
        let password = if password.len() > MAX_UNNORMALIZED_BYTES { Password::new("") } else { Password::new(password) };
        let hash = account.as_ref().and_then(|account| account.password_hash.clone());
        let matched = self.passwords.verify(permit, password.clone(), hash).await.inspect_err(|_| attempt.cancel())?;
        let user = account.as_ref().map(|account| account.user.id.to_string());
        let Some(account) = account.filter(|_| matched != PasswordMatch::Mismatch) else {
            audit!("password_refused", user, "refused a wrong password, or an unknown account");
            return Err(LogInError::InvalidCredentials);
        };
        attempt.succeeded();
        // If the pool is overloaded, the next login replaces the hash.
        if matched == PasswordMatch::OutdatedHash
            && let Ok(hash) = self.passwords.hash(permit, password).await
        {
            self.store.users.rehash_password(&account, &hash).await?;
            tracing::info!(user, "hashed a password again with the current parameters");
        }
        Ok(account)
    }
}
