//! Signs URLs of smaller pictures that imgproxy makes on request. (`preview_worker` makes pictures beforehand.) The URLs stay the
//! same as long as those of the images, so that caches hit.

use time::OffsetDateTime;

use crate::{
    model::Dimensions,
    signer::{Imgproxy, ImgproxySource},
};

/// Longest side of each picture in pixels: for a grid, and for a screen.
const LONGEST_SIDES: [u32; 2] = [640, 1600];

/// A picture of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewUrl {
    /// A signed URL, which is ASCII without quotes or backslashes.
    pub url: String,
    /// Size of the picture.
    pub size: Dimensions,
}

/// Signs URLs of pictures.
#[derive(Debug)]
pub(super) struct Previews {
    pub(super) imgproxy: Imgproxy,
    pub(super) bucket: String,
}

impl Previews {
    /// Returns the pictures of an image of this size, the smallest first, with URLs that expire at `expires_at`.
    /// Images are not enlarged, so a small one has one picture.
    pub(super) fn of_image(&self, key: &str, size: Dimensions, expires_at: OffsetDateTime) -> Vec<PreviewUrl> {
        let picture = |longest_side: u32| PreviewUrl {
            url: self.imgproxy.url(ImgproxySource { bucket: &self.bucket, key, longest_side }, expires_at),
            size: fitted(size, longest_side),
        };
        let mut pictures: Vec<_> = LONGEST_SIDES.into_iter().map(picture).collect();
        pictures.dedup_by_key(|picture| picture.size);
        pictures
    }
}

/// Returns the size, scaled down to this longest side unless it is smaller. Rounds sides to the nearest pixel, at least one.
fn fitted(Dimensions { width, height }: Dimensions, longest_side: u32) -> Dimensions {
    let longest = width.max(height);
    if longest <= longest_side {
        return Dimensions { width, height };
    }
    let (longest, longest_side) = (u64::from(longest), u64::from(longest_side));
    let scaled = |side: u32| u32::try_from((u64::from(side) * longest_side + longest / 2) / longest).unwrap_or(side).max(1);
    Dimensions { width: scaled(width), height: scaled(height) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_keep_their_proportions_and_are_not_enlarged() {
        let fitted = |width, height, longest| {
            let Dimensions { width, height } = fitted(Dimensions { width, height }, longest);
            (width, height)
        };
        assert_eq!(fitted(4032, 3024, 640), (640, 480));
        assert_eq!(fitted(3024, 4032, 1600), (1200, 1600));
        assert_eq!(fitted(640, 100, 640), (640, 100));
        assert_eq!(fitted(65_535, 1, 640), (640, 1));
    }

    proptest! {
        #[test]
        fn fitted_size_is_within_the_longest_side(width in 1..65_536_u32, height in 1..65_536_u32, longest in 1..4000_u32) {
            let found = fitted(Dimensions { width, height }, longest);
            prop_assert!((1..=longest.min(width)).contains(&found.width) && (1..=longest.min(height)).contains(&found.height));
            prop_assert!(found.width.max(found.height) == longest.min(width.max(height)));
        }
    }
}
