//! Checks the bucket: no object without an owner (I3), no access without credentials (I14), no uncounted bytes (I17), nothing
//! left of deleted accounts (I18).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Report,
    evidence::{Evidence, Image},
    timeline::Timelines,
};

/// Checks I3, I14, I17 and I18. Objects and uploads younger than `grace` may belong to a step in progress.
pub fn check(evidence: &Evidence, timelines: &Timelines, grace: Duration, report: &mut Report) {
    let owned: BTreeSet<_> = evidence.images.iter().flat_map(keys).collect();
    let cutoff = evidence.at - i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    for object in &evidence.objects {
        let has_owner_or_is_young = owned.contains(&object.key) || object.modified > cutoff;
        report.require(has_owner_or_is_young, 3, || format!("{} has no owner", object.key));
    }
    // A server that is killed while it probes the store leaves uploads under `check/`.
    for (key, opened_at) in evidence.open_uploads.iter().filter(|(key, _)| !key.starts_with("check/")) {
        let pending = evidence.images.iter().any(|image| image.state() == "pending" && image.key() == key);
        report.require(pending || *opened_at > cutoff, 3, || format!("the open multipart upload at {key} has no owner"));
    }
    check_counted_bytes(evidence, cutoff, report);
    check_deleted_accounts(evidence, timelines, cutoff, report);
    for answer in evidence.anonymous.iter().flatten() {
        report.require(answer.status == 403, 14, || format!("without credentials, {}: {}", answer.request, answer.status));
    }
}

/// Returns the root (`u` or `in`) and the user's id in an object key.
fn owner(key: &str) -> Option<(&str, &str)> {
    let (root, rest) = key.split_once('/')?;
    Some((root, rest.split_once('/')?.0)).filter(|(root, _)| matches!(*root, "u" | "in"))
}

/// Checks I17 against the bound in docs/quota.md: objects that wait to be copied may take as many bytes again as are counted;
/// noncurrent versions are not counted. Objects younger than `cutoff` may belong to a step in progress.
fn check_counted_bytes(evidence: &Evidence, cutoff: i64, report: &mut Report) {
    let mut stored: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for object in evidence.objects.iter().filter(|object| object.is_latest && object.modified <= cutoff) {
        if let Some(owner) = owner(&object.key) {
            *stored.entry(owner).or_default() += object.size;
        }
    }
    for ((root, user), bytes) in stored {
        let record = evidence.users.iter().find(|known| known.get_str("_id").ok() == Some(user));
        let counted = record.and_then(|record| record.get_i64("usedBytes").ok()).unwrap_or(0);
        report.require(bytes <= counted, 17, || format!("{bytes} bytes are stored under {root}/{user}, {counted} are counted"));
    }
}

/// Checks I18: nothing is left of a deleted account except tombstones and deliveries that have ended, which expire by themselves.
fn check_deleted_accounts(evidence: &Evidence, timelines: &Timelines, cutoff: i64, report: &mut Report) {
    let users: BTreeSet<_> = evidence.users.iter().filter_map(|user| user.get_str("_id").ok()).collect();
    // Ids of users that a record, an answer or an object names.
    let mut named: BTreeSet<&str> = evidence.images.iter().map(Image::user).collect();
    named.extend(evidence.sessions.iter().filter_map(|session| session.get_str("user").ok()));
    named.extend(timelines.accounts.values().flat_map(|account| &account.ids).map(String::as_str));
    let objects: Vec<_> = evidence.objects.iter().filter(|object| object.modified <= cutoff).collect();
    named.extend(objects.iter().filter_map(|object| Some(owner(&object.key)?.1)));
    let is_tombstone = |document: &str| document.starts_with("images: ") && document.contains(r#""state": "gone""#);
    let has_ended = |document: &str| {
        document.starts_with("deliveries: ") && (document.contains(r#""doneAt": "#) || document.contains(r#""deadAt": "#))
    };
    let remaining: Vec<_> = evidence.dump.iter().filter(|document| !is_tombstone(document) && !has_ended(document)).collect();
    for user in named.difference(&users) {
        let document = remaining.iter().find(|document| document.contains(*user));
        report.require(document.is_none(), 18, || format!("{user} does not exist but has {document:?}"));
        let object = objects.iter().find(|object| owner(&object.key).is_some_and(|(_, owner)| owner == *user));
        report.require(object.is_none(), 18, || format!("{user} does not exist but has {object:?}"));
    }
}

/// Returns the keys where the image may have objects. The leftovers of a ready image count until the sweeper has
/// deleted them.
fn keys(image: &Image) -> Vec<String> {
    if !image.is_live() {
        return Vec::new();
    }
    let mut keys = vec![image.key().to_owned()];
    if image.preview().is_some() {
        keys.push(format!("{}-preview", image.key()));
    }
    if image.state() == "pending" || image.has("due") {
        keys.extend(image.leftover_keys().map(str::to_owned));
    }
    keys
}
