//! Results of lookups of several images: the readable ones, and the errors of the others.

use mongodb::bson::RawDocument;

use super::{StoreError, document::decode};
use crate::model::{IdempotencyKey, Image, ImageId, Sha256};

/// The user's images that a lookup found. An unreadable record exists, and is never reported as absent.
#[derive(Debug, Default)]
pub struct LookupResult {
    readable: Vec<Image>,
    unreadable: Vec<Unreadable>,
}

/// An unreadable record, with the readable ones of the fields by which uploads are matched.
#[derive(Debug)]
struct Unreadable {
    id: Option<ImageId>,
    key: Option<IdempotencyKey>,
    /// Digest of the bytes; of a live image only.
    sha256: Option<Sha256>,
    error: StoreError,
}

impl From<Image> for LookupResult {
    fn from(image: Image) -> Self {
        Self { readable: vec![image], unreadable: Vec::new() }
    }
}

impl LookupResult {
    /// Decodes each record. An unreadable one is logged, and does not affect the others.
    pub(super) fn read<'a>(records: impl IntoIterator<Item = &'a RawDocument>) -> Self {
        let mut found = Self::default();
        for record in records {
            match decode(record) {
                Ok(image) => found.readable.push(image),
                Err(error) => {
                    tracing::error!(%error, "failed to read an image's record");
                    let text = |field| record.get_str(field).ok();
                    let is_live = record.get_bool("live").unwrap_or(false);
                    found.unreadable.push(Unreadable {
                        id: text("_id").and_then(ImageId::parse),
                        key: text("idemKey").and_then(|key| IdempotencyKey::parse(key).ok()),
                        sha256: text("sha256").filter(|_| is_live).and_then(|sha256| Sha256::parse(sha256).ok()),
                        error,
                    });
                }
            }
        }
        found
    }

    /// Returns the images that can be read, in no order.
    #[must_use]
    pub fn readable(&self) -> &[Image] {
        &self.readable
    }

    /// Returns the image of this id; `None` if it has no record.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its record cannot be read.
    pub fn get(&self, id: ImageId) -> Result<Option<&Image>, StoreError> {
        match self.readable.iter().find(|image| image.id == id) {
            Some(image) => Ok(Some(image)),
            None => self.fail_if_any(|unreadable| unreadable.id == Some(id)).map(|()| None),
        }
    }

    /// Verifies that no unreadable record has this idempotency key, or is a live image of these bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn verify_readable(&self, key: Option<&IdempotencyKey>, sha256: Option<Sha256>) -> Result<(), StoreError> {
        let has_key = |unreadable: &Unreadable| key.is_some() && unreadable.key.as_ref() == key;
        let has_bytes = |unreadable: &Unreadable| sha256.is_some() && unreadable.sha256 == sha256;
        self.fail_if_any(|unreadable| has_key(unreadable) || has_bytes(unreadable))
    }

    /// Fails with the error of the first unreadable record for which `condition` is true.
    fn fail_if_any(&self, condition: impl Fn(&Unreadable) -> bool) -> Result<(), StoreError> {
        self.unreadable.iter().find(|unreadable| condition(unreadable)).map_or(Ok(()), |unreadable| Err(unreadable.error.clone()))
    }
}
