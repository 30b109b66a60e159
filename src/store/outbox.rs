//! Outboxes: events that wait in the documents of `images` and `users` as `outbox: [{id, type, at, data}]`.
//!
//! An event is appended by the same update that makes the change, so that neither exists without the other. `data` is a copy of
//! the document's fields at that time, because the document may change before the event is fanned out. `outbox_queue` reads and
//! removes events. A store without events, the default, writes none.

use std::sync::Arc;

use mongodb::{
    IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use tokio::sync::Notify;

use crate::model::{EventId, EventType};

/// Field whose presence decides whether a document has events: the index of outboxes covers it.
pub(super) const OUTBOX_AT: &str = "outbox.at";
/// Number of events in an outbox from which an update of an image replaces the event of the update before it.
const FULL_OUTBOX_EVENTS: i32 = 100;
/// Fields of an image in the data of its events. A field that the image lacks is left out.
const IMAGE_FIELDS: [&str; 15] = [
    "fileName",
    "contentType",
    "size",
    "sha256",
    "width",
    "height",
    "caption",
    "thumbHash",
    "takenAt",
    "camera",
    "location",
    "rejection",
    "rejectionCause",
    "createdAt",
    "uploadedAt",
];

/// Whether changes write events, and the means to wake this server's fan-out.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(Option<Arc<Notify>>);

impl Outbox {
    /// Returns an outbox whose events wake the waiters of `woken`.
    pub(super) fn on(woken: Arc<Notify>) -> Self {
        Self(Some(woken))
    }

    /// Returns whether changes write events.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Wakes this server's fan-out after a change.
    pub(super) fn wake(&self) {
        if let Some(woken) = &self.0 {
            woken.notify_one();
        }
    }

    /// Returns the stage of a pipeline that appends an event with the image's fields as the stages before it have set them.
    pub(super) fn image_stage(&self, event: EventType) -> Option<Document> {
        self.is_on().then(|| doc! { "$set": { "outbox": appended(event, image_data()) } })
    }

    /// Returns the value of `outbox` in an update of a user, with an event of this data; `None` without events.
    pub(super) fn user_value(&self, event: EventType, data: Document) -> Option<Document> {
        self.is_on().then(|| appended(event, data))
    }

    /// Returns the `outbox` of a new account, with this event; empty without events.
    pub(super) fn initial(&self, event: EventType, at: mongodb::bson::DateTime, data: Document) -> Vec<Document> {
        let entry = doc! { "id": EventId::new().to_string(), "type": event.as_str(), "at": at, "data": data };
        if self.is_on() { vec![entry] } else { Vec::new() }
    }

    /// Restricts the filter of an update that ends a document to documents without events, which would be lost with the document.
    pub(super) fn require_empty(&self, mut filter: Document) -> Document {
        if self.is_on() {
            filter.insert(OUTBOX_AT, doc! { "$exists": false });
        }
        filter
    }
}

/// Returns the data of an image's event as an expression.
pub(super) fn image_data() -> Document {
    IMAGE_FIELDS.iter().map(|field| ((*field).to_owned(), Bson::from(format!("${field}")))).collect()
}

/// Returns an expression of the outbox with one more event. An outbox that is damaged does not make the change fail.
///
/// While fan-out fails, a client can update an image any number of times, and the size of a document is limited. In an outbox of
/// [`FULL_OUTBOX_EVENTS`] events, an update therefore replaces the event of the update before it: its data is older. Changes of
/// other types happen a few times to a document, and all their events stay.
pub(super) fn appended(event: EventType, data: Document) -> Document {
    let entry = doc! { "id": EventId::new().to_string(), "type": event.as_str(), "at": "$$NOW", "data": data };
    let outbox = doc! { "$cond": [{ "$isArray": "$outbox" }, "$outbox", []] };
    let earlier: Bson = if event == EventType::ImageUpdated {
        let is_full = doc! { "$gte": [{ "$size": "$$outbox" }, FULL_OUTBOX_EVENTS] };
        let is_update =
            doc! { "$eq": [{ "$let": { "vars": { "last": { "$last": "$$outbox" } }, "in": "$$last.type" } }, event.as_str()] };
        let shorter = doc! { "$slice": ["$$outbox", { "$subtract": [{ "$size": "$$outbox" }, 1] }] };
        doc! { "$cond": [{ "$and": [is_full, is_update] }, shorter, "$$outbox"] }.into()
    } else {
        "$$outbox".into()
    };
    doc! { "$let": { "vars": { "outbox": outbox }, "in": { "$concatArrays": [earlier, [entry]] } } }
}

/// Returns the index through which the fan-out finds documents with events.
pub(super) fn index() -> IndexModel {
    let has_events = doc! { OUTBOX_AT: { "$exists": true } };
    let options = IndexOptions::builder().name("outbox".to_owned()).partial_filter_expression(has_events).build();
    IndexModel::builder().keys(doc! { OUTBOX_AT: 1 }).options(options).build()
}
