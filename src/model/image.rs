//! An image and its life: `pending → ready → deleting → gone` and `pending → rejected | expired → gone`.

use std::fmt;

use time::OffsetDateTime;

use super::{ContentType, FileName, Idempotency, ImageId, Multipart, Sha256, UserId};

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

/// Why a pending image was rejected. Repeated to its owner until the tombstone goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Size, type or digest of the object are not those the upload declared.
    ObjectMismatch,
    /// The bytes are not an image of the declared type.
    ContentMismatch,
}

impl Rejection {
    /// The name in the database and in the problem's `code`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectMismatch => "object_mismatch",
            Self::ContentMismatch => "content_mismatch",
        }
    }

    /// Reads the database's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ObjectMismatch, Self::ContentMismatch].into_iter().find(|known| known.as_str() == text)
    }
}

/// Where an image's bytes lie in the bucket: `u/<user>/<image>`. No byte of it is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key of an image.
    #[must_use]
    pub fn of(user: UserId, image: ImageId) -> Self {
        Self(format!("u/{user}/{image}"))
    }

    /// A key read back from the database, which only [`ObjectKey::of`] fills.
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

/// A caption: text of at most 1000 characters; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption(String);

impl Caption {
    /// The longest caption in characters (Unicode code points).
    pub const MAX_CHARS: usize = 1000;

    /// `Ok(None)` for the empty text, which clears; `Err` when too long or when it holds NUL, which JSON
    /// allows and most of what displays it does not.
    ///
    /// # Errors
    /// The rule that is broken, as a sentence's end: "must …".
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        if text.chars().count() > Self::MAX_CHARS {
            return Err("must be at most 1000 characters long");
        }
        if text.contains('\0') {
            return Err("must not contain NUL");
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The caption's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

/// What a client declares before it uploads, checked.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The name to show and to save under.
    pub file_name: FileName,
    /// Signed into the URL, compared and proved at confirm.
    pub content_type: ContentType,
    /// Bytes; signed into the URL, compared at confirm.
    pub size: u64,
    /// Signed into the URL, compared at confirm, and what makes two uploads the same bytes. None is declared for a
    /// multipart upload: S3's digest of parts is not the file's.
    pub sha256: Option<Sha256>,
    /// Shown with the image.
    pub caption: Option<Caption>,
    /// How it is cut, when it comes in parts.
    pub multipart: Option<Multipart>,
}

impl Upload {
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
    /// Where the bytes are.
    pub key: ObjectKey,
    /// Where the image stands.
    pub state: ImageState,
    /// As declared.
    pub upload: Upload,
    /// Under which key the upload was opened, while the key is kept.
    pub idempotency: Option<Idempotency>,
    /// S3's name for a multipart upload; absent until S3 has opened it.
    pub upload_id: Option<String>,
    /// Why, when `state` is rejected.
    pub rejection: Option<Rejection>,
    /// What a tombstone was, once it is gone: the answer stays the same while the record is kept.
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

impl Image {
    /// The state that decides an answer: rejected and expired uploads are told apart after their tombstones have ended.
    #[must_use]
    pub fn outcome(&self) -> ImageState {
        match (self.state, self.gone_from) {
            (ImageState::Gone, Some(was @ (ImageState::Rejected | ImageState::Expired))) => was,
            (state, _) => state,
        }
    }
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
