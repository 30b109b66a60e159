//! An image and its life: `pending → ready → deleting → gone` and `pending → rejected | expired → gone`.

use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Caption, ContentType, FileName, Idempotency, ImageId, Loose, Multipart, OPENING, Place, Preview, Rejection, Reservation,
    Sha256, StepId, ThumbHash, UserId, object_key::PREVIEW,
};

/// Where an image stands. Each move is one conditional update on `{_id, user, state}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageState {
    /// Issued; its bytes are awaited.
    Pending,
    /// Verified and served. Its bytes never change.
    Ready,
    /// Deleted by its owner; the object goes now, and once more when every URL for it has died.
    Deleting,
    /// The bytes were not what was promised.
    Rejected,
    /// The bytes never came.
    Expired,
    /// Nothing is left but this record, for a while.
    Gone,
}

impl ImageState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Ready, Self::Deleting, Self::Rejected, Self::Expired, Self::Gone];

    /// The name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Gone => "gone",
        }
    }

    /// Reads the database's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the move is legal.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use ImageState::{Deleting, Expired, Gone, Pending, Ready, Rejected};
        matches!(
            (self, next),
            (Pending, Ready | Deleting | Rejected | Expired) | (Ready, Deleting) | (Deleting | Rejected | Expired, Gone)
        )
    }

    /// Pending or ready: holds its bytes' place, and counts against the quota.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Ready)
    }

    /// The record outlives its object so that the object can be deleted a second time: a delete re-opens the key
    /// for a PUT URL that has not died yet, since `If-None-Match` sees only current objects.
    #[must_use]
    pub fn is_tombstone(self) -> bool {
        self.may_become(Self::Gone)
    }
}

/// Where bytes lie in the bucket. No byte of it is the caller's. All keys of an image hold its id:
///
/// - `u/<user>/<image>`: written by a client under a signature that binds length, type, digest and "once".
/// - `in/<user>/<image>`: written by a client to a store that does not hold to these; copied from there at confirm.
/// - `u/<user>/<image>-<attempt>`: such a copy, one for each attempt, under a key that no URL was ever signed for.
/// - any of them with `-preview` after it: the preview beside those bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

/// Prefix of keys that are not final.
const INCOMING: &str = "in/";

impl ObjectKey {
    /// The final key of an image whose upload the store itself holds to what was signed.
    #[must_use]
    pub fn of(user: UserId, image: ImageId) -> Self {
        Self(format!("u/{user}/{image}"))
    }

    /// The key of an upload that is copied at confirm.
    #[must_use]
    pub fn incoming(user: UserId, image: ImageId) -> Self {
        Self(format!("{INCOMING}{user}/{image}"))
    }

    /// Returns a new key for a copy, for which no URL was ever signed.
    #[must_use]
    pub fn attempt(user: UserId, image: ImageId) -> Self {
        Self(format!("u/{user}/{image}-{}", Uuid::new_v4().simple()))
    }

    /// Returns the prefixes of the keys of a user's objects.
    #[must_use]
    pub fn prefixes_of(user: UserId) -> [String; 2] {
        [format!("{INCOMING}{user}/"), format!("u/{user}/")]
    }

    /// Where the preview of these bytes lies.
    #[must_use]
    pub fn preview(&self) -> Self {
        Self(format!("{self}{PREVIEW}"))
    }

    /// Whether what lies here has to be copied before it is an image.
    #[must_use]
    pub fn is_incoming(&self) -> bool {
        self.0.starts_with(INCOMING)
    }

    /// A key read back from the database or a listing.
    #[must_use]
    pub fn stored(key: String) -> Self {
        Self(key)
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Size in pixels as displayed: EXIF orientation and HEIF rotation applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// A valid declaration of an upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The name to show and to save under.
    pub file_name: FileName,
    /// Signed into the URL, compared and proved at confirm.
    pub content_type: ContentType,
    /// Bytes; signed into the URL, compared at confirm. Of a loose upload the most it may have, until it is confirmed.
    pub size: u64,
    /// Set where `size` is a bound and no digest was declared.
    pub loose: Option<Loose>,
    /// Signed into the URL, compared at confirm, and what makes two uploads the same bytes. None is declared for a
    /// multipart upload: S3's digest of parts is not the file's.
    pub sha256: Option<Sha256>,
    /// Shown with the image.
    pub caption: Option<Caption>,
    /// How it is cut, when it comes in parts.
    pub multipart: Option<Multipart>,
    /// The small picture that comes beside it; of a ready image, the one that came and was right.
    pub preview: Option<Preview>,
    /// Shown until there are pixels.
    pub thumb_hash: Option<ThumbHash>,
}

impl Upload {
    /// All that counts against the quota, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.size.saturating_add(self.preview.map_or(0, |preview| preview.size))
    }

    /// Whether `later` declares the same as this, of what a later declaration of the same bytes may change.
    #[must_use]
    pub fn is_declared_as(&self, later: &Self) -> bool {
        (&self.file_name, self.content_type, &self.caption, self.preview, &self.thumb_hash)
            == (&later.file_name, later.content_type, &later.caption, later.preview, &later.thumb_hash)
    }

    /// Bytes of the largest single transfer: the whole file, or a part.
    #[must_use]
    pub fn largest_transfer(&self) -> u64 {
        self.multipart.map_or(self.size, |multipart| multipart.longest())
    }
}

/// One image's record.
#[derive(Debug, Clone)]
pub struct Image {
    /// UUIDv7.
    pub id: ImageId,
    /// The owner.
    pub user: UserId,
    /// Where the bytes are; while pending, where they are to be put.
    pub key: ObjectKey,
    /// Other keys that something of this image was or may still be written to, and that are cleared once no URL lives:
    /// copies that were begun, the place that a copy was made from, a preview that did not come in time.
    pub strays: Vec<ObjectKey>,
    /// Where the image stands.
    pub state: ImageState,
    /// As declared; of a pending upload, as declared last.
    pub upload: Upload,
    /// Other types that presigned PUTs of this upload were signed for, before it was declared anew.
    pub former_types: Vec<ContentType>,
    /// Bytes that were reserved when the upload was opened.
    pub reserved: u64,
    /// The share of the quota that is counted for it now, where its state alone does not say. The former version writes none.
    pub reservation: Option<Reservation>,
    /// The latest step of the reservation: the next one is taken on condition that no other came in between.
    pub last_step: Option<StepId>,
    /// Under which key the upload was opened, while the key is kept.
    pub idempotency: Option<Idempotency>,
    /// S3's name for a multipart upload; absent until S3 has opened it.
    pub upload_id: Option<String>,
    /// Why, when `state` is rejected.
    pub rejection: Option<Rejection>,
    /// State of the tombstone before it was purged: the answer stays the same while the record is kept.
    pub gone_from: Option<ImageState>,
    /// The object's entity tag at confirm: what was verified.
    pub etag: Option<String>,
    /// Known from confirm on.
    pub dimensions: Option<Dimensions>,
    /// When the upload was issued.
    pub created_at: OffsetDateTime,
    /// When it was confirmed, by the database's clock: the gallery's order.
    pub uploaded_at: Option<OffsetDateTime>,
    /// The end of the upload, not of its URL.
    pub expires_at: OffsetDateTime,
    /// When the last PUT URL given out dies. Raised before a URL leaves, never lowered.
    pub urls_die_at: OffsetDateTime,
}

/// When a new upload's life and its URLs' end.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// When it was issued.
    pub created_at: OffsetDateTime,
    /// The end of the upload.
    pub expires_at: OffsetDateTime,
    /// The end of the URLs that leave with it.
    pub urls_die_at: OffsetDateTime,
}

impl Image {
    /// A new upload, to be put at `key`.
    #[must_use]
    pub fn pending(
        (user, id, key): (UserId, ImageId, ObjectKey),
        upload: Upload,
        idempotency: Option<Idempotency>,
        lifetimes: Lifetimes,
    ) -> Self {
        let reserved = upload.bytes();
        let due = lifetimes.created_at + OPENING;
        Self {
            id,
            user,
            key,
            strays: Vec::new(),
            state: ImageState::Pending,
            reserved,
            reservation: Some(Reservation { bytes: reserved, place: Place::Pending, due }),
            last_step: None,
            upload,
            former_types: Vec::new(),
            idempotency,
            upload_id: None,
            rejection: None,
            gone_from: None,
            etag: None,
            dimensions: None,
            created_at: lifetimes.created_at,
            uploaded_at: None,
            expires_at: lifetimes.expires_at,
            urls_die_at: lifetimes.urls_die_at,
        }
    }

    /// The types that presigned PUTs of this upload were signed for.
    pub fn signed_types(&self) -> impl Iterator<Item = ContentType> {
        std::iter::once(self.upload.content_type).chain(self.former_types.iter().copied())
    }

    /// Whether it is an upload in parts that S3 has not opened yet, or whose server died before it had recorded that.
    #[must_use]
    pub fn is_unopened(&self) -> bool {
        self.upload.is_in_parts() && self.upload_id.is_none() && self.urls_die_at <= self.created_at
    }

    /// Where its preview lies, if it has one.
    #[must_use]
    pub fn preview_key(&self) -> Option<ObjectKey> {
        self.upload.preview.map(|_| self.key.preview())
    }

    /// Every key under which something of it may lie.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        let mut keys = vec![self.key.clone()];
        keys.extend(self.preview_key());
        keys.extend(self.strays.iter().cloned());
        keys
    }

    /// Reserved bytes that did not come: of a ready image without the preview it announced, or below its bound.
    #[must_use]
    pub fn surplus(&self) -> u64 {
        self.reserved.saturating_sub(self.upload.bytes())
    }

    /// The state that decides an answer: rejected and expired uploads are told apart after their tombstones have ended.
    #[must_use]
    pub fn outcome(&self) -> ImageState {
        match (self.state, self.gone_from) {
            (ImageState::Gone, Some(was @ (ImageState::Rejected | ImageState::Expired))) => was,
            (state, _) => state,
        }
    }
}

/// The verified properties of an upload, and the key of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key of the bytes that were examined: the upload's own, or that of a copy.
    pub key: ObjectKey,
    /// Of those bytes.
    pub etag: String,
    /// How many they are.
    pub bytes: u64,
    /// As displayed.
    pub size: Dimensions,
    /// Whether the announced preview lies beside them and is right.
    pub preview: bool,
}

/// A place in the gallery's order, newest first: the last image a client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// To the millisecond, as the database keeps it. `None` in the list of pending uploads, ordered by id alone.
    pub uploaded_at: Option<OffsetDateTime>,
    /// Decides between images of one millisecond.
    pub id: ImageId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_no_move_leads_back() {
        for from in ImageState::ALL {
            assert!(!from.may_become(ImageState::Pending), "{from:?}");
            assert!(!ImageState::Gone.may_become(from), "{from:?}");
            assert_eq!(ImageState::parse(from.as_str()), Some(from));
        }
        assert!(!ImageState::Ready.may_become(ImageState::Gone), "bytes would be orphaned");
        assert!(!ImageState::Expired.may_become(ImageState::Ready), "C9: what expired never resurrects");
    }
}
