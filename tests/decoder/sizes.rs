//! Covers the sizes of the pictures, also those of large JPEGs, which are decoded at a quarter of their size.

use jpeg_encoder::{ColorType, Encoder};
use valet::model::Format;

use super::{Pixels, render};

/// Returns a JPEG whose red grows from left to right and whose green grows from top to bottom.
fn gradients(width: u16, height: u16) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            let part = |at: u32, side: u16| u8::try_from(at * 255 / u32::from(side)).unwrap();
            rgb.extend([part(x, width), part(y, height), 128]);
        }
    }
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, 85).encode(&rgb, width, height, ColorType::Rgb).unwrap();
    jpeg
}

/// Renders an image of gradients, asserts its colours, and returns the sizes of the pictures.
async fn sizes(width: u16, height: u16) -> Vec<(u16, u16)> {
    let rendered = render(Format::Jpeg, gradients(width, height)).await.unwrap();
    for picture in &rendered.pictures {
        let pixels = Pixels::of(&picture.jpeg);
        assert_eq!((pixels.width, pixels.height), (picture.width.into(), picture.height.into()));
        // A quarter of the way across and down.
        let [red, green, blue] = pixels.at(pixels.width / 4, pixels.height / 4);
        assert!(red.abs_diff(64) <= 4 && green.abs_diff(64) <= 4 && blue.abs_diff(128) <= 4, "{red} {green} {blue}");
    }
    rendered.pictures.iter().map(|picture| (picture.width, picture.height)).collect()
}

#[tokio::test]
async fn images_are_reduced_and_never_enlarged() {
    assert_eq!(sizes(500, 300).await, [(500, 300)]);
    assert_eq!(sizes(640, 640).await, [(640, 640)]);
    assert_eq!(sizes(1000, 500).await, [(640, 320), (1000, 500)]);
    assert_eq!(sizes(1500, 3000).await, [(320, 640), (800, 1600)]);
}

#[tokio::test]
async fn large_jpegs_are_decoded_at_a_quarter() {
    // 42 megapixels, whose sides are not multiples of a coding unit.
    assert_eq!(sizes(6501, 6461).await, [(640, 636), (1600, 1590)]);
}
