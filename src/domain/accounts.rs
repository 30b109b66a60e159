//! Accounts with a password: signing up, signing in, and changing the password.

use std::{borrow::Cow, net::Ipv4Addr, sync::Arc};

use time::OffsetDateTime;

pub use super::password_checks::LogInError;
use super::{
    audit::audit,
    authentication::NoLocalAccount,
    credentials::{
        Caller,
        passwords::{Password, Passwords},
    },
    hash_pool::{HashPermit, Overloaded, PoolLoad},
    identity_provider::Identities,
    known_networks::KnownNetworks,
    password_checks::PasswordChecks,
    sessions::{Sessions, SignedIn},
    throttle::{ClientInfo, LoginAttempt, Throttle, Throttled},
};
use crate::{
    model::{Email, InvalidEmail, NetworkPrefix, RequestOrigin, Usage, User, UserId},
    store::{Account, NewPassword, Store, StoreError},
};

/// Reason why a password is too weak; completes a sentence that begins with "the password".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password {0}")]
pub struct WeakPassword(pub Cow<'static, str>);

/// Why a sign-up failed.
#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    /// The text is not an email address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// The password is too weak.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The address has an account already.
    #[error("the email address has an account already")]
    EmailTaken,
    /// Local accounts are disabled.
    #[error(transparent)]
    NoLocalAccount(#[from] NoLocalAccount),
    /// Sign-up is closed.
    #[error("sign-up is closed")]
    Closed,
    /// Too many sign-ups from the client's networks.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Too many passwords are being hashed.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The database failed; the account may have been created.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of password that an owner requests.
#[derive(Clone, Copy)]
pub struct PasswordChange<'a> {
    /// Current password.
    pub current: &'a str,
    /// New password.
    pub new: &'a str,
}

/// Why an owner's change of password failed.
#[derive(Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// The current password is wrong, or was not verified.
    #[error(transparent)]
    Current(#[from] LogInError),
    /// The new password is too weak.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The account has been deleted.
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

/// Why an operator could not set a password.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    /// The text is not an email address.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// The new password is too weak.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The address has no account.
    #[error("no account has this email address")]
    NoAccount,
    /// Another request changed the password at the same time.
    #[error("another request changed the password at the same time; try again")]
    Changed,
    /// Too many passwords are being hashed.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The database failed; the password may have been set. A repeat is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the address that the account's password belongs to. An identity provider's user has no password, even with an address.
fn own_email(account: &Account) -> Result<&Email, LogInError> {
    let email = account.user.email.as_ref().filter(|_| account.password_hash.is_some());
    email.ok_or(LogInError::NoLocalAccount(NoLocalAccount::Foreign))
}

/// Accounts with a password.
#[derive(Debug)]
pub struct Accounts {
    pub(super) store: Arc<Store>,
    pub(super) identities: Arc<Identities>,
    pub(super) can_sign_up: bool,
    pub(super) throttle: Arc<Throttle>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) known_networks: Arc<KnownNetworks>,
    pub(super) password_checks: Arc<PasswordChecks>,
}

impl Accounts {
    /// Creates an account and signs in. Of two concurrent sign-ups, the one that takes the address first gets it.
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
        self.identities.require_local_accounts()?;
        if !self.can_sign_up {
            return Err(SignUpError::Closed);
        }
        self.throttle.count_sign_up(client)?;
        let email = Email::parse(email)?;
        let holder = client.request_origin(None);
        let permit = self.passwords.acquire(holder)?;
        let hash = self.hash_new_password::<SignUpError>(password, &email, holder, &permit).await?;
        let account = self.store.users.insert(&email, &hash, now).await?.ok_or(SignUpError::EmailTaken)?;
        // Audited before the session is created: that may fail, and the account exists nevertheless.
        audit!("account_created", user = %account.user.id, "signed up");
        let (signed_in, session) = self.sessions.start_session(account, client, now).await?;
        self.known_networks.record_network(signed_in.user.id, client, now).await;
        tracing::info!(user = %signed_in.user.id, %session, "started the session of a new account");
        Ok(signed_in)
    }

    /// Signs in. An unknown address takes as long as a wrong password.
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
        self.identities.require_local_accounts()?;
        self.throttle.count_login(client)?;
        let permit = self.passwords.acquire(client.request_origin(None))?;
        let account = match Email::parse(email) {
            Ok(email) => {
                let attempt = self.known_networks.count_attempt(&email, client, now).await?;
                let account = self.store.users.find_by_email(&email).await.inspect_err(|_| attempt.cancel())?;
                self.password_checks.verify_password(account, password, attempt, &permit).await?
            }
            // No account has this address. A hash is still verified, so that the time does not reveal it.
            Err(InvalidEmail) => self.password_checks.verify_password(None, password, LoginAttempt::untracked(), &permit).await?,
        };
        let user = account.user.id;
        if account.suspended_at.is_some() {
            audit!("login_refused", %user, reason = "account suspended", "refused a sign-in to a suspended account");
            return Err(LogInError::Suspended);
        }
        let (signed_in, session) = self.sessions.start_session(account, client, now).await?;
        self.known_networks.record_network(user, client, now).await;
        audit!("login_succeeded", %user, %session, "logged in");
        Ok(signed_in)
    }

    /// Changes the password, which ends every session except the caller's. A repeat by that session succeeds.
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
        let (holder, permit) = self.password_checks.admit_password_check(caller, client)?;
        let account = self.store.users.find(caller.user).await?.ok_or(ChangePasswordError::NoAccount)?;
        let email = own_email(&account)?.clone();
        let attempt = self.password_checks.count_attempt_of(caller)?;
        let verified = match self.password_checks.verify_password(Some(account.clone()), change.current, attempt, &permit).await {
            Err(LogInError::InvalidCredentials) => None,
            verified => Some(verified?),
        };
        let Some(account) = verified else { return self.accept_repeat(account, caller, change.new, &permit).await };
        let hash = self.hash_new_password::<ChangePasswordError>(change.new, &email, holder, &permit).await?;
        let kept_session = caller.session();
        let new = NewPassword { hash: &hash, kept_session, at: now };
        let Some(version) = self.store.users.change_password(&account, &new).await? else {
            // Another request changed the password meanwhile, possibly to the same one.
            let account = self.store.users.find(caller.user).await?.ok_or(ChangePasswordError::NoAccount)?;
            return self.accept_repeat(account, caller, change.new, &permit).await;
        };
        audit!("password_changed", user = %caller.user, "password changed");
        self.sessions.clear_outdated_sessions(caller.user, version, kept_session).await;
        Ok(())
    }

    /// Accepts a change with a wrong current password if it repeats the last change, whose answer was lost: the last change kept
    /// the caller's session, and the new password is the account's.
    async fn accept_repeat(
        &self,
        account: Account,
        caller: Caller,
        new: &str,
        permit: &HashPermit,
    ) -> Result<(), ChangePasswordError> {
        let kept_session = account.password.kept_session;
        if kept_session.is_none() || kept_session != caller.session() {
            return Err(LogInError::InvalidCredentials.into());
        }
        // Counted as any other attempt: otherwise a stolen access token would allow two attempts for one.
        let attempt = self.password_checks.count_attempt_of(caller)?;
        let version = account.password.version;
        self.password_checks.verify_password(Some(account), new, attempt, permit).await?;
        audit!("password_change_repeated", user = %caller.user, "repeated a change of the password");
        self.sessions.clear_outdated_sessions(caller.user, version, kept_session).await;
        Ok(())
    }

    /// Sets the password of an account on behalf of the operator, which ends all its sessions.
    ///
    /// # Errors
    /// [`SetPasswordError`].
    pub async fn set_password(&self, email: &str, new: &str, now: OffsetDateTime) -> Result<(), SetPasswordError> {
        let email = Email::parse(email)?;
        let account = self.store.users.find_by_email(&email).await?.ok_or(SetPasswordError::NoAccount)?;
        // The operator's command has no client whose share of the pool it could take.
        let holder = RequestOrigin { site: NetworkPrefix::site(Ipv4Addr::LOCALHOST.into()), user: Some(account.user.id) };
        let permit = self.passwords.acquire(holder)?;
        let hash = self.hash_new_password::<SetPasswordError>(new, &email, holder, &permit).await?;
        let new = NewPassword { hash: &hash, kept_session: None, at: now };
        let version = self.store.users.change_password(&account, &new).await?.ok_or(SetPasswordError::Changed)?;
        audit!("password_set_by_operator", user = %account.user.id, "operator set the password");
        self.sessions.clear_outdated_sessions(account.user.id, version, None).await;
        Ok(())
    }

    /// Checks the strength of a new password, and returns its hash.
    async fn hash_new_password<E: From<WeakPassword> + From<Overloaded>>(
        &self,
        password: &str,
        email: &Email,
        holder: RequestOrigin,
        permit: &HashPermit,
    ) -> Result<String, E> {
        let password = Password::new(password);
        match self.passwords.find_weakness(holder, password.clone(), email).await? {
            Some(weakness) => Err(WeakPassword(weakness).into()),
            None => Ok(self.passwords.hash(permit, password).await?),
        }
    }

    /// Returns the user and their usage. `None` if the account has been deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_with_usage(&self, user: UserId) -> Result<Option<(User, Usage)>, StoreError> {
        let (account, usage) = tokio::try_join!(self.store.users.find(user), self.store.usage(user))?;
        Ok(account.zip(usage).map(|(account, usage)| (account.user, usage)))
    }

    /// Returns the numbers of passwords that are being hashed and that wait.
    #[must_use]
    pub fn hash_load(&self) -> PoolLoad {
        self.passwords.load()
    }
}
