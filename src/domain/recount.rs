//! Recounts usage from the images, to correct drift that has a cause outside of this program (a restored backup, manual changes
//! in the database).

use std::{fmt, sync::Arc};

use futures_util::{StreamExt, stream};

use crate::{
    model::{Email, UserId},
    store::{MissingCollection, Repair, Store, StoreError},
};

/// Users that are read at once.
const USERS_PER_PAGE: u32 = 1000;
/// Users that are recounted concurrently.
const MAX_CONCURRENT: usize = 4;

/// Result of a recount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recounted {
    /// Users that were recounted.
    pub users: u64,
    /// Users whose counts were corrected.
    pub repaired: u64,
    /// Users that could not be recounted.
    pub failed: u64,
}

impl fmt::Display for Recounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users recounted, {} repaired, {} failed", self.users, self.repaired, self.failed)
    }
}

/// Why a recount failed.
#[derive(Debug, thiserror::Error)]
pub enum RecountError {
    /// No account has this email.
    #[error("there is no account with this email")]
    NotFound,
    /// The database was restored in part, so recounting would lose the counts of the missing part.
    #[error(
        "nothing was recounted: the database has nothing in its collection {0}, and the others say that there was something. \
         Restore it first, or recount single accounts"
    )]
    RestoredInPart(MissingCollection),
    /// The database failed; safe to repeat.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Recounts usage.
#[derive(Debug)]
pub struct Recount {
    pub(super) store: Arc<Store>,
}

impl Recount {
    /// Recounts one account, or all, and passes each repair to `on_repair`. Safe while servers run.
    ///
    /// # Errors
    /// [`RecountError`].
    pub async fn run(&self, only: Option<&Email>, mut on_repair: impl FnMut(Repair)) -> Result<Recounted, RecountError> {
        let mut total = Recounted::default();
        if let Some(email) = only {
            let account = self.store.users.find_by_email(email).await?.ok_or(RecountError::NotFound)?;
            self.recount_page(vec![account.user.id], &mut total, &mut on_repair).await?;
            return Ok(total);
        }
        if let Some(missing) = self.store.probe().missing_collection().await? {
            return Err(RecountError::RestoredInPart(missing));
        }
        // Records whose id is not a text.
        let without_text_id = self.store.users.count_without_text_id().await?;
        if without_text_id > 0 {
            tracing::error!(without_text_id, "failed to read the ids of users");
        }
        (total.users, total.failed) = (without_text_id, without_text_id);
        let mut after: Option<String> = None;
        loop {
            let page = self.store.users.ids(after.as_deref(), USERS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(total) };
            after = Some(last.as_ref().map_or_else(Clone::clone, ToString::to_string));
            let (users, unreadable): (Vec<_>, Vec<_>) = page.into_iter().partition(Result::is_ok);
            for id in unreadable.into_iter().filter_map(Result::err) {
                tracing::error!(id, "failed to read the id of a user");
                total.users += 1;
                total.failed += 1;
            }
            self.recount_page(users.into_iter().flatten().collect(), &mut total, &mut on_repair).await?;
        }
    }

    /// Recounts these users, and adds the outcomes to `total`.
    async fn recount_page(
        &self,
        users: Vec<UserId>,
        total: &mut Recounted,
        on_repair: &mut impl FnMut(Repair),
    ) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        let recounts = stream::iter(users).map(|user| async move { (user, self.store.recount(user, now).await) });
        let mut recounts = std::pin::pin!(recounts.buffer_unordered(MAX_CONCURRENT));
        while let Some((user, recounted)) = recounts.next().await {
            total.users += 1;
            match recounted {
                Ok(None) => {}
                Ok(Some(repair)) => {
                    total.repaired += 1;
                    on_repair(repair);
                }
                Err(error) => {
                    total.failed += 1;
                    tracing::warn!(%user, %error, "failed to recount a user");
                }
            }
        }
        Ok(())
    }
}
