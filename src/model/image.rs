//! Images: states and their transitions (`pending → ready → deleting → purged` and `pending → rejected | expired → purged`),
//! and the record of an image.

use time::OffsetDateTime;

use super::{
    Capture, ContentType, Idempotency, ImageId, OPENING_GRACE, ObjectKey, QuotaCounter, Rejection, Rendering, Reservation,
    StepId, TakenAt, Upload, UserId,
};

/// The name of an image's state. Each transition is one conditional update on `{_id, user, state}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageState {
    /// Open; the bytes have not been verified yet.
    Pending,
    /// Verified and served; the bytes never change.
    Ready,
    /// Deleted by its owner or by the app's backend. The object is deleted now, and once more when every URL for it has expired.
    Deleting,
    /// The bytes are not the declared ones, or not an accepted image.
    Rejected,
    /// The bytes never arrived.
    Expired,
    /// Only the record is left, for a day.
    Purged,
}

impl ImageState {
    /// All states.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Ready, Self::Deleting, Self::Rejected, Self::Expired, Self::Purged];

    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Purged => "gone",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether the transition is legal.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use ImageState::{Deleting, Expired, Pending, Purged, Ready, Rejected};
        matches!(
            (self, next),
            (Pending, Ready | Deleting | Rejected | Expired) | (Ready, Deleting) | (Deleting | Rejected | Expired, Purged)
        )
    }

    /// Returns whether the image is pending or ready, and so counts as live against the quota.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Ready)
    }

    /// Returns whether the record outlives its object so that the object can be deleted a second time: after a deletion, a PUT
    /// URL that has not expired can write the key again, since `If-None-Match` sees only current objects.
    #[must_use]
    pub fn is_tombstone(self) -> bool {
        self.may_become(Self::Purged)
    }
}

/// Size in pixels as displayed, with EXIF orientation and HEIF rotation applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// The state of an image, with the values of this state alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageStatus {
    /// Open; the bytes have not been verified yet.
    Pending,
    /// Verified and served; the bytes never change.
    Ready(ReadyImage),
    /// Ended. The objects are deleted now, and once more when every URL for them has expired.
    Tombstone(ImageEnd),
    /// Only the record is left, for a day: requests are answered as before.
    Purged(ImageEnd),
}

/// The values that a confirm recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyImage {
    /// The entity tag of the object that was verified.
    pub etag: String,
    /// The size of the image.
    pub dimensions: Dimensions,
    /// When it was confirmed, by the database's clock: the gallery's order.
    pub uploaded_at: OffsetDateTime,
    /// Time, camera and position.
    pub capture: Capture,
}

/// The way in which an image ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEnd {
    /// Deleted by its owner or by the app's backend.
    Deleted {
        /// Whether the image was ready before.
        was_ready: bool,
    },
    /// The bytes are not the declared ones, or not an accepted image.
    Rejected(Rejection),
    /// The bytes never arrived.
    Expired,
}

impl ImageEnd {
    /// Returns the state of the tombstone.
    #[must_use]
    pub fn state(self) -> ImageState {
        match self {
            Self::Deleted { .. } => ImageState::Deleting,
            Self::Rejected(_) => ImageState::Rejected,
            Self::Expired => ImageState::Expired,
        }
    }
}

impl ImageStatus {
    /// Returns the name of the state.
    #[must_use]
    pub fn name(&self) -> ImageState {
        match self {
            Self::Pending => ImageState::Pending,
            Self::Ready(_) => ImageState::Ready,
            Self::Tombstone(end) => end.state(),
            Self::Purged(_) => ImageState::Purged,
        }
    }
}

/// The record of an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// UUIDv7, so that ids sort by time.
    pub id: ImageId,
    /// The owner.
    pub user: UserId,
    /// The key of the bytes; while pending, the key that the client writes to.
    pub key: ObjectKey,
    /// Other keys under which bytes of this image may lie, cleared once no URL for them is valid: copies that were started, the
    /// source of a copy, a preview that did not arrive in time.
    pub leftover_keys: Vec<ObjectKey>,
    /// The state of the image.
    pub status: ImageStatus,
    /// The declaration; while pending, the latest one. Once ready, its size and preview are those that were verified.
    pub upload: Upload,
    /// Other content types that presigned PUTs of this upload were signed for before it was declared again.
    pub earlier_types: Vec<ContentType>,
    /// Bytes that were reserved when the upload was opened, or declared again with a larger preview.
    pub reserved: u64,
    /// The reservation that counts against the quota, when the state alone does not determine the count. Images of an earlier
    /// version have none.
    pub reservation: Option<Reservation>,
    /// The time by which the image is ordered and counted in the timeline. `None` before it is ready, and for images that an
    /// earlier version made ready.
    pub taken_sort: Option<OffsetDateTime>,
    /// The work on its pictures; `None` if they were never requested.
    pub rendering: Option<Rendering>,
    /// The latest step of the reservation; the next one is applied only if this one is still the latest.
    pub last_step: Option<StepId>,
    /// The idempotency key of the upload, for as long as it is valid.
    pub idempotency: Option<Idempotency>,
    /// S3's id of the multipart upload; absent until S3 has opened it.
    pub upload_id: Option<String>,
    /// When the upload was opened.
    pub created_at: OffsetDateTime,
    /// When the upload expires; its URLs may expire earlier.
    pub expires_at: OffsetDateTime,
    /// When the last of the signed PUT URLs expires. Raised before a URL is returned, never lowered.
    pub urls_expire_at: OffsetDateTime,
    /// While pending, when the last attempt of a server ends to create the object by completing parts or by copying. The
    /// transition to another state raises `urls_expire_at` to it.
    pub attempts_end_at: Option<OffsetDateTime>,
}

/// Times of a new upload: its opening, its expiry and the expiry of its URLs.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// When the upload was opened.
    pub created_at: OffsetDateTime,
    /// When the upload expires.
    pub expires_at: OffsetDateTime,
    /// When the URLs that are returned with it expire.
    pub urls_expire_at: OffsetDateTime,
}

impl Image {
    /// Returns a new upload, to be put at `key`.
    #[must_use]
    pub fn pending(
        user: UserId,
        id: ImageId,
        key: ObjectKey,
        upload: Upload,
        idempotency: Option<Idempotency>,
        lifetimes: Lifetimes,
    ) -> Self {
        let reserved = upload.bytes();
        let due = lifetimes.created_at + OPENING_GRACE;
        Self {
            id,
            user,
            key,
            leftover_keys: Vec::new(),
            status: ImageStatus::Pending,
            reserved,
            reservation: Some(Reservation { bytes: reserved, counter: QuotaCounter::Pending, due }),
            taken_sort: None,
            rendering: None,
            last_step: None,
            upload,
            earlier_types: Vec::new(),
            idempotency,
            upload_id: None,
            created_at: lifetimes.created_at,
            expires_at: lifetimes.expires_at,
            urls_expire_at: lifetimes.urls_expire_at,
            attempts_end_at: None,
        }
    }

    /// Returns the name of the image's state.
    #[must_use]
    pub fn state(&self) -> ImageState {
        self.status.name()
    }

    /// Returns the values of a ready image.
    #[must_use]
    pub fn ready(&self) -> Option<&ReadyImage> {
        match &self.status {
            ImageStatus::Ready(ready) => Some(ready),
            ImageStatus::Pending | ImageStatus::Tombstone(_) | ImageStatus::Purged(_) => None,
        }
    }

    /// Returns whether the image is ready, or was when it was deleted.
    #[must_use]
    pub fn has_been_ready(&self) -> bool {
        use ImageStatus::{Purged, Ready, Tombstone};
        matches!(
            self.status,
            Ready(_) | Tombstone(ImageEnd::Deleted { was_ready: true }) | Purged(ImageEnd::Deleted { was_ready: true })
        )
    }

    /// Returns the image as the tombstone that the transition to `end` leaves.
    #[must_use]
    pub fn ended(self, end: ImageEnd) -> Self {
        Self { status: ImageStatus::Tombstone(end), ..self }
    }

    /// Returns the image as the tombstone that a deletion leaves.
    #[must_use]
    pub fn deleted(self) -> Self {
        let was_ready = self.has_been_ready();
        self.ended(ImageEnd::Deleted { was_ready })
    }

    /// Returns the time by which the image is ordered once it is ready with this capture. Known before the transition, unlike the
    /// time of the confirm, so that the step that counts the image can be announced with its month.
    #[must_use]
    pub fn sort_time(&self, capture: &Capture) -> OffsetDateTime {
        capture.taken_at.map_or(self.created_at, TakenAt::sort_time)
    }

    /// Returns the types that presigned PUTs of this upload were signed for.
    pub fn signed_types(&self) -> impl Iterator<Item = ContentType> {
        std::iter::once(self.upload.content_type).chain(self.earlier_types.iter().copied())
    }

    /// Returns whether this is an upload in parts that S3 has not opened yet, or whose server stopped before it recorded the
    /// opening.
    #[must_use]
    pub fn is_unopened(&self) -> bool {
        self.upload.is_in_parts() && self.upload_id.is_none() && self.urls_expire_at <= self.created_at
    }

    /// Returns whether this is an upload whose time to live is over at `now`.
    #[must_use]
    pub fn is_past_expiry(&self, now: OffsetDateTime) -> bool {
        self.status == ImageStatus::Pending && self.expires_at <= now
    }

    /// Returns the key of the preview, if one was declared.
    #[must_use]
    pub fn preview_key(&self) -> Option<ObjectKey> {
        self.upload.preview().map(|_| self.key.preview())
    }

    /// Returns the keys at which a worker may have written pictures.
    #[must_use]
    pub fn picture_keys(&self) -> Vec<ObjectKey> {
        let is_written = self.rendering.as_ref().is_some_and(|rendering| rendering.is_written);
        if is_written { self.key.pictures().to_vec() } else { Vec::new() }
    }

    /// Returns every key under which bytes of this image may lie.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        let mut keys = vec![self.key.clone()];
        keys.extend(self.preview_key());
        keys.extend(self.picture_keys());
        keys.extend(self.leftover_keys.iter().cloned());
        keys
    }

    /// Returns the number of reserved bytes that did not arrive: those of a missing preview, or the rest of a size bound.
    #[must_use]
    pub fn surplus(&self) -> u64 {
        self.reserved.saturating_sub(self.upload.bytes())
    }
}

/// The verified properties of an upload, and the key of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key of the bytes that were verified: the upload's own, or that of a copy.
    pub key: ObjectKey,
    /// The entity tag of those bytes.
    pub etag: String,
    /// The number of those bytes.
    pub bytes: u64,
    /// Size in pixels, as displayed.
    pub size: Dimensions,
    /// Whether the declared preview exists and was verified.
    pub preview: bool,
    /// Time, camera and position, as far as the fetched bytes have them.
    pub capture: Capture,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_no_transition_leads_back() {
        for from in ImageState::ALL {
            assert!(!from.may_become(ImageState::Pending), "{from:?}");
            assert!(!ImageState::Purged.may_become(from), "{from:?}");
            assert_eq!(ImageState::parse(from.as_str()), Some(from));
        }
        assert!(!ImageState::Ready.may_become(ImageState::Purged), "bytes would be orphaned");
        assert!(!ImageState::Expired.may_become(ImageState::Ready), "C9: an expired upload never comes back");
    }
}
