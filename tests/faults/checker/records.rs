//! Checks the records: each ready image has exactly its object (I2), nothing exists twice (I4), users are isolated (I7), states
//! and transitions are legal (I8), and types match the bytes (I15).

use std::{collections::BTreeSet, time::Duration};

use valet::model::ImageState;

use super::{
    History, Report,
    evidence::{Evidence, Image},
    timeline::{KeyedUpload, Timelines},
};
use crate::journal::Call;

/// Checks I2, I4, I7, I8 and I15.
pub fn check(evidence: &Evidence, timelines: &Timelines, history: &History, grace: Duration, report: &mut Report) {
    for image in evidence.ready() {
        check_object(evidence, image, report);
        check_type(evidence, image, report);
    }
    check_uniqueness(evidence, report);
    check_idempotent_answers(evidence, timelines, report);
    check_isolation(evidence, timelines, report);
    for image in &evidence.images {
        check_state(evidence, image, grace, report);
    }
    check_transitions(evidence, timelines, history, report);
}

/// Checks I2 for a ready image.
fn check_object(evidence: &Evidence, image: &Image, report: &mut Report) {
    let (id, key) = (image.id(), image.key());
    let Some(object) = evidence.object(key) else { return report.add(2, format!("{id} is ready without its object")) };
    let digest = image.text("sha256");
    let exact =
        object.etag == image.text("etag") && object.size == image.size() && (digest.is_empty() || digest == object.sha256);
    report.require(exact, 2, || format!("{id} is ready with a different object: {object:?}"));
    if let Some(preview) = image.preview() {
        let object = evidence.object(&format!("{key}-preview"));
        let exact = object.is_some_and(|object| {
            preview.get_i64("size").ok() == Some(object.size) && preview.get_str("sha256").ok() == Some(object.sha256.as_str())
        });
        report.require(exact, 2, || format!("{id} is ready with a missing or different preview"));
    }
}

/// Checks I15 for a ready image.
fn check_type(evidence: &Evidence, image: &Image, report: &mut Report) {
    let Some(object) = evidence.object(image.key()) else { return };
    let (declared, found) = (image.text("contentType"), type_by_magic(&object.magic));
    let agree = found == Some(declared) && object.content_type == declared;
    let served = &object.content_type;
    report
        .require(agree, 15, || format!("{}: type {declared} in its record, {served} in S3, {found:?} by its bytes", image.id()));
}

/// Returns the type that the first bytes indicate. HEIF brands are covered by the program's own tests.
fn type_by_magic(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => Some("image/avif"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', b'i', _, ..] => Some("image/heic"),
        _ => None,
    }
}

/// Checks I4 for stored records.
fn check_uniqueness(evidence: &Evidence, report: &mut Report) {
    let mut seen = BTreeSet::new();
    let mut once = |kind: &str, value: String, report: &mut Report| {
        report.require(seen.insert((kind.to_owned(), value.clone())), 4, || format!("two with the same {kind}: {value}"));
    };
    for image in &evidence.images {
        once("key", image.key().to_owned(), report);
        if image.has("uploadId") {
            once("uploadId", image.text("uploadId").to_owned(), report);
        }
        if image.has("idemKey") {
            once("idempotency key of a user", format!("{} {}", image.user(), image.text("idemKey")), report);
        }
        if image.is_live() && image.has("sha256") {
            once("bytes of a user", format!("{} {} {}", image.user(), image.text("sha256"), image.size()), report);
        }
    }
    for user in &evidence.users {
        if let Ok(email) = user.get_str("email") {
            once("email", email.trim().to_lowercase(), report);
        }
    }
}

/// Checks I4 for answers.
fn check_idempotent_answers(evidence: &Evidence, timelines: &Timelines, report: &mut Report) {
    for (email, life) in &timelines.accounts {
        report.require(life.ids.len() <= 1 && life.signups.len() <= 1, 4, || {
            format!("{email} is {:?} by {:?}", life.ids, life.signups)
        });
    }
    for ((email, key), answers) in &timelines.keyed {
        for pair in answers.windows(2) {
            let [KeyedUpload { id: before, sha256: first, .. }, KeyedUpload { id: after, sha256: second, span }] = pair else {
                continue;
            };
            // The idempotency key of an upload that expired or was rejected can be used again.
            let timeline = &timelines.images[before];
            let has_ended = !timeline.ended.is_empty()
                || timelines.may_be_deleted(before)
                || evidence.image(before).is_none_or(|image| !image.is_live());
            report.require(before == after || has_ended, 4, || {
                format!("{key} of {email} was {before}, and {after} by call {}", span.op)
            });
            report.require(first == second, 4, || format!("{key} of {email} was answered for two requests, by call {}", span.op));
        }
    }
}

/// Checks I7.
fn check_isolation(evidence: &Evidence, timelines: &Timelines, report: &mut Report) {
    for image in &evidence.images {
        let (user, key) = (image.user(), image.key());
        let own = |key: &str| ["u", "in"].iter().any(|root| key.starts_with(&format!("{root}/{user}/{}", image.id())));
        report.require(own(key), 7, || format!("{} of {user} lies at {key}", image.id()));
        if let Some(timeline) = timelines.images.get(image.id()) {
            for email in &timeline.owners {
                let ids = timelines.accounts.get(email).map(|life| &life.ids);
                let is_owner = ids.is_none_or(|ids| ids.is_empty() || ids.contains(user));
                report.require(is_owner, 7, || format!("{} of {user} was shown to {email}", image.id()));
            }
        }
    }
    for (id, timeline) in &timelines.images {
        report.require(timeline.owners.len() <= 1, 7, || format!("{id} was shown to {:?}", timeline.owners));
    }
    for op in evidence.record.ops.iter().filter(|op| op.request.call == Call::Probe) {
        let Some(answer) = op.answer.as_ref().filter(|answer| answer.lost.is_none()) else { continue };
        let [foreign, unknown] = answer.items.as_slice() else { continue };
        let is_inconclusive =
            [foreign, unknown].iter().any(|item| item.status.is_none_or(|status| status >= 500 || status == 401));
        let alike = (foreign.status, &foreign.code, &foreign.sha256) == (unknown.status, &unknown.code, &unknown.sha256);
        let finding = || format!("call {}: {foreign:?} for another user's image, {unknown:?} for an unknown one", op.request.op);
        report.require(is_inconclusive || alike, 7, finding);
    }
}

/// Checks I8 for each record.
fn check_state(evidence: &Evidence, image: &Image, grace: Duration, report: &mut Report) {
    let (id, state) = (image.id(), image.state());
    let Some(known) = ImageState::parse(state) else { return report.add(8, format!("{id} has the unknown state {state}")) };
    let has_its_fields = match known {
        ImageState::Ready => {
            image.has("live") && image.has("uploadedAt") && image.has("due") == (image.leftover_keys().count() > 0)
        }
        ImageState::Pending => image.has("live") && image.has("due"),
        ImageState::Purged => !image.has("live") && !image.has("due") && image.has("goneAt"),
        ImageState::Deleting | ImageState::Rejected | ImageState::Expired => !image.has("live") && image.has("due"),
    };
    report.require(has_its_fields, 8, || format!("{id} is {state}, but its record does not match: {}", image.0));
    let cutoff = evidence.at - i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let is_queued = image.time("due").is_none_or(|due| due > cutoff);
    report.require(is_queued, 8, || format!("{id} is {state} and not queued for the sweeper: {}", image.0));
}

/// Checks I8 between samples and between answers.
fn check_transitions(evidence: &Evidence, timelines: &Timelines, history: &History, report: &mut Report) {
    let latest =
        evidence.images.iter().filter_map(|image| Some((image.id(), history.states.get(image.id())?.as_str(), image.state())));
    let earlier = history.transitions.iter().map(|(id, from, to)| (id.as_str(), from.as_str(), to.as_str()));
    for (id, from, to) in earlier.chain(latest) {
        let legal = match (ImageState::parse(from), ImageState::parse(to)) {
            (Some(from), Some(to)) => is_reachable(from, to),
            _ => true,
        };
        report.require(legal, 8, || format!("{id} was {from}, and then {to}"));
    }
    for (id, timeline) in &timelines.images {
        let first_ready = timeline.shown_ready.iter().min_by_key(|span| span.t1);
        let last_pending = timeline.shown_pending.iter().max_by_key(|span| span.t0);
        if let (Some(ready), Some(pending)) = (first_ready, last_pending) {
            report
                .require(pending.t0 <= ready.t1, 8, || format!("{id} was ready in call {}, pending in {}", ready.op, pending.op));
        }
        if let Some((ended, code)) = timeline.ended.iter().min_by_key(|(span, _)| span.t1) {
            let back = timeline.shown.iter().find(|(span, _)| span.t0 > ended.t1);
            report.require(back.is_none(), 8, || {
                format!("{id} was answered {code} by call {} and shown again: {back:?}", ended.op)
            });
        }
    }
}

/// Returns whether a sequence of legal transitions leads from one state to the other.
fn is_reachable(from: ImageState, to: ImageState) -> bool {
    from == to || ImageState::ALL.into_iter().any(|next| from.may_become(next) && is_reachable(next, to))
}
