//! Checks the rules about stored objects: that they can be inspected, read, copied and deleted, and not without a signature.

use bytes::Bytes;

use super::{
    Answer, Report, answer_if, answer_or_no,
    probe_context::{BODY, ProbeContext, TYPE, sha256},
    rules,
};
use crate::{
    model::{FileName, ObjectKey},
    signer::PresignRequest,
    store::{StoreError, objects::http_probe::Method},
};

/// Checks an object at `key` that contains [`BODY`].
pub(super) async fn examine(context: &ProbeContext<'_>, key: &ObjectKey, report: &mut Report) {
    match context.objects.head(key).await {
        Ok(Some(head)) => {
            let length = u64::try_from(BODY.len()).unwrap_or(0);
            let is_as_uploaded = head.size == length && head.content_type.as_deref() == Some(TYPE.as_str());
            report.add(&rules::HEAD, answer_if(is_as_uploaded && !head.etag.is_empty(), ""));
            report.add(&rules::HEAD_CHECKSUM, answer_if(head.sha256 == Some(sha256(BODY)), ""));
            report.add(&rules::COPY, answer_or_no(copy(context, key, &head.etag).await));
        }
        Ok(None) => report.add(&rules::HEAD, Answer::No("HTTP 404 right after the upload".to_owned())),
        Err(error) => report.add(&rules::HEAD, Answer::No(error.to_string())),
    }
    let missing = context.objects.head(&context.key("missing")).await;
    report.add(&rules::LIST, answer_or_no(missing.map(|found| answer_if(found.is_none(), ""))));
    report.add(&rules::RANGE, answer_or_no(range(context, key).await));
    report.add(&rules::OVERRIDES, answer_or_no(overrides(context, key).await));
    report.add(&rules::ANONYMOUS, answer_or_no(anonymous(context, key).await));
    report.add(
        &rules::VERSIONS,
        answer_or_no(context.prober.versions(key).await.map(|listed| match listed {
            Some(count) => answer_if(count > 0, ""),
            None => Answer::Skipped("the store has no versions".to_owned()),
        })),
    );
    report.add(&rules::DELETE, answer_or_no(delete(context, key).await));
    report.add(&rules::RETAINED, answer_or_no(retained(context, key).await));
}

/// Checks that an object is copied only if its entity tag is the given one.
async fn copy(context: &ProbeContext<'_>, key: &ObjectKey, etag: &str) -> Result<Answer, StoreError> {
    let same = context.prober.copy(key, etag, &context.key("copied")).await?;
    let other = context.prober.copy(key, "\"00000000000000000000000000000000\"", &context.key("not-copied")).await?;
    Ok(answer_if(same == 200 && other == 412, format!("HTTP {same}; {other} when the source changed")))
}

/// Checks that a range of the object can be read.
async fn range(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<Answer, StoreError> {
    let url = context.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?;
    let part = context.get(&url, &[("range", "bytes=8-15")]).await?;
    Ok(answer_if(part.status == 206 && part.body == BODY[8..16], part.describe()))
}

/// Checks that type, caching and file name of a response are those of the URL.
async fn overrides(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<Answer, StoreError> {
    const CACHING: &str = "private, max-age=300, immutable";
    let Ok(name) = FileName::parse("vælet check.png") else { return Ok(Answer::Skipped("no name".to_owned())) };
    let shown = context.get(&context.presigned_get(key, CACHING)?.url, &[]).await?;
    let saved = context.get(&context.presigned_download(key, &name)?.url, &[]).await?;
    let ignored: Vec<_> = [
        ("response-content-type", shown.header("content-type") == "image/webp"),
        ("response-cache-control", shown.header("cache-control") == CACHING),
        ("response-content-disposition", saved.header("content-disposition") == name.content_disposition()),
    ]
    .into_iter()
    .filter_map(|(parameter, honoured)| (!honoured).then_some(parameter))
    .collect();
    let seen = if ignored.is_empty() { String::new() } else { format!("ignored: {}", ignored.join(", ")) };
    Ok(answer_if(ignored.is_empty(), seen))
}

/// Checks that reading, writing and listing without a signature is rejected.
async fn anonymous(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<Answer, StoreError> {
    let other = context.key("anonymous");
    let unsigned_url = |key: &ObjectKey| {
        let url = context.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?;
        Ok::<_, StoreError>(url.split('?').next().unwrap_or_default().to_owned())
    };
    let (object, target) = (unsigned_url(key)?, unsigned_url(&other)?);
    let bucket = target.strip_suffix(other.as_str()).unwrap_or_default();
    let answers = [
        ("GET", context.get(&object, &[]).await?),
        ("PUT", context.http.send(Method::PUT, &target, &[], Bytes::from_static(BODY)).await?),
        ("list", context.get(bucket, &[]).await?),
    ];
    let all_rejected = answers.iter().all(|(_, answer)| answer.is_rejected());
    let seen: Vec<_> = answers.iter().map(|(request, answer)| format!("{request} {}", answer.status)).collect();
    Ok(answer_if(all_rejected, format!("HTTP {}", seen.join(", "))))
}

/// Checks that no version of a deleted object remains.
async fn retained(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<Answer, StoreError> {
    let versions = match context.prober.versions(key).await? {
        None => return Ok(Answer::Skipped("the store has no versions".to_owned())),
        Some(0) => return Ok(Answer::Yes(String::new())),
        Some(versions) => versions,
    };
    Ok(Answer::No(format!("{versions} retained")))
}

/// Checks that the object cannot be read after it was deleted.
async fn delete(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<Answer, StoreError> {
    context.objects.purge(key).await?;
    let url = context.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?;
    let after = context.get(&url, &[]).await?;
    Ok(answer_if(!after.is_success(), format!("{} afterwards", after.describe())))
}
