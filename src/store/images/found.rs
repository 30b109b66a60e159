//! Records that were looked up together: those that can be read, and why the others cannot.

use mongodb::bson::RawDocument;

use super::{StoreError, document::decode};
use crate::model::{IdempotencyKey, Image, ImageId, Sha256};

/// The user's images that a lookup found. A record that cannot be read is there, and is never answered as absent.
#[derive(Debug, Default)]
pub struct Found {
    readable: Vec<Image>,
    unreadable: Vec<Unreadable>,
}

/// A record that cannot be read, with as much of it as uploads are matched by.
#[derive(Debug)]
struct Unreadable {
    id: Option<ImageId>,
    key: Option<IdempotencyKey>,
    /// Of a live record.
    sha256: Option<Sha256>,
    error: StoreError,
}

impl From<Image> for Found {
    fn from(image: Image) -> Self {
        Self { readable: vec![image], unreadable: Vec::new() }
    }
}

impl Found {
    /// Reads each record. One that cannot be read is logged, and keeps no other from being read.
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

    /// Returns the image of this id; `None` where there is no record of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its record cannot be read.
    pub fn get(&self, id: ImageId) -> Result<Option<&Image>, StoreError> {
        match self.readable.iter().find(|image| image.id == id) {
            Some(image) => Ok(Some(image)),
            None => self.refuse(|unreadable| unreadable.id == Some(id)).map(|()| None),
        }
    }

    /// Verifies that no record of this idempotency key, and none of a live image of these bytes, is among the unreadable ones.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn verify_readable(&self, key: Option<&IdempotencyKey>, sha256: Option<Sha256>) -> Result<(), StoreError> {
        let has_key = |unreadable: &Unreadable| key.is_some() && unreadable.key.as_ref() == key;
        let has_bytes = |unreadable: &Unreadable| sha256.is_some() && unreadable.sha256 == sha256;
        self.refuse(|unreadable| has_key(unreadable) || has_bytes(unreadable))
    }

    fn refuse(&self, is_it: impl Fn(&Unreadable) -> bool) -> Result<(), StoreError> {
        self.unreadable.iter().find(|unreadable| is_it(unreadable)).map_or(Ok(()), |unreadable| Err(unreadable.error.clone()))
    }
}
