//! The rules about uploads: one as clients make it, then what the store does about others. `kinds` has the deviations.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    Answer, Report, clock, holds,
    lab::{BODY, Lab, Life, OTHER, new_object},
    multipart,
    names::{self, ROUNDS},
    objects, rules, settled, trial, unsigned,
};
use crate::{
    domain::finalize::Guarantees,
    store::{
        StoreError,
        objects::{NewObject, Sealing},
    },
};

pub(super) async fn examine(lab: &Lab<'_>, max_bytes: u64, report: &mut Report) {
    let key = lab.key("object");
    let began = std::time::Instant::now();
    let accepted = match lab.put(&key, |_| {}).await {
        Ok(response) => response,
        Err(error) => return report.add(&rules::PUT, Answer::No(error.to_string())),
    };
    if let Ok(theirs) = OffsetDateTime::parse(accepted.header("date"), &Rfc2822) {
        // Somewhere within the second that it names.
        let theirs = theirs + Duration::from_millis(500);
        report.add(&rules::STORE_CLOCK, clock(theirs, OffsetDateTime::now_utc(), began.elapsed()));
    }
    report.add(&rules::TRANSPORT, settled(transport(lab)));
    report.add(&rules::PUT, holds(accepted.is_success(), accepted.describe()));
    if !accepted.is_success() {
        // A store that refuses everything would pass every test of refusing.
        return;
    }
    unsigned::examine(lab, report).await;
    report.add(&rules::CHECKSUM, settled(checksum(lab).await));
    report.add(&rules::ONCE, settled(once(lab).await));
    report.add(&rules::OVERLAP, settled(overlap(lab).await));
    report.add(&rules::BODY_CAP, settled(body_cap(lab, max_bytes).await));
    report.add(&rules::FORM, settled(form(lab).await));
    objects::examine(lab, &key, report).await;
}

/// Those that decide where an upload becomes final, and which uploads are issued.
pub(super) async fn guarantees(lab: &Lab<'_>) -> Result<Guarantees, StoreError> {
    let key = lab.key("object");
    let accepted = lab.put(&key, |_| {}).await?;
    if !accepted.is_success() {
        return Err(StoreError::Objects {
            operation: "PutObject",
            reason: format!("{} to a presigned PUT", accepted.describe()),
        });
    }
    let holds = |answer: &Answer| matches!(answer, Answer::Yes(_));
    // Side by side: a store may be far away, and uploads are copied until the last answer is there.
    let (uploads, parts) = tokio::join!(
        async { tokio::try_join!(checksum(lab), once(lab), overlap(lab), unsigned::unsigned(lab)) },
        multipart::lists_checksums(lab)
    );
    let (checksum, once, overlap, unsigned) = uploads?;
    Ok(Guarantees {
        once: holds(&once) && holds(&overlap) && unsigned.taken.is_empty(),
        checksum: holds(&checksum),
        // A store may have no multipart uploads at all.
        lists_part_checksums: parts.unwrap_or(true),
        unsigned,
    })
}

/// Clear text is fine on this machine only.
fn transport(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let put = lab.presigned_put(&lab.key("transport"), BODY)?;
    let url = url::Url::parse(&put.url).ok();
    let (secure, local) = match url.as_ref().map(|url| (url.scheme() == "https", url.host())) {
        Some((secure, Some(url::Host::Domain(name)))) => (secure, name == "localhost" || name.ends_with(".localhost")),
        Some((secure, Some(url::Host::Ipv4(address)))) => (secure, address.is_loopback()),
        Some((secure, Some(url::Host::Ipv6(address)))) => (secure, address.is_loopback()),
        _ => (false, false),
    };
    Ok(if local && !secure {
        Answer::Skipped("this machine only".to_owned())
    } else {
        holds(secure, if secure { "https" } else { "http" })
    })
}

async fn checksum(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("checksum");
    let response = lab.put(&key, |put| put.body = Bytes::from_static(OTHER)).await?;
    lab.is_refused(&key, &response).await
}

async fn once(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("once");
    let (first, second) = (lab.put(&key, |_| {}).await?, lab.put(&key, |_| {}).await?);
    Ok(holds(first.is_success() && second.is_rejected(), format!("{}, then {}", first.describe(), second.status)))
}

async fn overlap(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let body = vec![0x2a; 256 * 1024];
    let rounds = (1..=ROUNDS).map(|round| {
        let body = &body;
        async move {
            let put = lab.presigned_put(&lab.key(&names::overlap(round)), body)?;
            let both = lab.wire.put_twice(&put.url, &put.headers(), &put.body).await?;
            // Neither may win (AWS answers 409 to both, rarely): that loses nothing, the client repeats.
            Ok::<_, StoreError>(both.iter().filter(|response| response.is_success()).count() > 1)
        }
    });
    let twice = try_join_all(rounds).await?.into_iter().filter(|two_winners| *two_winners).count();
    let seen = if twice == 0 { format!("in {ROUNDS} rounds") } else { format!("two winners in {twice} of {ROUNDS} rounds") };
    Ok(holds(twice == 0, seen))
}

/// Announces the largest body that a PUT may have; none of it is sent.
async fn body_cap(lab: &Lab<'_>, max_bytes: u64) -> Result<Answer, StoreError> {
    let (at, ttl) = lab.life(Life::Now);
    let object = NewObject { size: max_bytes, ..new_object(BODY) };
    let put = lab.objects.presign_put_as(Sealing::Plain, &lab.key("body-cap"), object, at, ttl)?;
    let headers: Vec<_> = put.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = lab.wire.announce_put(&put.signed.url, &headers, max_bytes).await?;
    Ok(match answer {
        None => Answer::Yes(format!("{max_bytes} bytes")),
        Some(answer) => Answer::No(format!("{} for {max_bytes} bytes", answer.describe())),
    })
}

async fn form(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let form = lab.signed_form(&lab.key("form"), Life::Now)?;
    let response = trial::send_form(lab, &form, &[], &[], None).await?;
    Ok(holds(response.is_success(), response.describe()))
}
