//! Checks the rules about uploads: a regular one, then deviating ones; `probe_matrix` lists the deviations from the signature.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    Answer, Report, answer_if, answer_or_no, compare_clocks, deviation_probes, multipart, objects,
    probe_context::{BODY, OTHER, ProbeContext, UrlValidity, new_object},
    probe_names::{self, ROUNDS},
    rules, unsigned,
};
use crate::{
    domain::store_capabilities::StoreCapabilities,
    store::{
        StoreError,
        objects::{NewObject, Sealing},
    },
};

/// Checks the rules about uploads; ends after the first if the store refuses a regular one.
pub(super) async fn examine(context: &ProbeContext<'_>, max_bytes: u64, report: &mut Report) {
    let key = context.key("object");
    let began = std::time::Instant::now();
    let accepted = match context.put(&key, |_| {}).await {
        Ok(response) => response,
        Err(error) => return report.add(&rules::PUT, Answer::No(error.to_string())),
    };
    if let Ok(theirs) = OffsetDateTime::parse(accepted.header("date"), &Rfc2822) {
        // The header has whole seconds, so its mean is half a second later.
        let theirs = theirs + Duration::from_millis(500);
        report.add(&rules::STORE_CLOCK, compare_clocks(theirs, OffsetDateTime::now_utc(), began.elapsed()));
    }
    report.add(&rules::TRANSPORT, answer_or_no(transport(context)));
    report.add(&rules::PUT, answer_if(accepted.is_success(), accepted.describe()));
    if !accepted.is_success() {
        // A store that refuses everything would pass every further probe.
        return;
    }
    unsigned::examine(context, report).await;
    report.add(&rules::CHECKSUM, answer_or_no(checksum(context).await));
    report.add(&rules::ONCE, answer_or_no(once(context).await));
    report.add(&rules::OVERLAP, answer_or_no(overlap(context).await));
    report.add(&rules::BODY_CAP, answer_or_no(body_cap(context, max_bytes).await));
    report.add(&rules::FORM, answer_or_no(form(context).await));
    objects::examine(context, &key, report).await;
}

/// Probes the capabilities that decide whether confirm copies uploads, and which uploads are opened.
pub(super) async fn probe_capabilities(context: &ProbeContext<'_>) -> Result<StoreCapabilities, StoreError> {
    let key = context.key("object");
    let accepted = context.put(&key, |_| {}).await?;
    if !accepted.is_success() {
        return Err(StoreError::Objects {
            operation: "PutObject",
            reason: format!("{} to a presigned PUT", accepted.describe()),
        });
    }
    let is_yes = |answer: &Answer| matches!(answer, Answer::Yes(_));
    // Concurrently: the store may be far away, and uploads are copied until the last answer has arrived.
    let (uploads, parts) = tokio::join!(
        async { tokio::try_join!(checksum(context), once(context), overlap(context), unsigned::probe_headers(context)) },
        multipart::lists_checksums(context)
    );
    let (checksum, once, overlap, unsigned_headers) = uploads?;
    Ok(StoreCapabilities {
        writes_once: is_yes(&once) && is_yes(&overlap) && unsigned_headers.obeyed.is_empty(),
        verifies_checksums: is_yes(&checksum),
        // A store may have no multipart uploads at all.
        lists_part_checksums: parts.unwrap_or(true),
        unsigned_headers,
    })
}

/// Checks that the public endpoint uses TLS, unless it is on this machine.
fn transport(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let put = context.presigned_put(&context.key("transport"), BODY)?;
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
        answer_if(secure, if secure { "https" } else { "http" })
    })
}

/// Checks that bytes other than those of the signed checksum are rejected.
async fn checksum(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("checksum");
    let response = context.put(&key, |put| put.body = Bytes::from_static(OTHER)).await?;
    context.rejection_answer(&key, &response).await
}

/// Checks that a second PUT with the same URL is rejected.
async fn once(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("once");
    let (first, second) = (context.put(&key, |_| {}).await?, context.put(&key, |_| {}).await?);
    Ok(answer_if(first.is_success() && second.is_rejected(), format!("{}, then {}", first.describe(), second.status)))
}

/// Checks that at most one of two concurrent PUTs with the same URL succeeds.
async fn overlap(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    // Large enough that the two transfers overlap.
    let body = vec![0x2a; 256 * 1024];
    let rounds = (1..=ROUNDS).map(|round| {
        let body = &body;
        async move {
            let put = context.presigned_put(&context.key(&probe_names::overlap(round)), body)?;
            let responses = context.http.put_twice(&put.url, &put.headers(), &put.body).await?;
            Ok::<_, StoreError>(responses.iter().filter(|response| response.is_success()).count())
        }
    });
    let winners = try_join_all(rounds).await?;
    let rounds_with_two_winners = winners.iter().filter(|count| **count > 1).count();
    // Both may fail (AWS rarely answers 409 to both): then the client repeats its upload. If they fail in every round, nothing is proved.
    let is_proved = winners.contains(&1);
    let seen = match rounds_with_two_winners {
        0 if is_proved => format!("in {ROUNDS} rounds"),
        0 => format!("neither succeeded in {ROUNDS} rounds"),
        rounds => format!("two winners in {rounds} of {ROUNDS} rounds"),
    };
    Ok(answer_if(rounds_with_two_winners == 0 && is_proved, seen))
}

/// Announces a body of the maximum size with `Expect: 100-continue`, and sends none of it.
async fn body_cap(context: &ProbeContext<'_>, max_bytes: u64) -> Result<Answer, StoreError> {
    let (at, ttl) = context.validity(UrlValidity::Current);
    let object = NewObject { size: max_bytes, ..new_object(BODY) };
    let put = context.objects.presign_put_as(Sealing::Plain, &context.key("body-cap"), object, at, ttl)?;
    let headers: Vec<_> = put.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = context.http.announce_put(&put.signed.url, &headers, max_bytes).await?;
    Ok(match answer {
        None => Answer::Yes(format!("{max_bytes} bytes")),
        Some(answer) => Answer::No(format!("{} for {max_bytes} bytes", answer.describe())),
    })
}

/// Checks that a signed form is accepted.
async fn form(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let form = context.signed_form(&context.key("form"), UrlValidity::Current)?;
    let response = deviation_probes::send_form(context, &form, &[], &[], None).await?;
    Ok(answer_if(response.is_success(), response.describe()))
}
