//! The calls of workers: reading a whole image, and writing the pictures that were made of it.

use std::time::Duration;

use aws_sdk_s3::{primitives::ByteStream, types::ChecksumAlgorithm};
use bytes::Bytes;

use super::{
    Objects,
    errors::{error_of, is_deleted_or_replaced},
    long_timeouts,
};
use crate::{
    model::{ContentType, ObjectKey},
    store::StoreError,
};

/// Deadline of reading or writing one object.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(60);

impl Objects {
    /// Returns the bytes of the object with this entity tag; `None` if it no longer exists or has more than `max_bytes`.
    ///
    /// # Errors
    /// [`StoreError::ObjectRejected`] if the object cannot be read, such as an archived one; else [`StoreError`].
    pub async fn read_all(&self, key: &ObjectKey, etag: &str, max_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let get = self.client.get_object().bucket(&self.bucket).key(key.as_str()).if_match(etag);
        let read = async {
            let got = match get.customize().config_override(long_timeouts(TRANSFER_DEADLINE)).send().await {
                Ok(got) => got,
                Err(error) if is_deleted_or_replaced(&error) => return Ok(None),
                Err(error) => return Err(error_of("GetObject", &error)),
            };
            let length = got.content_length().and_then(|length| u64::try_from(length).ok());
            // A store may ignore the condition.
            let Some(length) = length.filter(|length| *length <= max_bytes && got.e_tag() == Some(etag)) else { return Ok(None) };
            let broken = || StoreError::Objects { operation: "GetObject", reason: "the body broke off".to_owned() };
            let bytes = got.body.collect().await.map_err(|_| broken())?.into_bytes();
            if bytes.len() as u64 == length { Ok(Some(bytes)) } else { Err(broken()) }
        };
        let timed_out = Err(StoreError::ObjectsTimeout { operation: "GetObject" });
        tokio::time::timeout(TRANSFER_DEADLINE, read).await.unwrap_or(timed_out)
    }

    /// Writes a picture, in place of one that an earlier attempt wrote.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn put_picture(&self, key: &ObjectKey, jpeg: Vec<u8>) -> Result<(), StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key.as_str()).content_type(ContentType::Jpeg.as_str());
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).body(ByteStream::from(jpeg));
        put.send().await.map(drop).map_err(|error| error_of("PutObject", &error))
    }
}
