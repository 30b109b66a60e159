//! Multipart uploads in Companion's protocol: this server opens, lists, signs, completes and aborts them.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::{
    UppyMetadata, UppyUploads,
    part_limits::{PART_CHECK_INTERVAL, PART_URL_TTL},
    require_open_or_ready,
};
use crate::{
    domain::{
        confirm::ConfirmError,
        inspection::{Inspection, MissingParts},
        multipart::{InvalidPart, MAX_PARTS_PER_REQUEST, PartsError, unopened_lifetimes},
        store_capabilities::UploadClass,
        unavailable_upload::UnavailableUpload,
        uploads::OpenError,
    },
    model::{Image, ImageId, ImageState, ImageStatus, ObjectKey, PartChecksums, PartLayout, UploadKind, UserId},
    signer::Presigned,
    store::{StoreError, objects::StoredPart},
};

/// Attempts at an upload that concurrent requests change.
const MAX_ATTEMPTS: usize = 5;

/// A multipart upload, as each of Uppy's calls names it.
#[derive(Debug, Clone, Copy)]
pub struct NamedUpload<'a> {
    /// Upload id that Uppy received: the image's id.
    pub id: ImageId,
    /// Object key that Uppy received.
    pub key: &'a str,
}

/// A part that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    /// Part number, from 1.
    pub number: u32,
    /// Entity tag, with its quotes.
    pub etag: String,
    /// Size in bytes; unknown after the parts were completed.
    pub size: Option<u64>,
}

/// A part that a client names to complete an upload.
#[derive(Debug, Clone, Copy)]
pub struct NamedPart<'a> {
    /// Part number; any integer.
    pub number: i64,
    /// Entity tag, with or without quotes: Uppy sends both.
    pub etag: &'a str,
}

/// Why the parts did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum CompletePartsError {
    /// No part was named, or more than the maximum.
    #[error("an upload has from 1 to {} parts", PartLayout::MAX_PARTS)]
    Count,
    /// Part numbers that S3 does not allow; contains their positions in the request.
    #[error("a part's number is from 1 to {}", PartLayout::MAX_PARTS)]
    Numbers(Vec<usize>),
    /// Parts have not arrived, or have other entity tags.
    #[error("the parts {0} are missing")]
    PartsMissing(MissingParts),
    /// The upload cannot be completed.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The upload was completed, but not confirmed.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
}

impl From<StoreError> for CompletePartsError {
    fn from(error: StoreError) -> Self {
        Self::Parts(error.into())
    }
}

impl UppyUploads {
    /// Opens a multipart upload.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_parts(&self, user: UserId, metadata: &UppyMetadata<'_>, now: OffsetDateTime) -> Result<Image, OpenError> {
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let upload = self.validate_parts(user, metadata).await?;
        let id = ImageId::new();
        // Only this server completes the parts, so the object is created at its final key.
        let image = Image::pending(user, id, ObjectKey::final_for(user, id), upload, None, unopened_lifetimes(now));
        self.reserve_and_insert(&image, image.expires_at, now).await?;
        if let Err(error) = self.opening.create_multipart_in_s3(&image, PartChecksums::None).await {
            // The client gets no id, so this upload must not take quota for a day.
            if let Err(error) = self.lifecycle.delete_pending(&image, now).await {
                tracing::warn!(image = %id, %error, "failed to delete an upload that S3 did not open; it will expire");
            }
            return Err(error.into());
        }
        let expires_at = self.opening.opened_lifetimes(&image).expires_at;
        Ok(Image { expires_at, ..image })
    }

    /// Returns all parts that have arrived.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn list_parts(
        &self,
        user: UserId,
        upload: NamedUpload<'_>,
        now: OffsetDateTime,
    ) -> Result<Vec<ListedPart>, PartsError> {
        let image = self.find_open_uppy_parts(user, upload, now).await?;
        if let ImageStatus::Ready(ready) = &image.status {
            return Ok(parts_from_etag(&ready.etag));
        }
        if let Some(upload_id) = &image.upload_id
            && let Some(stored) = self.objects.list_parts(&image.key, upload_id).await?
        {
            let listed = |part: StoredPart| ListedPart { number: part.number, etag: part.etag, size: Some(part.size) };
            return Ok(stored.into_iter().map(listed).collect());
        }
        if let Some(head) = self.objects.head(&image.key).await? {
            // The upload was completed, but the server died before it confirmed it.
            return Ok(parts_from_etag(&head.etag));
        }
        // Another program aborted the upload, such as the bucket's lifecycle rule: the client uploads the parts again.
        self.opening.create_multipart_in_s3(&image, PartChecksums::None).await?;
        Ok(Vec::new())
    }

    /// Presigns URLs for these parts, in the order of the request.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn sign_parts(
        &self,
        user: UserId,
        upload: NamedUpload<'_>,
        numbers: &[i64],
        now: OffsetDateTime,
    ) -> Result<Vec<(u32, Presigned)>, PartsError> {
        for _ in 0..MAX_ATTEMPTS {
            let image = self.find_open_uppy_parts(user, upload, now).await?;
            if image.state() == ImageState::Ready {
                return Err(PartsError::Complete);
            }
            let numbers = part_numbers(numbers).map_err(PartsError::InvalidParts)?;
            self.capabilities.require_support(UploadClass::WithoutDigest).map_err(PartsError::from)?;
            let Some(upload_id) = image.upload_id.as_deref() else {
                // The server that opened the upload died before it recorded S3's upload id.
                self.opening.create_multipart_in_s3(&image, PartChecksums::None).await?;
                continue;
            };
            self.part_limits.enforce_reservation(&image, numbers.len(), now).await?;
            let ttl = self.settings.url_ttl.min(PART_URL_TTL);
            let sign = |number: u32| {
                let signed = self.objects.presign_any_part(&image.key, upload_id, number, now, ttl)?;
                Ok((number, signed))
            };
            let signed = numbers.into_iter().map(sign).collect::<Result<Vec<_>, StoreError>>()?;
            let expires_at = signed.iter().map(|(_, signed)| signed.expires_at).max().unwrap_or(now);
            // `false` if another request changed the image's state: the next attempt reads it again.
            if self.store.images.raise_owned_part_urls(user, upload.id, expires_at, now + PART_CHECK_INTERVAL).await? {
                return Ok(signed);
            }
        }
        Err(StoreError::Contention { subject: "a multipart upload" }.into())
    }

    /// Completes the upload with the named parts, and confirms it. A repeat has the same result.
    ///
    /// # Errors
    /// [`CompletePartsError`].
    pub async fn complete_parts(
        &self,
        user: UserId,
        upload: NamedUpload<'_>,
        named: &[NamedPart<'_>],
        now: OffsetDateTime,
    ) -> Result<Image, CompletePartsError> {
        let image = self.find_open_uppy_parts(user, upload, now).await?;
        let wanted_etags = wanted_parts(named)?;
        if image.state() == ImageState::Pending {
            self.capabilities.require_support(UploadClass::WithoutDigest).map_err(PartsError::from)?;
            let select_parts = |stored: &mut Vec<StoredPart>| {
                stored.retain(|part| wanted_etags.get(&part.number) == Some(&part.etag.trim_matches('"')));
                let is_stored = |number: &u32| stored.binary_search_by_key(number, |part| part.number).is_ok();
                let missing: Vec<_> = wanted_etags.keys().copied().filter(|number| !is_stored(number)).collect();
                (!missing.is_empty()).then_some(MissingParts(missing))
            };
            match self.parts_completion.complete_multipart(&image, &select_parts, now).await? {
                Inspection::PartsMissing(missing) => return Err(CompletePartsError::PartsMissing(missing)),
                Inspection::PartsRejected => return Err(ConfirmError::PartsRejected.into()),
                Inspection::Unsupported(error) => return Err(PartsError::from(error).into()),
                Inspection::Verified(_) | Inspection::Mismatch(_) | Inspection::Missing => {}
            }
        }
        Ok(self.confirmation.confirm(user, upload.id, now).await?)
    }

    /// Aborts an upload. Succeeds again while its tombstone exists; a ready image is not affected.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn abort_parts(&self, user: UserId, upload: NamedUpload<'_>, now: OffsetDateTime) -> Result<(), PartsError> {
        for _ in 0..MAX_ATTEMPTS {
            let image = self.find_uppy_parts(user, upload).await?;
            match image.state() {
                ImageState::Pending => {
                    if let Some(tombstone) = self.lifecycle.delete_pending(&image, now).await? {
                        tracing::info!(image = %upload.id, %user, "aborted an upload");
                        self.removal.purge_now(vec![tombstone], now).await;
                        return Ok(());
                    }
                    // Another request changed the image's state at the same time: it is read again.
                }
                ImageState::Ready => return Err(PartsError::Complete),
                ImageState::Purged => return Err(UnavailableUpload::NotFound.into()),
                _ => return Ok(()),
            }
        }
        Err(StoreError::Contention { subject: "a multipart upload" }.into())
    }

    /// Returns the open or ready upload that a call of Uppy names.
    async fn find_open_uppy_parts(
        &self,
        user: UserId,
        upload: NamedUpload<'_>,
        now: OffsetDateTime,
    ) -> Result<Image, PartsError> {
        Ok(require_open_or_ready(self.find_uppy_parts(user, upload).await?, now)?)
    }

    /// Returns the user's multipart upload with this id and key, in any state.
    async fn find_uppy_parts(&self, user: UserId, upload: NamedUpload<'_>) -> Result<Image, PartsError> {
        let image = self.store.images.find_owned(user, upload.id).await?;
        let is_named = |image: &Image| {
            image.upload.kind == UploadKind::UndeclaredParts && image.key.as_str() == upload.key && !image.key.is_incoming()
        };
        image.filter(is_named).ok_or_else(|| UnavailableUpload::NotFound.into())
    }
}

/// Returns a part's number if S3 can have it.
pub(super) fn part_number(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| (1..=PartLayout::MAX_PARTS).contains(number))
}

/// Returns the entity tags that a client names, without quotes, by their parts' numbers.
fn wanted_parts<'a>(named: &[NamedPart<'a>]) -> Result<BTreeMap<u32, &'a str>, CompletePartsError> {
    if named.is_empty() || named.len() > PartLayout::MAX_PARTS as usize {
        return Err(CompletePartsError::Count);
    }
    let (mut wanted, mut broken) = (BTreeMap::new(), Vec::new());
    for (index, part) in named.iter().enumerate() {
        match part_number(part.number) {
            Some(number) => drop(wanted.insert(number, part.etag.trim_matches('"'))),
            None => broken.push(index),
        }
    }
    if broken.is_empty() { Ok(wanted) } else { Err(CompletePartsError::Numbers(broken)) }
}

/// Returns the part numbers, or every rule that the request breaks.
fn part_numbers(numbers: &[i64]) -> Result<Vec<u32>, Vec<InvalidPart>> {
    if numbers.is_empty() || numbers.len() > MAX_PARTS_PER_REQUEST {
        return Err(vec![InvalidPart::Count]);
    }
    let (mut valid, mut broken) = (Vec::with_capacity(numbers.len()), Vec::new());
    for (index, number) in numbers.iter().enumerate() {
        match part_number(*number) {
            Some(number) => valid.push(number),
            None => broken.push(InvalidPart::Number(index, PartLayout::MAX_PARTS)),
        }
    }
    if broken.is_empty() { Ok(valid) } else { Err(broken) }
}

/// Returns the parts that an object was made of according to its entity tag (AWS: `"<digest>-<count>"`), for a client that lost
/// the answer to its completion and lists the parts to resume.
fn parts_from_etag(etag: &str) -> Vec<ListedPart> {
    let count = etag.trim_matches('"').rsplit_once('-').and_then(|(_, count)| count.parse().ok()).unwrap_or(1);
    (1..=count.min(PartLayout::MAX_PARTS)).map(|number| ListedPart { number, etag: etag.to_owned(), size: None }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn part_numbers_are_accepted_as_by_s3() {
        assert_eq!(part_numbers(&[3, 1, 10_000]), Ok(vec![3, 1, 10_000]));
        assert_eq!(part_numbers(&[]), Err(vec![InvalidPart::Count]));
        assert_eq!(part_numbers(&[1; MAX_PARTS_PER_REQUEST + 1]), Err(vec![InvalidPart::Count]));
        let broken = |at| InvalidPart::Number(at, PartLayout::MAX_PARTS);
        assert_eq!(part_numbers(&[0, 1, -1, 10_001, i64::MAX]), Err(vec![broken(0), broken(2), broken(3), broken(4)]));
    }

    #[test]
    fn entity_tag_of_an_object_contains_its_number_of_parts() {
        let numbers = |etag: &str| parts_from_etag(etag).iter().map(|part| part.number).collect::<Vec<_>>();
        assert_eq!(numbers("\"9b2cf535f27731c974343645a3985328-3\""), [1, 2, 3]);
        assert_eq!(numbers("\"9b2cf535f27731c974343645a3985328\""), [1]);
        assert_eq!(numbers("\"x-99999999999\""), [1]);
        assert_eq!(numbers("\"x-4000000000\"").len(), 10_000);
        assert_eq!(parts_from_etag("\"x-2\"")[1].etag, "\"x-2\"");
    }
}
