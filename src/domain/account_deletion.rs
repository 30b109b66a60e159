//! Deletes accounts with all their data. One conditional update (the claim) closes the account; the sweeper deletes its data in
//! repeatable steps, and the account's record last.
//!
//! Images become tombstones, which contain everything that removing their objects needs. The account's record stays until the
//! sweeper has purged all of them. This file has the claim and the sweeper's rounds, in which each account that is due gets one
//! pass; `steps` has the steps of a pass, `leftovers` removes objects without a record.

mod leftovers;
mod steps;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

pub(super) use self::leftovers::LeftoverRemoval;
use self::steps::Progress;
use super::{
    audit::audit,
    credentials::{Caller, TokenOrigin},
    deletion::ImageDeletion,
    identity_provider::Identities,
    late_transfers::LateTransfers,
    password_checks::{LogInError, PasswordChecks},
    permanent_failures::concerns_only_record,
    reservations::Reservations,
    service_keys::Authorized,
    sessions::Sessions,
    sweep_backoff::{FAILURES_UNTIL_STUCK, backoff},
    throttle::ClientInfo,
};
use crate::{
    config,
    model::{SessionId, UserId},
    store::{Account, DeletionDue, Objects, Postponement, Store, StoreError},
};

/// Maximum age of a provider's token that deletes its user's account.
pub const MAX_TOKEN_AGE: Duration = Duration::from_secs(5 * 60);
/// Attempts at claiming an account whose password changes meanwhile.
const MAX_CLAIMS: u32 = 5;
/// Maximum number of accounts per round.
const ACCOUNTS_PER_ROUND: i64 = 10;
/// Lease of an account, longer than a pass: some listings, a few updates, and the deletion of objects.
const LEASE: Duration = Duration::from_secs(120);
/// Maximum number of accounts that are handled at the same time.
const MAX_CONCURRENT: usize = 4;
/// Delay until an unreadable record is read again.
const UNREADABLE_RETRY_DELAY: Duration = Duration::from_secs(60 * 60);
/// Delay after a pass with a temporary failure, or one that waits for another server.
const RETRY_DELAY: Duration = Duration::from_secs(60);

/// Why an account was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteAccountError {
    /// Deleting an account with a password requires it.
    #[error("the password is missing")]
    NoPassword,
    /// The password is wrong, or was not verified.
    #[error(transparent)]
    Password(#[from] LogInError),
    /// The identity provider's token is too old.
    #[error("the token is older than five minutes")]
    TokenTooOld,
    /// The account has been deleted.
    #[error("the account has been deleted")]
    NoAccount,
}

impl From<StoreError> for DeleteAccountError {
    fn from(error: StoreError) -> Self {
        LogInError::from(error).into()
    }
}

/// Result of one round of the sweeper over deleted accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SweptDeletions {
    /// Accounts whose data is completely deleted.
    pub deleted: u32,
    /// Accounts whose pass failed.
    pub failed: u32,
    /// Whether more is due now.
    pub more: bool,
}

/// Deletes accounts: claims them for their owner or the app's backend, and deletes claimed ones for the sweeper.
#[derive(Debug)]
pub struct AccountDeletion {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
    pub(super) settings: Arc<config::Uploads>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) deletion: Arc<ImageDeletion>,
    pub(super) late_transfers: LateTransfers,
    pub(super) leftovers: LeftoverRemoval,
    pub(super) password_checks: Arc<PasswordChecks>,
    pub(super) identities: Arc<Identities>,
    pub(super) sessions: Arc<Sessions>,
}

impl AccountDeletion {
    /// Closes the caller's account at once; the sweeper deletes its data. Requires the password of an account that has one,
    /// otherwise a recent token of the identity provider or a recent session that the app's backend created.
    ///
    /// # Errors
    /// [`DeleteAccountError`].
    pub async fn delete_account(
        &self,
        caller: Caller,
        password: Option<&str>,
        client: &ClientInfo,
        now: OffsetDateTime,
    ) -> Result<(), DeleteAccountError> {
        let account = self.store.users.find(caller.user).await?.ok_or(DeleteAccountError::NoAccount)?;
        let has_password = account.user.email.is_some() && account.password_hash.is_some();
        let account = match (has_password, &account.password_hash, caller.origin) {
            (true, ..) => {
                let password = password.ok_or(DeleteAccountError::NoPassword)?;
                let (_, permit) = self.password_checks.admit_password_check(caller, client)?;
                let attempt = self.password_checks.count_attempt_of(caller)?;
                self.password_checks.verify_password(Some(account), password, attempt, &permit).await?
            }
            (_, _, TokenOrigin::Provider { issued_at, .. }) if now - issued_at <= MAX_TOKEN_AGE => account,
            (_, None, TokenOrigin::Session(session)) if self.is_recent_session(caller, session, now).await? => account,
            _ => return Err(DeleteAccountError::TokenTooOld),
        };
        if !self.store.users.claim_deletion(&account, now).await? {
            // A concurrent request was faster, or the password was changed meanwhile.
            self.store.users.find(caller.user).await?.ok_or(DeleteAccountError::NoAccount)?;
            return Err(if has_password {
                LogInError::InvalidCredentials.into()
            } else {
                StoreError::Contention { subject: "the account that is deleted" }.into()
            });
        }
        audit!("account_deletion_begun", user = %caller.user, "the owner deleted an account");
        self.end_all_sessions(&account).await;
        Ok(())
    }

    /// Closes an account for the app's backend at once; the sweeper deletes its data. Returns `false` if the account does not
    /// exist.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn delete_for_backend(&self, key: &Authorized, user: UserId, now: OffsetDateTime) -> Result<bool, StoreError> {
        // A change of the password between the read and the claim makes the claim fail.
        for _ in 0..MAX_CLAIMS {
            let Some(account) = self.store.users.find(user).await? else { return Ok(false) };
            if self.store.users.claim_deletion(&account, now).await? {
                audit!("account_deletion_begun", %user, key = key.key_name(), "the app's backend deleted an account");
                self.end_all_sessions(&account).await;
                return Ok(true);
            }
        }
        Err(StoreError::Contention { subject: "the account that is deleted" })
    }

    /// Returns whether the app's backend created the caller's session within [`MAX_TOKEN_AGE`]. The app's users have no password,
    /// so their deletion requires a recent session instead.
    async fn is_recent_session(&self, caller: Caller, id: SessionId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let session = self.store.sessions.find_owned(caller.user, id, now).await?;
        Ok(session.is_some_and(|session| session.issued_by.is_some() && now - session.created_at <= MAX_TOKEN_AGE))
    }

    /// Ends the sessions of an account that was claimed for deletion.
    async fn end_all_sessions(&self, account: &Account) {
        self.identities.forget_user(account);
        self.sessions.clear_sessions(account.user.id).await;
    }

    /// Makes a pass over each account whose deletion is due, several concurrently. No deletion delays another.
    pub(super) async fn sweep_deletions(&self, now: OffsetDateTime) -> Result<SweptDeletions, StoreError> {
        let began = Instant::now();
        let pass = |due: DeletionDue| async move { self.sweep_deletion(due, now + began.elapsed()).await }.boxed();
        let due = self.store.users.find_due_deletions(now, ACCOUNTS_PER_ROUND).await?;
        let passes: Vec<_> = stream::iter(due).map(pass).buffer_unordered(MAX_CONCURRENT).collect().await;
        // Failed deletions are postponed. More may be due if the query returned as many as it may.
        let is_full = i64::try_from(passes.len()).is_ok_and(|length| length == ACCOUNTS_PER_ROUND);
        let mut swept = SweptDeletions { more: is_full, ..SweptDeletions::default() };
        for outcome in passes {
            match outcome {
                Ok(Progress::Done) => swept.deleted += 1,
                Ok(Progress::More) => swept.more = true,
                Ok(Progress::Wait(_)) => {}
                Err(_) => swept.failed += 1,
            }
        }
        Ok(swept)
    }

    /// Makes a pass over one account, under a lease that begins at `now`.
    async fn sweep_deletion(&self, due: DeletionDue, now: OffsetDateTime) -> Result<Progress, StoreError> {
        let deletion = match due {
            DeletionDue::Readable(deletion) => deletion,
            DeletionDue::Unreadable { id, due } => {
                // Reported as stuck at once: the record stays unreadable, unless only its `due` was, which is overwritten.
                let to = Postponement { due: now + UNREADABLE_RETRY_DELAY, failures: FAILURES_UNTIL_STUCK };
                self.store.users.postpone_unreadable(&id, &due, to).await?;
                let error = StoreError::Corrupt { collection: "users", id: id.to_string(), field: "_id or due" };
                tracing::error!(%error, "failed to read the record of a deleted account");
                return Err(error);
            }
        };
        let (user, lease) = (deletion.user, now + LEASE);
        if !self.store.users.claim_due_deletion(user, deletion.due, lease).await? {
            return Ok(Progress::Wait(lease));
        }
        let mut outcome = if deletion.was_never_inserted { Ok(Progress::Done) } else { self.run_pass(deletion, now).await };
        if matches!(outcome, Ok(Progress::Done)) {
            outcome = self.store.users.finish_deletion(user, lease).await.map(|is_finished| match is_finished {
                true => Progress::Done,
                // A server has inserted data of the account meanwhile.
                false => Progress::Wait(now + RETRY_DELAY),
            });
        }
        let without_failures = |due| Postponement { due, failures: 0 };
        let to = match &outcome {
            Ok(Progress::Done) if deletion.was_never_inserted => return outcome,
            Ok(Progress::Done) => {
                audit!("account_deleted", %user, "removed all data of a deleted account");
                return outcome;
            }
            Ok(Progress::More) => without_failures(now),
            Ok(Progress::Wait(until)) => without_failures(*until),
            Err(error) => {
                let failures = deletion.failures.saturating_add(u32::from(concerns_only_record(&self.objects, error).await));
                tracing::warn!(%user, %error, failures, "failed to continue the deletion of an account");
                let wait = if failures > deletion.failures { backoff(failures) } else { RETRY_DELAY };
                Postponement { due: now + wait, failures }
            }
        };
        self.store.users.postpone_deletion(user, lease, to).await?;
        outcome
    }
}
