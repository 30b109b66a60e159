//! Listings of a bucket: `ListObjects`, `ListObjectsV2` and `ListObjectVersions`, in pages ordered by the keys' bytes.

use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass, ObjectVersion, ObjectVersionStorageClass, Owner,
};
use s3s::{S3Result, s3_error};

use super::folder::{Bucket, Index};
use super::object::Meta;

/// Maximum number of entries of a page, as in S3.
const MAX_KEYS: i32 = 1000;

/// Kind of an entry that is a key, in continuation tokens.
const KEY: char = 'k';
/// Kind of an entry that is a common prefix, in continuation tokens.
const PREFIX: char = 'p';

/// Position where a page begins.
enum After {
    /// The first page.
    Start,
    /// The page after this key.
    Key(String),
    /// The previous page ended with a common prefix, so all its keys are skipped.
    Prefix(String),
}

/// A page of a listing.
#[derive(Default)]
struct Page {
    objects: Vec<Arc<Meta>>,
    /// Common prefixes.
    prefixes: Vec<String>,
    /// Kind and name of the last entry, if more entries follow.
    next: Option<(char, String)>,
}

/// Returns a page of at most `max` entries.
fn page(index: &Index, prefix: &str, delimiter: Option<&str>, after: &After, max: usize) -> Page {
    let mut page = Page::default();
    let from = match after {
        After::Key(key) | After::Prefix(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
        _ => Bound::Included(prefix),
    };
    let delimiter = delimiter.filter(|d| !d.is_empty());
    let mut last = None;
    let mut skipped_prefix: Option<String> = match after {
        After::Prefix(p) => Some(p.clone()),
        _ => None,
    };
    for (key, meta) in index.range::<str, _>((from, Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(prefix) else {
            break;
        };
        if skipped_prefix.as_deref().is_some_and(|d| key.starts_with(d)) {
            continue;
        }
        if page.objects.len() + page.prefixes.len() == max {
            page.next = last;
            return page;
        }
        if let Some((offset, d)) = delimiter.and_then(|d| rest.find(d).map(|offset| (offset, d))) {
            let common = key[..prefix.len() + offset + d.len()].to_owned();
            last = Some((PREFIX, common.clone()));
            skipped_prefix = Some(common.clone());
            page.prefixes.push(common);
        } else {
            last = Some((KEY, key.clone()));
            page.objects.push(Arc::clone(meta));
        }
    }
    page
}

/// Returns the maximum number of entries of the page.
fn max_keys(requested: Option<i32>) -> S3Result<i32> {
    match requested.unwrap_or(MAX_KEYS) {
        n if n < 0 => Err(s3_error!(InvalidArgument, "max-keys must not be negative")),
        n => Ok(n.min(MAX_KEYS)),
    }
}

/// Returns the owner of all buckets and objects: there is one pair of keys. AWS identifies an account by 64 hexadecimal digits;
/// here they are those of `valet`, repeated.
pub(super) fn owner() -> Owner {
    Owner { display_name: Some("local".to_owned()), id: Some("76616c6574".repeat(7)[..64].to_owned()) }
}

/// Writes names, percent-encoded if the client requests it: a key may contain characters that XML 1.0 cannot represent.
struct Names {
    is_encoded: bool,
}

impl Names {
    fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { is_encoded: false }),
            Some(EncodingType::URL) => Ok(Self { is_encoded: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    /// Returns a name as the answer has it.
    fn show(&self, name: &str) -> String {
        if self.is_encoded { percent_encode(name) } else { name.to_owned() }
    }

    /// Returns the delimiter; an empty one has no effect, and is not repeated in the answer.
    fn delimiter(&self, requested: Option<String>) -> Option<String> {
        requested.filter(|delimiter| !delimiter.is_empty()).map(|delimiter| self.show(&delimiter))
    }

    /// Returns the common prefixes of a page, or `None` for a page without them.
    fn prefixes(&self, page: &Page) -> Option<Vec<CommonPrefix>> {
        let all = page.prefixes.iter().map(|p| CommonPrefix { prefix: Some(self.show(p)) });
        Some(all.collect()).filter(|l: &Vec<_>| !l.is_empty())
    }

    /// Returns the entry of an object.
    fn object(&self, meta: &Meta, owner: Option<Owner>) -> Object {
        Object {
            owner,
            key: Some(self.show(&meta.key)),
            size: i64::try_from(meta.size).ok(),
            e_tag: Some(meta.e_tag()),
            last_modified: Some(meta.last_modified()),
            checksum_algorithm: meta.named.map(|a| vec![a.to_dto()]),
            checksum_type: meta.named.map(|_| meta.kind.to_dto()),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Object::default()
        }
    }
}

/// Percent-encodes as in a URL's path: everything except unreserved characters and the slash.
pub(super) fn percent_encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~/".contains(&b) {
            out.push(char::from(b));
        } else {
            // Writing to memory does not fail.
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// `ListObjectsV2`.
pub(super) fn list_v2(bucket: &Bucket, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let max = max_keys(input.max_keys)?;
    let shows_owner = input.fetch_owner.unwrap_or(false);
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => parse_token(token)?,
        (None, Some(key)) => After::Key(key.clone()),
        (None, None) => After::Start,
    };
    let prefix = input.prefix.clone().unwrap_or_default();
    let page = page(&bucket.index(), &prefix, input.delimiter.as_deref(), &after, max.unsigned_abs() as usize);
    let names = Names::new(input.encoding_type.as_ref())?;
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
        max_keys: Some(max),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(|(kind, name)| BASE64.encode(format!("{kind}{name}"))),
        contents: Some(page.objects.iter().map(|m| names.object(m, shows_owner.then(owner))).collect()),
        common_prefixes: names.prefixes(&page),
        prefix: Some(names.show(&prefix)),
        delimiter: names.delimiter(input.delimiter),
        start_after: input.start_after.map(|s| names.show(&s)),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    })
}

/// Parses a continuation token: kind and name of the last entry, in base64.
fn parse_token(token: &str) -> S3Result<After> {
    let text = BASE64.decode(token).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    if let Some(key) = text.strip_prefix(KEY) {
        Ok(After::Key(key.to_owned()))
    } else if let Some(prefix) = text.strip_prefix(PREFIX) {
        Ok(After::Prefix(prefix.to_owned()))
    } else {
        Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
    }
}

/// Parses a marker, which is a name from an earlier page: a common prefix if it ends with the delimiter.
fn marker(name: Option<String>, delimiter: Option<&str>) -> After {
    match (name.filter(|n| !n.is_empty()), delimiter) {
        (None, _) => After::Start,
        (Some(name), Some(d)) if !d.is_empty() && name.ends_with(d) => After::Prefix(name),
        (Some(name), _) => After::Key(name),
    }
}

/// `ListObjects`, the first version.
pub(super) fn list_v1(bucket: &Bucket, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let max = max_keys(input.max_keys)?;
    let after = marker(input.marker.clone(), input.delimiter.as_deref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let page = page(&bucket.index(), &prefix, input.delimiter.as_deref(), &after, max.unsigned_abs() as usize);
    let names = Names::new(input.encoding_type.as_ref())?;
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        max_keys: Some(max),
        is_truncated: Some(page.next.is_some()),
        contents: Some(page.objects.iter().map(|m| names.object(m, Some(owner()))).collect()),
        common_prefixes: names.prefixes(&page),
        prefix: Some(names.show(&prefix)),
        next_marker: page.next.filter(|_| input.delimiter.is_some()).map(|(_, name)| names.show(&name)),
        delimiter: names.delimiter(input.delimiter),
        marker: Some(names.show(&input.marker.unwrap_or_default())),
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    })
}

/// `ListObjectVersions`: every object once, as the version `null` of a bucket without versioning.
pub(super) fn list_versions(bucket: &Bucket, input: ListObjectVersionsInput) -> S3Result<ListObjectVersionsOutput> {
    let max = max_keys(input.max_keys)?;
    let after = marker(input.key_marker.clone(), input.delimiter.as_deref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let page = page(&bucket.index(), &prefix, input.delimiter.as_deref(), &after, max.unsigned_abs() as usize);
    let names = Names::new(input.encoding_type.as_ref())?;
    let version = |meta: &Arc<Meta>| {
        let object = names.object(meta, Some(owner()));
        ObjectVersion {
            owner: object.owner,
            key: object.key,
            size: object.size,
            e_tag: object.e_tag,
            last_modified: object.last_modified,
            checksum_algorithm: object.checksum_algorithm,
            checksum_type: object.checksum_type,
            is_latest: Some(true),
            version_id: Some("null".to_owned()),
            storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
            ..ObjectVersion::default()
        }
    };
    Ok(ListObjectVersionsOutput {
        name: Some(input.bucket),
        max_keys: Some(max),
        is_truncated: Some(page.next.is_some()),
        next_version_id_marker: page.next.as_ref().filter(|(kind, _)| *kind == KEY).map(|_| "null".to_owned()),
        next_key_marker: page.next.as_ref().map(|(_, name)| names.show(name)),
        versions: Some(page.objects.iter().map(version).collect()),
        common_prefixes: names.prefixes(&page),
        prefix: Some(names.show(&prefix)),
        delimiter: names.delimiter(input.delimiter),
        key_marker: Some(names.show(&input.key_marker.unwrap_or_default())),
        version_id_marker: input.version_id_marker,
        encoding_type: input.encoding_type,
        ..ListObjectVersionsOutput::default()
    })
}
