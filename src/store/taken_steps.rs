//! Steps that an image has taken and whose entry is still in its owner's `settling`. A confirm, or a request that ends an open
//! upload, is answered before the update that removes the entry and counts the step: a task of this server makes it, for all
//! steps of a user that wait at the same time.
//!
//! The entry is the marker by which any other server counts the step: when it reads the counters ([`Store::usage`]), when it
//! takes the next step of the image, or when the sweeper finds the entry. So the counters that are read include every image that
//! was acknowledged before, also if this server died.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    AccountPage, AnnouncedStep, Store, StoreError, UserFilter, failpoint, mongo::DEADLINE, request_origin, users::Counted,
};
use crate::model::{ImageId, TimelineMonth, Usage, UserId};

/// Maximum number of steps that one update counts.
const STEPS_PER_UPDATE: usize = 100;
/// Maximum wait for updates of this server: short, because a caller that does not wait counts the steps itself.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Steps of this server that are not counted yet, by user.
#[derive(Debug, Default)]
pub(super) struct TakenSteps {
    /// A user has an entry as long as a task counts its steps.
    users: Mutex<HashMap<UserId, StepsOfUser>>,
    /// Notified after each update.
    counted: Notify,
}

/// Steps of a user that are not counted yet.
#[derive(Debug, Default)]
struct StepsOfUser {
    /// Steps of the next updates.
    waiting: Vec<AnnouncedStep>,
    /// Images whose steps the current update counts.
    current: Vec<ImageId>,
}

impl StepsOfUser {
    /// Returns the images whose steps are not counted yet.
    fn images(&self) -> impl Iterator<Item = ImageId> {
        self.waiting.iter().map(|step| step.image).chain(self.current.iter().copied())
    }
}

impl TakenSteps {
    /// Adds a step. Returns whether no task counts the user's steps yet, so that the caller starts one.
    fn add(&self, user: UserId, step: AnnouncedStep) -> bool {
        let mut users = self.users.lock();
        let is_first = !users.contains_key(&user);
        users.entry(user).or_default().waiting.push(step);
        is_first
    }

    /// Returns the steps of the user's next update, after the previous one. `None` if no step waits: the task ends.
    fn next(&self, user: UserId) -> Option<Vec<AnnouncedStep>> {
        let mut users = self.users.lock();
        let steps = users.get_mut(&user).map(|user_steps| {
            let steps: Vec<_> = user_steps.waiting.drain(..user_steps.waiting.len().min(STEPS_PER_UPDATE)).collect();
            user_steps.current = steps.iter().map(|step| step.image).collect();
            steps
        });
        let steps = steps.filter(|steps| !steps.is_empty());
        if steps.is_none() {
            users.remove(&user);
        }
        drop(users);
        self.counted.notify_waiters();
        steps
    }

    /// Returns the user's images whose steps are not counted yet.
    fn images_of(&self, user: UserId) -> Vec<ImageId> {
        self.users.lock().get(&user).map_or_else(Vec::new, |steps| steps.images().collect())
    }

    /// Waits until the present steps of these images are counted, or their updates have failed.
    pub(super) async fn wait_for(&self, user: UserId, images: &[ImageId]) {
        let is_counted = || self.users.lock().get(&user).is_none_or(|steps| !steps.images().any(|image| images.contains(&image)));
        let counted = async {
            loop {
                let mut next = std::pin::pin!(self.counted.notified());
                // Enabled before `is_counted()`, so that an update which ends after it is not missed.
                next.as_mut().enable();
                if is_counted() {
                    return;
                }
                next.await;
            }
        };
        // The caller does not depend on it: other servers' steps are not waited for either.
        let _ = tokio::time::timeout(MAX_WAIT, counted).await;
    }

    /// Waits until the present steps of all users are counted, or their updates have failed.
    async fn wait_for_all(&self) {
        let present: Vec<_> = self.users.lock().iter().map(|(user, steps)| (*user, steps.images().collect::<Vec<_>>())).collect();
        let all = async {
            for (user, images) in present {
                self.wait_for(user, &images).await;
            }
        };
        let _ = tokio::time::timeout(DEADLINE, all).await;
    }
}

impl Store {
    /// Counts a step that its image has taken, in a task of its own, with the user's other steps that wait.
    pub(super) fn count_later(&self, user: UserId, step: AnnouncedStep) {
        if !self.taken.add(user, step) {
            return;
        }
        let (users, taken) = (self.users.clone(), Arc::clone(&self.taken));
        let count = async move {
            while let Some(steps) = taken.next(user) {
                let ids: Vec<_> = steps.iter().map(|step| step.id).collect();
                if let Err(error) = users.close_steps(user, &steps, &ids).await {
                    tracing::warn!(%user, %error, steps = steps.len(), "failed to count steps of images; the sweeper retries");
                }
            }
        };
        tokio::spawn(request_origin::inherit(failpoint::inherit(count)));
    }

    /// Waits until this server has counted the steps that its images have taken so far.
    pub async fn wait_for_counts(&self) {
        self.taken.wait_for_all().await;
    }

    /// Waits until this server has counted the steps that the user's images have taken so far.
    async fn wait_for_counts_of(&self, user: UserId) {
        self.taken.wait_for(user, &self.taken.images_of(user)).await;
    }

    /// Returns the user's counters, with all images that were acknowledged before. `None` if the user does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn usage(&self, user: UserId) -> Result<Option<Usage>, StoreError> {
        self.wait_for_counts_of(user).await;
        match self.users.usage(user).await? {
            Some(found) if self.count_for_reader(user, &found.announced).await? => {
                Ok(self.users.usage(user).await?.map(|found| found.value))
            }
            found => Ok(found.map(|found| found.value)),
        }
    }

    /// Returns the months in which the user has images, the latest first, with the number of images, with all images that were
    /// acknowledged before. `None` if the user does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn timeline(&self, user: UserId) -> Result<Option<Vec<(TimelineMonth, u64)>>, StoreError> {
        self.wait_for_counts_of(user).await;
        match self.users.timeline(user).await? {
            Some(found) if self.count_for_reader(user, &found.announced).await? => {
                Ok(self.users.timeline(user).await?.map(|found| found.value))
            }
            found => Ok(found.map(|found| found.value)),
        }
    }

    /// Returns accounts with their counters, with all images that were acknowledged before, in the order of their creation, after
    /// `after`, for at most `limit` records. An unreadable record is logged and left out; a record without a user id is not an
    /// account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_page(&self, users: &UserFilter, after: Option<UserId>, limit: u32) -> Result<AccountPage, StoreError> {
        let AccountPage { accounts: found, next } = self.users.page(users, after, limit).await?;
        let mut accounts = Vec::with_capacity(found.len());
        for Counted { value: mut counted, announced } in found {
            let user = counted.account.user.id;
            if self.count_for_reader(user, &announced).await? {
                counted.usage = self.usage(user).await?.unwrap_or(counted.usage);
            }
            accounts.push(counted);
        }
        Ok(AccountPage { accounts, next })
    }

    /// Counts steps like [`Self::count_taken_steps`] before their counters are read again. If the record is damaged, the counters
    /// stay as they were read, so that the rest of it can be shown.
    async fn count_for_reader(&self, user: UserId, steps: &[AnnouncedStep]) -> Result<bool, StoreError> {
        match self.count_taken_steps(user, steps).await {
            Err(error) if !error.is_temporary() => {
                tracing::error!(%user, %error, "failed to count steps of images in a damaged record");
                Ok(false)
            }
            counted => counted,
        }
    }

    /// Counts those of the announced steps that their images have taken; the others may still be taken. Returns whether there
    /// were any.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn count_taken_steps(&self, user: UserId, steps: &[AnnouncedStep]) -> Result<bool, StoreError> {
        if steps.is_empty() {
            return Ok(false);
        }
        let taken = self.images.find_taken_steps(user, steps).await?;
        let steps: Vec<_> = steps.iter().filter(|step| taken.contains(&step.id)).copied().collect();
        self.users.close_steps(user, &steps, &taken).await?;
        Ok(!steps.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};

    use super::*;

    fn step() -> AnnouncedStep {
        AnnouncedStep { image: ImageId::new(), id: crate::model::StepId::new(), last_step: None, hold: None }
    }

    #[tokio::test]
    async fn one_task_counts_all_steps_of_a_user() {
        let (taken, user) = (TakenSteps::default(), UserId::new());
        let steps: Vec<_> = (0..=STEPS_PER_UPDATE).map(|_| step()).collect();
        let started = steps.iter().filter(|step| taken.add(user, **step)).count();
        assert_eq!(started, 1);
        assert!(taken.add(UserId::new(), step()), "another user has a task of its own");
        let images = |steps: Vec<AnnouncedStep>| steps.iter().map(|step| step.image).collect::<Vec<_>>();
        let (first, second) = (taken.next(user).map(images), taken.next(user).map(images));
        assert_eq!([first.unwrap(), second.unwrap()].concat(), images(steps));
        assert_eq!(taken.images_of(user).len(), 1, "the steps of the current update are not counted yet");
        assert!(taken.next(user).is_none());
        assert!(taken.add(user, step()), "the task has ended");
    }

    #[tokio::test]
    async fn callers_wait_for_present_steps_only_and_not_for_ever() {
        let (taken, user, awaited) = (TakenSteps::default(), UserId::new(), step());
        taken.add(user, awaited);
        assert!(taken.wait_for(user, &[ImageId::new()]).now_or_never().is_some(), "another image");
        assert!(taken.wait_for(UserId::new(), &[awaited.image]).now_or_never().is_some(), "another user");
        let images = [awaited.image];
        let mut waiting = Box::pin(taken.wait_for(user, &images));
        assert!(poll!(&mut waiting).is_pending());
        taken.next(user);
        assert!(poll!(&mut waiting).is_pending(), "the update is under way");
        taken.add(user, step());
        taken.next(user);
        assert!(poll!(&mut waiting).is_ready(), "a later step does not prolong the wait");
        let began = std::time::Instant::now();
        taken.wait_for_all().await;
        assert!(began.elapsed() >= MAX_WAIT, "an update that hangs");
    }
}
