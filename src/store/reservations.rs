//! Steps of reservations: an image and its owner's counters change together, or not at all, though no write spans both.
//!
//! 1. An entry in the user's `settling` announces the step: its image, an id of its own and what it adds to the counters. The
//!    entry is refused while another step of the same image is announced.
//! 2. The image changes, on condition that state, reservation and `lastStep` are as they were read, and keeps the step's id as
//!    its `lastStep`.
//! 3. One update of the user removes the entry and adds to the counters, or nothing where the image did not change.
//!
//! Each is an update of one document, so a server that dies leaves no locks, only an entry. Any server can finish that
//! ([`Store::finish_steps`]): where `lastStep` is still what the entry says was read, it becomes another, so that the second
//! update finds another image than was read, however late it arrives; else `lastStep` tells whether the step was taken. Nobody
//! takes a further step of the image until the entry is gone. The third update adds what the entry says only if it removes the
//! entry. So each step is counted once.

use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{
    Store, StoreError, count_moved, datetime, integer, last_step,
    users::{Announced, StepUnderWay},
};
use crate::model::{ImageId, ImageState, Reservation, ReservationStep, StepId, UserId};

/// What came of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// These images took theirs; the others were not as they were read.
    Taken(Vec<ImageId>),
    /// Nothing is changed: other steps of these images are under way, or were left by a server that died, or the former
    /// version's holds count them.
    InTheWay,
}

impl Store {
    /// Applies settlements of one user's images.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat with the images as they are then.
    pub async fn settle(&self, user: UserId, settlements: &[ReservationStep]) -> Result<Stepped, StoreError> {
        self.step(user, settlements, |settlement| reserved(settlement.after)).await
    }

    /// Raises what a pending upload has reserved, as `growth` says.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat with the image as it is then.
    pub async fn grow(&self, user: UserId, growth: &ReservationStep) -> Result<Stepped, StoreError> {
        let step = self.step(user, std::slice::from_ref(growth), |growth| {
            let (mut set, unset) = reserved(growth.after);
            set.extend(growth.after.map(|after| ("reserved".to_owned(), integer(after.bytes).into())));
            (set, unset)
        });
        step.await
    }

    /// `ready → deleting` for one user's images, with what becomes of their bytes.
    ///
    /// # Errors
    /// [`StoreError`]; whether it happened is then to be asked again.
    pub async fn delete_ready(
        &self,
        user: UserId,
        deletions: &[ReservationStep],
        now: OffsetDateTime,
    ) -> Result<Stepped, StoreError> {
        let stepped = self.step(user, deletions, |deletion| {
            let (mut set, mut unset) = reserved(deletion.after);
            set.extend(doc! { "state": ImageState::Deleting.as_str(), "due": datetime(now) });
            unset.extend(doc! { "live": "", "idemKey": "", "idemHash": "" });
            (set, unset)
        });
        let stepped = stepped.await?;
        if let Stepped::Taken(images) = &stepped {
            count_moved(ImageState::Deleting, images.len() as u64);
        }
        Ok(stepped)
    }

    /// Converts the former version's holds of images into reservations. `false` when one of the holds was gone, and nothing is
    /// changed.
    ///
    /// # Errors
    /// [`StoreError`]; what is begun is finished as any step.
    pub async fn convert_former_holds(&self, user: UserId, holds: &[(ImageId, u64)]) -> Result<bool, StoreError> {
        // The former version takes no steps.
        let step = |(image, bytes): &(ImageId, u64)| StepUnderWay {
            image: *image,
            step: StepId::new(),
            before: None,
            hold: Some(*bytes),
        };
        let steps: Vec<_> = holds.iter().map(step).collect();
        let announced = self.users.announce_conversions(user, &steps).await?;
        if announced {
            self.finish_steps(user, &steps).await?;
        }
        Ok(announced)
    }

    /// Finishes steps that are announced, whoever began them: those that their images took are counted, the others can no
    /// longer be taken.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn finish_steps(&self, user: UserId, steps: &[StepUnderWay]) -> Result<(), StoreError> {
        let taken = self.images.decide_steps(user, steps).await?;
        self.users.close_steps(user, steps, &taken).await
    }

    async fn step(
        &self,
        user: UserId,
        settlements: &[ReservationStep],
        change: impl Fn(&ReservationStep) -> (Document, Document),
    ) -> Result<Stepped, StoreError> {
        if settlements.is_empty() {
            return Ok(Stepped::Taken(Vec::new()));
        }
        let under_way = |settlement: &ReservationStep| StepUnderWay {
            image: settlement.image,
            step: StepId::new(),
            before: settlement.last_step,
            hold: None,
        };
        let steps: Vec<_> = settlements.iter().map(under_way).collect();
        let announced = self.users.announce(user, steps.iter().zip(settlements)).await?;
        if announced == Announced::InTheWay {
            return Ok(Stepped::InTheWay);
        }
        let updates = steps.iter().zip(settlements).map(|(step, settlement)| {
            let (mut set, unset) = change(settlement);
            set.insert("lastStep", step.step.to_string());
            let mut update = doc! { "$set": set };
            if !unset.is_empty() {
                update.insert("$unset", unset);
            }
            (as_read(user, settlement), update)
        });
        let taken = match self.images.update_all(updates).await? {
            all if all == steps.len() as u64 => steps.iter().map(|step| step.step).collect(),
            _ => self.images.decide_steps(user, &steps).await?,
        };
        // Tombstones outlive their owner's account: nothing counts them then.
        if announced == Announced::Yes {
            self.users.close_steps(user, &steps, &taken).await?;
        }
        Ok(Stepped::Taken(steps.iter().filter(|step| taken.contains(&step.step)).map(|step| step.image).collect()))
    }
}

/// Returns the image as it was read.
fn as_read(user: UserId, settlement: &ReservationStep) -> Document {
    let mut filter = doc! {
        "_id": settlement.image.to_string(),
        "user": user.to_string(),
        "state": settlement.state.as_str(),
        "lastStep": last_step(settlement.last_step),
    };
    match settlement.before {
        Some(Reservation { bytes, counter, .. }) => {
            filter.extend(doc! { "reservation.bytes": integer(bytes), "reservation.place": counter.as_str() });
        }
        None => drop(filter.insert("reservation", doc! { "$exists": false })),
    }
    filter
}

/// What is to be set and unset.
fn reserved(reservation: Option<Reservation>) -> (Document, Document) {
    match reservation {
        Some(Reservation { bytes, counter, due }) => {
            let value = doc! { "bytes": integer(bytes), "place": counter.as_str(), "due": datetime(due) };
            (doc! { "reservation": value }, Document::new())
        }
        None => (Document::new(), doc! { "reservation": "" }),
    }
}
