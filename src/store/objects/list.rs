//! Lists objects, multipart uploads and versions, one page at a time.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::{
    Objects, StoreError,
    errors::{error_of, is_absent, is_unavailable, lists_objects},
};
use crate::model::ObjectKey;

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Key of the object.
    pub key: ObjectKey,
    /// Time at which it was written, by the store's clock.
    pub modified: OffsetDateTime,
    /// Size in bytes.
    pub size: u64,
}

/// A page of objects, and the start of the next.
#[derive(Debug, Clone)]
pub struct ObjectPage {
    /// The objects, at most a thousand, in the order of their keys' UTF-8 bytes.
    pub objects: Vec<ListedObject>,
    /// Continuation token of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// A listed multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// The key of the future object.
    pub key: ObjectKey,
    /// S3's upload id.
    pub id: String,
    /// Time at which it was opened, by the store's clock.
    pub initiated: OffsetDateTime,
}

/// A page of multipart uploads, and the start of the next.
#[derive(Debug, Clone)]
pub struct UploadPage {
    /// The uploads, at most a thousand.
    pub uploads: Vec<ListedUpload>,
    /// Beginning of the next page; `None` on the last page.
    pub next: Option<ListPosition>,
}

/// The keys of a page of versions and delete markers, and the start of the next.
#[derive(Debug, Clone)]
pub struct VersionPage {
    /// Each key once, in order.
    pub keys: Vec<ObjectKey>,
    /// Beginning of the next page; `None` on the last page.
    pub next: Option<ListPosition>,
}

/// Position between two pages of a listing that S3 continues after a key and an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPosition {
    key: String,
    /// The id of a version or an upload of that key.
    id: Option<String>,
}

impl ListPosition {
    /// Returns the position at which a truncated listing continues; `None` at its end, and if the store returns no position or
    /// that of the `last` page again.
    fn after(is_truncated: Option<bool>, key: Option<&str>, id: Option<&str>, last: Option<&Self>) -> Option<Self> {
        let position = Self { key: key?.to_owned(), id: id.filter(|id| !id.is_empty()).map(str::to_owned) };
        (is_truncated == Some(true) && last != Some(&position)).then_some(position)
    }
}

/// Converts a time of the store. A missing time becomes the current time, so that nothing is deleted because of its age.
fn time_or_now(at: Option<&aws_sdk_s3::primitives::DateTime>) -> OffsetDateTime {
    let time = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.secs()).ok());
    time.unwrap_or(OffsetDateTime::from(std::time::SystemTime::now()))
}

impl Objects {
    /// Returns the multipart uploads that are open at keys with this prefix. `None` if the store cannot list them, or the
    /// policy lacks `s3:ListBucketMultipartUploads`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn upload_page(&self, prefix: &str, after: Option<ListPosition>) -> Result<Option<UploadPage>, StoreError> {
        let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
        let (key, id) = after.clone().map_or((None, None), |position| (Some(position.key), position.id));
        let page = match list.set_key_marker(key).set_upload_id_marker(id).send().await {
            Ok(page) => page,
            Err(error) if is_unavailable(&error) || is_absent(&error) || lists_objects(&error) => return Ok(None),
            Err(error) => return Err(error_of("ListMultipartUploads", &error)),
        };
        let upload = |upload: &aws_sdk_s3::types::MultipartUpload| {
            let key = upload.key().filter(|key| key.starts_with(prefix))?;
            let id = upload.upload_id()?.to_owned();
            Some(ListedUpload { key: ObjectKey::from_stored(key.to_owned()), id, initiated: time_or_now(upload.initiated()) })
        };
        let next = ListPosition::after(page.is_truncated(), page.next_key_marker(), page.next_upload_id_marker(), after.as_ref());
        Ok(Some(UploadPage { uploads: page.uploads().iter().filter_map(upload).collect(), next }))
    }

    /// Returns the keys with this prefix that have versions or delete markers. `None` if the store cannot list them, or the
    /// policy lacks `s3:ListBucketVersions`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn version_page(&self, prefix: &str, after: Option<ListPosition>) -> Result<Option<VersionPage>, StoreError> {
        let list = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix);
        let (key, id) = after.clone().map_or((None, None), |position| (Some(position.key), position.id));
        let page = match list.set_key_marker(key).set_version_id_marker(id).send().await {
            Ok(page) => page,
            Err(error) if is_unavailable(&error) || is_absent(&error) || lists_objects(&error) => return Ok(None),
            Err(error) => return Err(error_of("ListObjectVersions", &error)),
        };
        let versions = page.versions().iter().filter_map(|version| version.key());
        let keys = versions.chain(page.delete_markers().iter().filter_map(|marker| marker.key()));
        let keys: BTreeSet<_> =
            keys.filter(|key| key.starts_with(prefix)).map(|key| ObjectKey::from_stored(key.to_owned())).collect();
        let next =
            ListPosition::after(page.is_truncated(), page.next_key_marker(), page.next_version_id_marker(), after.as_ref());
        Ok(Some(VersionPage { keys: keys.into_iter().collect(), next }))
    }

    /// Returns the objects whose keys have this prefix, from `token` on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn object_page(&self, prefix: &str, token: Option<String>) -> Result<ObjectPage, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_continuation_token(token.clone());
        let listed = list.send().await.map_err(|error| error_of("ListObjectsV2", &error))?;
        let object = |object: &aws_sdk_s3::types::Object| {
            Some(ListedObject {
                key: ObjectKey::from_stored(object.key()?.to_owned()),
                modified: time_or_now(object.last_modified()),
                size: object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            })
        };
        let next = listed.next_continuation_token().filter(|_| listed.is_truncated() == Some(true)).map(str::to_owned);
        if listed.is_truncated() == Some(true) && (next.is_none() || next == token) {
            let reason = "the listing is truncated, but has no valid continuation token".to_owned();
            return Err(StoreError::Objects { operation: "ListObjectsV2", reason });
        }
        Ok(ObjectPage { objects: listed.contents().iter().filter_map(object).collect(), next })
    }
}
