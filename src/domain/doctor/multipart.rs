//! The rules about multipart uploads: one from beginning to end, then what should be refused.

use bytes::Bytes;

use super::{
    Answer, Report, holds,
    probe_context::{BODY, OTHER, ProbeContext, UrlValidity, sha256},
    rules, settled,
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

/// The least size of a part that is not the last, in bytes ("Amazon S3 multipart upload limits").
const MIN_PART: usize = 5 << 20;

pub(super) async fn examine(context: &ProbeContext<'_>, report: &mut Report) {
    let whole = settled(upload(context).await);
    let works = matches!(whole, Answer::Yes(_));
    report.add(&rules::MULTIPART, whole);
    if !works {
        return;
    }
    report.add(&rules::COMPLETE_ONCE, settled(again(context).await));
    report.add(&rules::PART_CAP, settled(part_cap(context).await));
    let key = context.key("parts");
    match context.prober.begin(&key, PartChecksums::Sha256).await {
        Ok(upload) => {
            report.add(&rules::PART_CHECKSUM, settled(part_checksum(context, &key, &upload).await));
            report.add(&rules::PARTS_SUMMED, settled(summed(context, &key, &upload).await.map(|all| holds(all, ""))));
            report.add(&rules::ABORT, settled(abort(context, &key, &upload).await));
        }
        Err(error) => report.add(&rules::PART_CHECKSUM, Answer::No(error.to_string())),
    }
}

async fn upload(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("multipart");
    let (status, parts) = attempt(context, &key).await?;
    let size = context.objects.head(&key).await?.map(|head| head.size);
    let whole = status == Some(200) && size == u64::try_from(BODY.len()).ok();
    let seen = status.map_or_else(|| parts.clone(), |status| format!("{parts}, complete HTTP {status}"));
    Ok(holds(whole, seen))
}

/// A second upload of the same key may begin, and may not replace the first.
async fn again(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let (status, parts) = attempt(context, &context.key("multipart")).await?;
    Ok(match status {
        Some(status) => holds((400..500).contains(&status), format!("HTTP {status}")),
        None => Answer::No(parts),
    })
}

/// One part up and completed: the status of the completion, and what came of the part. Leaves no upload open.
async fn attempt(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<(Option<u16>, String), StoreError> {
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
        tracing::warn!(%error, "a multipart upload of this check was left open");
    }
    done
}

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
    context.wire.send(Method::PUT, &url, &sent, Bytes::from_static(body)).await
}

/// Sends a part of the least size that S3 takes for all but the last.
async fn part_cap(context: &ProbeContext<'_>) -> Result<Answer, StoreError> {
    let key = context.key("part-cap");
    let upload = context.prober.begin(&key, PartChecksums::None).await?;
    let sent = async {
        let (at, ttl) = context.validity(UrlValidity::Current);
        let part = NewPart { number: 1, length: MIN_PART as u64, sha256: None };
        let url = context.objects.presign_part(&key, &upload, part, at, ttl)?.signed.url;
        context.wire.put_large(&url, &[], Bytes::from(vec![b'v'; MIN_PART])).await
    }
    .await;
    context.prober.abort(&key, &upload).await?;
    let sent = sent?;
    Ok(holds(sent.is_success(), sent.describe()))
}

async fn part_checksum(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<Answer, StoreError> {
    let (length, digest) = (BODY.len().to_string(), sha256(BODY).to_string());
    let headers = [("content-length", length.as_str()), ("x-amz-checksum-sha256", digest.as_str())];
    let wrong = put_part(context, key, upload, &headers, OTHER).await?;
    if !wrong.is_rejected() {
        return Ok(Answer::No(format!("{} for other bytes", wrong.describe())));
    }
    let kept = context.prober.parts(key, upload).await?.unwrap_or_default().len();
    // The right bytes must be welcome: refusing everything proves nothing.
    let right = put_part(context, key, upload, &headers, BODY).await?;
    let seen = format!("{}; {} for the right bytes", wrong.describe(), right.status);
    Ok(holds(kept == 0 && right.is_success(), seen))
}

/// Whether the listing of the parts tells their checksums, which completing them asks for.
async fn summed(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<bool, StoreError> {
    Ok(context.prober.parts(key, upload).await?.unwrap_or_default().iter().all(|part| part.has_sha256))
}

/// The same question by itself. No, only where a part was taken and listed without.
pub(super) async fn lists_checksums(context: &ProbeContext<'_>) -> Result<bool, StoreError> {
    let (key, digest) = (context.key("summed"), sha256(BODY).to_string());
    let upload = context.prober.begin(&key, PartChecksums::Sha256).await?;
    let all = async {
        put_part(context, &key, &upload, &[("x-amz-checksum-sha256", &digest)], BODY).await?;
        summed(context, &key, &upload).await
    }
    .await;
    context.prober.abort(&key, &upload).await?;
    all
}

async fn abort(context: &ProbeContext<'_>, key: &ObjectKey, upload: &str) -> Result<Answer, StoreError> {
    context.prober.abort(key, upload).await?;
    let left = context.prober.parts(key, upload).await?;
    Ok(holds(left.is_none(), if left.is_none() { "" } else { "its parts are still listed" }))
}
