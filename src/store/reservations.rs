//! Steps of reservations: images and their owner's counters change together, or not at all.
//!
//! Each step is a transaction of two updates. The counters come first: they are what concurrent steps contend for, and whoever
//! waits does so before it has locked anything. The images follow, each on the condition that state and reservation are as
//! they were read, so that of two equal steps one is applied, however late the other arrives.

use futures_util::FutureExt;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};
use time::OffsetDateTime;

use super::{
    Store, StoreError, count, count_moved, datetime, integer,
    users::{former_holds, pending},
};
use crate::model::{Books, ImageId, ImageState, OPENING, Place, Reservation, Settlement, UserId};

/// An image was not as it was read, or a hold was gone.
struct Moved;

/// The two updates of a step.
#[derive(Clone)]
struct Step {
    user: UserId,
    /// Further conditions on the user's document, without which nothing is done.
    unless_moved: Option<Document>,
    counters: Document,
    /// Filters and updates, each of which must find its image.
    images: Vec<(Document, Document)>,
}

impl Store {
    /// Applies settlements of one user's images. `false` when one of them was not as it was read, and nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn settle(&self, user: UserId, settlements: &[Settlement]) -> Result<bool, StoreError> {
        let images = settlements.iter().map(|settlement| {
            let (set, unset) = reserved(settlement.after);
            (as_read(user, settlement), change(set, unset))
        });
        let step = Step { user, unless_moved: None, counters: counters(settlements), images: images.collect() };
        self.apply(step).await
    }

    /// `ready → deleting` for one user's images, with what becomes of their bytes. `false` when one of them was not as it was
    /// read, and nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; whether it happened is then to be asked again.
    pub async fn delete_ready(&self, user: UserId, deletions: &[Settlement], now: OffsetDateTime) -> Result<bool, StoreError> {
        let images = deletions.iter().map(|deletion| {
            let (mut set, mut unset) = reserved(deletion.after);
            set.extend(doc! { "state": ImageState::Deleting.as_str(), "due": datetime(now) });
            unset.extend(doc! { "live": "", "idemKey": "", "idemHash": "" });
            (as_read(user, deletion), change(set, unset))
        });
        let images: Vec<_> = images.collect();
        let mut set = counters(deletions);
        without_former_holds(&mut set, deletions);
        let count = images.len() as u64;
        let deleted = self.apply(Step { user, unless_moved: None, counters: set, images }).await?;
        count_moved(ImageState::Deleting, if deleted { count } else { 0 });
        Ok(deleted)
    }

    /// Converts the former version's holds of pending images into reservations. `false` when one of the holds was gone or one
    /// of the images no longer pending, and nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn convert_former_holds(
        &self,
        user: UserId,
        holds: &[(ImageId, u64)],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let ids: Vec<_> = holds.iter().map(|(image, _)| image.to_string()).collect();
        let set = doc! {
            "pending": { "$add": [pending(), count(holds.len())] },
            "holds": former_holds::without(&ids),
        };
        let images = holds.iter().map(|(image, bytes)| {
            let filter = doc! {
                "_id": image.to_string(),
                "user": user.to_string(),
                "state": ImageState::Pending.as_str(),
                "reservation": { "$exists": false },
            };
            let (set, unset) = reserved(Some(Reservation { bytes: *bytes, place: Place::Pending, due: now + OPENING }));
            (filter, change(set, unset))
        });
        let unless_moved = Some(doc! { "holds.image": { "$all": &ids } });
        self.apply(Step { user, unless_moved, counters: set, images: images.collect() }).await
    }

    async fn apply(&self, step: Step) -> Result<bool, StoreError> {
        if step.images.is_empty() {
            return Ok(true);
        }
        let users = self.calls.database().collection::<Document>("users");
        let context = (self.calls.database().clone(), users, step);
        let applied = self.calls.run(async {
            let mut session = self.calls.database().client().start_session().await?;
            // Boxed futures over owned context: an async closure's future is not `Send` for every lifetime.
            let transaction = session.start_transaction().and_run(context, |session, (database, users, step)| {
                async move {
                    let mut filter = doc! { "_id": step.user.to_string() };
                    filter.extend(step.unless_moved.clone().unwrap_or_default());
                    let set = vec![doc! { "$set": step.counters.clone() }];
                    let done = users.update_one(filter, set).session(&mut *session).await?;
                    // Tombstones outlive their owner's account: then nothing counts them, and only the images change.
                    if done.matched_count == 0 && step.unless_moved.is_some() {
                        return Err(mongodb::error::Error::custom(Moved));
                    }
                    update_images(database, &step.images, session).await
                }
                .boxed()
            });
            transaction.await
        });
        match applied.await {
            Ok(()) => Ok(true),
            Err(StoreError::Database(error)) if error.get_custom::<Moved>().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// All of them in one command; an error when one finds no image.
async fn update_images(
    database: &mongodb::Database,
    images: &[(Document, Document)],
    session: &mut ClientSession,
) -> mongodb::error::Result<()> {
    let updates: Vec<_> = images.iter().map(|(filter, update)| doc! { "q": filter, "u": update }).collect();
    let answer = database.run_command(doc! { "update": "images", "updates": updates }).session(session).await?;
    let matched = answer.get_i32("n").ok().and_then(|n| usize::try_from(n).ok());
    if matched == Some(images.len()) { Ok(()) } else { Err(mongodb::error::Error::custom(Moved)) }
}

/// The image as it was read. Bytes and place tell one reservation of an image from the next.
fn as_read(user: UserId, settlement: &Settlement) -> Document {
    let mut filter = doc! {
        "_id": settlement.image.to_string(),
        "user": user.to_string(),
        "state": settlement.state.as_str(),
    };
    match settlement.before {
        Some(Reservation { bytes, place, .. }) => {
            filter.extend(doc! { "reservation.bytes": integer(bytes), "reservation.place": place.as_str() });
        }
        None => drop(filter.insert("reservation", doc! { "$exists": false })),
    }
    filter
}

/// What is to be set and unset.
fn reserved(reservation: Option<Reservation>) -> (Document, Document) {
    match reservation {
        Some(Reservation { bytes, place, due }) => {
            let value = doc! { "bytes": integer(bytes), "place": place.as_str(), "due": datetime(due) };
            (doc! { "reservation": value }, Document::new())
        }
        None => (Document::new(), doc! { "reservation": "" }),
    }
}

/// An update must not name an operator without fields.
fn change(set: Document, unset: Document) -> Document {
    let operators = [("$set", set), ("$unset", unset)];
    operators
        .into_iter()
        .filter(|(_, fields)| !fields.is_empty())
        .map(|(name, fields)| (name.to_owned(), fields.into()))
        .collect()
}

/// The counters after these steps, in an update's pipeline.
fn counters(settlements: &[Settlement]) -> Document {
    let mut difference = Books::default();
    for settlement in settlements {
        difference += settlement.books - settlement.booked;
    }
    doc! {
        "usedBytes": { "$add": ["$usedBytes", difference.bytes] },
        "images": { "$add": ["$images", difference.images] },
        "pending": { "$add": [pending(), difference.pending] },
    }
}

/// Where a server of the former version died between an image's confirmation and the settling of its hold, the hold counts
/// the image still: it is settled first.
fn without_former_holds(counters: &mut Document, deletions: &[Settlement]) {
    let former: Vec<_> = deletions.iter().filter(|deletion| deletion.before.is_none()).collect();
    let ids: Vec<_> = former.iter().map(|deletion| deletion.image.to_string()).collect();
    if ids.is_empty() {
        return;
    }
    let holds = doc! { "$ifNull": ["$holds", []] };
    let held = doc! { "$filter": { "input": holds.clone(), "cond": { "$in": ["$$this.image", ids.clone()] } } };
    let mut surplus = vec![doc! { "$sum": { "$map": { "input": held.clone(), "in": "$$this.bytes" } } }];
    let images = doc! { "$map": { "input": holds.clone(), "in": "$$this.image" } };
    surplus.extend(former.iter().map(|deletion| {
        doc! { "$cond": [{ "$in": [deletion.image.to_string(), images.clone()] }, -deletion.booked.bytes, 0_i64] }
    }));
    let used = counters.get("usedBytes").cloned();
    let counted = counters.get("images").cloned();
    counters.extend(doc! {
        "usedBytes": { "$subtract": [used, { "$add": surplus }] },
        "images": { "$add": [counted, { "$size": held }] },
        "holds": { "$filter": { "input": holds, "cond": { "$not": [{ "$in": ["$$this.image", ids] }] } } },
    });
}
