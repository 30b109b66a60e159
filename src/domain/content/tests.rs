//! Every fixture against the size that Pillow and libheif give it (`tests/fixtures/README.md`), whole, cut short,
//! fetched in steps and damaged; and what must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod formats;

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{Content, FIRST_HEAD, Format, Inspection, MAX_HEAD, MAX_PIXELS, Refusal, inspect};

struct Fixture {
    name: String,
    content_type: String,
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

/// The rows of the fixtures' table.
fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let fixtures: Vec<_> = rows
        .map(|row| {
            let [name, _, content_type, size] = row.trim_matches(['|', ' ']).split(" | ").collect::<Vec<_>>()[..] else {
                panic!("{row}");
            };
            let (width, height) = size.split_once('x').unwrap();
            Fixture {
                name: name.into(),
                content_type: content_type.into(),
                width: width.parse().unwrap(),
                height: height.parse().unwrap(),
                bytes: fs::read(folder.join(name)).unwrap(),
            }
        })
        .collect();
    assert!(fixtures.len() > 30);
    fixtures
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// The verdict on a whole file, fetched as a caller would.
fn verdict(file: &[u8]) -> Result<Content, Refusal> {
    let mut head = file.len().min(FIRST_HEAD);
    for _ in 0..3 {
        match inspect(&file[..head], file.len() as u64, MAX_PIXELS) {
            Inspection::Proved(content) => return Ok(content),
            Inspection::Refused(refusal) => return Err(refusal),
            Inspection::NeedMore { bytes } => {
                assert!(bytes > head && bytes <= MAX_HEAD && bytes <= file.len(), "{head} to {bytes}");
                head = bytes;
            }
        }
    }
    panic!("more than three requests");
}

fn size(file: &[u8]) -> Result<(u32, u32), Refusal> {
    verdict(file).map(|content| (content.width, content.height))
}

#[test]
fn every_fixture_is_proved_with_its_type_and_displayed_size() {
    for Fixture { name, content_type, width, height, bytes } in fixtures() {
        let content = verdict(&bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((content.width, content.height), (width, height), "{name}");
        assert!(content.format.matches(&content_type), "{name}: {:?}", content.format);
    }
}

#[test]
fn a_format_matches_its_own_types_only() {
    let types = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/heic", "image/heif"];
    let all = [Format::Jpeg, Format::Png, Format::Webp, Format::Gif, Format::Avif, Format::Heif];
    for (at, format) in all.into_iter().enumerate() {
        for (other, content_type) in types.into_iter().enumerate() {
            assert_eq!(format.matches(content_type), at == other.min(5), "{format:?} {content_type}");
        }
        assert!(!format.matches("image/svg+xml") && !format.matches("text/html") && !format.matches(""));
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused_or_right() {
    for Fixture { name, width, height, bytes, .. } in fixtures() {
        let mut proved = None;
        // Each byte near the ends, where the headers are; strides through the filler of deep.jpg.
        let lengths = (0..bytes.len()).filter(|at| *at < 8192 || bytes.len() - at < 2048 || at % 97 == 0);
        for length in lengths {
            match size(&bytes[..length]) {
                Ok(size) => {
                    assert_eq!(size, (width, height), "{name} cut at {length}");
                    proved.get_or_insert(length);
                }
                Err(Refusal::Truncated) => assert_eq!(proved, None, "{name} cut at {length}"),
                // Too short for its magic bytes.
                Err(Refusal::UnknownType) => assert!(length < 12, "{name} cut at {length}"),
                Err(other) => panic!("{name} cut at {length}: {other}"),
            }
        }
    }
}

#[test]
fn the_answer_does_not_depend_on_how_the_head_grew() {
    for Fixture { name, bytes, .. } in fixtures() {
        let total = bytes.len() as u64;
        let whole = inspect(&bytes, total, MAX_PIXELS);
        for head in (0..bytes.len()).filter(|at| *at < 4096 || at % 97 == 0) {
            match inspect(&bytes[..head], total, MAX_PIXELS) {
                Inspection::NeedMore { bytes: wanted } => {
                    assert!(wanted > head && wanted as u64 <= total, "{name} {head}");
                }
                early => assert_eq!(early, whole, "{name} {head}"),
            }
        }
    }
}

#[test]
fn deep_headers_are_fetched_up_to_the_limit() {
    let deep = fixture("deep.jpg");
    assert!(deep.len() > FIRST_HEAD);
    assert!(matches!(inspect(&deep[..FIRST_HEAD], deep.len() as u64, MAX_PIXELS), Inspection::NeedMore { .. }));

    let plain = fixture("orientation-6.jpg");
    let filled = |segments: usize| {
        let mut file = plain[..2].to_vec();
        for _ in 0..segments {
            file.extend([0xFF, 0xE2, 0xFF, 0xFF]);
            file.resize(file.len() + 0xFFFD, 7);
        }
        file.extend(&plain[2..]);
        file
    };
    assert_eq!(size(&filled(15)), Ok((80, 120)));
    assert_eq!(size(&filled(17)), Err(Refusal::TooDeep));

    // A PNG's size stands first: metadata of any length does not hide it.
    let png = fixture("orientation-6.png");
    let mut file = png[..33].to_vec();
    file.extend((2_u32 << 20).to_be_bytes());
    file.extend(b"iTXt");
    file.resize(file.len() + (2 << 20) + 4, b' ');
    file.extend(&png[33..]);
    assert_eq!(size(&file), Ok((90, 50)));
}

#[test]
fn what_follows_the_image_is_not_looked_at() {
    for Fixture { name, width, height, mut bytes, .. } in fixtures() {
        bytes.extend(b"PK\x05\x06<script>alert(1)</script>");
        bytes.resize(bytes.len() + 4096, 0xFF);
        assert_eq!(size(&bytes), Ok((width, height)), "{name}");
    }
}

#[test]
fn other_files_are_unknown() {
    let html = b"<!DOCTYPE html><script>alert(1)</script>".as_slice();
    for file in [
        b"".as_slice(),
        b"\xFF",
        b"\xFF\xD8",
        b"<",
        html,
        b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"/>",
        b"\xEF\xBB\xBF<?xml version=\"1.0\"?><svg/>",
        b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n",
        b"PK\x03\x04\x14\0\0\0\x08\0\0\0",
        b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0",
        b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        b"GIF88a\x01\0\x01\0\0\0\0",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\0\0\0\x08moov",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\0\x08moov",
        b"\0\0\0\x0CJXL \r\n\x87\n",
    ] {
        assert_eq!(verdict(file), Err(Refusal::UnknownType), "{}", file.escape_ascii());
    }
    // A page behind an image's first bytes is still no image.
    for magic in ["\u{89}PNG\r\n\u{1A}\n", "GIF89a", "RIFF\0\0\0\0WEBP"] {
        let mut file: Vec<u8> = magic.chars().map(|c| c as u8).collect();
        file.extend(html);
        assert!(verdict(&file).is_err(), "{magic:?}");
    }
    let mut jpeg = b"\xFF\xD8\xFF\xE0".to_vec();
    jpeg.extend(html);
    assert_eq!(verdict(&jpeg), Err(Refusal::Truncated));
}

#[test]
fn bombs_and_empty_images_are_refused() {
    let png = |width: u32, height: u32| {
        let mut file = fixture("plain.png");
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        file
    };
    assert_eq!(size(&png(16_384, 16_384)), Ok((16_384, 16_384)));
    assert_eq!(size(&png(16_385, 16_384)), Err(Refusal::TooManyPixels));
    assert_eq!(size(&png(60_000, 60_000)), Err(Refusal::TooManyPixels));
    assert_eq!(size(&png(65_535, 1)), Ok((65_535, 1)));
    assert_eq!(size(&png(65_536, 1)), Err(Refusal::TooManyPixels));
    assert_eq!(size(&png(u32::MAX, u32::MAX)), Err(Refusal::TooManyPixels));
    assert_eq!(size(&png(0, 1)), Err(Refusal::EmptyDimensions));
    assert_eq!(size(&png(1, 0)), Err(Refusal::EmptyDimensions));
    let file = png(100, 100);
    assert!(matches!(inspect(&file, file.len() as u64, 10_000), Inspection::Proved(_)));
    assert_eq!(inspect(&file, file.len() as u64, 9_999), Inspection::Refused(Refusal::TooManyPixels));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(head: Vec<u8>, total: u64, max_pixels: u64) {
        let _ = inspect(&head, total, max_pixels);
    }

    #[test]
    fn no_bytes_behind_magic_panic(magic in 0_usize..9, tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let magics: [&[u8]; 9] = [
            b"\xFF\xD8\xFF",
            b"\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR\0\0\0\x09\0\0\0\x09\x08\x02\0\0\0\0\0\0\0",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"RIFF\0\0\0\0WEBPVP8L",
            b"RIFF\0\0\0\0WEBPVP8X",
            b"\0\0\0\x10ftypheic\0\0\0\0",
            b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\0meta\0\0\0\0",
            b"\0\0\0\x10ftypmif1\0\0\0\0\0\0\0\0meta\0\0\0\0\0\0\0\x0Epitm\0\0\0\0\0\x01\0\0\0\0iprp",
        ];
        let file = [magics[magic], &tail].concat();
        if let Ok(content) = verdict(&file) {
            prop_assert!(content.width > 0 && content.height > 0);
            prop_assert!(u64::from(content.width) * u64::from(content.height) <= MAX_PIXELS);
        }
    }

    #[test]
    fn no_flipped_bits_panic(which: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let fixtures = fixtures();
        let mut file = which.get(&fixtures).bytes.clone();
        for (at, bit) in flips {
            let at = at.index(file.len().min(2500));
            file[at] ^= 1 << bit;
        }
        if let Ok(content) = verdict(&file) {
            prop_assert!(content.width > 0 && content.height > 0);
            prop_assert!(u64::from(content.width) * u64::from(content.height) <= MAX_PIXELS);
        }
    }
}
