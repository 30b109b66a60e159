//! Checks the guarantees to owners: no acknowledged confirm is lost (I1), deletes are final (I5), bytes never change (I6), and
//! ready images disappear only by their owner's request (I16).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    History, Report,
    evidence::{Evidence, Image, Object},
    timeline::{Timeline, Timelines},
};
use crate::journal::Call;

/// Checks I1, I5, I6 and I16.
pub fn check(evidence: &Evidence, timelines: &Timelines, history: &History, grace: Duration, report: &mut Report) {
    for (id, timeline) in &timelines.images {
        let image = evidence.image(id);
        if !timeline.confirmed.is_empty() && !timelines.may_be_deleted(id) {
            check_acknowledged(evidence, id, timeline, image, report);
        }
        check_deleted(evidence, id, timeline, image, grace, report);
        check_fetched(evidence, id, timeline, image, report);
    }
    for (key, digest) in &history.digests {
        if let Some(object) = evidence.object(key) {
            report.require(object.sha256 == *digest, 6, || format!("{key} was {digest}, is {}", object.sha256));
        }
    }
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    evidence.objects.iter().for_each(|object| *versions.entry(&object.key).or_default() += 1);
    for image in evidence.ready() {
        let versions = versions.get(image.key()).copied().unwrap_or_default();
        report.require(versions <= 1, 6, || format!("{versions} versions of {}", image.key()));
    }
    let shown_ready = timelines.images.iter().filter(|(_, timeline)| !timeline.shown_ready.is_empty()).map(|(id, _)| id);
    for id in history.ready.iter().chain(shown_ready).collect::<BTreeSet<_>>() {
        let state = evidence.image(id).map_or("absent", Image::state);
        // Only the journal knows the owner: an image that no answer contained may belong to a deleted account.
        let has_known_owner = timelines.images.get(id).is_some_and(|timeline| !timeline.owners.is_empty());
        let is_allowed = state == "ready" || timelines.may_be_deleted(id) || !has_known_owner;
        report.require(is_allowed, 16, || format!("{id} was ready and is {state} without a delete"));
    }
}

/// Checks I1 for an image whose confirm was answered 200, and which its owner cannot have deleted.
fn check_acknowledged(evidence: &Evidence, id: &str, timeline: &Timeline, image: Option<&Image>, report: &mut Report) {
    let op = timeline.confirmed[0].op;
    let Some(image) = image.filter(|image| image.state() == "ready") else {
        let state = image.map_or("absent", Image::state);
        return report.add(1, format!("{id} was confirmed by call {op}, and is {state}"));
    };
    let Some(object) = evidence.object(image.key()) else {
        return report.add(1, format!("{id} was confirmed by call {op}, and its object is gone"));
    };
    let digest = image.text("sha256");
    let same = object.size == image.size()
        && object.content_type == image.text("contentType")
        && (digest.is_empty() || digest == object.sha256);
    report.require(same, 1, || format!("{id} was confirmed by call {op}; its object is not what its record says"));
    if let Some((sha256, size, content_type)) = &timeline.declared {
        let same = *sha256 == object.sha256
            && i64::try_from(*size).is_ok_and(|size| size == object.size)
            && content_type == image.text("contentType");
        report.require(same, 1, || format!("{id} was confirmed by call {op}; its object is not what was uploaded"));
    }
}

/// Checks I5 for an image, if its owner has deleted it.
fn check_deleted(
    evidence: &Evidence,
    id: &str,
    timeline: &Timeline,
    image: Option<&Image>,
    grace: Duration,
    report: &mut Report,
) {
    let Some(deleted) = timeline.deleted else { return };
    if let Some(image) = image {
        report.require(!image.is_live(), 5, || format!("{id} was deleted by call {}, and is {}", deleted.op, image.state()));
    }
    let after = timeline.shown.iter().find(|(span, call)| span.t0 > deleted.t1 && *call != Call::Delete);
    if let Some((span, call)) = after {
        report.add(5, format!("{id} was deleted by call {}, and shown by call {} ({call:?})", deleted.op, span.op));
    }
    let cutoff = evidence.at - i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let is_of_image = |object: &&Object| object.key.rsplit('/').next().is_some_and(|name| name.starts_with(id));
    for object in evidence.objects.iter().filter(is_of_image).filter(|object| object.modified <= cutoff) {
        report.add(5, format!("{id} was deleted by call {}, and {} is still there", deleted.op, object.key));
    }
}

/// Checks I6 for fetched bytes.
fn check_fetched(evidence: &Evidence, id: &str, timeline: &Timeline, image: Option<&Image>, report: &mut Report) {
    let Some((first_op, first)) = timeline.fetched.first() else { return };
    for (op, digest) in &timeline.fetched {
        report.require(digest == first, 6, || format!("{id} was fetched by calls {first_op} and {op}, and differed"));
    }
    if let Some(object) = image.filter(|image| image.state() == "ready").and_then(|image| evidence.object(image.key())) {
        report.require(object.sha256 == *first, 6, || format!("{id} is not what call {first_op} fetched"));
    }
}
