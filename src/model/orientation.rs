//! The orientation of an image (Exif 2.32, tag 0x0112).

/// Rotation and mirroring of a stored image for display, 1 to 8 as in EXIF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Orientation(u8);

impl Orientation {
    /// Displayed as stored.
    pub const NORMAL: Self = Self(1);

    /// Returns the orientation of EXIF's number; `None` for numbers without a meaning.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| (1..=8).contains(number)).map(Self)
    }

    /// Returns EXIF's number, 1 to 8.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns whether width and height are swapped for display, as in the orientations that rotate by 90 degrees.
    #[must_use]
    pub fn swaps_sides(self) -> bool {
        self.0 >= 5
    }
}
