//! Orders of the gallery, and positions in them.

use time::OffsetDateTime;

use super::ImageId;

/// The order of a gallery's pages, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GalleryOrder {
    /// Order of the confirms.
    #[default]
    Uploaded,
    /// Order of the local times when the images were taken; of an image without one, the time when its upload was opened.
    Taken,
}

/// A position in a listing's order, newest first: that of the last image a client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The time that orders the listing, to the millisecond, as the database stores it. `None` in the list of pending uploads,
    /// which is ordered by id alone, and for images that an earlier version recorded without this time, which come last.
    pub at: Option<OffsetDateTime>,
    /// Id of the image, which orders images of the same millisecond.
    pub id: ImageId,
}
