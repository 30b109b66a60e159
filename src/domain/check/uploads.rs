//! The rules about presigned PUTs: one upload as clients make it, then one deviation at a time.

use bytes::Bytes;
use futures_util::future::try_join_all;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    Answer, Report, clock, holds,
    lab::{BODY, Lab, OTHER, TYPE},
    multipart, objects, rules, settled,
};
use crate::{
    domain::finalize::Guarantees,
    model::ObjectKey,
    signer::Request,
    store::{StoreError, objects::wire::Method},
};

/// Rounds of overlapping PUTs, all at once: the race is real, so one round proves little.
const ROUNDS: usize = 5;

pub(super) async fn examine(lab: &Lab<'_>, report: &mut Report) {
    let key = lab.key("object");
    let began = std::time::Instant::now();
    let accepted = match lab.put(&key, |_| {}).await {
        Ok(response) => response,
        Err(error) => return report.add(&rules::PUT, Answer::No(error.to_string())),
    };
    if let Ok(theirs) = OffsetDateTime::parse(accepted.header("date"), &Rfc2822) {
        report.add(&rules::STORE_CLOCK, clock(theirs, OffsetDateTime::now_utc(), began.elapsed()));
    }
    report.add(&rules::TRANSPORT, settled(transport(lab)));
    report.add(&rules::PUT, holds(accepted.is_success(), format!("HTTP {}", accepted.status)));
    if !accepted.is_success() {
        // A store that refuses everything would pass every test of refusing.
        return;
    }
    report.add(&rules::SIGNATURE, settled(signature(lab).await));
    report.add(&rules::LENGTH, settled(length(lab).await));
    report.add(&rules::TYPE, settled(content_type(lab).await));
    report.add(&rules::UNSIGNED, settled(unsigned(lab).await));
    report.add(&rules::COPY_SOURCE, settled(copy_source(lab, &key).await));
    report.add(&rules::CHECKSUM, settled(checksum(lab).await));
    report.add(&rules::ONCE, settled(once(lab).await));
    report.add(&rules::OVERLAP, settled(overlap(lab).await));
    report.add(&rules::EXPIRY, settled(expiry(lab).await));
    report.add(&rules::FORM, settled(form(lab).await));
    objects::examine(lab, &key, report).await;
}

/// Those that decide where an upload becomes final.
pub(super) async fn guarantees(lab: &Lab<'_>) -> Result<Guarantees, StoreError> {
    let key = lab.key("object");
    let accepted = lab.put(&key, |_| {}).await?;
    if !accepted.is_success() {
        return Err(StoreError::Objects { operation: "PutObject", reason: format!("{} to a presigned PUT", accepted.status) });
    }
    let holds = |answer: &Answer| matches!(answer, Answer::Yes(_));
    // Side by side: a store may be far away, and uploads are copied until the last answer is there.
    let (uploads, parts) = tokio::join!(
        async { tokio::try_join!(checksum(lab), once(lab), overlap(lab), copy_source(lab, &key)) },
        multipart::lists_checksums(lab)
    );
    let (checksum, once, overlap, copy_source) = uploads?;
    Ok(Guarantees {
        once: holds(&once) && holds(&overlap) && holds(&copy_source),
        checksum: holds(&checksum),
        // A store may have no multipart uploads at all.
        lists_part_checksums: parts.unwrap_or(true),
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

async fn signature(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("signature");
    let tamper = |url: &mut String| {
        let last = if url.pop() == Some('0') { '1' } else { '0' };
        url.push(last);
    };
    let response = lab.put(&key, |put| tamper(&mut put.url)).await?;
    lab.is_refused(&key, &response).await
}

/// Without a checksum, which would refuse other bytes as well.
async fn length(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("length");
    let length = BODY.len().to_string();
    let headers = [("content-length", length.as_str())];
    let url = lab.presign(&Request { method: "PUT", key: key.as_str(), headers: &headers, query: &[] })?;
    let longer = Bytes::from([BODY.as_slice(), OTHER].concat());
    let response = lab.wire.send(Method::PUT, &url, &[], longer).await?;
    lab.is_refused(&key, &response).await
}

async fn content_type(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("type");
    let html = |(name, value): &mut (&'static str, String)| {
        if *name == "content-type" {
            "text/html".clone_into(value);
        }
    };
    let response = lab.put(&key, |put| put.headers.iter_mut().for_each(html)).await?;
    lab.is_refused(&key, &response).await
}

async fn unsigned(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("unsigned");
    let response = lab.put(&key, |put| put.headers.push(("x-amz-meta-valet-check", "unsigned".to_owned()))).await?;
    lab.is_refused(&key, &response).await
}

/// With this header a PUT is a copy: a store that takes it unsigned asks neither for the body nor for `if-none-match`.
async fn copy_source(lab: &Lab<'_>, source: &ObjectKey) -> Result<Answer, StoreError> {
    let key = lab.key("copy-source");
    let source = lab.prober.source(source);
    let response = lab.put(&key, |put| put.headers.push(("x-amz-copy-source", source))).await?;
    lab.is_refused(&key, &response).await
}

async fn checksum(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("checksum");
    let response = lab.put(&key, |put| put.body = Bytes::from_static(OTHER)).await?;
    lab.is_refused(&key, &response).await
}

async fn once(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("once");
    let (first, second) = (lab.put(&key, |_| {}).await?, lab.put(&key, |_| {}).await?);
    Ok(holds(first.is_success() && second.is_refused(), format!("HTTP {}, then {}", first.status, second.status)))
}

async fn overlap(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let body = vec![0x2a; 256 * 1024];
    let rounds = (1..=ROUNDS).map(|round| {
        let body = &body;
        async move {
            let put = lab.presigned_put(&lab.key(&format!("overlap-{round}")), body)?;
            let both = lab.wire.put_twice(&put.url, &put.headers(), &put.body).await?;
            // Neither may win (AWS answers 409 to both, rarely): that loses nothing, the client repeats.
            Ok::<_, StoreError>(both.iter().filter(|response| response.is_success()).count() > 1)
        }
    });
    let twice = try_join_all(rounds).await?.into_iter().filter(|two_winners| *two_winners).count();
    let seen = if twice == 0 { format!("in {ROUNDS} rounds") } else { format!("two winners in {twice} of {ROUNDS} rounds") };
    Ok(holds(twice == 0, seen))
}

async fn expiry(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    let key = lab.key("expiry");
    let headers = [("content-type", TYPE.as_str())];
    let url = lab.presign_expired(&Request { method: "PUT", key: key.as_str(), headers: &headers, query: &[] })?;
    let response = lab.wire.send(Method::PUT, &url, &headers, Bytes::from_static(BODY)).await?;
    lab.is_refused(&key, &response).await
}

/// As a browser sends it: the signed fields, then the file.
async fn form(lab: &Lab<'_>) -> Result<Answer, StoreError> {
    const BOUNDARY: &str = "valet-check";
    let form = lab.signed_form(&lab.key("form"))?;
    let mut body = Vec::new();
    for (name, value) in &form.fields {
        let field = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    let file = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"check.png\"\r\ncontent-type: {}\r\n\r\n",
        TYPE.as_str()
    );
    body.extend_from_slice(file.as_bytes());
    body.extend_from_slice(BODY);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let response = lab.wire.send(Method::POST, &form.url, &[("content-type", &kind)], body.into()).await?;
    Ok(holds(response.is_success(), format!("HTTP {}", response.status)))
}
