//! Covers sizes: of the pictures, and of what is decoded with little memory.

use jpeg_encoder::{ColorType, Encoder};
use valet::model::Format;

use super::{Pixels, render};

/// Returns a JPEG of gradients, and its pixels.
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
    // 42 megapixels, with a size that fills no unit.
    assert_eq!(sizes(6501, 6461).await, [(640, 636), (1600, 1590)]);
}

/// `cargo test --release --test decoder -- --ignored --nocapture`, for the figures in docs.
#[tokio::test]
#[ignore = "compares times"]
async fn a_photograph_of_12_megapixels_takes_250_ms_and_80_mib() {
    let file = photograph();
    let (mut times, mut memory) = (Vec::new(), 0);
    for _ in 0..5 {
        let (cpu_ms, peak_kib) = super::measure(&file).await;
        times.push(cpu_ms);
        memory = memory.max(peak_kib);
    }
    times.sort_unstable();
    println!("12 megapixels: {} ms of processor time (median of 5), {} MiB at most", times[2], memory / 1024);
    assert!(times[2] <= 250 && memory <= 80 * 1024, "{times:?} ms, {memory} KiB");
}

/// Returns a JPEG of 4032 by 3024 pixels with texture and noise.
fn photograph() -> Vec<u8> {
    let (width, height) = (4032_u16, 3024_u16);
    let mut noise = 1_u32;
    let mut rgb = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (f32::from(x), f32::from(y));
            for wave in [(x / 97.0 + y / 211.0).sin(), (x / 53.0 - y / 131.0).sin(), (x / 171.0 + y / 37.0).cos()] {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let grain = (noise >> 24) as f32 / 8.0 - 16.0;
                rgb.push((127.0 + 100.0 * wave + grain).clamp(0.0, 255.0) as u8);
            }
        }
    }
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, 88).encode(&rgb, width, height, ColorType::Rgb).unwrap();
    jpeg
}
