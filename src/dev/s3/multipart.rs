//! The operations of multipart uploads, except `UploadPartCopy` (in `copy`), with the protocol's rules for parts and completion.

use std::sync::Arc;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::ChecksumType;
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload, Part, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};

use super::checksum::{Algorithm, ChecksumCoverage, Checksums, DeclaredDigests, read_checksums, write_checksums};
use super::condition::WriteCondition;
use super::folder::{Bucket, Folder, blocking, internal};
use super::ingest::{self, Sink};
use super::object::{Meta, now_ms, timestamp};
use super::put::{announced_length, sent_md5};
use super::upload::Upload;

/// Minimum bytes of every part except the last one (AWS: 5 MiB).
const MIN_PART_BYTES: u64 = 5 << 20;
/// Maximum number of parts, and highest part number.
const MAX_PARTS: i32 = 10_000;
/// Number of parts or uploads in one answer, by default and at most.
const MAX_LISTED: i32 = 1000;

/// `CreateMultipartUpload`.
pub(super) async fn create(
    folder: Arc<Folder>,
    bucket: Arc<Bucket>,
    input: CreateMultipartUploadInput,
    headers: super::object::Headers,
) -> S3Result<CreateMultipartUploadOutput> {
    let algorithm = input.checksum_algorithm.as_ref().map(Algorithm::from_dto).transpose()?;
    let kind = checksum_coverage(algorithm, input.checksum_type.as_ref())?;
    let key = input.key.clone();
    let upload = blocking(move || Upload::create(&folder, &bucket, key, headers, algorithm, kind).map_err(internal)).await?;
    Ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.id),
        checksum_algorithm: algorithm.map(Algorithm::to_dto),
        checksum_type: algorithm.map(|_| kind.to_dto()),
        ..CreateMultipartUploadOutput::default()
    })
}

/// Returns the checksum type that AWS allows or uses by default for this algorithm.
fn checksum_coverage(algorithm: Option<Algorithm>, requested: Option<&ChecksumType>) -> S3Result<ChecksumCoverage> {
    let full = requested.map(|t| t.as_str() == ChecksumType::FULL_OBJECT);
    match (algorithm, full) {
        (None, None) | (Some(Algorithm::Crc64nvme), None | Some(true)) => Ok(ChecksumCoverage::Full),
        (Some(Algorithm::Crc32 | Algorithm::Crc32c), Some(true)) => Ok(ChecksumCoverage::Full),
        (Some(a), None | Some(false)) if a != Algorithm::Crc64nvme => Ok(ChecksumCoverage::Composite),
        _ => Err(s3_error!(InvalidRequest, "The checksum type cannot be used with this checksum algorithm.")),
    }
}

/// Checks a part number.
pub(super) fn check_number(number: i32) -> S3Result<()> {
    if (1..=MAX_PARTS).contains(&number) {
        Ok(())
    } else {
        Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
    }
}

/// `UploadPart`.
pub(super) async fn upload_part(
    folder: Arc<Folder>,
    bucket: Arc<Bucket>,
    req: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let (input, trailers) = (req.input, req.trailing_headers);
    let number = input.part_number;
    check_number(number)?;
    let length = announced_length(input.content_length, input.body.as_ref())?;
    let (found_in, upload_id, key) = (Arc::clone(&bucket), input.upload_id.clone(), input.key.clone());
    let upload = blocking(move || Upload::find(&found_in, &upload_id, &key)).await?;
    let declared = DeclaredDigests::new(read_checksums!(input), sent_md5(&req.headers), input.checksum_algorithm.as_ref())?;
    if upload.algorithm.is_some() && upload.algorithm != declared.algorithm {
        // AWS's message, which names a missing type "null".
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            upload.algorithm.map_or("null".into(), |a| a.to_dto().as_str().to_lowercase()),
            declared.algorithm.map_or("null".into(), |a| a.to_dto().as_str().to_lowercase())
        ));
    }
    let named = declared.algorithm;
    let received = ingest::receive(&folder, ingest::chunks(input.body), length, named.into_iter().collect()).await?;
    declared.verify(&received.sums, &received.md5, trailers.as_ref())?;
    let meta = Meta {
        key: String::new(),
        size: received.size,
        etag: hex::encode(received.md5),
        modified: now_ms(),
        headers: super::object::Headers::default(),
        sums: received.sums.clone(),
        named,
        kind: ChecksumCoverage::Full,
        parts: Vec::new(),
        part_sums: Vec::new(),
        upload: None,
    };
    let mut out = UploadPartOutput { e_tag: Some(meta.e_tag()), ..UploadPartOutput::default() };
    write_checksums!(out, meta.sums);
    blocking(move || {
        let temp = received.seal(&meta)?;
        upload.put_part(&bucket, number, &temp)
    })
    .await?;
    Ok(out)
}

/// `ListParts`.
pub(super) fn list_parts(bucket: &Bucket, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let upload = Upload::find(bucket, &input.upload_id, &input.key)?;
    let max = input.max_parts.unwrap_or(MAX_LISTED).clamp(0, MAX_LISTED);
    let marker = input.part_number_marker.unwrap_or(0);
    let mut numbers = upload.part_numbers(bucket)?;
    numbers.retain(|n| *n > marker);
    let truncated = numbers.len() > max.unsigned_abs() as usize;
    numbers.truncate(max.unsigned_abs() as usize);
    let mut parts = Vec::with_capacity(numbers.len());
    for number in &numbers {
        let Some((_file, meta)) = upload.part(bucket, *number) else {
            continue;
        };
        let mut part = Part {
            part_number: Some(*number),
            size: i64::try_from(meta.size).ok(),
            e_tag: Some(meta.e_tag()),
            last_modified: Some(meta.last_modified()),
            ..Part::default()
        };
        write_checksums!(part, meta.sums);
        parts.push(part);
    }
    // An upload that ended meanwhile took parts with it.
    upload.check_alive(bucket)?;
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        checksum_algorithm: upload.algorithm.map(Algorithm::to_dto),
        checksum_type: upload.algorithm.map(|_| upload.kind.to_dto()),
        is_truncated: Some(truncated),
        max_parts: Some(max),
        next_part_number_marker: numbers.last().copied().or(Some(marker)),
        part_number_marker: Some(marker),
        parts: Some(parts),
        ..ListPartsOutput::default()
    })
}

/// `ListMultipartUploads`.
pub(super) fn list_uploads(bucket: &Bucket, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
    if input.delimiter.as_deref().is_some_and(|d| !d.is_empty()) {
        return Err(s3_error!(NotImplemented, "The local S3 lists uploads without a delimiter only"));
    }
    let max = input.max_uploads.unwrap_or(MAX_LISTED).clamp(0, MAX_LISTED);
    let prefix = input.prefix.clone().unwrap_or_default();
    let mut all = Upload::all(bucket).map_err(internal)?;
    all.retain(|u| u.key.starts_with(&prefix));
    if let Some(after) = input.key_marker.as_ref().filter(|m| !m.is_empty()) {
        // With an id, continues after that upload; a key alone skips all uploads of that key.
        let id = input.upload_id_marker.as_ref();
        let index = id.and_then(|id| all.iter().position(|u| u.key == *after && u.id == *id));
        match index {
            Some(index) => drop(all.drain(..=index)),
            None => all.retain(|u| u.key > *after),
        }
    }
    let truncated = all.len() > max.unsigned_abs() as usize;
    all.truncate(max.unsigned_abs() as usize);
    let last = all.last().filter(|_| truncated);
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        is_truncated: Some(truncated),
        max_uploads: Some(max),
        prefix: input.prefix,
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        next_key_marker: last.map(|u| u.key.clone()),
        next_upload_id_marker: last.map(|u| u.id.clone()),
        uploads: Some(all.into_iter().map(list_entry).collect()),
        ..ListMultipartUploadsOutput::default()
    })
}

/// Returns the entry of an upload in a list.
fn list_entry(upload: Upload) -> MultipartUpload {
    MultipartUpload {
        key: Some(upload.key),
        upload_id: Some(upload.id),
        initiated: Some(timestamp(upload.created)),
        checksum_algorithm: upload.algorithm.map(Algorithm::to_dto),
        checksum_type: upload.algorithm.map(|_| upload.kind.to_dto()),
        ..MultipartUpload::default()
    }
}

/// `AbortMultipartUpload`.
pub(super) fn abort(folder: &Folder, bucket: &Bucket, id: &str, key: &str) -> S3Result<()> {
    let upload = Upload::find(bucket, id, key)?;
    // Completing holds the same lock, so that an upload is either completed or aborted.
    let _index = bucket.index();
    upload.discard(folder, bucket)
}

/// `CompleteMultipartUpload`. Does file I/O for as long as copying the parts takes.
pub(super) fn complete(
    folder: &Folder,
    bucket: &Bucket,
    input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    let condition = WriteCondition::new(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let (upload, parts) = match find_parts(bucket, &input) {
        Err(error) => return completed_before(bucket, &input, &condition).ok_or(error),
        Ok(found) => found,
    };
    let size = parts.iter().map(|p| p.1.size).sum::<u64>();
    if input.mpu_object_size.is_some_and(|s| u64::try_from(s) != Ok(size)) {
        return Err(s3_error!(InvalidRequest, "The provided 'x-amz-mp-object-size' header does not match what was computed."));
    }
    condition.check(bucket.index().get(&upload.key).map(Arc::as_ref))?;

    // Without an algorithm AWS computes a CRC64NVME of the whole object.
    let named = upload.algorithm.unwrap_or(Algorithm::Crc64nvme);
    let whole = (upload.kind == ChecksumCoverage::Full).then_some(named);
    let mut sums = Checksums::new();
    if upload.kind == ChecksumCoverage::Composite {
        sums.insert(named, named.composite(parts.iter().map(|(_, m)| m.sums.get(&named)))?);
    }
    let mut sink = Sink::create(folder, whole).map_err(internal)?;
    let sizes: Vec<u64> = parts.iter().map(|p| p.1.size).collect();
    let part_sums = upload.algorithm.map(|_| parts.iter().map(|p| p.1.sums.clone()).collect()).unwrap_or_default();
    let etag = multipart_etag(parts.iter().map(|p| p.1.etag.as_str()));
    for (mut file, meta) in parts {
        std::io::Seek::rewind(&mut file).map_err(internal)?;
        sink.copy(&mut file, meta.size).map_err(internal)?;
    }
    let received = sink.finish();
    sums.extend(received.sums.clone());
    let declared = read_checksums!(input);
    if declared.iter().any(|(a, v)| sums.get(a) != Some(v)) {
        return Err(s3_error!(BadDigest, "The checksum you specified did not match the calculated checksum."));
    }
    let meta = Meta {
        key: upload.key.clone(),
        size,
        etag,
        modified: now_ms(),
        headers: upload.headers.clone(),
        sums,
        named: Some(named),
        kind: upload.kind,
        parts: sizes,
        part_sums,
        upload: Some(upload.id.clone()),
    };
    let temp = received.seal(&meta)?;
    let meta = bucket.publish(&temp, meta, &condition, Some((folder, &upload)))?;
    Ok(completed(bucket, &meta))
}

/// Returns the answer to the request that completed an object.
fn completed(bucket: &Bucket, meta: &Meta) -> CompleteMultipartUploadOutput {
    let mut out = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", bucket.name, meta.key)),
        bucket: Some(bucket.name.clone()),
        key: Some(meta.key.clone()),
        e_tag: Some(meta.e_tag()),
        checksum_type: Some(meta.kind.to_dto()),
        ..CompleteMultipartUploadOutput::default()
    };
    write_checksums!(out, meta.named_sums());
    out
}

/// Repeats the answer to a client that lost it, as AWS does: while the object of this upload exists, for the same parts, and
/// without a condition on the existing object.
fn completed_before(
    bucket: &Bucket,
    input: &CompleteMultipartUploadInput,
    condition: &WriteCondition,
) -> Option<CompleteMultipartUploadOutput> {
    let meta = bucket.meta(&input.key).ok().filter(|meta| meta.upload.as_ref() == Some(&input.upload_id))?;
    let parts = input.multipart_upload.as_ref()?.parts.as_ref()?;
    let tags = parts.iter().map(|part| part.e_tag.as_ref().map(ETag::value)).collect::<Option<Vec<_>>>()?;
    let is_same = multipart_etag(tags.into_iter()) == meta.etag;
    (is_same && *condition == WriteCondition::Always).then(|| completed(bucket, &meta))
}

/// Returns the entity tag of an object whose parts have these entity tags.
fn multipart_etag<'a>(parts: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = parts.len();
    let digests: Vec<u8> = parts.flat_map(|etag| hex::decode(etag).unwrap_or_default()).collect();
    format!("{}-{count}", hex::encode(Md5::checksum(&digests)))
}

/// Finds the upload that a request completes, and its parts.
fn find_parts(bucket: &Bucket, input: &CompleteMultipartUploadInput) -> S3Result<(Upload, Vec<(std::fs::File, Meta)>)> {
    let upload = Upload::find(bucket, &input.upload_id, &input.key)?;
    let requested_parts = input.multipart_upload.as_ref().and_then(|m| m.parts.as_deref()).unwrap_or_default();
    match check_parts(bucket, &upload, requested_parts) {
        // Another request may have ended the upload meanwhile, and with it its parts.
        Err(error) => Err(upload.check_alive(bucket).err().unwrap_or(error)),
        Ok(parts) => Ok((upload, parts)),
    }
}

/// Opens the parts that a request to complete names, and compares each with the request.
fn check_parts(bucket: &Bucket, upload: &Upload, requested_parts: &[CompletedPart]) -> S3Result<Vec<(std::fs::File, Meta)>> {
    if requested_parts.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let count = requested_parts.len();
    let mut parts = Vec::with_capacity(count);
    if !requested_parts.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    for (index, part) in requested_parts.iter().enumerate() {
        let number = part.part_number.unwrap_or_default();
        check_number(number)?;
        let invalid_part = || {
            s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found. The part may not have been uploaded, \
                 or the specified entity tag may not match the part's entity tag."
            )
        };
        let (file, meta) = upload.part(bucket, number).ok_or_else(invalid_part)?;
        if part.e_tag.as_ref().map(ETag::value) != Some(meta.etag.as_str()) {
            return Err(invalid_part());
        }
        let declared = read_checksums!(part);
        if declared.iter().any(|(a, v)| meta.sums.get(a) != Some(v)) {
            return Err(invalid_part());
        }
        if let (Some(named), ChecksumCoverage::Composite) = (upload.algorithm, upload.kind)
            && !declared.contains_key(&named)
        {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created using a {} checksum. The complete request must include the checksum for \
                 each part. It was missing for part {number} in the request.",
                named.to_dto().as_str().to_lowercase()
            ));
        }
        if meta.size < MIN_PART_BYTES && index + 1 < count {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
        }
        parts.push((file, meta));
    }
    Ok(parts)
}
