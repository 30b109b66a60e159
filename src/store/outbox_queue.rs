//! The queue of outboxes: finds documents with events through the index of `outbox.at`, and removes the events that are fanned
//! out.
//!
//! An event that cannot be read is moved to `outboxUnreadable` of its document, so that it blocks neither the queue nor the end of
//! the document.

use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{MongoClient, StoreError, driver_events::Operation, instant, outbox::OUTBOX_AT};

/// The collections whose documents have outboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// Images; the owner is `user`.
    Images,
    /// Accounts; the owner is `_id`.
    Users,
}

impl EventSource {
    /// All sources.
    pub const ALL: [Self; 2] = [Self::Users, Self::Images];

    /// Returns the name of the collection.
    fn collection(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Users => "users",
        }
    }

    /// Returns the field that contains the owner.
    fn owner_field(self) -> &'static str {
        match self {
            Self::Images => "user",
            Self::Users => "_id",
        }
    }
}

/// A document with events.
#[derive(Debug, Clone)]
pub struct OutboxRecord {
    source: EventSource,
    id: Bson,
    owner: Bson,
    /// The readable events, the oldest first.
    pub events: Vec<StoredEvent>,
    /// Whether the outbox is not an array, or contains anything but readable events.
    pub is_damaged: bool,
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Id of the event, which all its messages contain.
    pub id: String,
    /// The name of its type, which a later version may have written.
    pub type_name: String,
    /// Time of the change, by the database's clock.
    pub at: OffsetDateTime,
    /// The fields of the document at that time.
    pub data: Map<String, Value>,
}

impl OutboxRecord {
    /// Reads the events of a record, and whether some of them are damaged.
    fn read(source: EventSource, record: &Document) -> Self {
        let entries = record.get_array("outbox").map_or(&[][..], Vec::as_slice);
        let events: Vec<_> = entries.iter().filter_map(StoredEvent::read).collect();
        let value = |field: &str| record.get(field).cloned().unwrap_or(Bson::Null);
        let is_damaged = events.len() < entries.len() || record.get_array("outbox").is_err();
        Self { source, id: value("_id"), owner: value(source.owner_field()), events, is_damaged }
    }

    /// Returns the document's id.
    #[must_use]
    pub fn id(&self) -> String {
        text(&self.id)
    }

    /// Returns the user whose image or account it is.
    #[must_use]
    pub fn owner(&self) -> String {
        text(&self.owner)
    }

    /// Returns the collection.
    #[must_use]
    pub fn source(&self) -> EventSource {
        self.source
    }

    /// Returns the filter for the record, which names its owner.
    fn filter(&self) -> Document {
        let mut filter = doc! { "_id": self.id.clone() };
        filter.insert(self.source.owner_field(), self.owner.clone());
        filter
    }
}

impl StoredEvent {
    /// Reads an event; `None` for a value that this program does not write. [`is_readable`] is the same condition in the database.
    fn read(entry: &Bson) -> Option<Self> {
        let entry = entry.as_document()?;
        let data = entry.get_document("data").cloned().unwrap_or_default();
        Some(Self {
            id: entry.get_str("id").ok()?.to_owned(),
            type_name: entry.get_str("type").ok()?.to_owned(),
            at: instant(*entry.get_datetime("at").ok()?),
            data: data.into_iter().map(|(field, value)| (field, json(value))).collect(),
        })
    }
}

/// Queries and updates of outboxes.
#[derive(Debug, Clone)]
pub struct OutboxQueue {
    mongo: MongoClient,
}

impl OutboxQueue {
    pub(super) fn new(mongo: &MongoClient) -> Self {
        Self { mongo: mongo.clone() }
    }

    /// Returns the collection of a source.
    fn records(&self, source: EventSource) -> Collection<Document> {
        self.mongo.database().collection(source.collection())
    }

    /// Returns documents with events, those with the oldest event first, except those of some owners.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, source: EventSource, except: &[String], limit: usize) -> Result<Vec<OutboxRecord>, StoreError> {
        let records = self.records(source);
        let mut filter = doc! { OUTBOX_AT: { "$exists": true } };
        if !except.is_empty() {
            filter.insert(source.owner_field(), doc! { "$nin": except });
        }
        let mut projection = doc! { "outbox": 1 };
        projection.insert(source.owner_field(), 1);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self.mongo.read(Operation::find(&records), || async {
            let find = records.find(filter.clone()).projection(projection.clone()).sort(doc! { OUTBOX_AT: 1 });
            find.limit(limit).await?.try_collect::<Vec<_>>().await
        });
        Ok(found.await?.iter().map(|record| OutboxRecord::read(source, record)).collect())
    }

    /// Removes the readable events of these documents of one source, which are fanned out, and moves unreadable entries to
    /// `outboxUnreadable`. Events that were appended meanwhile stay.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn remove_all(&self, records: &[OutboxRecord]) -> Result<(), StoreError> {
        let Some(first) = records.first() else { return Ok(()) };
        let updates = records.iter().map(|record| (record.filter(), Bson::from(removal(&record.events))));
        self.mongo.update_each(&self.records(first.source), updates).await.map(drop)
    }
}

/// Returns the update that removes these events from an outbox, and moves unreadable entries to `outboxUnreadable`.
fn removal(events: &[StoredEvent]) -> Vec<Document> {
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    let array_or = |field: &str, other: Bson| doc! { "$cond": [{ "$isArray": field }, field, other] };
    // A damaged outbox that is not an array counts as one unreadable event.
    let as_one_entry = doc! { "$cond": [{ "$eq": [{ "$type": "$outbox" }, "missing"] }, [], ["$outbox"]] };
    let outbox = array_or("$outbox", as_one_entry.into());
    let filtered = |condition: Document| doc! { "$filter": { "input": outbox.clone(), "as": "event", "cond": condition } };
    let or_remove = |value: Document| {
        let is_empty = doc! { "$eq": ["$$left", []] };
        doc! { "$let": { "vars": { "left": value }, "in": { "$cond": [is_empty, "$$REMOVE", "$$left"] } } }
    };
    let is_other = doc! { "$not": [{ "$in": ["$$event.id", { "$literal": ids }] }] };
    let is_remaining = doc! { "$and": [is_readable(), is_other] };
    let unreadable = filtered(doc! { "$not": [is_readable()] });
    let all_unreadable = doc! { "$concatArrays": [array_or("$outboxUnreadable", Bson::Array(Vec::new())), unreadable] };
    vec![doc! { "$set": { "outbox": or_remove(filtered(is_remaining)), "outboxUnreadable": or_remove(all_unreadable) } }]
}

/// Returns the condition of [`StoredEvent::read`] as an expression over `$$event`.
fn is_readable() -> Document {
    let is = |field: &str, kind: &str| doc! { "$eq": [{ "$type": format!("$$event{field}") }, kind] };
    doc! { "$and": [is("", "object"), is(".id", "string"), is(".type", "string"), is(".at", "date")] }
}

/// Returns an id as a text.
fn text(value: &Bson) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns a stored value as JSON: times in RFC 3339 in whole seconds, as in the API.
fn json(value: Bson) -> Value {
    match value {
        Bson::DateTime(at) => {
            let at = instant(at);
            at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).map_or(Value::Null, Value::String)
        }
        Bson::String(text) => Value::String(text),
        Bson::Int32(n) => n.into(),
        Bson::Int64(n) => n.into(),
        Bson::Document(fields) => fields.into_iter().map(|(field, value)| (field, json(value))).collect::<Map<_, _>>().into(),
        Bson::Boolean(flag) => flag.into(),
        Bson::Double(n) => n.into(),
        Bson::Null => Value::Null,
        other => Value::String(other.to_string()),
    }
}
