//! Signing up and in.

use std::{borrow::Cow, net::Ipv4Addr};

use time::OffsetDateTime;

use super::{
    Valet,
    audit::audit,
    authentication::NoLocalAccount,
    credentials::{
        Caller,
        passwords::{Password, PasswordMatch},
    },
    hash_pool::{HashPermit, Overloaded},
    password_rules,
    sessions::SignedIn,
    throttle::{ClientInfo, LoginAttempt, Throttle, Throttled},
};
use crate::{
    model::{Email, InvalidEmail, NetworkPrefix, RequestOrigin, SessionId, Usage, User, UserId},
    store::{Account, NewPassword, StoreError},
};

/// Not a password to protect an account with; what follows "the password" says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password {0}")]
pub struct WeakPassword(pub Cow<'static, str>);

/// Why a sign-up failed.
#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    /// Not an address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// Not a password to protect an account with.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The address has an account.
    #[error("the email address has an account already")]
    EmailTaken,
    /// There are no accounts here.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Accounts are not made here any more.
    #[error("sign-up is closed")]
    Closed,
    /// Too many from there.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Too many at once.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// Not known whether it happened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// No such account, or not its password: the same answer after the same time.
    #[error("the email address or the password is wrong")]
    InvalidCredentials,
    /// There are no accounts here, or the caller's is not one of ours.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Too many from there, or too many wrong passwords.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Too many at once.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of password, as its owner asks for it.
#[derive(Clone, Copy)]
pub struct PasswordChange<'a> {
    /// The password that holds.
    pub current: &'a str,
    /// The one to come after it.
    pub new: &'a str,
}

/// Why a password was not changed by its owner.
#[derive(Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// The current password is wrong, or was not looked at.
    #[error(transparent)]
    Current(#[from] LogInError),
    /// The new one.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The account is gone.
    #[error("the account is gone")]
    NoAccount,
}

impl From<Overloaded> for ChangePasswordError {
    fn from(error: Overloaded) -> Self {
        LogInError::from(error).into()
    }
}

impl From<StoreError> for ChangePasswordError {
    fn from(error: StoreError) -> Self {
        LogInError::from(error).into()
    }
}

/// Why a password was not set by the operator.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    /// Not an address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// The new password.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The address has no account.
    #[error("no account has this email address")]
    NoAccount,
    /// A concurrent change came first.
    #[error("the password was changed by somebody else at this moment; try again")]
    Changed,
    /// Too many at once.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// Not known whether it happened; safe to repeat.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The address whose password an account has. An identity provider's user has none, whatever address it told.
fn own_email(account: &Account) -> Result<&Email, LogInError> {
    let email = account.user.email.as_ref().filter(|_| account.password_hash.is_some());
    email.ok_or(LogInError::NoLocalAccount(NoLocalAccount::Foreign))
}

/// The session of a caller who is to prove a password: accounts with a password are signed in to by sessions alone.
fn session_of(caller: Caller) -> Result<SessionId, LogInError> {
    caller.session().ok_or(LogInError::NoLocalAccount(NoLocalAccount::Foreign))
}

impl Valet {
    /// Makes an account and signs in. The unique index decides who owns an address.
    ///
    /// # Errors
    /// [`SignUpError`].
    pub async fn sign_up(
        &self,
        email: &str,
        password: &str,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<SignedIn, SignUpError> {
        self.local_accounts()?;
        if !self.can_sign_up {
            return Err(SignUpError::Closed);
        }
        self.throttle.count_sign_up(client)?;
        let email = Email::parse(email)?;
        let holder = client.holder(None);
        let permit = self.passwords.acquire(holder)?;
        let hash = self.hash_new_password::<SignUpError>(password, &email, (holder, &permit)).await?;
        let account = self.store.users.insert(&email, &hash, now).await?.ok_or(SignUpError::EmailTaken)?;
        // Before the session, whose write may fail: the account is there either way.
        audit!("account_created", user = %account.user.id, "signed up");
        let (signed_in, session) = self.start_session(account, client, now).await?;
        self.record_network(signed_in.user.id, client, now).await;
        tracing::info!(user = %signed_in.user.id, %session, "session of a new account begun");
        Ok(signed_in)
    }

    /// Signs in. An unknown address costs what a wrong password costs.
    ///
    /// # Errors
    /// [`LogInError`].
    pub async fn log_in(
        &self,
        email: &str,
        password: &str,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<SignedIn, LogInError> {
        self.local_accounts()?;
        self.throttle.count_login(client)?;
        let permit = self.passwords.acquire(client.holder(None))?;
        let account = match Email::parse(email) {
            Ok(email) => {
                let attempt = self.count_attempt(&email, client, now).await?;
                let account = self.store.users.find_by_email(&email).await.inspect_err(|_| attempt.cancel())?;
                self.verify_password(account, password, attempt, &permit).await?
            }
            // Belongs to nobody: there is nothing to attempt, but the time it takes must not tell.
            Err(InvalidEmail) => self.verify_password(None, password, LoginAttempt::untracked(), &permit).await?,
        };
        let user = account.user.id;
        let (signed_in, session) = self.start_session(account, client, now).await?;
        self.record_network(user, client, now).await;
        audit!("login_succeeded", %user, %session, "logged in");
        Ok(signed_in)
    }

    /// Changes the password, which ends every session but the one that asks. A repeat by that session succeeds.
    ///
    /// # Errors
    /// [`ChangePasswordError`].
    pub async fn change_password(
        &self,
        caller: Caller,
        change: &PasswordChange<'_>,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<(), ChangePasswordError> {
        let (holder, permit) = self.admit_password_check(caller, client)?;
        let account = self.store.users.find(caller.user).await?.ok_or(ChangePasswordError::NoAccount)?;
        let email = own_email(&account)?.clone();
        let attempt = self.count_attempt_of(caller)?;
        let proved = match self.verify_password(Some(account.clone()), change.current, attempt, &permit).await {
            Err(LogInError::InvalidCredentials) => None,
            proved => Some(proved?),
        };
        let Some(account) = proved else { return self.accept_repeat(account, caller, change.new, &permit).await };
        let hash = self.hash_new_password::<ChangePasswordError>(change.new, &email, (holder, &permit)).await?;
        let kept_session = caller.session();
        let new = NewPassword { hash: &hash, kept_session, at: now };
        let Some(version) = self.store.users.change_password(&account, &new).await? else {
            // Another request changed the password meanwhile; it may have been the same change.
            let account = self.store.users.find(caller.user).await?.ok_or(ChangePasswordError::NoAccount)?;
            return self.accept_repeat(account, caller, change.new, &permit).await;
        };
        audit!("password_changed", user = %caller.user, "password changed");
        self.clear_outdated_sessions(caller.user, version, kept_session).await;
        Ok(())
    }

    /// Accepts a change whose current password is wrong where it repeats the last one, whose answer was lost: the session that
    /// asks is the one that the last change kept, and the new password is the account's.
    async fn accept_repeat(
        &self,
        account: Account,
        caller: Caller,
        new: &str,
        permit: &HashPermit,
    ) -> Result<(), ChangePasswordError> {
        let kept = account.password.kept_session;
        if kept.is_none() || kept != caller.session() {
            return Err(LogInError::InvalidCredentials.into());
        }
        // AttemptKey as any other attempt: otherwise a stolen access token would give two for one.
        let attempt = self.count_attempt_of(caller)?;
        let version = account.password.version;
        self.verify_password(Some(account), new, attempt, permit).await?;
        audit!("password_change_repeated", user = %caller.user, "a change of the password that had been made was asked for again");
        self.clear_outdated_sessions(caller.user, version, kept).await;
        Ok(())
    }

    /// Sets the password of an address's account, for the operator, which ends all its sessions.
    ///
    /// # Errors
    /// [`SetPasswordError`].
    pub async fn set_password(&self, email: &str, new: &str, now: OffsetDateTime) -> Result<(), SetPasswordError> {
        let email = Email::parse(email)?;
        let account = self.store.users.find_by_email(&email).await?.ok_or(SetPasswordError::NoAccount)?;
        let holder = RequestOrigin { site: NetworkPrefix::site(Ipv4Addr::LOCALHOST.into()), user: Some(account.user.id) };
        let permit = self.passwords.acquire(holder)?;
        let hash = self.hash_new_password::<SetPasswordError>(new, &email, (holder, &permit)).await?;
        let new = NewPassword { hash: &hash, kept_session: None, at: now };
        let version = self.store.users.change_password(&account, &new).await?.ok_or(SetPasswordError::Changed)?;
        audit!("password_set_by_operator", user = %account.user.id, "password set by the operator");
        self.clear_outdated_sessions(account.user.id, version, None).await;
        Ok(())
    }

    /// The hash of a password that may become the one of this address's account.
    async fn hash_new_password<E: From<WeakPassword> + From<Overloaded>>(
        &self,
        password: &str,
        email: &Email,
        (holder, permit): (RequestOrigin, &HashPermit),
    ) -> Result<String, E> {
        let password = Password::new(password);
        match self.passwords.weakness(holder, password.clone(), email).await? {
            Some(weakness) => Err(WeakPassword(weakness).into()),
            None => Ok(self.passwords.hash(permit, password).await?),
        }
    }

    /// Counts a caller who is to prove the account's password, and takes a permit for hashing it.
    pub(super) fn admit_password_check(
        &self,
        caller: Caller,
        client: &ClientInfo,
    ) -> Result<(RequestOrigin, HashPermit), LogInError> {
        self.throttle.count_login(client)?;
        self.throttle.count_password_check(session_of(caller)?)?;
        let holder = client.holder(Some(caller.user));
        Ok((holder, self.passwords.acquire(holder)?))
    }

    /// Counts a caller's try of the password by the session that it is made in.
    pub(super) fn count_attempt_of(&self, caller: Caller) -> Result<LoginAttempt<'_>, LogInError> {
        Ok(self.throttle.count_attempt_in_session(session_of(caller)?)?)
    }

    /// The account, where the password is its own. Without an account it costs the same. A hash of other parameters than
    /// today's is replaced on the way.
    pub(super) async fn verify_password(
        &self,
        account: Option<Account>,
        password: &str,
        attempt: LoginAttempt<'_>,
        permit: &HashPermit,
    ) -> Result<Account, LogInError> {
        // What is too long to be a password was never hashed; it is not hashed now, either.
        let password = if password.len() > 4 * password_rules::MAX_BYTES { Password::new("") } else { Password::new(password) };
        let hash = account.as_ref().and_then(|account| account.password_hash.clone());
        let matched = self.passwords.verify(permit, password.clone(), hash).await.inspect_err(|_| attempt.cancel())?;
        let user = account.as_ref().map(|account| account.user.id.to_string());
        let Some(account) = account.filter(|_| matched != PasswordMatch::Mismatch) else {
            audit!("password_refused", user, "a wrong password, or no such account");
            return Err(LogInError::InvalidCredentials);
        };
        attempt.succeeded();
        // A server too busy for it now does it the next time.
        if matched == PasswordMatch::OutdatedHash
            && let Ok(hash) = self.passwords.hash(permit, password).await
        {
            self.store.users.rehash_password(&account, &hash).await?;
            tracing::info!(user, "password hashed with today's parameters");
        }
        Ok(account)
    }

    /// The user and what they hold. `None` when the account is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_with_usage(&self, user: UserId) -> Result<Option<(User, Usage)>, StoreError> {
        let (account, usage) = tokio::try_join!(self.store.users.find(user), self.store.users.usage(user))?;
        Ok(account.zip(usage).map(|(account, usage)| (account.user, usage)))
    }

    /// Counts of what users do, for handlers to charge before they ask for it.
    #[must_use]
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Bytes that a user may hold.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        self.uploads.quota_bytes
    }
}
