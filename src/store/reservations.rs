//! Steps of reservations: an image and its owner's counters change together or not at all, although no write spans both
//! documents.
//!
//! 1. An entry in the user's `settling` announces the step: its image, an id of its own and the amounts that it adds to the
//!    counters. The update fails while another step of the same image is announced.
//! 2. The image changes, on condition that state, reservation and `lastStep` are as they were read, and gets the step's id as
//!    its `lastStep`.
//! 3. One update of the user removes the entry, and adds to the counters if the image has changed. A confirm, and a request that
//!    ends an open upload, do not wait for it (`taken_steps`); everything that reads the counters includes the steps that are
//!    taken and not counted yet.
//!
//! Each of the three writes is an update of one document, so a server that dies leaves no locks, only an entry. Any server can
//! finish the step ([`Store::finish_steps`]): if the image's `lastStep` is still the one recorded in the entry, it is replaced, so
//! that the second update no longer matches, however late it arrives; otherwise `lastStep` shows whether the step was taken. No
//! further step of the image begins until the entry is removed. The third update adds the amounts of the entry only if it removes
//! the entry, so each step is counted once.

use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;

use super::{
    Store, StoreError, datetime,
    images::{Transition, TransitionUpdate, ending_transition, tombstone_update},
    integer, is_sort_time, last_step,
    users::{AnnounceOutcome, AnnouncedStep, QuotaLimits},
};
use crate::model::{Image, ImageEnd, ImageId, ImageState, Reservation, ReservationStep, StepId, UserId, Verified};

/// A pending upload that becomes ready with a step.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance<'a> {
    /// The image as it was read.
    pub image: &'a Image,
    /// The properties that were verified.
    pub verified: &'a Verified,
    /// The step, which ends the reservation.
    pub step: ReservationStep,
}

/// The outcome of applying steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// These images took their steps; the others had changed since they were read.
    Applied(Vec<ImageId>),
    /// Nothing has changed: other steps of these images are in progress, or were left by a server that died, or one of the images
    /// still has a hold of an earlier version, or the quota does not permit the steps.
    Conflict,
}

impl Store {
    /// Makes the transition `pending → ready` with the verified properties, as this step. Returns `None` if the step was not
    /// taken: the image has changed, another step of it is in progress, or another server has finished this step as that of a dead
    /// server.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat after reading the image again.
    pub async fn accept(&self, image: &Image, verified: &Verified, step: &ReservationStep) -> Result<Option<Image>, StoreError> {
        self.make_transition(step, image, self.images.ready_transition(image, verified)).await
    }

    /// Makes the transition of [`Self::accept`] for many images of a user. Returns those that took their steps; none, if one of
    /// them has another step in progress.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat after reading the images again.
    pub async fn accept_all(&self, user: UserId, acceptances: &[Acceptance<'_>]) -> Result<Vec<ImageId>, StoreError> {
        let steps = acceptances.iter().map(|acceptance| &acceptance.step);
        let entries: Vec<_> = steps.clone().map(announced_step).collect();
        let announced = match acceptances {
            [] => return Ok(Vec::new()),
            _ => self.users.announce_steps(user, entries.iter().zip(steps), None).await?,
        };
        if announced == AnnounceOutcome::Conflict {
            return Ok(Vec::new());
        }
        let updates = entries.iter().zip(acceptances).map(|(entry, Acceptance { image, verified, step })| {
            with_step(self.images.ready_transition(image, verified), entry, step, user).into_update(self.images.outbox())
        });
        let taken = self.update_images(user, &entries, updates).await?;
        self.images.record_transitions(ImageState::Ready, taken.len() as u64);
        match announced {
            AnnounceOutcome::Announced if taken.len() == entries.len() => {
                entries.iter().for_each(|entry| self.count_later(user, *entry));
            }
            AnnounceOutcome::Announced => self.users.close_steps(user, &entries, &taken).await?,
            AnnounceOutcome::Conflict | AnnounceOutcome::NoUser => {}
        }
        Ok(images_that_took(&entries, &taken))
    }

    /// Ends a pending upload, as this step. Returns the tombstone; `None` in the cases of [`Self::accept`], and if URLs were issued
    /// or an attempt to create the object began after the image was read.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat after reading the image again.
    pub async fn end_pending(
        &self,
        image: &Image,
        end: ImageEnd,
        step: &ReservationStep,
        now: OffsetDateTime,
    ) -> Result<Option<Image>, StoreError> {
        let mut transition = ending_transition(image, end, now);
        transition.filter.extend(doc! {
            "urlsDieAt": datetime(image.urls_expire_at),
            // Null also matches an absent field.
            "attemptsEndAt": image.attempts_end_at.map(datetime),
        });
        self.make_transition(step, image, transition).await
    }

    /// Makes a transition of one image as this step. The step is counted later.
    async fn make_transition(
        &self,
        step: &ReservationStep,
        image: &Image,
        transition: Transition,
    ) -> Result<Option<Image>, StoreError> {
        let entry = announced_step(step);
        let announced = self.users.announce_steps(image.user, std::iter::once((&entry, step)), None).await?;
        if announced == AnnounceOutcome::Conflict {
            return Ok(None);
        }
        let changed = self.images.make_transition(with_step(transition, &entry, step, image.user)).await?;
        let is_announced = announced == AnnounceOutcome::Announced;
        if changed.is_none() {
            let taken = self.images.decide_steps(image.user, &[entry]).await?;
            if is_announced {
                self.users.close_steps(image.user, &[entry], &taken).await?;
            }
        } else if is_announced {
            self.count_later(image.user, entry);
        }
        Ok(changed)
    }

    /// Applies steps of one user's images.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat after reading the images again.
    pub async fn apply_steps(&self, user: UserId, steps: &[ReservationStep]) -> Result<StepOutcome, StoreError> {
        self.take_steps(user, steps, None, |step, id| plain_update(reservation_update(step.after), id)).await
    }

    /// Raises the reservation of a pending upload, if the quota permits it.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat after reading the image again.
    pub async fn grow_reservation(
        &self,
        user: UserId,
        growth: &ReservationStep,
        limits: QuotaLimits,
    ) -> Result<StepOutcome, StoreError> {
        let outcome = self.take_steps(user, std::slice::from_ref(growth), Some(limits), |growth, id| {
            let (mut set, unset) = reservation_update(growth.after);
            set.extend(growth.after.map(|after| ("reserved".to_owned(), integer(after.bytes).into())));
            plain_update((set, unset), id)
        });
        outcome.await
    }

    /// Makes the transition `ready → deleting` for one user's images, as steps that also set or end their reservations.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must then read whether it happened.
    pub async fn delete_ready(
        &self,
        user: UserId,
        deletions: &[ReservationStep],
        now: OffsetDateTime,
    ) -> Result<StepOutcome, StoreError> {
        let outcome = self.take_steps(user, deletions, None, |deletion, id| {
            let update = step_update(tombstone_update(ImageState::Deleting, now), id, deletion);
            update.pipeline(self.images.outbox()).into()
        });
        let outcome = outcome.await?;
        if let StepOutcome::Applied(images) = &outcome {
            self.images.record_transitions(ImageState::Deleting, images.len() as u64);
        }
        Ok(outcome)
    }

    /// Converts holds of an earlier version into reservations. Returns `false`, and changes nothing, if one of the holds no
    /// longer exists.
    ///
    /// # Errors
    /// [`StoreError`]; a conversion that has begun is finished like any step.
    pub async fn convert_legacy_holds(&self, user: UserId, holds: &[(ImageId, u64)]) -> Result<bool, StoreError> {
        // An earlier version that has holds takes no steps.
        let entry = |(image, bytes): &(ImageId, u64)| AnnouncedStep {
            image: *image,
            id: StepId::new(),
            last_step: None,
            hold: Some(*bytes),
        };
        let entries: Vec<_> = holds.iter().map(entry).collect();
        let announced = self.users.announce_conversions(user, &entries).await?;
        if announced {
            self.finish_steps(user, &entries).await?;
        }
        Ok(announced)
    }

    /// Finishes announced steps, also those of other servers: those that their images took are counted, and the others can no
    /// longer be taken.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn finish_steps(&self, user: UserId, entries: &[AnnouncedStep]) -> Result<(), StoreError> {
        let taken = self.images.decide_steps(user, entries).await?;
        self.users.close_steps(user, entries, &taken).await
    }

    /// Announces the steps in the user's record, if the quota permits them where `limits` are given; updates the images, and
    /// removes the entries from the user's record.
    async fn take_steps(
        &self,
        user: UserId,
        steps: &[ReservationStep],
        limits: Option<QuotaLimits>,
        update_of: impl Fn(&ReservationStep, StepId) -> Bson,
    ) -> Result<StepOutcome, StoreError> {
        if steps.is_empty() {
            return Ok(StepOutcome::Applied(Vec::new()));
        }
        let entries: Vec<_> = steps.iter().map(announced_step).collect();
        // The update that counts the preceding step of an image may still be under way.
        let images: Vec<_> = entries.iter().map(|entry| entry.image).collect();
        self.taken.wait_for(user, &images).await;
        let announced = self.users.announce_steps(user, entries.iter().zip(steps), limits).await?;
        if announced == AnnounceOutcome::Conflict {
            return Ok(StepOutcome::Conflict);
        }
        let updates = entries.iter().zip(steps).map(|(entry, step)| (filter_as_read(user, step), update_of(step, entry.id)));
        let taken = self.update_images(user, &entries, updates).await?;
        // A tombstone outlives its owner's account; then there are no counters.
        if announced == AnnounceOutcome::Announced {
            self.users.close_steps(user, &entries, &taken).await?;
        }
        Ok(StepOutcome::Applied(images_that_took(&entries, &taken)))
    }

    /// Updates the images of announced steps. Returns the steps that were taken; the others can no longer be taken.
    async fn update_images(
        &self,
        user: UserId,
        entries: &[AnnouncedStep],
        updates: impl Iterator<Item = (Document, Bson)>,
    ) -> Result<Vec<StepId>, StoreError> {
        match self.images.update_all(updates).await? {
            all if all == entries.len() as u64 => Ok(entries.iter().map(|entry| entry.id).collect()),
            _ => self.images.decide_steps(user, entries).await,
        }
    }
}

/// Returns the images whose steps were taken.
fn images_that_took(entries: &[AnnouncedStep], taken: &[StepId]) -> Vec<ImageId> {
    entries.iter().filter(|entry| taken.contains(&entry.id)).map(|entry| entry.image).collect()
}

/// Returns the step as it is announced.
fn announced_step(step: &ReservationStep) -> AnnouncedStep {
    AnnouncedStep { image: step.image, id: StepId::new(), last_step: step.last_step, hold: None }
}

/// Returns a filter for the image as it was read.
fn filter_as_read(user: UserId, step: &ReservationStep) -> Document {
    let mut filter = doc! {
        "_id": step.image.to_string(),
        "user": user.to_string(),
        "state": step.state.as_str(),
        "lastStep": last_step(step.last_step),
        "takenSort": step.taken_sort.map_or_else(|| doc! { "$not": is_sort_time() }.into(), |at| Bson::from(datetime(at))),
    };
    match step.before {
        Some(Reservation { bytes, counter, .. }) => {
            filter.extend(doc! { "reservation.bytes": integer(bytes), "reservation.place": counter.as_str() });
        }
        None => drop(filter.insert("reservation", doc! { "$exists": false })),
    }
    filter
}

/// Adds a step of this user's image to its transition.
fn with_step(mut transition: Transition, entry: &AnnouncedStep, step: &ReservationStep, user: UserId) -> Transition {
    transition.filter.extend(filter_as_read(user, step));
    Transition { update: step_update(transition.update, entry.id, step), ..transition }
}

/// Adds the fields of a step to the update of a transition.
fn step_update(update: TransitionUpdate, id: StepId, step: &ReservationStep) -> TransitionUpdate {
    let (mut set, unset) = reservation_update(step.after);
    set.insert("lastStep", id.to_string());
    update.set(set).unset(unset.keys().map(String::as_str))
}

/// Returns the update of a step that leaves the image's state as it is.
fn plain_update((mut set, unset): (Document, Document), id: StepId) -> Bson {
    set.insert("lastStep", id.to_string());
    let mut update = doc! { "$set": set };
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    update.into()
}

/// Returns the fields that an update sets and those that it unsets, so that the image has this reservation. `place` is the stored
/// name of its counter.
fn reservation_update(reservation: Option<Reservation>) -> (Document, Document) {
    match reservation {
        Some(Reservation { bytes, counter, due }) => {
            let value = doc! { "bytes": integer(bytes), "place": counter.as_str(), "due": datetime(due) };
            (doc! { "reservation": value }, Document::new())
        }
        None => (Document::new(), doc! { "reservation": "" }),
    }
}
