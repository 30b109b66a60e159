//! Recomputes a user's counters from the images, and repairs them if they drifted.
//!
//! One snapshot transaction: user and images are read as of one moment, and the write fails if the user has changed since, so
//! that no concurrent reservation, confirm or delete is lost or counted twice. The images' reservations are counted: an
//! announced step that its image has taken is counted and its entry removed; one that is not taken yet keeps its entry. The
//! timeline is counted in the same way. Before that, images that an earlier version confirmed get their sort times. `transact()`
//! is also for `captures`.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use mongodb::{
    ClientSession, Collection, Database,
    bson::{Bson, Document, doc},
    options::ReadConcern,
};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Store, StoreError, count, datetime,
    driver_events::{Operation, instrument},
    entries, images, is_sort_time,
    mongo::to_store_error,
    sort_time,
    users::timeline,
    whole_number,
};
use crate::model::{ImageState, QuotaCounter, TimelineMonth, UsageCounts, UserId};

/// Deadline for one user, retries included: the server ends transactions after a minute.
const DEADLINE: Duration = Duration::from_secs(55);
/// Maximum number of images whose sort time one transaction sets.
const FILLED_AT_ONCE: usize = 500;
/// Age up to which an entry without an image may belong to an upload that is being opened.
const MAX_OPENING_AGE: Duration = Duration::from_secs(10 * 60);

/// A user's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of ready images and of reservations.
    pub used_bytes: i64,
    /// Ready images.
    pub images: i64,
    /// Open uploads.
    pub pending: i64,
}

/// A correction of a user's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// The user.
    pub user: UserId,
    /// The counters before.
    pub was: Counts,
    /// The counters now.
    pub is: Counts,
    /// Whether the timeline differed.
    pub has_changed_timeline: bool,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, was, is, has_changed_timeline } = self;
        write!(f, "user {user}: bytes {} → {}, ", was.used_bytes, is.used_bytes)?;
        write!(f, "images {} → {}, open uploads {} → {}", was.images, is.images, was.pending, is.pending)?;
        if *has_changed_timeline { f.write_str(", timeline corrected") } else { Ok(()) }
    }
}

impl Store {
    /// Recomputes the counters, and repairs them. Returns `None` if they were right, or the user does not exist.
    ///
    /// # Errors
    /// [`StoreError`], also if concurrent changes made every attempt fail; safe to repeat.
    pub async fn recount(&self, user: UserId, now: OffsetDateTime) -> Result<Option<Repair>, StoreError> {
        // Repeated until a transaction finds fewer images than it may change.
        while self.transact((user, ()), |session, database, (user, ())| fill_sort_times(session, database, user).boxed()).await?
            == FILLED_AT_ONCE
        {}
        self.transact((user, now), |session, database, (user, now)| repair(session, database, user, now).boxed()).await
    }

    /// Runs `work` in a transaction, again after conflicts.
    pub(super) async fn transact<C: Clone + Send + Sync, T: Send>(
        &self,
        context: C,
        work: for<'a> fn(&'a mut ClientSession, &'a Database, C) -> BoxFuture<'a, mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        let transaction = async {
            let mut session = self.mongo.database().client().start_session().await?;
            let transaction = session.start_transaction().read_concern(ReadConcern::snapshot());
            let context = (self.mongo.database().clone(), context);
            transaction.and_run(context, |session, (database, context)| work(session, database, context.clone())).await
        };
        let users = self.mongo.database().collection::<Document>("users");
        let operation = Operation::transaction(&users);
        let ends = Instant::now() + DEADLINE;
        let done = instrument(operation, self.mongo.database().name(), ends, transaction).await;
        let (done, _) = done.map_err(|_| StoreError::DatabaseTimeout)?;
        done.map_err(to_store_error)
    }
}

/// Sets the sort time of images that an earlier version confirmed to their `createdAt`, as for images without a time taken, and
/// counts them in the timeline in the same transaction. Returns the number of images, [`FILLED_AT_ONCE`] at most.
async fn fill_sort_times(session: &mut ClientSession, database: &Database, user: UserId) -> mongodb::error::Result<usize> {
    let (users, images) = (database.collection::<Document>("users"), database.collection::<Document>("images"));
    let without_sort_time = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str(), "takenSort": null };
    let mut filter = without_sort_time.clone();
    filter.insert("createdAt", is_sort_time());
    let find = images.find(filter).projection(doc! { "createdAt": 1, "reservation": 1 });
    let mut found = find.limit(count(FILLED_AT_ONCE)).session(&mut *session).await?;
    let (mut ids, mut months) = (Vec::new(), BTreeMap::new());
    while let Some(image) = found.next(&mut *session).await.transpose()? {
        let counter = image.get_document("reservation").ok().map(|reservation| text(reservation, "place").to_owned());
        if counter.is_none_or(|counter| counter == QuotaCounter::Image.as_str())
            && let Some(at) = image.get_datetime("createdAt").ok().and_then(|at| sort_time(*at))
        {
            *months.entry(TimelineMonth::of(at).to_string()).or_insert(0_i64) += 1;
        }
        ids.extend(image.get("_id").cloned());
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let filled = ids.len();
    let mut filter = without_sort_time;
    filter.insert("_id", doc! { "$in": ids });
    images.update_many(filter, vec![doc! { "$set": { "takenSort": "$createdAt" } }]).session(&mut *session).await?;
    let entries: Vec<_> = months.into_iter().map(|(month, images)| doc! { "month": month, "timeline": images }).collect();
    let timeline = doc! { "$set": { "timeline": timeline::with_changes(doc! { "$literal": entries }) } };
    users.update_one(doc! { "_id": user.to_string() }, vec![timeline]).session(session).await?;
    Ok(filled)
}

/// Compares a user's counters with the images in one transaction, and replaces them if they differ.
async fn repair(
    session: &mut ClientSession,
    database: &Database,
    user: UserId,
    now: OffsetDateTime,
) -> mongodb::error::Result<Option<Repair>> {
    let (users, images) = (database.collection::<Document>("users"), database.collection::<Document>("images"));
    let filter = doc! { "_id": user.to_string() };
    let projection = doc! { "usedBytes": 1, "images": 1, "pending": 1, "timeline": 1, "opening": 1, "settling": 1, "holds": 1 };
    let Some(found) = users.find_one(filter.clone()).projection(projection).session(&mut *session).await? else {
        return Ok(None);
    };
    let (opening, held) = (documents(&found, "opening"), documents(&found, "holds"));
    let steps = documents(&found, "settling");
    let was = Counts {
        used_bytes: number(&found, "usedBytes"),
        images: number(&found, "images"),
        pending: number(&found, "pending") + count(held.len()),
    };

    let mut usage = count_ready(&images, user, session).await?;
    let reserved = Reserved::read(&images, user, session).await?;
    usage += reserved.usage;
    let openings = still_opening(&images, user, &opening, now, session).await?;
    let settling = not_taken(&images, user, &steps, session).await?;
    // A hold of an earlier version counts until its image has a reservation.
    let converting: Vec<_> = settling.iter().filter(|step| step.contains_key("hold")).collect();
    let is_held = |image: &Document| !converting.iter().any(|step| text(step, "image") == text(image, "_id"));
    let pending_images: Vec<_> = reserved.without_reservation.into_iter().filter(is_held).collect();
    let legacy = LegacyUploads { holds: &held, pending_images: &pending_images };
    let holds = recount_holds(&images, user, legacy, now, session).await?;
    let sum = |entries: &[Document]| entries.iter().map(|entry| number(entry, "bytes")).sum::<i64>();
    let converted = converting.iter().map(|step| number(step, "hold")).sum::<i64>();
    let pending = usage.pending + count(openings.len()) + count(converting.len());
    let used_bytes = usage.bytes + sum(&openings) + converted + sum(&holds);
    let is = Counts { used_bytes, images: usage.images, pending: pending + count(holds.len()) };
    let timeline = count_by_month(&images, user, session).await?;
    let has_changed_timeline = timeline != stored_timeline(&found);
    let is_right = was == is && held == holds && number(&found, "pending") == pending && steps.len() == settling.len();
    if is_right && !has_changed_timeline && is_readable(&found) {
        return Ok(None);
    }
    let set = doc! {
        "usedBytes": is.used_bytes,
        "images": is.images,
        "pending": pending,
        "timeline": timeline.into_iter().collect::<Document>(),
        "opening": openings,
        "settling": settling,
        "holds": holds,
    };
    users.update_one(filter, doc! { "$set": set }).session(session).await?;
    Ok(Some(Repair { user, was, is, has_changed_timeline }))
}

/// Counts ready images without a reservation, which count with their own bytes.
async fn count_ready(
    images: &Collection<Document>,
    user: UserId,
    session: &mut ClientSession,
) -> mongodb::error::Result<UsageCounts> {
    let ready = doc! { "user": user.to_string(), "state": ImageState::Ready.as_str(), "reservation": { "$exists": false } };
    // A damaged size counts as nothing: a single non-numeric value would make the whole `$add` fail.
    let whole = |field: &str| doc! { "$convert": { "input": field, "to": "long", "onError": 0_i64, "onNull": 0_i64 } };
    let bytes = doc! { "$add": [whole("$size"), whole("$preview.size")] };
    let sum = doc! { "_id": null, "images": { "$sum": 1_i64 }, "bytes": { "$sum": bytes } };
    let mut sums = images.aggregate([doc! { "$match": ready }, doc! { "$group": sum }]).session(&mut *session).await?;
    let found = sums.next(session).await.transpose()?.unwrap_or_default();
    Ok(UsageCounts { bytes: number(&found, "bytes"), images: number(&found, "images"), pending: 0 })
}

/// Counts ready images by month, as the steps of reservations do: without those whose reservation counts them as open uploads.
async fn count_by_month(
    images: &Collection<Document>,
    user: UserId,
    session: &mut ClientSession,
) -> mongodb::error::Result<BTreeMap<String, Bson>> {
    let states: Vec<_> = ImageState::ALL.map(ImageState::as_str).to_vec();
    let plain = doc! { "state": ImageState::Ready.as_str(), "reservation": { "$exists": false } };
    let counted = [plain, doc! { "reservation.place": QuotaCounter::Image.as_str() }];
    // The states are listed so that the query can use the index.
    let filter = doc! { "user": user.to_string(), "state": { "$in": states }, "$or": counted, "takenSort": is_sort_time() };
    let month = doc! { "$dateToString": { "format": "%Y-%m", "date": "$takenSort" } };
    let group = doc! { "_id": month, "images": { "$sum": 1_i64 } };
    let mut groups = images.aggregate([doc! { "$match": filter }, doc! { "$group": group }]).session(&mut *session).await?;
    let mut months = BTreeMap::new();
    while let Some(group) = groups.next(&mut *session).await.transpose()? {
        months.insert(text(&group, "_id").to_owned(), number(&group, "images").into());
    }
    Ok(months)
}

/// Returns the months of a user's document that have images.
fn stored_timeline(user: &Document) -> BTreeMap<String, Bson> {
    let Ok(stored) = user.get_document("timeline") else { return BTreeMap::new() };
    let months = stored.keys().map(|month| (month.clone(), Bson::from(number(stored, month))));
    months.filter(|(_, images)| *images != Bson::Int64(0)).collect()
}

/// Counts of the images with a reservation, and the pending images without one, which an earlier version counts by holds.
struct Reserved {
    usage: UsageCounts,
    without_reservation: Vec<Document>,
}

impl Reserved {
    /// Reads a user's images that have a reservation or are pending.
    async fn read(images: &Collection<Document>, user: UserId, session: &mut ClientSession) -> mongodb::error::Result<Self> {
        let states: Vec<_> = ImageState::ALL.map(ImageState::as_str).to_vec();
        let counted = [doc! { "reservation": { "$exists": true } }, doc! { "state": ImageState::Pending.as_str() }];
        // The states are listed so that the query can use the index.
        let filter = doc! { "user": user.to_string(), "state": { "$in": states }, "$or": counted };
        let mut found = images.find(filter).session(&mut *session).await?;
        let mut reserved = Self { usage: UsageCounts::default(), without_reservation: Vec::new() };
        while let Some(image) = found.next(&mut *session).await.transpose()? {
            if image.contains_key("reservation") {
                reserved.usage += usage_of(&image);
            } else {
                reserved.without_reservation.push(image);
            }
        }
        Ok(reserved)
    }
}

/// Returns the image's share of the counters; for an unreadable image, that of its reservation.
fn usage_of(image: &Document) -> UsageCounts {
    images::read(image.clone()).map_or_else(
        |_| UsageCounts {
            bytes: image.get_document("reservation").map_or(0, |reservation| number(reservation, "bytes")),
            images: 0,
            pending: (text(image, "state") == ImageState::Pending.as_str()).into(),
        },
        |image| image.usage_counts(),
    )
}

/// Returns entries of uploads that are being opened: recent, and without an image.
async fn still_opening(
    images: &Collection<Document>,
    user: UserId,
    opening: &[Document],
    now: OffsetDateTime,
    session: &mut ClientSession,
) -> mongodb::error::Result<Vec<Document>> {
    let inserted = values_of_images(images, user, opening, "_id", session).await?;
    let since = datetime(now - MAX_OPENING_AGE);
    let is_opening =
        |entry: &&Document| !inserted.contains(text(entry, "image")) && entry.get_datetime("at").is_ok_and(|at| *at >= since);
    Ok(opening.iter().filter(is_opening).cloned().collect())
}

/// Returns steps that are announced and that their images have not taken.
async fn not_taken(
    images: &Collection<Document>,
    user: UserId,
    steps: &[Document],
    session: &mut ClientSession,
) -> mongodb::error::Result<Vec<Document>> {
    let taken = values_of_images(images, user, steps, "lastStep", session).await?;
    Ok(steps.iter().filter(|step| !taken.contains(text(step, "step"))).cloned().collect())
}

/// Uploads of a user that an earlier version counts.
struct LegacyUploads<'a> {
    /// The holds in the user's document.
    holds: &'a [Document],
    /// Pending images without a reservation.
    pending_images: &'a [Document],
}

/// Returns the holds of an earlier version: one for each of its pending images, and those of uploads that it may be opening; in
/// their order, new ones last.
async fn recount_holds(
    images: &Collection<Document>,
    user: UserId,
    LegacyUploads { holds: stored, pending_images }: LegacyUploads<'_>,
    now: OffsetDateTime,
    session: &mut ClientSession,
) -> mongodb::error::Result<Vec<Document>> {
    let pending_ids: HashSet<&str> = pending_images.iter().map(|image| text(image, "_id")).collect();
    let inserted = values_of_images(images, user, stored, "_id", session).await?;
    let since = datetime(now - MAX_OPENING_AGE);
    let mut counted_ids = HashSet::new();
    let counts = |hold: &&Document| {
        let id = text(hold, "image");
        let is_opening = !inserted.contains(id) && hold.get_datetime("at").is_ok_and(|at| *at >= since);
        (pending_ids.contains(id) || is_opening) && counted_ids.insert(id.to_owned())
    };
    let mut holds: Vec<Document> = stored.iter().filter(counts).cloned().collect();
    for image in pending_images.iter().filter(|image| !counted_ids.contains(text(image, "_id"))) {
        let at = image.get_datetime("createdAt").copied().unwrap_or(datetime(now));
        let reserved = if image.contains_key("reserved") { number(image, "reserved") } else { number(image, "size") };
        holds.push(doc! { "image": text(image, "_id"), "bytes": reserved, "at": at });
    }
    Ok(holds)
}

/// Returns the values that the images of these entries have in the text field `field`.
async fn values_of_images(
    images: &Collection<Document>,
    user: UserId,
    entries: &[Document],
    field: &str,
    session: &mut ClientSession,
) -> mongodb::error::Result<HashSet<String>> {
    let mut values = HashSet::new();
    let ids: Vec<&str> = entries.iter().map(|entry| text(entry, "image")).collect();
    if !ids.is_empty() {
        let filter = doc! { "_id": { "$in": ids }, "user": user.to_string() };
        let mut found = images.find(filter).projection(doc! { field: 1 }).session(&mut *session).await?;
        while let Some(image) = found.next(&mut *session).await.transpose()? {
            values.extend(image.get_str(field).ok().map(str::to_owned));
        }
    }
    Ok(values)
}

/// Returns copies of the documents in an array.
fn documents(document: &Document, field: &str) -> Vec<Document> {
    entries(document, field).cloned().collect()
}

/// Returns the text in a field; empty if the field is absent or not a text.
fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

/// Returns whether later updates can add to every counter and list. A damaged one was compared as zero or as empty, so it may have
/// seemed right.
fn is_readable(user: &Document) -> bool {
    let is_list = |field: &&str| match user.get(field) {
        None => true,
        Some(list) => list.as_array().is_some_and(|entries| entries.iter().all(|entry| entry.as_document().is_some())),
    };
    let is_timeline = match user.get("timeline") {
        None => true,
        Some(timeline) => {
            timeline.as_document().is_some_and(|months| months.keys().all(|month| whole_number(months, month).is_some()))
        }
    };
    let is_number = |field: &&str| whole_number(user, field).is_some();
    ["usedBytes", "images", "pending"].iter().all(is_number)
        && ["opening", "settling", "holds"].iter().all(is_list)
        && is_timeline
}

/// Returns the whole number in a field; zero if the field is absent or damaged.
fn number(document: &Document, field: &str) -> i64 {
    whole_number(document, field).unwrap_or(0)
}
