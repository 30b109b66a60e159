//! Changes of images as they are made, by any server: a change stream of `images`.
//!
//! It is the source of clients' event streams, and goes back only as far as the database's oplog.

use std::time::Duration;

use mongodb::{
    Collection,
    bson::{Bson, Document, Timestamp, doc, serialize_to_bson},
    change_stream::{ChangeStream, event::ResumeToken},
    error::{Error, ErrorKind},
    options::FullDocumentType,
};

use super::{MongoClient, StoreError, driver_events::Operation, mongo::DEADLINE};
use crate::model::{EventPosition, EventType, ImageId, ImageState, UserId};

/// Time for which the database waits for a change before it answers that there was none.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Codes of MongoDB for a position that the oplog no longer has, or at which no stream can continue: `InvalidResumeToken`,
/// `ChangeStreamFatalError`, `ChangeStreamHistoryLost`, `OplogQueryMinTsMissing`.
const LOST_HISTORY: [i32; 4] = [260, 280, 286, 326];

/// A change of an image that its owner's clients are informed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageChange {
    /// The position after this change.
    pub position: EventPosition,
    /// The owner.
    pub user: UserId,
    /// The image.
    pub image: ImageId,
    /// The type of its event.
    pub event: EventType,
}

/// Point at which a feed begins.
#[derive(Debug, Clone)]
pub enum FeedStart {
    /// This long ago, by the database's clock.
    Ago(Duration),
    /// At the database's latest write.
    Now,
    /// After the last change of an earlier feed.
    Resumed(FeedPoint),
    /// After the end of a feed whose collection was dropped. A feed that began at the database's latest write would end again,
    /// if that write is the drop.
    AfterDrop(ResumeToken),
}

/// The point that a feed has reached.
#[derive(Debug, Clone)]
pub struct FeedPoint {
    position: EventPosition,
    /// `None` before the database's first answer; the position is then the feed's start.
    token: Option<ResumeToken>,
}

/// Reason why a feed ends.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The database no longer has the changes since the feed's point.
    #[error("the database no longer has the changes since the last one")]
    Lost,
    /// The collection was dropped or renamed. Another feed can begin after that.
    #[error("the collection of images was dropped or renamed")]
    Dropped(ResumeToken),
    /// The database failed; the feed can be resumed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Error> for FeedError {
    fn from(error: Error) -> Self {
        match &*error.kind {
            ErrorKind::Command(failure) if LOST_HISTORY.contains(&failure.code) => Self::Lost,
            _ => Self::Store(StoreError::Database(error)),
        }
    }
}

/// Opens feeds of changes.
#[derive(Debug, Clone)]
pub struct ImageChanges {
    mongo: MongoClient,
}

/// A feed of changes.
pub struct ChangeFeed {
    changes: ChangeStream<Document>,
    /// Position before the database's latest write when the feed was opened; the feed's start, if the feed was resumed.
    pub opened_at: EventPosition,
    position: EventPosition,
    token: Option<ResumeToken>,
}

impl ImageChanges {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { mongo: mongo.clone() }
    }

    /// Opens a feed of all changes after `start`.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn open(&self, start: FeedStart) -> Result<ChangeFeed, FeedError> {
        let images: Collection<Document> = self.mongo.database().collection("images");
        let watch = images.watch().pipeline(pipeline()).full_document(FullDocumentType::UpdateLookup).max_await_time(MAX_WAIT);
        let (FeedPoint { position, token }, opened_at) = match start {
            FeedStart::Resumed(point) => (point.clone(), point.position),
            FeedStart::AfterDrop(token) => {
                let latest = self.position_before_latest_write().await?;
                (FeedPoint { position: time_of(&token).unwrap_or(latest), token: Some(token) }, latest)
            }
            FeedStart::Now => {
                let latest = self.position_before_latest_write().await?;
                (FeedPoint { position: latest, token: None }, latest)
            }
            FeedStart::Ago(ago) => {
                let latest = self.position_before_latest_write().await?;
                let seconds = u32::try_from(ago.as_secs()).unwrap_or(u32::MAX);
                let position = EventPosition::before(latest.seconds.saturating_sub(seconds).max(1), 1);
                (FeedPoint { position, token: None }, latest)
            }
        };
        let watch = match token.clone() {
            Some(token) => watch.start_after(token),
            None => watch.start_at_operation_time(Timestamp { time: position.seconds, increment: position.increment }),
        };
        let opened = tokio::time::timeout(DEADLINE, async { watch.await }).await.map_err(|_| StoreError::DatabaseTimeout)??;
        Ok(ChangeFeed { changes: opened.with_type(), opened_at, position, token })
    }

    /// Returns the position before the database's latest write.
    async fn position_before_latest_write(&self) -> Result<EventPosition, StoreError> {
        let hello = self.mongo.command(Operation::HELLO, doc! { "hello": 1 }).await?;
        let written = hello.get_timestamp("operationTime");
        let written =
            written.map_err(|_| StoreError::Corrupt { collection: "hello", id: String::new(), field: "operationTime" })?;
        Ok(EventPosition::before(written.time, written.increment))
    }
}

impl ChangeFeed {
    /// Returns the next change; `None` after a while without one, and for a change that no client is informed of. The feed has then
    /// reached [`ChangeFeed::position`].
    ///
    /// # Errors
    /// [`FeedError`]; the feed can be resumed at [`ChangeFeed::point`] unless it is lost, or its collection was dropped: then
    /// another feed begins at [`FeedStart::AfterDrop`].
    pub async fn next(&mut self) -> Result<Option<ImageChange>, FeedError> {
        let next = tokio::time::timeout(MAX_WAIT + DEADLINE, self.changes.next_if_any()).await;
        let change = next.map_err(|_| StoreError::DatabaseTimeout)??;
        let token = self.changes.resume_token();
        let image_change = match &change {
            Some(change) => {
                if let Ok(at) = change.get_timestamp("clusterTime") {
                    self.position = self.position.after_change_at(at.time, at.increment);
                }
                read(change, self.position)
            }
            None if !self.changes.is_alive() => return Err(token.map_or(FeedError::Lost, FeedError::Dropped)),
            None => {
                let reached = token.as_ref().and_then(time_of);
                self.position = self.position.max(reached.unwrap_or(self.position));
                None
            }
        };
        self.token = token.or(self.token.take());
        Ok(image_change)
    }

    /// Returns the position that the feed has reached.
    #[must_use]
    pub fn position(&self) -> EventPosition {
        self.position
    }

    /// Returns the point at which a feed can continue this one.
    #[must_use]
    pub fn point(&self) -> FeedPoint {
        FeedPoint { position: self.position, token: self.token.clone() }
    }
}

/// Returns the stages that select the changes of a state, a caption, the pictures, the time taken, the camera or the location, with
/// the fields that the feed reads. The owner is in `fullDocument`: an update's description has only the fields that it changed.
fn pipeline() -> [Document; 2] {
    let changed = |field: &str| doc! { format!("updateDescription.updatedFields.{field}"): { "$exists": true } };
    let removed = doc! { "updateDescription.removedFields": "caption" };
    let shown_fields = ["state", "caption", "pictures", "takenAt", "camera", "location"];
    let relevant: Vec<_> = shown_fields.into_iter().map(changed).chain([removed]).collect();
    let read_fields =
        ["clusterTime", "documentKey._id", "fullDocument.user", "fullDocument.state", "updateDescription.updatedFields.state"];
    let mut fields: Document = read_fields.into_iter().map(|field| (field.to_owned(), Bson::from(1))).collect();
    // The driver requires these two fields.
    fields.extend(["operationType", "ns"].map(|field| (field.to_owned(), Bson::from(1))));
    [doc! { "$match": { "operationType": "update", "$or": relevant } }, doc! { "$project": fields }]
}

/// Reads a change; `None` for one without an event, and for that of a document which cannot be read or no longer exists.
fn read(change: &Document, position: EventPosition) -> Option<ImageChange> {
    let stored = change.get_document("fullDocument").ok()?;
    let image = ImageId::parse(change.get_document("documentKey").ok()?.get_str("_id").ok()?)?;
    let user = UserId::parse(stored.get_str("user").ok()?)?;
    let fields = change.get_document("updateDescription").and_then(|update| update.get_document("updatedFields"));
    let new_state = fields.ok().and_then(|fields| fields.get_str("state").ok()).and_then(ImageState::parse);
    let event = match (new_state, stored.get_str("state").ok().and_then(ImageState::parse)) {
        (Some(state), _) => EventType::of_transition(state)?,
        // The caption and the declared time of an open upload change without an event. `stored` has the present state: an upload
        // that was confirmed or deleted since gets an event as well, which only makes clients read once more.
        (None, Some(ImageState::Pending) | None) => return None,
        (None, Some(_)) => EventType::ImageUpdated,
    };
    Some(ImageChange { position, user, image, event })
}

/// Returns the logical time up to which the feed has seen all changes, from a resume token; `None` for a token of another form, and
/// the position then stays at the last change. A token is a `KeyString` of the server, which begins with the time: `82`, the type
/// of a timestamp, and its eight bytes in hexadecimal.
fn time_of(token: &ResumeToken) -> Option<EventPosition> {
    let token = serialize_to_bson(token).ok()?;
    let data = token.as_document()?.get_str("_data").ok()?;
    let digits = |from: usize| u32::from_str_radix(data.get(from..from + 8)?, 16).ok();
    data.starts_with("82").then_some(EventPosition::before(digits(2)?, digits(10)?))
}
