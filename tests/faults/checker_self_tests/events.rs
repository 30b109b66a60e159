//! Plants violations in events, deliveries, messages and secrets. The numbers are those of the invariants in
//! tests/faults/README.md: 11 secrets, 19 events, 20 deliveries.

use mongodb::bson::{DateTime, Document, doc};
use time::Duration;

use super::CleanCluster;
use crate::{
    checker::{evidence::Evidence, is_success},
    webhook_receiver::Message,
};

/// Returns the delivery of an image's event of one of these types.
fn delivery_of<'a>(clean: &'a CleanCluster, id: &str, types: &[&str]) -> &'a Document {
    let is_of = |field: &str, holds: &dyn Fn(&str) -> bool, delivery: &Document| delivery.get_str(field).is_ok_and(holds);
    let is_wanted = |delivery: &&Document| {
        is_of("type", &|name| types.contains(&name), delivery) && is_of("body", &|body| body.contains(id), delivery)
    };
    clean.base.deliveries.iter().find(is_wanted).unwrap_or_else(|| panic!("{types:?} of {id}"))
}

/// Returns the message that delivered an event. The receiver has answered earlier ones with errors.
fn delivered<'a>(evidence: &'a Evidence, event: &str) -> &'a Message {
    evidence.messages.iter().find(|message| message.id == event && is_success(message)).unwrap()
}

/// Plants violations in events, deliveries and messages.
pub async fn plant(clean: &CleanCluster) {
    let (image, deleted) = (clean.acknowledged_image(), clean.deleted_image());
    let ready = delivery_of(clean, image.id(), &["image.ready"]).clone();
    let (id, event) = (ready.get_str("_id").unwrap(), ready.get_str("event").unwrap().to_owned());

    let ends: &[&str] = &["image.deleted", "image.rejected", "upload.expired"];
    for (lost, types) in [(image.id(), &["image.ready"][..]), (deleted.id(), ends)] {
        let lost_event = delivery_of(clean, lost, types).get_str("event").unwrap().to_owned();
        clean.assert_reports_change("an event was lost", &[19], |evidence| {
            evidence.deliveries.retain(|delivery| delivery.get_str("event").unwrap() != lost_event);
            evidence.messages.retain(|message| message.id != lost_event);
        });
    }

    clean.assert_reports_change("a change has two events", &[19], |evidence| {
        let mut twin = ready.clone();
        twin.insert("event", "another");
        evidence.deliveries.push(twin);
        let mut message = delivered(evidence, &event).clone();
        message.id = "another".to_owned();
        // The cloned signature is over the earlier id.
        evidence.messages.push(message.signed_again(&evidence.endpoint_secret));
    });

    clean.assert_reports_change("an event is not fanned out", &[19], |evidence| {
        let entry = doc! { "id": "e", "type": "image.updated", "at": DateTime::now() };
        let record = evidence.images.iter_mut().find(|known| known.id() == image.id()).unwrap();
        record.0.insert("outbox", vec![entry]);
    });

    clean.assert_reports_change("a delivery waits", &[20], |evidence| {
        let delivery = evidence.deliveries.iter_mut().find(|delivery| delivery.get_str("_id").ok() == Some(id)).unwrap();
        delivery.remove("doneAt");
        delivery.insert("due", DateTime::now());
    });

    clean.update("deliveries", id, doc! { "$set": { "deadAt": DateTime::now() }, "$unset": { "doneAt": "" } }).await;
    clean.assert_reports("a delivery is dead without a reason", &[20]).await;

    clean.assert_reports_change("a delivery that is done was not received", &[20], |evidence| {
        evidence.messages.retain(|message| message.id != event);
    });

    plant_messages(clean, &event);
    plant_secrets(clean).await;
}

/// Plants violations of the messages of an event.
fn plant_messages(clean: &CleanCluster, event: &str) {
    clean.assert_reports_change("a message is repeated after it was delivered", &[20], |evidence| {
        let mut again = delivered(evidence, event).clone();
        again.at += Duration::seconds(10);
        evidence.messages.push(again);
        // A message may be repeated if the test has ended the claim of its event early.
        evidence.claims_ended_early.clear();
    });

    clean.assert_reports_change("a message has another signature", &[20], |evidence| {
        evidence.messages.iter_mut().find(|message| message.id == event).unwrap().timestamp += 1;
    });

    clean.assert_reports_change("a message is not that of its delivery", &[20], |evidence| {
        let message = evidence.messages.iter_mut().find(|message| message.id == event).unwrap();
        message.body.push(' ');
        *message = message.clone().signed_again(&evidence.endpoint_secret);
    });
}

/// Plants the secrets of the backend in a record.
async fn plant_secrets(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    for secret in [clean.base.endpoint_secret.clone(), clean.base.key.clone()] {
        clean.update("users", image.user(), doc! { "$set": { "note": secret } }).await;
        clean.assert_reports("a secret of the backend is in a record", &[11]).await;
    }
}
