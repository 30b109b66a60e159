//! The bucket's keys, a page at a time.

use time::OffsetDateTime;

use super::{Objects, StoreError, errors::failed};
use crate::model::ObjectKey;

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// When it was written, by the store's clock.
    pub modified: OffsetDateTime,
    /// Bytes.
    pub size: u64,
}

/// A page of keys, and where the next begins.
#[derive(Debug, Clone)]
pub struct Page {
    /// At most a thousand, in the order of their UTF-8 bytes.
    pub objects: Vec<Listed>,
    /// Absent on the last page.
    pub next: Option<String>,
}

impl Objects {
    /// The keys that begin with `prefix`, from `token` on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_page(&self, prefix: &str, token: Option<String>) -> Result<Page, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).set_continuation_token(token.clone());
        let listed = list.send().await.map_err(|error| failed("ListObjectsV2", &error))?;
        let object = |object: &aws_sdk_s3::types::Object| {
            Some(Listed {
                key: ObjectKey::stored(object.key()?.to_owned()),
                // Without a time an object counts as new: nothing may be deleted for being old.
                modified: object
                    .last_modified()
                    .and_then(|at| OffsetDateTime::from_unix_timestamp(at.secs()).ok())
                    .unwrap_or(OffsetDateTime::from(std::time::SystemTime::now())),
                size: object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            })
        };
        let next = listed.next_continuation_token().filter(|_| listed.is_truncated() == Some(true)).map(str::to_owned);
        if listed.is_truncated() == Some(true) && (next.is_none() || next == token) {
            let reason = "the listing is cut off, and does not say where it goes on".to_owned();
            return Err(StoreError::Objects { operation: "ListObjectsV2", reason });
        }
        Ok(Page { objects: listed.contents().iter().filter_map(object).collect(), next })
    }
}
