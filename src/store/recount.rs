//! A user's counts computed anew from the images, and repaired when they drifted.
//!
//! One snapshot transaction: user and images are read as of one moment, and the write fails when anybody has changed the
//! user since, so that no reservation, confirm or delete under way is lost or counted twice. Each of those changes the
//! image first and the hold last, by the hold's presence, and so finds its work done after a repair, not half done.

use std::{collections::HashSet, fmt, time::Duration};

use futures_util::FutureExt;
use mongodb::{
    ClientSession, Collection, Database,
    bson::{Bson, Document, doc},
    options::ReadConcern,
};
use time::OffsetDateTime;

use super::{Store, StoreError, commands::followed, datetime};
use crate::model::{ImageState, UserId};

/// The longest one user may take, retries included: the server ends transactions after a minute.
const DEADLINE: Duration = Duration::from_secs(55);
/// A hold without an image may be of an upload that is being issued, when it is younger than this.
const ISSUING: Duration = Duration::from_secs(10 * 60);

/// A user's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of ready images and of holds.
    pub used_bytes: i64,
    /// Ready images.
    pub images: i64,
    /// Open uploads.
    pub holds: usize,
}

/// What was repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// Whose.
    pub user: UserId,
    /// As they were.
    pub was: Counts,
    /// As they are now.
    pub is: Counts,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, was, is } = self;
        write!(f, "user {user}: bytes {} → {}, ", was.used_bytes, is.used_bytes)?;
        write!(f, "images {} → {}, holds {} → {}", was.images, is.images, was.holds, is.holds)
    }
}

impl Store {
    /// Counts anew, and repairs what drifted. `None` when nothing did, or there is no such user.
    ///
    /// # Errors
    /// [`StoreError`], also for a user who is so busy that no moment was found; safe to repeat.
    pub async fn recount(&self, user: UserId, now: OffsetDateTime) -> Result<Option<Repair>, StoreError> {
        let context = (self.calls.database().clone(), user, now);
        let transaction = async {
            let mut session = self.calls.database().client().start_session().await?;
            let transaction = session.start_transaction().read_concern(ReadConcern::snapshot());
            transaction
                .and_run(context, |session, (database, user, now)| {
                    async move { repair(session, database, *user, *now).await }.boxed()
                })
                .await
        };
        let (done, _) = tokio::time::timeout(DEADLINE, followed(transaction)).await.map_err(|_| StoreError::DatabaseTimeout)?;
        done.map_err(StoreError::Database)
    }
}

async fn repair(
    session: &mut ClientSession,
    database: &Database,
    user: UserId,
    now: OffsetDateTime,
) -> mongodb::error::Result<Option<Repair>> {
    let (users, images) = (database.collection::<Document>("users"), database.collection::<Document>("images"));
    let filter = doc! { "_id": user.to_string() };
    let projection = doc! { "usedBytes": 1, "images": 1, "holds": 1 };
    let Some(found) = users.find_one(filter.clone()).projection(projection).session(&mut *session).await? else {
        return Ok(None);
    };
    let held: Vec<Document> =
        found.get_array("holds").map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_document).cloned().collect();
    let was = Counts { used_bytes: number(&found, "usedBytes"), images: number(&found, "images"), holds: held.len() };

    let (ready, bytes) = count_ready(&images, user, session).await?;
    let holds = recount_holds(&images, user, &held, now, session).await?;
    let used_bytes = bytes + holds.iter().map(|hold| number(hold, "bytes")).sum::<i64>();
    let is = Counts { used_bytes, images: ready, holds: holds.len() };
    if was == is && held == holds {
        return Ok(None);
    }
    let update = doc! { "$set": { "usedBytes": is.used_bytes, "images": is.images, "holds": holds } };
    users.update_one(filter, update).session(session).await?;
    Ok(Some(Repair { user, was, is }))
}

async fn count_ready(
    images: &Collection<Document>,
    user: UserId,
    session: &mut ClientSession,
) -> mongodb::error::Result<(i64, i64)> {
    let ready = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str() };
    let bytes = doc! { "$add": ["$size", { "$ifNull": ["$preview.size", 0_i64] }] };
    let sum = doc! { "_id": null, "images": { "$sum": 1_i64 }, "bytes": { "$sum": bytes } };
    let mut sums = images.aggregate([doc! { "$match": ready }, doc! { "$group": sum }]).session(&mut *session).await?;
    let found = sums.next(session).await.transpose()?.unwrap_or_default();
    Ok((number(&found, "images"), number(&found, "bytes")))
}

/// One hold for each pending image, and those of uploads that may be being issued; in their order, new ones last.
async fn recount_holds(
    images: &Collection<Document>,
    user: UserId,
    held: &[Document],
    now: OffsetDateTime,
    session: &mut ClientSession,
) -> mongodb::error::Result<Vec<Document>> {
    let pending = doc! { "user": user.to_string(), "state": ImageState::Pending.as_str() };
    let projection = doc! { "size": 1, "reserved": 1, "createdAt": 1 };
    let mut found = images.find(pending).projection(projection).session(&mut *session).await?;
    let mut open = Vec::new();
    while let Some(image) = found.next(&mut *session).await.transpose()? {
        open.push(image);
    }
    let open_ids: HashSet<String> = open.iter().map(|image| text(image, "_id").to_owned()).collect();

    let stray: Vec<&str> = held.iter().map(|hold| text(hold, "image")).filter(|id| !open_ids.contains(*id)).collect();
    let mut settled = HashSet::new();
    if !stray.is_empty() {
        let filter = doc! { "_id": { "$in": stray }, "user": user.to_string() };
        let mut found = images.find(filter).projection(doc! { "_id": 1 }).session(&mut *session).await?;
        while let Some(image) = found.next(&mut *session).await.transpose()? {
            settled.insert(text(&image, "_id").to_owned());
        }
    }
    let since = datetime(now - ISSUING);
    let mut kept_ids = HashSet::new();
    let is_kept = |hold: &&Document| {
        let id = text(hold, "image");
        let issuing = !settled.contains(id) && hold.get_datetime("at").is_ok_and(|at| *at >= since);
        (open_ids.contains(id) || issuing) && kept_ids.insert(id.to_owned())
    };
    let mut holds: Vec<Document> = held.iter().filter(is_kept).cloned().collect();
    for image in open.iter().filter(|image| !kept_ids.contains(text(image, "_id"))) {
        let at = image.get_datetime("createdAt").copied().unwrap_or(datetime(now));
        let reserved = if image.contains_key("reserved") { number(image, "reserved") } else { number(image, "size") };
        holds.push(doc! { "image": text(image, "_id"), "bytes": reserved, "at": at });
    }
    Ok(holds)
}

fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

/// Sums come in whichever width the server likes; what is missing counts as nothing.
fn number(document: &Document, field: &str) -> i64 {
    document.get_i64(field).or_else(|_| document.get_i32(field).map(i64::from)).unwrap_or(0)
}
