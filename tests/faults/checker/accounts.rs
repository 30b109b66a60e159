//! Checks accounts: usage is exact (I9), galleries contain the ready images (I10), passwords are hashed with Argon2id (I12).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    History, Report,
    evidence::{Evidence, Image},
};
use crate::{
    cluster::QUOTA,
    counts::{Counts, reservation_mismatch},
    journal::Call,
};

/// Checks I9, I10 and I12.
pub fn check(evidence: &Evidence, history: &History, report: &mut Report) {
    check_quota(evidence, history, report);
    check_galleries(evidence, report);
    check_hashes(evidence, report);
}

/// Checks I9: recorded usage equals the images, and is within the quota.
fn check_quota(evidence: &Evidence, history: &History, report: &mut Report) {
    let mut images_of: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
    evidence.images.iter().for_each(|image| images_of.entry(image.user()).or_default().push(image));
    for user in &evidence.users {
        let id = user.get_str("_id").unwrap_or_default();
        let counted = Counts::of_images(images_of.remove(id).unwrap_or_default().into_iter().map(|image| &image.0));
        let recorded = Counts::of_user(user);
        report.require(recorded.as_ref() == Some(&counted), 9, || format!("{id} has {counted:?}, recorded is {recorded:?}"));
        report.require(counted.bytes <= i64::try_from(QUOTA).unwrap(), 9, || format!("{id} has {} bytes", counted.bytes));
    }
    for image in &evidence.images {
        let mismatch = reservation_mismatch(&image.0);
        report.require(mismatch.is_none(), 9, || mismatch.unwrap_or_default());
    }
    for (user, images) in images_of {
        let live = images.iter().find(|image| image.is_live());
        report.require(live.is_none(), 9, || format!("{user} does not exist but has {:?}", live.map(|image| image.id())));
    }
    history.over_quota.iter().for_each(|user| report.add(9, format!("was over the quota: {user}")));
    for op in evidence.record.ops.iter().filter(|op| op.request.call == Call::Me) {
        let number = |name: &str| op.answer.as_ref()?.members.get(name)?.parse::<u64>().ok();
        if let (Some(bytes), Some(quota)) = (number("bytes"), number("quotaBytes")) {
            report.require(bytes <= quota, 9, || format!("call {} reported {bytes} of {quota} bytes", op.request.op));
        }
    }
}

/// Checks I10: a gallery lists the ready images in order, each once.
fn check_galleries(evidence: &Evidence, report: &mut Report) {
    for (user, gallery) in &evidence.galleries {
        let mut ready: Vec<_> = evidence.ready().filter(|image| image.user() == user).collect();
        ready.sort_by_key(|image| std::cmp::Reverse((image.time("uploadedAt"), image.id().to_owned())));
        let ready: Vec<_> = ready.iter().map(|image| image.id()).collect();
        match gallery {
            Ok(shown) => {
                let shown: Vec<_> = shown.iter().map(|(id, _)| id.as_str()).collect();
                report.require(shown == ready, 10, || format!("{user} sees {shown:?}, ready are {ready:?}"));
            }
            Err(error) => report.add(10, format!("{user} sees no gallery: {error}")),
        }
    }
    for op in evidence.record.ops.iter().filter(|op| op.request.call == Call::Gallery) {
        let items = op.answer.as_ref().map_or(&[][..], |answer| &answer.items);
        let distinct: BTreeSet<_> = items.iter().map(|item| &item.id).collect();
        report.require(distinct.len() == items.len(), 10, || format!("call {} showed an image twice", op.request.op));
    }
}

/// Minimum settings of Argon2id, which OWASP considers equivalent: memory in KiB, and passes (I12).
const MIN_SETTINGS: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// Length of 16 bytes in base64 without padding.
const MIN_SALT_CHARS: usize = 22;

/// Checks I12: Argon2id with strong settings, and no salt twice.
fn check_hashes(evidence: &Evidence, report: &mut Report) {
    let mut salts = BTreeSet::new();
    for user in &evidence.users {
        let Ok(hash) = user.get_str("passwordHash") else { continue };
        let id = user.get_str("_id").unwrap_or_default();
        let fields: Vec<_> = hash.split('$').collect();
        let ["", "argon2id", "v=19", parameters, salt, digest] = fields.as_slice() else {
            report.add(12, format!("{id} has a hash that is not Argon2id"));
            continue;
        };
        let number =
            |name: &str| parameters.split(',').find_map(|pair| pair.strip_prefix(name)?.parse::<u32>().ok()).unwrap_or(0);
        let (memory, passes) = (number("m="), number("t="));
        let strong = MIN_SETTINGS.iter().any(|(min_memory, min_passes)| memory >= *min_memory && passes >= *min_passes)
            && number("p=") >= 1;
        report.require(strong, 12, || format!("{id} has a weak hash: {parameters}"));
        report.require(salt.len() >= MIN_SALT_CHARS && digest.len() >= MIN_SALT_CHARS, 12, || {
            format!("{id} has a short salt or hash")
        });
        report.require(salts.insert(*salt), 12, || format!("{id} has the salt of another"));
    }
}
