//! Deleting an account, with everything in it. One conditional update takes it from its owner; the sweeper does the rest, in
//! steps that can each be repeated, and removes the account's record last.
//!
//! Images become tombstones first, which outlive the account: they know all that their end needs.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;

use super::{
    Valet,
    accounts::LogInError,
    audit::audit,
    credentials::{Caller, Proof},
    reservations,
    throttle::Client,
};
use crate::store::{Deletion, DeletionDue, StoreError};

/// How old a provider's token may be that deletes its user's account.
pub const FRESH: Duration = Duration::from_secs(5 * 60);
/// Accounts per step, and images of each.
const ACCOUNTS: i64 = 10;
const IMAGES: u32 = 100;
/// Longer than a step takes: two listings, a few updates, and the objects of its images.
const LEASE: Duration = Duration::from_secs(120);
/// Accounts at once.
const AT_ONCE: usize = 4;
/// After a record that cannot be read.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(60 * 60);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(60);
/// How long it is known that a provider's user was deleted: older tokens are refused, so those of before are dead by then.
pub(super) const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why an account was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteAccountError {
    /// An account with a password is deleted with it.
    #[error("the password is missing")]
    NoPassword,
    /// The password is wrong, or was not looked at.
    #[error(transparent)]
    Password(#[from] LogInError),
    /// The identity provider's token is not fresh.
    #[error("the token is older than five minutes")]
    TokenTooOld,
    /// The account is gone.
    #[error("the account is gone")]
    NoAccount,
}

impl From<StoreError> for DeleteAccountError {
    fn from(error: StoreError) -> Self {
        LogInError::from(error).into()
    }
}

/// What a round of the sweeper did about deletions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SweptDeletions {
    /// Accounts of which nothing is left.
    pub gone: u32,
    /// Accounts whose step failed.
    pub failed: u32,
    /// Whether there is more to do now.
    pub more: bool,
}

/// How a deletion goes on.
enum Step {
    /// At once.
    More,
    /// Not before this time.
    Wait(OffsetDateTime),
    /// Nothing is left.
    Done,
}

impl Valet {
    /// Deletes the caller's account: for its owner at once, and all that is in it by and by. Who has a password proves it,
    /// an identity provider's user has a fresh token.
    ///
    /// # Errors
    /// [`DeleteAccountError`].
    pub async fn delete_account(
        &self,
        caller: Caller,
        password: Option<&str>,
        client: &Client,
        now: OffsetDateTime,
    ) -> Result<(), DeleteAccountError> {
        let account = self.store.users.find(caller.user).await?.ok_or(DeleteAccountError::NoAccount)?;
        let account = match (&account.user.email, &account.password_hash, caller.proof) {
            (Some(_), Some(_), _) => {
                let password = password.ok_or(DeleteAccountError::NoPassword)?;
                let (_, place) = self.admit_password(caller, client)?;
                let guess = self.guess_of(caller)?;
                self.prove(Some(account), password, guess, &place).await?
            }
            (_, _, Proof::Provider { issued_at, .. }) if now - issued_at <= FRESH => account,
            _ => return Err(DeleteAccountError::TokenTooOld),
        };
        if !self.store.users.claim_deletion(&account, now).await? {
            // Its twin was faster, or the password was changed meanwhile.
            self.store.users.find(caller.user).await?.ok_or(DeleteAccountError::NoAccount)?;
            return Err(LogInError::InvalidCredentials.into());
        }
        audit!("account_deletion_begun", user = %caller.user, "an account is deleted by its owner");
        if let (Some(provider), Some((_, subject))) = (&self.provider, &account.identity) {
            provider.forget(subject);
        }
        self.clear_sessions(caller.user).await;
        Ok(())
    }

    /// A step of each deletion that is due, some at once. None holds up another.
    pub(super) async fn sweep_deletions(&self, now: OffsetDateTime) -> Result<SweptDeletions, StoreError> {
        let began = Instant::now();
        let step = |due: DeletionDue| async move { self.sweep_deletion(due, now + began.elapsed()).await }.boxed();
        let due = self.store.users.deletions_due(now, ACCOUNTS).await?;
        let steps: Vec<_> = stream::iter(due).map(step).buffer_unordered(AT_ONCE).collect().await;
        // What fails is postponed: behind a full batch there may be others.
        let is_full = i64::try_from(steps.len()).is_ok_and(|length| length == ACCOUNTS);
        let mut swept = SweptDeletions { more: is_full, ..SweptDeletions::default() };
        for step in steps {
            match step {
                Ok(Step::Done) => swept.gone += 1,
                Ok(Step::More) => swept.more = true,
                Ok(Step::Wait(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "failed to take a step of an account's deletion");
                    swept.failed += 1;
                }
            }
        }
        Ok(swept)
    }

    /// A step of one deletion, under a lease that begins at `now`.
    async fn sweep_deletion(&self, due: DeletionDue, now: OffsetDateTime) -> Result<Step, StoreError> {
        let deletion = match due {
            DeletionDue::Readable(deletion) => deletion,
            DeletionDue::Unreadable { id, due } => {
                self.store.users.postpone_unreadable(&id, due, now + UNREADABLE_AGAIN).await?;
                return Err(StoreError::Corrupt { collection: "users", id: id.to_string(), field: "deletedAt" });
            }
        };
        let (user, lease) = (deletion.user, now + LEASE);
        if !self.store.users.move_deletion(user, deletion.due, lease).await? {
            return Ok(Step::Wait(lease));
        }
        let step = self.step_deletion(deletion, now).await;
        let next = match &step {
            Ok(Step::Done) => {
                if !self.store.users.finish_deletion(user, lease).await? {
                    return Ok(Step::Wait(lease));
                }
                audit!("account_deleted", %user, "nothing of a deleted account is left");
                return step;
            }
            Ok(Step::More) => now,
            Ok(Step::Wait(until)) => *until,
            Err(_) => now + RETRY,
        };
        self.store.users.move_deletion(user, lease, next).await?;
        step.inspect_err(|error| tracing::warn!(%user, %error, "the deletion of an account could not go on"))
    }

    async fn step_deletion(
        &self,
        Deletion { user, at, is_foreign, .. }: Deletion,
        now: OffsetDateTime,
    ) -> Result<Step, StoreError> {
        self.store.known_networks.forget_all(user).await?;
        // Again: a sign-in that was under way when the account was claimed may have left one.
        if self.store.sessions.has_any(user).await? {
            self.store.sessions.delete_all(user).await?;
        }
        let live = self.store.images.live_owned(user, IMAGES).await?;
        if !live.is_empty() {
            let deleted = self.delete_all(user, &live, now).await?;
            let left: Vec<_> = live.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_err()).map(|(id, _)| *id).collect();
            if !left.is_empty() {
                // Their records cannot be read: the tombstones' sweep removes what they name.
                self.store.images.bury_owned(user, &left, now).await?;
            }
            return Ok(Step::More);
        }
        // A server that had reserved before the claim may insert its image still: its place is taken.
        let openings = self.store.users.openings(user).await?;
        if !openings.is_empty() {
            self.close_all_openings(user, &openings, now).await?;
            return Ok(Step::More);
        }
        let steps = self.store.users.steps_under_way(user, std::time::Duration::ZERO).await?;
        if !steps.is_empty() {
            self.store.finish_steps(user, &steps).await?;
            return Ok(Step::More);
        }
        if let Some(held) =
            self.store.users.former_holds_of(user, reservations::HOLDS).await?.filter(|held| !held.holds.is_empty())
        {
            let (_, changed) = self.settle_former_holds(held, now).await?;
            return Ok(if changed { Step::More } else { Step::Wait(now + RETRY) });
        }
        // Asked anew: nothing is being opened, so none can come after this.
        if !self.store.images.live_owned(user, 1).await?.is_empty() {
            return Ok(Step::More);
        }
        // Tombstones know what lies in the bucket still, or may arrive there: the account is gone when they are.
        if let Some((image, due)) = self.store.images.some_left_of(user).await? {
            tracing::debug!(%user, %image, "the deletion of an account waits for a tombstone");
            return Ok(Step::Wait(due.filter(|due| *due > now).unwrap_or(now + RETRY)));
        }
        let remembered = at + REMEMBERED;
        Ok(if is_foreign && now < remembered { Step::Wait(remembered) } else { Step::Done })
    }
}
