//! `CopyObject`: from object to object inside the server, hashing what is copied.

use std::sync::Arc;

use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective};
use s3s::{S3Result, s3_error};

use super::checksum::{Algorithm, Kind, write_sums};
use super::condition::{ReadConditions, WriteCondition, failed};
use super::folder::{Folder, hex, internal};
use super::ingest::Sink;
use super::object::{Headers, Meta, now_ms};
use super::read::check_version;

/// Copies; `replacement` is used when the directive is REPLACE. Does file I/O for as long as copying takes.
pub(super) fn copy(
    folder: &Folder,
    input: CopyObjectInput,
    replacement: Headers,
    condition: &WriteCondition,
) -> S3Result<CopyObjectOutput> {
    let CopySource::Bucket { bucket: from, key: from_key, version_id } = &input.copy_source else {
        return Err(s3_error!(NotImplemented, "The local S3 copies from buckets only"));
    };
    check_version(version_id.as_deref())?;
    let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
    if **from == *input.bucket && **from_key == *input.key && !replace {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let target = folder.bucket(&input.bucket)?;
    let (mut file, source) = folder.bucket(from)?.open(from_key)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    // A copy has no 304: both ways to fail are 412.
    conditions.check(&source).map_err(|_either| failed())?;
    condition.check(target.index().get(&input.key).map(Arc::as_ref))?;

    let asked = input.checksum_algorithm.as_ref().map(Algorithm::from_dto).transpose()?;
    let named = asked.or(source.named).unwrap_or(Algorithm::Crc64nvme);
    let mut sink = Sink::create(folder, [Algorithm::Sha256, named]).map_err(internal)?;
    sink.copy(&mut file, source.size).map_err(internal)?;
    let received = sink.finish();
    let meta = Meta {
        key: input.key,
        size: received.size,
        etag: hex(&received.md5),
        modified: now_ms(),
        headers: if replace { replacement } else { source.headers.clone() },
        sums: received.sums.clone(),
        named: Some(named),
        kind: Kind::Full,
        parts: Vec::new(),
    };
    let temp = received.seal(&meta)?;
    let meta = target.publish(&temp, meta, condition, None)?;
    let mut result = CopyObjectResult {
        e_tag: Some(meta.e_tag()),
        last_modified: Some(meta.last_modified()),
        checksum_type: Some(meta.kind.to_dto()),
        ..CopyObjectResult::default()
    };
    write_sums!(result, meta.named_sums());
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
}
