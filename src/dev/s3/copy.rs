//! `CopyObject` and `UploadPartCopy`: copies within the server, from objects to objects or parts, hashing the bytes.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, MetadataDirective, UploadPartCopyInput,
    UploadPartCopyOutput,
};
use s3s::{S3Result, s3_error};

use super::checksum::{Algorithm, ChecksumCoverage, write_checksums};
use super::condition::{ReadConditions, WriteCondition, failed};
use super::folder::{Folder, internal};
use super::ingest::{MAX_BYTES, Sink};
use super::multipart::check_number;
use super::object::{Headers, Meta, now_ms};
use super::read::check_version;
use super::upload::Upload;

/// Returns the bucket and the key of a copy's source.
fn bucket_and_key(source: &CopySource) -> S3Result<(&str, &str)> {
    let CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(s3_error!(NotImplemented, "The local S3 copies from buckets only"));
    };
    check_version(version_id.as_deref())?;
    Ok((bucket, key))
}

/// Opens the source, if the conditions hold.
fn open_source(folder: &Folder, source: &CopySource, conditions: &ReadConditions) -> S3Result<(File, Arc<Meta>)> {
    let (bucket, key) = bucket_and_key(source)?;
    let (file, meta) = folder.bucket(bucket)?.open(key)?;
    // A copy has no 304: a failed condition of either kind is 412.
    conditions.check(&meta, now_ms()).map_err(|_either| failed())?;
    Ok((file, meta))
}

/// Opens the source that an input of either operation names, if its conditions hold.
macro_rules! source {
    ($folder:expr, $input:expr) => {
        open_source(
            $folder,
            &$input.copy_source,
            &ReadConditions {
                if_match: $input.copy_source_if_match.take(),
                if_none_match: $input.copy_source_if_none_match.take(),
                if_modified_since: $input.copy_source_if_modified_since.take(),
                if_unmodified_since: $input.copy_source_if_unmodified_since.take(),
            },
        )
    };
}

/// Copies a range of an object, or all of it, as a part. Does file I/O for as long as copying takes.
pub(super) fn copy_part(folder: &Folder, mut input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
    check_number(input.part_number)?;
    let bucket = folder.bucket(&input.bucket)?;
    let upload = Upload::find(&bucket, &input.upload_id, &input.key)?;
    let (mut file, source) = source!(folder, input)?;
    let range = copied_range(input.copy_source_range.as_deref(), source.size)?;
    let size = range.end - range.start;
    if size > MAX_BYTES {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_BYTES}"
        ));
    }
    let mut sink = Sink::create(folder, upload.algorithm).map_err(internal)?;
    file.seek(SeekFrom::Start(range.start)).map_err(internal)?;
    sink.copy(&mut file, size).map_err(internal)?;
    let received = sink.finish();
    let meta = Meta {
        key: String::new(),
        size,
        etag: hex::encode(received.md5),
        modified: now_ms(),
        headers: Headers::default(),
        sums: received.sums.clone(),
        named: upload.algorithm,
        kind: ChecksumCoverage::Full,
        parts: Vec::new(),
        part_sums: Vec::new(),
        upload: None,
    };
    let temp = received.seal(&meta)?;
    upload.put_part(&bucket, input.part_number, &temp)?;
    let mut result =
        CopyPartResult { e_tag: Some(meta.e_tag()), last_modified: Some(meta.last_modified()), ..CopyPartResult::default() };
    write_checksums!(result, meta.sums);
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
}

/// Returns the bytes that `x-amz-copy-source-range` names: first and last, both within the source ("`UploadPartCopy`" in the S3
/// API reference).
fn copied_range(range: Option<&str>, size: u64) -> S3Result<Range<u64>> {
    let Some(range) = range else { return Ok(0..size) };
    let ends = range.strip_prefix("bytes=").and_then(|ends| ends.split_once('-'));
    let Some((Ok(first), Ok(last))) = ends.map(|(first, last)| (first.parse::<u64>(), last.parse::<u64>())) else {
        return Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
        ));
    };
    if first > last || last >= size {
        return Err(s3_error!(InvalidRequest, "The specified copy range is invalid for the source object size: {size}"));
    }
    Ok(first..last + 1)
}

/// Copies an object; `replacement` has the new headers when the directive is REPLACE. Does file I/O for as long as copying takes.
pub(super) fn copy(
    folder: &Folder,
    mut input: CopyObjectInput,
    replacement: Headers,
    condition: &WriteCondition,
) -> S3Result<CopyObjectOutput> {
    let (source_bucket, source_key) = bucket_and_key(&input.copy_source)?;
    let replaces_headers = match input.metadata_directive.as_ref().map_or(MetadataDirective::COPY, MetadataDirective::as_str) {
        MetadataDirective::COPY => false,
        MetadataDirective::REPLACE => true,
        _ => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
    };
    if source_bucket == input.bucket && source_key == input.key && !replaces_headers {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let target = folder.bucket(&input.bucket)?;
    let (mut file, source) = source!(folder, input)?;
    condition.check(target.index().get(&input.key).map(Arc::as_ref))?;

    let requested = input.checksum_algorithm.as_ref().map(Algorithm::from_dto).transpose()?;
    let named = requested.or(source.named).unwrap_or(Algorithm::Crc64nvme);
    let mut sink = Sink::create(folder, [Algorithm::Sha256, named]).map_err(internal)?;
    sink.copy(&mut file, source.size).map_err(internal)?;
    let received = sink.finish();
    let meta = Meta {
        key: input.key,
        size: received.size,
        etag: hex::encode(received.md5),
        modified: now_ms(),
        headers: if replaces_headers { replacement } else { source.headers.clone() },
        sums: received.sums.clone(),
        named: Some(named),
        kind: ChecksumCoverage::Full,
        parts: Vec::new(),
        part_sums: Vec::new(),
        upload: None,
    };
    let temp = received.seal(&meta)?;
    let meta = target.publish(&temp, meta, condition, None)?;
    let mut result = CopyObjectResult {
        e_tag: Some(meta.e_tag()),
        last_modified: Some(meta.last_modified()),
        checksum_type: Some(meta.kind.to_dto()),
        ..CopyObjectResult::default()
    };
    write_checksums!(result, meta.named_sums());
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
}
