//! Pixels in memory: eight bits for each of red, green and blue, without alpha.

use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image};
use moxcms::ColorProfile;

use super::MAX_PIXELS;
use crate::model::{Orientation, decoding::Undecodable};

/// An image in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    pub width: u32,
    pub height: u32,
    /// Three bytes for each pixel, row by row.
    pub rgb: Vec<u8>,
}

/// The result of a decoder.
#[derive(Debug)]
pub struct Decoded {
    /// The first picture, as stored, perhaps reduced.
    pub pixels: Pixels,
    /// Size of the picture before it was reduced.
    pub width: u32,
    /// Size of the picture before it was reduced.
    pub height: u32,
    /// The colour profile of `pixels`; `None` for sRGB.
    pub profile: Option<Profile>,
}

/// The colours that a file names.
#[derive(Debug)]
pub enum Profile {
    /// An ICC profile.
    Icc { icc: Vec<u8>, kind: ProfileKind },
    /// Primaries and a curve, which a PNG gives in numbers.
    Numbers(Box<ColorProfile>),
}

/// The colours that a profile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileKind {
    Rgb,
    /// Shades of grey, for which [`Pixels`] has three equal values.
    Grey,
}

/// Returns an error for an image without pixels, or with more than [`MAX_PIXELS`].
pub fn check_pixels(width: u32, height: u32) -> Result<(), Undecodable> {
    match u64::from(width) * u64::from(height) {
        0 => Err(Undecodable::Corrupt),
        1..=MAX_PIXELS => Ok(()),
        _ => Err(Undecodable::TooBig),
    }
}

/// Returns how many bytes an image takes, if a decoder may hold that many.
pub fn check_bytes(width: u32, height: u32, pixel_bytes: u64) -> Result<u64, Undecodable> {
    let bytes = u64::from(width) * u64::from(height) * pixel_bytes;
    if bytes > super::MAX_DECODED_BYTES { Err(Undecodable::TooBig) } else { Ok(bytes) }
}

/// Returns a buffer for `width` × `height` pixels, if a decoder may hold that many bytes.
pub fn buffer(width: u32, height: u32, pixel_bytes: u64, fill: u8) -> Result<Vec<u8>, Undecodable> {
    let bytes = check_bytes(width, height, pixel_bytes)?;
    Ok(vec![fill; usize::try_from(bytes).map_err(|_| Undecodable::TooBig)?])
}

/// Returns a colour on white.
fn on_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    u8::try_from((colour * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
}

/// Returns the RGB of a pixel with 1 to 4 channels: grey, grey and alpha, RGB, RGBA.
fn rgb_of(pixel: &[u8]) -> [u8; 3] {
    match *pixel {
        [grey] => [grey; 3],
        [grey, alpha] => [on_white(grey, alpha); 3],
        [red, green, blue, alpha] => [on_white(red, alpha), on_white(green, alpha), on_white(blue, alpha)],
        [red, green, blue, ..] => [red, green, blue],
        [] => [u8::MAX; 3],
    }
}

/// A frame within its canvas.
#[derive(Debug)]
pub struct Frame<'a> {
    pub samples: &'a [u8],
    pub channels: usize,
    pub left: u32,
    pub top: u32,
    pub width: u32,
}

/// Takes an image row by row, composites it on white and reduces it by a whole factor, so that it is never in memory at its full
/// size.
#[derive(Debug)]
pub struct RowReducer {
    factor: u32,
    width: u32,
    /// Width of the reduced image.
    columns: u32,
    /// For each column of the reduced image, the sums of the three colours of the rows that were taken since its last row.
    sums: Vec<u32>,
    /// Number of rows in `sums`.
    rows: u32,
    pixels: Pixels,
}

impl RowReducer {
    /// Longer side of the reduced image, at least, in pixels: twice that of the largest picture, whose own reduction has the better
    /// filter.
    const LONGER_SIDE: u32 = 3200;

    /// Begins an image.
    pub fn new(width: u32, height: u32) -> Self {
        let factor = (width.max(height) / Self::LONGER_SIDE).max(1);
        let columns = width.div_ceil(factor);
        let rgb = Vec::with_capacity(columns as usize * height.div_ceil(factor) as usize * 3);
        let pixels = Pixels { width: columns, height: height.div_ceil(factor), rgb };
        Self { factor, width, columns, sums: vec![0; columns as usize * 3], rows: 0, pixels }
    }

    /// Takes the next row, with `channels` bytes for each pixel.
    pub fn push(&mut self, row: &[u8], channels: usize) {
        let row = row.chunks_exact(channels).take(self.width as usize);
        if self.factor == 1 {
            self.pixels.rgb.extend(row.flat_map(rgb_of));
            return;
        }
        for (pixels, sums) in row.collect::<Vec<_>>().chunks(self.factor as usize).zip(self.sums.chunks_exact_mut(3)) {
            for pixel in pixels {
                for (sum, value) in sums.iter_mut().zip(rgb_of(pixel)) {
                    *sum += u32::from(value);
                }
            }
        }
        self.rows += 1;
        if self.rows == self.factor {
            self.end_rows();
        }
    }

    /// Takes a frame that covers a part of an animation's canvas. The rest is white.
    pub fn push_frame(&mut self, frame: &Frame<'_>) {
        let (stride, indent) = (frame.width as usize * frame.channels, frame.left as usize * frame.channels);
        // With an alpha channel (two or four channels) transparent, else white.
        let blank = if frame.channels.is_multiple_of(2) { 0 } else { u8::MAX };
        let mut row = vec![blank; self.width as usize * frame.channels];
        for _ in 0..frame.top {
            self.push(&row, frame.channels);
        }
        for frame_row in frame.samples.chunks_exact(stride) {
            row[indent..indent + stride].copy_from_slice(frame_row);
            self.push(&row, frame.channels);
        }
    }

    /// Adds a row of the means of `sums` to the reduced image.
    fn end_rows(&mut self) {
        for (column, sums) in (0..self.columns).zip(self.sums.chunks_exact_mut(3)) {
            let count = self.factor.min(self.width - column * self.factor) * self.rows;
            self.pixels.rgb.extend(sums.iter().map(|sum| u8::try_from((sum + count / 2) / count).unwrap_or(u8::MAX)));
            sums.fill(0);
        }
        self.rows = 0;
    }

    /// Ends the image. Missing rows are white, as in browsers.
    pub fn end(mut self) -> Pixels {
        if self.rows > 0 {
            self.end_rows();
        }
        self.pixels.rgb.resize(self.pixels.width as usize * self.pixels.height as usize * 3, u8::MAX);
        self.pixels
    }
}

impl Pixels {
    /// Returns the image in another size.
    pub fn resized(self, width: u16, height: u16) -> Result<Self, Undecodable> {
        let (width, height) = (u32::from(width), u32::from(height));
        if (width, height) == (self.width, self.height) {
            return Ok(self);
        }
        let source = Image::from_vec_u8(self.width, self.height, self.rgb, PixelType::U8x3).map_err(|_| Undecodable::Corrupt)?;
        let mut reduced = Image::new(width, height, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        Resizer::new().resize(&source, &mut reduced, &options).map_err(|_| Undecodable::Corrupt)?;
        Ok(Self { width, height, rgb: reduced.into_vec() })
    }

    /// Returns the image as displayed.
    pub fn oriented(self, orientation: Orientation) -> Self {
        let (w, h) = (self.width as usize, self.height as usize);
        let number = orientation.number();
        if number == 1 {
            return self;
        }
        let (width, height) = if orientation.swaps_sides() { (h, w) } else { (w, h) };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..height {
            for x in 0..width {
                // The stored pixel that is displayed here.
                let (column, row) = match number {
                    2 => (w - 1 - x, y),
                    3 => (w - 1 - x, h - 1 - y),
                    4 => (x, h - 1 - y),
                    5 => (y, x),
                    6 => (y, h - 1 - x),
                    7 => (w - 1 - y, h - 1 - x),
                    _ => (w - 1 - y, x),
                };
                let at = (row * w + column) * 3;
                rgb.extend_from_slice(&self.rgb[at..at + 3]);
            }
        }
        let (width, height) = if orientation.swaps_sides() { (self.height, self.width) } else { (self.width, self.height) };
        Self { width, height, rgb }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Pixels, RowReducer};
    use crate::model::Orientation;

    fn oriented(number: u16) -> (u32, u32, Vec<u8>) {
        // 1 2 3
        // 4 5 6
        let rgb = (1..=6).flat_map(|value| [value; 3]).collect();
        let pixels = Pixels { width: 3, height: 2, rgb }.oriented(Orientation::new(number).unwrap());
        (pixels.width, pixels.height, pixels.rgb.chunks(3).map(|pixel| pixel[0]).collect())
    }

    #[test]
    fn eight_orientations_are_displayed() {
        assert_eq!(oriented(1), (3, 2, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(oriented(2), (3, 2, vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(oriented(3), (3, 2, vec![6, 5, 4, 3, 2, 1]));
        assert_eq!(oriented(4), (3, 2, vec![4, 5, 6, 1, 2, 3]));
        assert_eq!(oriented(5), (2, 3, vec![1, 4, 2, 5, 3, 6]));
        assert_eq!(oriented(6), (2, 3, vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(oriented(7), (2, 3, vec![6, 3, 5, 2, 4, 1]));
        assert_eq!(oriented(8), (2, 3, vec![3, 6, 2, 5, 1, 4]));
    }

    #[test]
    fn large_images_are_reduced_row_by_row() {
        // 6401 columns by 3 rows, reduced by 2: the last column and the last row have one pixel alone.
        let mut reducer = RowReducer::new(6401, 3);
        for value in [10, 20, 40] {
            reducer.push(&vec![value; 6401], 1);
        }
        let pixels = reducer.end();
        assert_eq!((pixels.width, pixels.height), (3201, 2));
        assert!(
            pixels.rgb[..3201 * 3].iter().all(|value| *value == 15) && pixels.rgb[3201 * 3..].iter().all(|value| *value == 40)
        );
    }

    #[test]
    fn alpha_is_on_white_and_missing_rows_are_white() {
        let mut reducer = RowReducer::new(4, 2);
        reducer.push(&[0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 128, 200, 100, 50, 255], 4);
        let expected = [[255, 255, 255], [0, 0, 0], [127, 127, 127], [200, 100, 50], [255; 3], [255; 3], [255; 3], [255; 3]];
        assert_eq!(reducer.end().rgb, expected.as_flattened());
    }
}
