//! Lists and aborts the multipart uploads that are open at a key, by any client.

use futures_util::{FutureExt, StreamExt, stream};

use super::{
    Objects,
    errors::{Failure, classify_error, error_of, is_absent, is_unavailable, lists_objects},
};
use crate::{model::ObjectKey, store::StoreError};

/// Maximum number of pages that are listed in one call, of up to a thousand uploads each.
const MAX_PAGES: usize = 2;
/// Number of concurrent aborts.
const CONCURRENT_ABORTS: usize = 16;

/// The uploads that are open at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUploads {
    /// S3's upload ids.
    pub ids: Vec<String>,
    /// Whether `ids` has all uploads that are open at the key.
    pub is_complete: bool,
}

/// The progress of aborting every upload of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortProgress {
    /// No upload is left.
    All,
    /// More uploads are left than are aborted in one call.
    Some,
}

impl Objects {
    /// Aborts an upload. Succeeds if the upload does not exist, if the store rejects the id, and if the store does not support
    /// aborting.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn abort_multipart(&self, key: &ObjectKey, upload_id: &str) -> Result<(), StoreError> {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key.as_str()).upload_id(upload_id);
        match abort.send().await {
            Ok(_) => Ok(()),
            // The id may come from a client. Some stores do not respond 404 for an unknown one (SeaweedFS: InvalidRequest).
            Err(error) if matches!(classify_error(&error), Failure::Object | Failure::Unsupported) => Ok(()),
            Err(error) => Err(error_of("AbortMultipartUpload", &error)),
        }
    }

    /// Returns the uploads that are open at exactly this key. `None` if the store cannot list them, or the policy lacks
    /// `s3:ListBucketMultipartUploads`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_uploads(&self, key: &ObjectKey) -> Result<Option<OpenUploads>, StoreError> {
        let mut found = OpenUploads { ids: Vec::new(), is_complete: true };
        let mut marker: (Option<String>, Option<String>) = (None, None);
        for _ in 0..MAX_PAGES {
            let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(key.as_str());
            let list = list.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone());
            let page = match list.send().await {
                Ok(page) => page,
                Err(error) if is_unavailable(&error) || is_absent(&error) || lists_objects(&error) => return Ok(None),
                Err(error) => return Err(error_of("ListMultipartUploads", &error)),
            };
            // The prefix also matches longer keys.
            let at_key = page.uploads().iter().filter(|upload| upload.key() == Some(key.as_str()));
            found.ids.extend(at_key.filter_map(|upload| upload.upload_id()).map(str::to_owned));
            let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            found.is_complete = page.is_truncated() != Some(true) || next == marker;
            if found.is_complete {
                break;
            }
            marker = next;
        }
        Ok(Some(found))
    }

    /// Aborts every upload that is open at this key: also one whose server died before its id was recorded, and those that a
    /// client opened. If the store cannot list uploads, the bucket's lifecycle rule aborts them. A failed abort does not prevent
    /// the others.
    ///
    /// # Errors
    /// The first [`StoreError`]; safe to repeat.
    pub async fn abort_multiparts(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.abort_some_multiparts(key).await.map(drop)
    }

    /// Aborts as [`Objects::abort_multiparts`] does, and returns whether more uploads are left than are aborted in one call.
    ///
    /// # Errors
    /// The first [`StoreError`]; safe to repeat.
    pub async fn abort_some_multiparts(&self, key: &ObjectKey) -> Result<AbortProgress, StoreError> {
        let Some(found) = self.open_uploads(key).await? else { return Ok(AbortProgress::All) };
        let abort = |id: String| async move { self.abort_multipart(key, &id).await }.boxed();
        let aborted: Vec<_> = stream::iter(found.ids).map(abort).buffer_unordered(CONCURRENT_ABORTS).collect().await;
        aborted.into_iter().collect::<Result<(), _>>()?;
        Ok(if found.is_complete { AbortProgress::All } else { AbortProgress::Some })
    }
}
