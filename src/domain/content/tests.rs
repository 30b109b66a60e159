//! Compares the verdict on each fixture with the size that Pillow and libheif give it (`tests/fixtures/README.md`), for the whole
//! file and for parts of it. `structures` has files of every structure that the formats allow, `formats` broken headers, `build`
//! makes such files, and `differential` writes them for other decoders.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub(super) mod build;
mod differential;
mod formats;
mod structures;

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{Content, ContentError, ContentInspector, Format, MAX_PIXELS, ReadBudget};
use crate::model::ContentType;

/// A row of the fixtures' table, with the file.
struct Fixture {
    name: String,
    content_type: String,
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

/// Returns the fixtures.
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

/// Reads a file of the tests' fixtures.
pub(super) fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// A verdict, with the number of ranges and bytes that were fetched for it.
struct Inspected {
    verdict: Result<Content, ContentError>,
    ranges: u32,
    bytes: u64,
}

/// Inspects a file like a caller, and checks that the ranges are within the file and the budget.
fn inspected(file: &[u8], max_pixels: u64, budget: ReadBudget) -> Inspected {
    let total = file.len() as u64;
    let mut inspection = ContentInspector::with_budget(total, max_pixels, budget);
    let (mut ranges, mut bytes, mut fetched_to) = (0, 0, 0);
    loop {
        let wanted = inspection.wanted();
        assert!(wanted.start >= fetched_to && wanted.end <= total, "{wanted:?} of {total} after {fetched_to}");
        assert!(wanted.start < wanted.end || total == 0, "an empty range");
        ranges += 1;
        bytes += wanted.end - wanted.start;
        fetched_to = wanted.end;
        assert!(ranges <= budget.ranges && bytes <= budget.bytes, "{ranges} ranges, {bytes} bytes");
        let offset = |at: u64| usize::try_from(at).unwrap();
        if let Some(verdict) = inspection.supply(&file[offset(wanted.start)..offset(wanted.end)]) {
            return Inspected { verdict, ranges, bytes };
        }
    }
}

/// Inspects a whole file.
fn verdict(file: &[u8]) -> Result<Content, ContentError> {
    inspected(file, MAX_PIXELS, ReadBudget::DEFAULT).verdict
}

/// Inspects a whole file; returns width and height.
fn size(file: &[u8]) -> Result<(u32, u32), ContentError> {
    verdict(file).map(|content| (content.width, content.height))
}

#[test]
fn every_fixture_is_accepted_with_its_type_and_displayed_size() {
    for Fixture { name, content_type, width, height, bytes } in fixtures() {
        let content = verdict(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((content.width, content.height), (width, height), "{name}");
        assert_eq!(Some(content.format), ContentType::parse(&content_type).map(Format::declared_as), "{name}");
    }
}

#[test]
fn every_structure_has_its_verdict() {
    let mut wrong = Vec::new();
    for structure in structures::all() {
        let found = verdict(&structure.bytes);
        let expected = Format::declared_as(ContentType::parse(structure.content_type).unwrap());
        if found.map(|content| (content.width, content.height)) != structure.verdict
            || found.is_ok_and(|content| content.format != expected)
        {
            wrong.push(format!("{} {}: {found:?}, not {:?}", structure.content_type, structure.name, structure.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ordinary_files_take_one_range_and_deep_headers_two() {
    for Fixture { name, bytes, .. } in fixtures() {
        let expected = if name == "deep.jpg" { 2 } else { 1 };
        assert_eq!(inspected(&bytes, MAX_PIXELS, ReadBudget::DEFAULT).ranges, expected, "{name}");
    }
    // A photograph of 3 MiB, and one of a phone that writes the index behind the pixels.
    let pixels = vec![7; 3 << 20];
    let photograph = [build::jpeg(&[&build::exif(&build::orientation(build::TURNED))]), pixels].concat();
    let Inspected { ranges, bytes, .. } = inspected(&photograph, MAX_PIXELS, ReadBudget::DEFAULT);
    assert_eq!((ranges, bytes), (1, 64 << 10));
    let behind = build::Heif { data_first: true, filler: 3 << 20, ..build::Heif::heic() }.build();
    let Inspected { ranges, bytes, .. } = inspected(&behind, MAX_PIXELS, ReadBudget::DEFAULT);
    assert_eq!(ranges, 2);
    assert!(bytes < 2 * (64 << 10));
}

#[test]
fn a_file_cut_short_anywhere_is_rejected_or_has_the_right_size() {
    for Fixture { name, width, height, bytes, .. } in fixtures() {
        let mut accepted_from = None;
        // Each byte near the ends, where the headers are; strides through the filler of deep.jpg.
        let lengths = (0..bytes.len()).filter(|at| *at < 8192 || bytes.len() - at < 2048 || at % 97 == 0);
        for length in lengths {
            match size(&bytes[..length]) {
                Ok(size) => {
                    assert_eq!(size, (width, height), "{name} cut at {length}");
                    accepted_from.get_or_insert(length);
                }
                // A file that ends between two boxes is not truncated, but lacks the picture.
                Err(ContentError::Truncated | ContentError::NoPicture) => {
                    assert_eq!(accepted_from, None, "{name} cut at {length}");
                }
                // Too short for its magic bytes.
                Err(ContentError::UnknownType) => assert!(length < 12, "{name} cut at {length}"),
                Err(other) => panic!("{name} cut at {length}: {other}"),
            }
        }
    }
}

#[test]
fn the_verdict_does_not_depend_on_where_the_ranges_lie() {
    let files = fixtures().into_iter().map(|fixture| (fixture.name, fixture.bytes));
    let structures = structures::all().into_iter().map(|structure| (structure.name.to_owned(), structure.bytes));
    for (name, bytes) in files.chain(structures).filter(|(_, bytes)| bytes.len() < 200_000) {
        let whole = inspected(&bytes, MAX_PIXELS, ReadBudget { first: u64::MAX, ..ReadBudget::DEFAULT });
        assert_eq!(whole.ranges, 1);
        for first in [12, 13, 64, 1000] {
            // A budget of so many ranges makes each range as short as possible.
            let budget = ReadBudget { first, ranges: u32::MAX, bytes: u64::MAX };
            assert_eq!(inspected(&bytes, MAX_PIXELS, budget).verdict, whole.verdict, "{name} from {first}");
        }
    }
}

#[test]
fn bytes_after_the_image_do_not_change_the_verdict() {
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
        assert_eq!(verdict(file), Err(ContentError::UnknownType), "{}", file.escape_ascii());
    }
    // A page behind the first bytes of an image is not an image either.
    for magic in ["\u{89}PNG\r\n\u{1A}\n", "GIF89a", "RIFF\0\0\0\0WEBP"] {
        let mut file: Vec<u8> = magic.chars().map(|c| c as u8).collect();
        file.extend(html);
        assert!(verdict(&file).is_err(), "{magic:?}");
    }
    let mut jpeg = b"\xFF\xD8\xFF\xE0".to_vec();
    jpeg.extend(html);
    assert_eq!(verdict(&jpeg), Err(ContentError::Truncated));
}

#[test]
fn bombs_and_empty_images_are_rejected() {
    let png = |width: u32, height: u32| build::png_of(&build::ihdr(width, height, 8, 2), &[&build::png_rest()]);
    assert_eq!(size(&png(16_384, 16_384)), Ok((16_384, 16_384)));
    assert_eq!(size(&png(16_385, 16_384)), Err(ContentError::TooManyPixels));
    assert_eq!(size(&png(60_000, 60_000)), Err(ContentError::TooManyPixels));
    assert_eq!(size(&png(65_535, 1)), Ok((65_535, 1)));
    assert_eq!(size(&png(65_536, 1)), Err(ContentError::TooManyPixels));
    assert_eq!(size(&png(u32::MAX, u32::MAX)), Err(ContentError::TooManyPixels));
    assert_eq!(size(&png(0, 1)), Err(ContentError::EmptyDimensions));
    assert_eq!(size(&png(1, 0)), Err(ContentError::EmptyDimensions));
    let file = png(100, 100);
    assert!(inspected(&file, 10_000, ReadBudget::DEFAULT).verdict.is_ok());
    assert_eq!(inspected(&file, 9_999, ReadBudget::DEFAULT).verdict, Err(ContentError::TooManyPixels));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(pieces: Vec<Vec<u8>>, total: u64, max_pixels: u64) {
        let mut inspection = ContentInspector::new(total, max_pixels);
        for piece in pieces {
            if inspection.supply(&piece).is_some() {
                break;
            }
        }
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
    fn no_flipped_bits_panic(fixture: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let fixtures = fixtures();
        let mut file = fixture.get(&fixtures).bytes.clone();
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
