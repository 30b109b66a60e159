//! The bucket: I3 no object without an owner, I14 nothing for strangers, I17 no byte that is not counted, I18 nothing of a deleted
//! account.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Report,
    evidence::{Evidence, Image},
    timeline::Timelines,
};

pub fn judge(evidence: &Evidence, timelines: &Timelines, grace: Duration, report: &mut Report) {
    let owned: BTreeSet<_> = evidence.images.iter().flat_map(keys).collect();
    let old = evidence.at - i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    for object in &evidence.objects {
        let excused = owned.contains(&object.key) || object.modified > old;
        report.hold(excused, 3, || format!("{} is nobody's", object.key));
    }
    // A server that is killed while it tries the store out leaves uploads under `check/`.
    for (key, begun) in evidence.open.iter().filter(|(key, _)| !key.starts_with("check/")) {
        let pending = evidence.images.iter().any(|image| image.state() == "pending" && image.key() == key);
        report.hold(pending || *begun > old, 3, || format!("S3 holds an upload of {key} open for nobody"));
    }
    counted(evidence, old, report);
    forgotten(evidence, timelines, old, report);
    for stranger in evidence.strangers.iter().flatten() {
        report.hold(stranger.status == 403, 14, || format!("without keys, {}: {}", stranger.what, stranger.status));
    }
}

/// Root and owner of a key.
fn owner(key: &str) -> Option<(&str, &str)> {
    let (root, rest) = key.split_once('/')?;
    Some((root, rest.split_once('/')?.0)).filter(|(root, _)| matches!(*root, "u" | "in"))
}

/// I17: docs/quota.md has the bound. What waits to be copied may be as much again as is counted; versions that newer ones hide
/// are not counted. `old`: what is younger may be of a step that is under way.
fn counted(evidence: &Evidence, old: i64, report: &mut Report) {
    let mut lying: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for object in evidence.objects.iter().filter(|object| object.is_latest && object.modified <= old) {
        if let Some(owner) = owner(&object.key) {
            *lying.entry(owner).or_default() += object.size;
        }
    }
    for ((root, user), bytes) in lying {
        let record = evidence.users.iter().find(|known| known.get_str("_id").ok() == Some(user));
        let counted = record.and_then(|record| record.get_i64("usedBytes").ok()).unwrap_or(0);
        report.hold(bytes <= counted, 17, || format!("{bytes} bytes lie under {root}/{user}, {counted} are counted"));
    }
}

/// I18: of an account that is no more, nothing but records of images that are gone, which end by themselves.
fn forgotten(evidence: &Evidence, timelines: &Timelines, old: i64, report: &mut Report) {
    let users: BTreeSet<_> = evidence.users.iter().filter_map(|user| user.get_str("_id").ok()).collect();
    let mut known: BTreeSet<&str> = evidence.images.iter().map(Image::user).collect();
    known.extend(evidence.sessions.iter().filter_map(|session| session.get_str("user").ok()));
    known.extend(timelines.accounts.values().flat_map(|life| &life.ids).map(String::as_str));
    let objects: Vec<_> = evidence.objects.iter().filter(|object| object.modified <= old).collect();
    known.extend(objects.iter().filter_map(|object| Some(owner(&object.key)?.1)));
    let gone = |document: &str| document.starts_with("images: ") && document.contains(r#""state": "gone""#);
    let left: Vec<_> = evidence.dump.iter().filter(|document| !gone(document)).collect();
    for user in known.difference(&users) {
        let document = left.iter().find(|document| document.contains(*user));
        report.hold(document.is_none(), 18, || format!("{user} is no user, and there is {document:?}"));
        let object = objects.iter().find(|object| owner(&object.key).is_some_and(|(_, of)| of == *user));
        report.hold(object.is_none(), 18, || format!("{user} is no user, and there is {object:?}"));
    }
}

/// Where something of it may lie. A ready image has what it serves; what lies beside it is the sweeper's until it is cleared.
fn keys(image: &Image) -> Vec<String> {
    if !image.is_live() {
        return Vec::new();
    }
    let mut keys = vec![image.key().to_owned()];
    if image.preview().is_some() {
        keys.push(format!("{}-preview", image.key()));
    }
    if image.state() == "pending" || image.has("due") {
        keys.extend(image.strays().map(str::to_owned));
    }
    keys
}
