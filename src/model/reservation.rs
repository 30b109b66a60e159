//! The share of a user's quota that an upload takes: from its opening until the last URL that could write bytes for it is
//! dead.
//!
//! An image's document carries its own [`Reservation`] as long as the user's counters differ from what the state alone says.
//! Without one, a ready image counts with its bytes and as one image, and anything else counts nothing. So the counters of a
//! user are at any time the sum of [`Image::booked`] over the images, and each step from one booking to the next is a
//! [`Settlement`]: applied to both documents, or to neither (`store/reservations.rs`).

use std::ops::{AddAssign, Sub};

use time::{Duration, OffsetDateTime};

use super::{Image, ImageId, ImageState, StepId, Verified};

/// How long after an upload was opened its reservation is left to the request that opened it.
pub const OPENING: Duration = Duration::minutes(2);

/// The counter of the user's record in which an image has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// `pending`: open uploads.
    Pending,
    /// `images`: ready ones.
    Image,
    /// No counter: only its bytes are counted.
    None,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Image, Self::None];

    /// The name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Image => "image",
            Self::None => "none",
        }
    }

    /// Reads the database's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.as_str() == text)
    }
}

/// The share of the user's counters that belongs to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Bytes of the quota.
    pub bytes: u64,
    /// Where it is counted.
    pub place: Place,
    /// When the sweeper looks whether it is settled, if the image is not pending.
    pub due: OffsetDateTime,
}

/// Whether bytes can still arrive for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urls {
    /// A URL lives, or a transfer may be under way, until this time.
    AliveUntil(OffsetDateTime),
    /// No URL was ever given out, or all are dead and every transfer is over.
    Dead,
}

/// A share of a user's counters. Negative in a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// Of `usedBytes`.
    pub bytes: i64,
    /// Of `images`.
    pub images: i64,
    /// Of `pending`.
    pub pending: i64,
}

impl Sub for Books {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, images: self.images - other.images, pending: self.pending - other.pending }
    }
}

impl AddAssign for Books {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.images += other.images;
        self.pending += other.pending;
    }
}

/// A step of an image's reservation, which is taken if the image is still as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The image.
    pub image: ImageId,
    /// Its state when it was read.
    pub state: ImageState,
    /// Its reservation when it was read.
    pub before: Option<Reservation>,
    /// The latest step of its reservation when it was read.
    pub last_step: Option<StepId>,
    /// Its reservation from now on.
    pub after: Option<Reservation>,
    /// The user's counters hold this for it.
    pub booked: Books,
    /// They are to hold this.
    pub books: Books,
}

impl Image {
    /// The share of the user's counters that is this image's, by its document alone.
    #[must_use]
    pub fn booked(&self) -> Books {
        self.books_with(self.state, self.reservation)
    }

    /// The step that brings the reservation in line with the state; `None` where it is.
    #[must_use]
    pub fn settlement(&self, urls: Urls) -> Option<Settlement> {
        let (before, after) = (self.reservation, self.settled(urls));
        let value = |reservation: Option<Reservation>| reservation.map(|reservation| (reservation.bytes, reservation.place));
        (value(before) != value(after)).then(|| self.step(self.state, after))
    }

    /// Returns the step that goes with `pending → ready` where nothing can be written beside the ready image: all that was
    /// declared came, to its final key. `None` otherwise; the reservation then follows in a step of its own.
    #[must_use]
    pub fn acceptance(&self, verified: &Verified) -> Option<Settlement> {
        let is_complete = self.upload.preview.is_some() == verified.preview && verified.key == self.key;
        let is_plain = self.strays.is_empty() && self.upload.loose.is_none() && !self.key.is_incoming();
        (self.reservation.is_some() && is_complete && is_plain).then(|| self.step(ImageState::Ready, None))
    }

    /// The step by which a pending upload reserves `bytes`; `None` where it has as many, or the former version's hold counts it.
    #[must_use]
    pub fn growth(&self, bytes: u64) -> Option<Settlement> {
        let reservation = self.reservation.filter(|reservation| reservation.bytes < bytes)?;
        (self.state == ImageState::Pending).then(|| self.step(self.state, Some(Reservation { bytes, ..reservation })))
    }

    /// The step that goes with `ready → deleting`: the bytes are free at once if no URL can write them again.
    #[must_use]
    pub fn deletion(&self, urls: Urls) -> Settlement {
        self.step(ImageState::Deleting, kept(self.booked().bytes, Place::None, urls))
    }

    fn step(&self, becomes: ImageState, after: Option<Reservation>) -> Settlement {
        Settlement {
            image: self.id,
            state: self.state,
            before: self.reservation,
            last_step: self.last_step,
            after,
            booked: self.booked(),
            books: self.books_with(becomes, after),
        }
    }

    fn settled(&self, urls: Urls) -> Option<Reservation> {
        let reservation = self.reservation?;
        match self.state {
            ImageState::Pending => Some(reservation),
            // Beside an image without leftovers nothing can be written any more, whichever of its URLs lives.
            ImageState::Ready if self.strays.is_empty() || self.surplus() == 0 => None,
            ImageState::Ready => kept(signed(reservation.bytes), Place::Image, urls),
            ImageState::Deleting | ImageState::Rejected | ImageState::Expired => kept(self.booked().bytes, Place::None, urls),
            ImageState::Gone => None,
        }
    }

    fn books_with(&self, state: ImageState, reservation: Option<Reservation>) -> Books {
        let own = signed(self.upload.bytes());
        match (state, reservation) {
            (ImageState::Ready, None) => Books { bytes: own, images: 1, pending: 0 },
            (_, None) => Books::default(),
            (_, Some(Reservation { bytes, place, .. })) => {
                let mut books = Books {
                    bytes: signed(bytes),
                    images: (place == Place::Image).into(),
                    pending: (place == Place::Pending).into(),
                };
                // Servers of the former version know no reservations: their deletion of a ready image has subtracted the
                // image itself, wherever it was counted.
                if !state.is_live() && self.uploaded_at.is_some() && place != Place::None {
                    books += Books { bytes: -own, images: -1, pending: 0 };
                }
                books
            }
        }
    }
}

/// The bytes stay counted while a URL lives.
fn kept(bytes: i64, place: Place, urls: Urls) -> Option<Reservation> {
    let bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
    match urls {
        Urls::AliveUntil(due) => Some(Reservation { bytes, place, due }),
        Urls::Dead => None,
    }
}

/// Sizes fit: the largest that is accepted is far below 2^63.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
