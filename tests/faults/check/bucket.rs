//! The bucket: I3 no object without an owner, I14 nothing for strangers.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Report,
    evidence::{Evidence, Image},
};

pub fn judge(evidence: &Evidence, grace: Duration, report: &mut Report) {
    let owned: BTreeSet<_> = evidence.images.iter().flat_map(keys).collect();
    let old = evidence.at - i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    for object in &evidence.objects {
        let excused = owned.contains(&object.key) || object.modified > old;
        report.hold(excused, 3, || format!("{} is nobody's", object.key));
    }
    for (key, begun) in &evidence.open {
        let pending = evidence.images.iter().any(|image| image.state() == "pending" && image.key() == key);
        report.hold(pending || *begun > old, 3, || format!("S3 holds an upload of {key} open for nobody"));
    }
    for stranger in evidence.strangers.iter().flatten() {
        report.hold(stranger.status == 403, 14, || format!("without keys, {}: {}", stranger.what, stranger.status));
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
