//! Checks the rules about multipart uploads: a complete upload, then requests that must be refused.

use bytes::Bytes;

use super::{
    Answer, Report, answer_if, answer_or_no,
    probe_context::{BODY, OTHER, ProbeContext, UrlValidity, sha256},
    rules,
};
use crate::{
    model::{ObjectKey, PartChecksums},
    signer::PresignRequest,
    store::{
        StoreError,
        objects::{
            NewPart,
            http_probe::{Method, ProbeResponse as Response},
        },
    },
};

/// Minimum size in bytes of all parts except the last ("Amazon S3 multipart upload limits").
const MIN_PART_BYTES: usize = 5 << 20;

/// Checks the rules about multipart uploads; ends after the first if the store does not support them.
pub(super) async fn examine(context: &ProbeContext<'_>, report: &mut Report) {
    let uploaded = answer_or_no(upload(context).await);
    let works = matches!(uploaded, Answer::Yes(_));
    report.add(&rules::MULTIPART, uploaded);
    if !works {
        return;
    }
    report.add(&rules::COMPLETE_ONCE, answer_or_no(complete_twice(context).await));
    report.add(&rules::PART_CAP, answer_or_no(part_cap(context).await));
    let key = context.key("parts");
    match context.prober.begin(&key, PartChecksums::Sha256).await {
        Ok(upload) => {
            report.add(&rules::PART_CHECKSUM, answer_or_no(part_checksum(context, &key, &upload).await));
            report.add(&rules::PARTS_SUMMED, answer_or_no(part_checksums_listed(context, &key, &upload).await));
            report.add(&rules::ABORT, answer_or_no(abort(context, &key, &upload).await));
        }
        Err(error) => report.add(&rules::PART_CHECKSUM, Answer::No(error.to_string())),
    }
}

/// Checks that an upload of one part becomes an object.
async fn upload(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("multipart");
    let (status, parts) = upload_one_part(context, &key).await?;
    let size = context.objects.head(&key).await?.map(|head| head.size);
    let is_complete = status == Some(200) && size == u64::try_from(BODY.len()).ok();
    let seen = status.map_or_else(|| parts.clone(), |status| format!("{parts}, complete HTTP {status}"));
    Ok(answer_if(is_complete, seen))
}

/// Checks that a second upload of the same key does not replace the first object.
async fn complete_twice(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let (status, parts) = upload_one_part(context, &context.key("multipart")).await?;
    Ok(match status {
        Some(status) => answer_if((400..500).contains(&status), format!("HTTP {status}")),
        None => Answer::No(parts),
    })
}

/// Uploads one part and completes it. Returns the status of the completion, and a description of the part. Leaves no upload open.
async fn upload_one_part(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<(Option<u16>, String), StoreError> {
    let upload = context.prober.begin(key, PartChecksums::None).await?;
    let done = async {
        let length = BODY.len().to_string();
        let put = put_part(context, key, &upload, &[("content-length", length.as_str())], BODY).await?;
        let listed = context.prober.parts(key, &upload).await?.unwrap_or_default();
        let seen = format!("part HTTP {}, {} listed", put.status, listed.len());
        let [part] = listed.as_slice() else { return Ok((None, seen)) };
        if Some(part.size) != u64::try_from(BODY.len()).ok() {
            return Ok((None, format!("{seen} with {} bytes", part.size)));
        }
        Ok((Some(context.prober.complete_once(key, &upload, &part.etag).await?), seen))
    }
    .await;
    if !matches!(done, Ok((Some(200), _)))
        && let Err(error) = context.prober.abort(key, &upload).await
    {
        tracing::warn!(%error, "failed to abort a multipart upload of this check");
    }
    done
}

/// Uploads the first part with these signed headers.
async fn put_part(
    context: &ProbeContext<'_>,
    key: &ObjectKey,
    upload: &str,
    headers: &[(&'static str, &str)],
    body: &'static [u8],
) -> Result<Response, StoreError> {
    let query = [("partNumber", "1"), ("uploadId", upload)];
    let url = context.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers, query: &query })?;
    let sent: Vec<_> = headers.iter().copied().filter(|(name, _)| *name != "content-length").collect();
    context.http.send(Method::PUT, &url, &sent, Bytes::from_static(body)).await
}

/// Checks that a part of the minimum size is accepted: proxies in front of a store often limit bodies to less.
async fn part_cap(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("part-cap");
    let upload = context.prober.begin(&key, PartChecksums::None).await?;
    let sent = async {
        let (at, ttl) = context.validity(UrlValidity::Current);
        let part = NewPart { number: 1, length: MIN_PART_BYTES as u64, sha256: None };
        let url = context.objects.presign_part(&key, &upload, part, at, ttl)?.signed.url;
        context.http.put_large(&url, &[], Bytes::from(vec![b'v'; MIN_PART_BYTES])).await
    }
    .await;
    context.prober.abort(&key, &upload).await?;
    let sent = sent?;
    Ok(answer_if(sent.is_success(), sent.describe()))
}

/// Checks that a part with other bytes than those of its signed checksum is rejected.
async fn part_checksum(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<Answer, StoreError> {
    let (length, digest) = (BODY.len().to_string(), sha256(BODY).to_string());
    let headers = [("content-length", length.as_str()), ("x-amz-checksum-sha256", digest.as_str())];
    let wrong = put_part(context, key, upload, &headers, OTHER).await?;
    if !wrong.is_rejected() {
        return Ok(Answer::No(format!("{} for other bytes", wrong.describe())));
    }
    let wrong_parts = context.prober.parts(key, upload).await?.unwrap_or_default().len();
    // The right bytes must be accepted: a store that refuses everything proves nothing.
    let right = put_part(context, key, upload, &headers, BODY).await?;
    let seen = format!("{}; {} for the right bytes", wrong.describe(), right.status);
    Ok(answer_if(wrong_parts == 0 && right.is_success(), seen))
}

/// Checks that the listing of parts contains their checksums: the request that completes an upload must name them.
async fn part_checksums_listed(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<Answer, StoreError> {
    let parts = context.prober.parts(key, upload).await?.unwrap_or_default();
    // An empty list proves nothing: the store accepted no part, or does not list it.
    let seen = if parts.is_empty() { "no part is listed" } else { "" };
    Ok(answer_if(!parts.is_empty() && parts.iter().all(|part| part.has_sha256), seen))
}

/// Probes with an upload of its own whether parts are listed with their checksums. Returns `false` only if a part was accepted and
/// listed without its checksum.
pub(super) async fn lists_checksums(context: &ProbeContext<'_>) -> Result<bool, StoreError> {
    let (key, digest) = (context.key("summed"), sha256(BODY).to_string());
    let upload = context.prober.begin(&key, PartChecksums::Sha256).await?;
    let listed = async {
        put_part(context, &key, &upload, &[("x-amz-checksum-sha256", &digest)], BODY).await?;
        let parts = context.prober.parts(&key, &upload).await?.unwrap_or_default();
        Ok(parts.iter().all(|part| part.has_sha256))
    }
    .await;
    context.prober.abort(&key, &upload).await?;
    listed
}

/// Checks that the parts of an aborted upload are not listed any more.
async fn abort(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<Answer, StoreError> {
    context.prober.abort(key, upload).await?;
    let parts_after_abort = context.prober.parts(key, upload).await?;
    Ok(answer_if(parts_after_abort.is_none(), if parts_after_abort.is_none() { "" } else { "its parts are still listed" }))
}
