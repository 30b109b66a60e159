//! Checks events: each change has exactly one (I19), and each is delivered, or dead with a reason, and not repeated after it was
//! delivered (I20).

use std::collections::BTreeMap;

use mongodb::bson::Document;
use serde_json::Value;

use super::{Report, evidence::Evidence, timeline::Timelines};
use crate::webhook_receiver::Message;

/// Shortest time from a delivered attempt whose outcome was not recorded to the next one, in seconds: the claim of a delivery
/// (`src/store/deliveries.rs`) less the deadline of an attempt (`src/store/webhook_sender.rs`).
const SHORTEST_CLAIM: i64 = 60 - 15;
/// Types of events that end an image; an image has at most one such event.
const ENDS: [&str; 3] = ["image.deleted", "image.rejected", "upload.expired"];

/// Number of events by image or user, and type.
struct EventCounts(BTreeMap<(String, String), usize>);

impl EventCounts {
    /// Counts the events in the bodies of deliveries.
    fn of(deliveries: &[Document]) -> Self {
        let mut counts = BTreeMap::new();
        for delivery in deliveries {
            let message: Value = serde_json::from_str(text(delivery, "body")).unwrap_or_default();
            let subject = message["data"].get("id").unwrap_or(&message["data"]["user"]).as_str().unwrap_or_default();
            *counts.entry((subject.to_owned(), text(delivery, "type").to_owned())).or_default() += 1;
        }
        Self(counts)
    }

    /// Returns the number of events of this type about an image or user.
    fn get(&self, subject: &str, type_name: &str) -> usize {
        self.0.get(&(subject.to_owned(), type_name.to_owned())).copied().unwrap_or(0)
    }

    /// Returns the number of events that end an image.
    fn ends(&self, image: &str) -> usize {
        ENDS.iter().map(|end| self.get(image, end)).sum()
    }
}

/// Checks I19 and I20.
pub fn check(evidence: &Evidence, timelines: &Timelines, report: &mut Report) {
    let counts = EventCounts::of(&evidence.deliveries);
    check_outboxes(evidence, report);
    check_images(evidence, timelines, &counts, report);
    check_accounts(timelines, &counts, report);
    let mut messages: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    evidence.messages.iter().for_each(|message| messages.entry(&message.id).or_default().push(message));
    check_deliveries(evidence, &messages, report);
    check_messages(evidence, &messages, report);
}

/// Returns a field of a document; empty if it is absent.
fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

/// Checks I19: all events are fanned out.
fn check_outboxes(evidence: &Evidence, report: &mut Report) {
    for document in evidence.images.iter().map(|image| &image.0).chain(&evidence.users) {
        let is_empty = !document.contains_key("outbox") && !document.contains_key("outboxUnreadable");
        report.require(is_empty, 19, || format!("events of {} are not fanned out", text(document, "_id")));
    }
}

/// Checks I19 for images.
fn check_images(evidence: &Evidence, timelines: &Timelines, counts: &EventCounts, report: &mut Report) {
    for ((subject, type_name), count) in &counts.0 {
        report.require(*count == 1 || type_name == "image.updated", 19, || format!("{subject} has {count} events {type_name}"));
    }
    for (id, timeline) in &timelines.images {
        let (ready, ends) = (counts.get(id, "image.ready"), counts.ends(id));
        if let Some(confirmed) = timeline.confirmed.first() {
            report.require(ready == 1, 19, || format!("{id} was confirmed by call {}, with {ready} events", confirmed.op));
        }
        if let Some(deleted) = timeline.deleted {
            report.require(ends == 1, 19, || format!("{id} was deleted by call {}, with {ends} events", deleted.op));
        }
        // I5 reports a deleted image that is ready again. It may lack `image.ready`, if it was deleted while it was pending.
        let is_ready = timeline.deleted.is_none() && evidence.image(id).is_some_and(|image| image.state() == "ready");
        report.require(!is_ready || ready == 1, 19, || format!("{id} is ready, with {ready} events"));
        report.require(ends <= 1, 19, || format!("{id} ended with {ends} events"));
    }
}

/// Checks I19 for accounts.
fn check_accounts(timelines: &Timelines, counts: &EventCounts, report: &mut Report) {
    for (email, life) in &timelines.accounts {
        for id in &life.ids {
            let (created, deleted) = (counts.get(id, "account.created"), counts.get(id, "account.deleted"));
            report.require(created == 1, 19, || format!("{email} was created with {created} events"));
            report.require(life.deleted.is_none() || deleted == 1, 19, || format!("{email} was deleted with {deleted} events"));
        }
    }
}

/// Checks I20 for deliveries: none waits; each is done or dead with a reason; those that are done were answered 2xx.
fn check_deliveries(evidence: &Evidence, messages: &BTreeMap<&str, Vec<&Message>>, report: &mut Report) {
    for delivery in &evidence.deliveries {
        let event = text(delivery, "event");
        let has = |field: &str| delivery.contains_key(field);
        let (is_done, is_dead) = (has("doneAt"), has("deadAt") && !text(delivery, "why").is_empty());
        let has_ended = is_done != is_dead && !has("due") && !has("lease");
        report.require(has_ended, 20, || format!("the delivery of {event} is neither done nor dead with a reason: {delivery}"));
        let received = messages.get(event).map_or(&[][..], Vec::as_slice);
        let is_received = received.iter().any(|message| is_success(message));
        report.require(is_done == is_received, 20, || {
            format!("the delivery of {event} is {}, answers were {:?}", if is_done { "done" } else { "dead" }, statuses(received))
        });
    }
}

/// Checks I20 for messages: each is signed and is that of its delivery; none is repeated after it was answered 2xx, unless the
/// outcome could not be recorded before the claim ended.
fn check_messages(evidence: &Evidence, messages: &BTreeMap<&str, Vec<&Message>>, report: &mut Report) {
    let bodies: BTreeMap<_, _> =
        evidence.deliveries.iter().map(|delivery| (text(delivery, "event"), text(delivery, "body"))).collect();
    for (event, received) in messages {
        for message in received {
            let is_signed = message.is_signed_by(&evidence.endpoint_secret);
            report.require(is_signed, 20, || format!("a message of {event} is not signed by the endpoint's secret"));
            let is_same = bodies.get(event) == Some(&message.body.as_str());
            report.require(is_same, 20, || format!("a message of {event} is not that of its delivery"));
        }
        let repeats = received.windows(2).filter(|pair| is_success(pair[0]));
        for pair in repeats.filter(|_| !evidence.claims_ended_early.contains(*event)) {
            let after = (pair[1].at - pair[0].at).whole_seconds();
            report.require(after >= SHORTEST_CLAIM, 20, || format!("{event} was repeated {after} s after it was delivered"));
        }
    }
}

/// Returns whether the receiver answered 2xx.
pub fn is_success(message: &Message) -> bool {
    (200..300).contains(&message.status)
}

/// Returns the status of the answer to each message.
fn statuses(received: &[&Message]) -> Vec<u16> {
    received.iter().map(|message| message.status).collect()
}
