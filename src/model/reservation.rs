//! Reservations: the share of a user's quota that an upload takes, from its opening until the last URL that could write bytes
//! for it has expired.
//!
//! An image's document has a [`Reservation`] as long as the image's share of the user's counters differs from the one that the
//! state alone determines: for a ready image its bytes and one image, for any other image nothing. So the counters of a user are
//! always the sum of [`Image::usage_counts`] over the images, and each change of an image's share is a [`ReservationStep`]:
//! applied to both documents, or to neither (`store/reservations.rs`).

use std::ops::{AddAssign, Sub};

use time::{Duration, OffsetDateTime};

use super::{Image, ImageEnd, ImageId, ImageState, StepId, TimelineMonth, Verified};

/// Time that the request which opened an upload has to finish with the reservation, before the sweeper settles it.
pub const OPENING_GRACE: Duration = Duration::minutes(2);

/// The counter of the user's record that includes an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaCounter {
    /// `pending`: open uploads.
    Pending,
    /// `images`: ready images.
    Image,
    /// No counter: only the bytes are counted.
    None,
}

impl QuotaCounter {
    /// All counters.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Image, Self::None];

    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Image => "image",
            Self::None => "none",
        }
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.as_str() == text)
    }
}

/// The share of the user's counters that is reserved for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Bytes of the quota.
    pub bytes: u64,
    /// The counter that includes the image.
    pub counter: QuotaCounter,
    /// When the sweeper checks whether the reservation still fits the state, if the image is not pending.
    pub due: OffsetDateTime,
}

/// Whether bytes can still arrive for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlLifetime {
    /// A URL is valid, or a transfer may be in progress, until this time.
    ValidUntil(OffsetDateTime),
    /// No URL was ever signed, or all have expired and every transfer is over.
    Expired,
}

/// Amounts in a user's counters; negative in a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageCounts {
    /// Amount in `usedBytes`.
    pub bytes: i64,
    /// Amount in `images`.
    pub images: i64,
    /// Amount in `pending`.
    pub pending: i64,
}

impl Sub for UsageCounts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, images: self.images - other.images, pending: self.pending - other.pending }
    }
}

impl AddAssign for UsageCounts {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.images += other.images;
        self.pending += other.pending;
    }
}

/// A change of an image's reservation, applied only if the image is still as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservationStep {
    /// The image.
    pub image: ImageId,
    /// State of the image when it was read.
    pub state: ImageState,
    /// Reservation of the image when it was read.
    pub before: Option<Reservation>,
    /// The latest step of its reservation when it was read.
    pub last_step: Option<StepId>,
    /// Reservation of the image after the step.
    pub after: Option<Reservation>,
    /// Amounts in the user's counters for the image before the step.
    pub counts_before: UsageCounts,
    /// Amounts in them after the step.
    pub counts_after: UsageCounts,
    /// The time that orders the image in the timeline, when it was read.
    pub taken_sort: Option<OffsetDateTime>,
    /// The change of the timeline.
    pub timeline: Option<TimelineChange>,
}

/// A change of the number of images of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineChange {
    /// The month.
    pub month: TimelineMonth,
    /// Number of images that are added; negative for images that are removed.
    pub images: i64,
}

impl Image {
    /// Returns the image's share of the user's counters, computed from its document alone.
    #[must_use]
    pub fn usage_counts(&self) -> UsageCounts {
        self.usage_counts_as(self.state(), self.reservation)
    }

    /// Returns the step that makes the reservation fit the state; `None` when it fits already.
    #[must_use]
    pub fn settling_step(&self, urls: UrlLifetime) -> Option<ReservationStep> {
        let (before, after) = (self.reservation, self.settled_reservation(urls));
        let value = |reservation: Option<Reservation>| reservation.map(|reservation| (reservation.bytes, reservation.counter));
        (value(before) != value(after)).then(|| self.step(self.state(), after))
    }

    /// Returns the step of the transition `pending → ready` if nothing can be written beside the ready image: everything declared
    /// arrived, under its final key. `None` otherwise; the reservation then ends in a later step.
    #[must_use]
    pub fn acceptance_step(&self, verified: &Verified) -> Option<ReservationStep> {
        let is_complete = self.upload.preview().is_some() == verified.preview && verified.key == self.key;
        let is_plain = self.leftover_keys.is_empty() && !self.upload.is_size_bound() && !self.key.is_incoming();
        (self.reservation.is_some() && is_complete && is_plain).then(|| {
            let step = self.step(ImageState::Ready, None);
            let month = TimelineMonth::of(self.sort_time(&verified.capture));
            ReservationStep { timeline: Some(TimelineChange { month, images: 1 }), ..step }
        })
    }

    /// Returns the step that raises the reservation of a pending upload to `bytes`; `None` when it has as many, or when the
    /// upload has no reservation because an earlier version opened it.
    #[must_use]
    pub fn growth_step(&self, bytes: u64) -> Option<ReservationStep> {
        let reservation = self.reservation.filter(|reservation| reservation.bytes < bytes)?;
        (self.state() == ImageState::Pending).then(|| self.step(self.state(), Some(Reservation { bytes, ..reservation })))
    }

    /// Returns the step of the transition to the tombstone of `end`: the bytes are released at once if no URL can write them again.
    #[must_use]
    pub fn ending_step(&self, end: ImageEnd, urls: UrlLifetime) -> ReservationStep {
        self.step(end.state(), reserve_while_urls_are_valid(self.usage_counts().bytes, QuotaCounter::None, urls))
    }

    /// Returns the step after which the image has the state `becomes` and the reservation `after`.
    fn step(&self, becomes: ImageState, after: Option<Reservation>) -> ReservationStep {
        ReservationStep {
            image: self.id,
            state: self.state(),
            before: self.reservation,
            last_step: self.last_step,
            after,
            counts_before: self.usage_counts(),
            counts_after: self.usage_counts_as(becomes, after),
            taken_sort: self.taken_sort,
            timeline: self.timeline_change(becomes, after),
        }
    }

    /// Returns the change of the timeline. An image without a sort time was not counted when it became ready.
    fn timeline_change(&self, becomes: ImageState, after: Option<Reservation>) -> Option<TimelineChange> {
        let month = TimelineMonth::of(self.taken_sort?);
        let count = |state, reservation| i64::from(is_in_timeline(state, reservation));
        let images = count(becomes, after) - count(self.state(), self.reservation);
        (images != 0).then_some(TimelineChange { month, images })
    }

    /// Returns the reservation that fits the state and the lifetime of the URLs.
    fn settled_reservation(&self, urls: UrlLifetime) -> Option<Reservation> {
        let reservation = self.reservation?;
        match self.state() {
            ImageState::Pending => Some(reservation),
            // Without leftover keys, no URL can write more bytes; without a surplus, the image counts all reserved bytes itself.
            ImageState::Ready if self.leftover_keys.is_empty() || self.surplus() == 0 => None,
            ImageState::Ready => reserve_while_urls_are_valid(to_signed(reservation.bytes), QuotaCounter::Image, urls),
            ImageState::Deleting | ImageState::Rejected | ImageState::Expired => {
                reserve_while_urls_are_valid(self.usage_counts().bytes, QuotaCounter::None, urls)
            }
            ImageState::Purged => None,
        }
    }

    /// Returns the share of the user's counters that the image would have in this state with this reservation.
    fn usage_counts_as(&self, state: ImageState, reservation: Option<Reservation>) -> UsageCounts {
        let upload_bytes = to_signed(self.upload.bytes());
        match (state, reservation) {
            (ImageState::Ready, None) => UsageCounts { bytes: upload_bytes, images: 1, pending: 0 },
            (_, None) => UsageCounts::default(),
            (_, Some(Reservation { bytes, counter, .. })) => {
                let mut usage = UsageCounts {
                    bytes: to_signed(bytes),
                    images: (counter == QuotaCounter::Image).into(),
                    pending: (counter == QuotaCounter::Pending).into(),
                };
                // Servers of an earlier version do not know reservations: when they delete a ready image, they subtract its bytes
                // and one image from the counters, whatever its reservation.
                if !state.is_live() && self.has_been_ready() && counter != QuotaCounter::None {
                    usage += UsageCounts { bytes: -upload_bytes, images: -1, pending: 0 };
                }
                usage
            }
        }
    }
}

/// Returns whether the timeline counts an image: a ready one, with or without additional reserved bytes.
fn is_in_timeline(state: ImageState, reservation: Option<Reservation>) -> bool {
    match reservation {
        None => state == ImageState::Ready,
        Some(reservation) => reservation.counter == QuotaCounter::Image,
    }
}

/// Returns the reservation of bytes that stay counted while a URL is valid.
fn reserve_while_urls_are_valid(bytes: i64, counter: QuotaCounter, urls: UrlLifetime) -> Option<Reservation> {
    let bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
    match urls {
        UrlLifetime::ValidUntil(due) => Some(Reservation { bytes, counter, due }),
        UrlLifetime::Expired => None,
    }
}

/// Converts a number of bytes. Cannot overflow: the largest accepted size is far below 2^63.
fn to_signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
