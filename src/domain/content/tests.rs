//! Every fixture against the size that Pillow and libheif give it (`tests/fixtures/README.md`), whole, cut short,
//! fetched in steps and damaged; and what must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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
            let [name, _, content_type, size] = row
                .trim_matches(['|', ' '])
                .split(" | ")
                .collect::<Vec<_>>()[..]
            else {
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
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name),
    )
    .unwrap()
}

/// The verdict on a whole file, fetched as a caller would.
fn verdict(file: &[u8]) -> Result<Content, Refusal> {
    let mut head = file.len().min(FIRST_HEAD);
    for _ in 0..3 {
        match inspect(&file[..head], file.len() as u64, MAX_PIXELS) {
            Inspection::Proved(content) => return Ok(content),
            Inspection::Refused(refusal) => return Err(refusal),
            Inspection::NeedMore { bytes } => {
                assert!(
                    bytes > head && bytes <= MAX_HEAD && bytes <= file.len(),
                    "{head} to {bytes}"
                );
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
    for Fixture {
        name,
        content_type,
        width,
        height,
        bytes,
    } in fixtures()
    {
        let content = verdict(&bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((content.width, content.height), (width, height), "{name}");
        assert!(
            content.format.matches(&content_type),
            "{name}: {:?}",
            content.format
        );
    }
}

#[test]
fn a_format_matches_its_own_types_only() {
    let types = [
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/gif",
        "image/avif",
        "image/heic",
        "image/heif",
    ];
    let all = [
        Format::Jpeg,
        Format::Png,
        Format::Webp,
        Format::Gif,
        Format::Avif,
        Format::Heif,
    ];
    for (at, format) in all.into_iter().enumerate() {
        for (other, content_type) in types.into_iter().enumerate() {
            assert_eq!(
                format.matches(content_type),
                at == other.min(5),
                "{format:?} {content_type}"
            );
        }
        assert!(
            !format.matches("image/svg+xml") && !format.matches("text/html") && !format.matches("")
        );
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused_or_right() {
    for Fixture {
        name,
        width,
        height,
        bytes,
        ..
    } in fixtures()
    {
        let mut proved = None;
        // Each byte near the ends, where the headers are; strides through the filler of deep.jpg.
        let lengths =
            (0..bytes.len()).filter(|at| *at < 8192 || bytes.len() - at < 2048 || at % 97 == 0);
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
                    assert!(wanted > head && wanted as u64 <= total, "{name} {head}")
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
    assert!(matches!(
        inspect(&deep[..FIRST_HEAD], deep.len() as u64, MAX_PIXELS),
        Inspection::NeedMore { .. }
    ));

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
    for Fixture {
        name,
        width,
        height,
        mut bytes,
        ..
    } in fixtures()
    {
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
        assert_eq!(
            verdict(file),
            Err(Refusal::UnknownType),
            "{}",
            file.escape_ascii()
        );
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
    assert!(matches!(
        inspect(&file, file.len() as u64, 10_000),
        Inspection::Proved(_)
    ));
    assert_eq!(
        inspect(&file, file.len() as u64, 9_999),
        Inspection::Refused(Refusal::TooManyPixels)
    );
}

/// The file with the bytes at the only place where `old` stands replaced.
fn patched(file: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let places: Vec<_> = file
        .windows(old.len())
        .enumerate()
        .filter(|(_, window)| *window == old)
        .collect();
    let [(at, _)] = places[..] else {
        panic!("{} places", places.len())
    };
    [&file[..at], new, &file[at + old.len()..]].concat()
}

#[test]
fn jpeg_follows_decoders() {
    let plain = fixture("plain.jpg");
    let after_soi = |insert: &[u8]| [&plain[..2], insert, &plain[2..]].concat();
    // Fill bytes, a restart marker and stray bytes between segments.
    assert_eq!(size(&after_soi(b"\xFF\xFF\xFF")), Ok((120, 80)));
    assert_eq!(size(&after_soi(b"\xFF\xD0")), Ok((120, 80)));
    assert_eq!(
        size(&after_soi(b"\xFF\xFE\0\x02stray\xFF\0")),
        Ok((120, 80))
    );
    // A segment shorter than its own length, a second start, an end before any scan.
    assert_eq!(size(&after_soi(b"\xFF\xE2\0\x01")), Err(Refusal::Malformed));
    assert_eq!(size(&after_soi(b"\xFF\xD8")), Err(Refusal::Malformed));
    assert_eq!(size(&after_soi(b"\xFF\xD9")), Err(Refusal::Malformed));
    // Two frames, none, one whose length contradicts its components, one without lines.
    let frame = b"\xFF\xC0\0\x0B\x08\0\x10\0\x20\x01\x01\x11\0";
    assert_eq!(size(&after_soi(frame)), Err(Refusal::Malformed));
    assert_eq!(
        size(b"\xFF\xD8\xFF\xDA\0\x08\x01\x01\0\0\x3F\0"),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        size(&[b"\xFF\xD8", &frame[..9], b"\x02\x01\x11\0\xFF\xDA"].concat()),
        Err(Refusal::Malformed)
    );
    let scan = |frame: &[u8]| size(&[b"\xFF\xD8", frame, b"\xFF\xDA"].concat());
    assert_eq!(scan(frame), Ok((32, 16)));
    assert_eq!(
        scan(&patched(frame, b"\0\x10", b"\0\0")),
        Err(Refusal::EmptyDimensions)
    );
    // A thumbnail inside EXIF does not pass for the frame.
    let thumbnail = [b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0".as_slice(), &plain].concat();
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let mut outer = b"\xFF\xD8\xFF\xE1".to_vec();
    outer.extend(length);
    outer.extend(thumbnail);
    outer.extend(frame);
    outer.extend(b"\xFF\xDA");
    assert_eq!(size(&outer), Ok((32, 16)));
}

#[test]
fn exif_orientation_is_read_as_browsers_read_it() {
    let turned = |entries: &[[u8; 12]]| {
        let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
        tiff.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
        tiff.extend(entries.as_flattened());
        super::exif::quarter_turn(&tiff)
    };
    let entry = |tag: u16, kind: u8, count: u8, value: u8| {
        let [high, low] = tag.to_be_bytes();
        [high, low, 0, kind, 0, 0, 0, count, 0, value, 0, 0]
    };
    for value in 0..=9 {
        assert_eq!(
            turned(&[entry(0x0112, 3, 1, value)]),
            Some((5..=8).contains(&value)),
            "{value}"
        );
    }
    assert_eq!(
        turned(&[entry(0x010F, 2, 2, 65), entry(0x0112, 3, 1, 6)]),
        Some(true)
    );
    assert_eq!(turned(&[entry(0x0112, 4, 1, 6)]), None, "a LONG");
    assert_eq!(turned(&[entry(0x0112, 3, 2, 6)]), None, "two of them");
    assert_eq!(turned(&[]), None);
    assert_eq!(super::exif::quarter_turn(b"MM\0*\xFF\xFF\xFF\xFF"), None);
    assert_eq!(super::exif::quarter_turn(b"MM\0*\0\0\0\x08\xFF\xFF"), None);
    // A broken block leaves the image as it is stored.
    assert_eq!(
        size(&patched(
            &fixture("orientation-6.jpg"),
            b"Exif\0\0MM",
            b"Exif\0\0XX"
        )),
        Ok((120, 80))
    );
}

#[test]
fn png_needs_a_sound_header_and_image_data() {
    let plain = fixture("plain.png");
    let with = |at: usize, byte: u8| {
        let mut file = plain.clone();
        file[at] = byte;
        size(&file)
    };
    assert_eq!(with(11, 14), Err(Refusal::Malformed), "length of IHDR");
    assert_eq!(with(12, b'J'), Err(Refusal::Malformed), "its name");
    assert_eq!(with(24, 3), Err(Refusal::Malformed), "depth");
    assert_eq!(with(24, 16), Ok((90, 50)));
    assert_eq!(with(25, 5), Err(Refusal::Malformed), "colour type");
    assert_eq!(with(26, 1), Err(Refusal::Malformed), "compression");
    assert_eq!(with(27, 1), Err(Refusal::Malformed), "filter");
    assert_eq!(with(28, 2), Err(Refusal::Malformed), "interlace");
    assert_eq!(
        size(&patched(&plain, b"IDAT", b"IEND")),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        size(&patched(&plain, b"IDAT", b"ID\0T")),
        Err(Refusal::Malformed)
    );
    // Browsers ignore an eXIf behind the pixels.
    let file = fixture("orientation-6.png");
    let chunk = file
        .windows(4)
        .position(|window| window == b"eXIf")
        .unwrap()
        - 4;
    let length = 12 + usize::from(file[chunk + 3]);
    let end = file.len() - 12;
    let late = [
        &file[..chunk],
        &file[chunk + length..end],
        &file[chunk..chunk + length],
        &file[end..],
    ]
    .concat();
    assert_eq!(late.len(), file.len());
    assert_eq!((size(&file), size(&late)), (Ok((50, 90)), Ok((90, 50))));
}

#[test]
fn gif_needs_a_frame_and_holds_it() {
    let gif = |screen: [u8; 4], blocks: &[u8]| {
        size(&[b"GIF87a", screen.as_slice(), b"\0\0\0", blocks].concat())
    };
    let frame = b"\x2C\x02\0\x01\0\x05\0\x03\0";
    assert_eq!(gif([10, 0, 10, 0], frame), Ok((10, 10)));
    assert_eq!(gif([4, 0, 10, 0], frame), Ok((7, 10)));
    assert_eq!(gif([0; 4], frame), Ok((7, 4)));
    assert_eq!(
        gif(
            [10, 0, 10, 0],
            &[b"\x21\xFE\x02hi\x01!\0".as_slice(), frame].concat()
        ),
        Ok((10, 10))
    );
    assert_eq!(gif([10, 0, 10, 0], b"\x3B"), Err(Refusal::Malformed));
    assert_eq!(
        gif([10, 0, 10, 0], b"\x21\xFE\x05hi"),
        Err(Refusal::Truncated)
    );
    assert_eq!(
        gif([0; 4], b"\x2C\0\0\0\0\0\0\0\0"),
        Err(Refusal::EmptyDimensions)
    );
}

#[test]
fn webp_headers_are_checked() {
    let lossy = fixture("lossy.webp");
    // The two bits above 14 ask for upscaling, which decoders leave out.
    let scaled = patched(
        &lossy,
        b"\x9D\x01\x2A\x4B\0\x2D\0",
        b"\x9D\x01\x2A\x4B\xC0\x2D\x40",
    );
    assert_eq!(size(&scaled), Ok((75, 45)));
    assert_eq!(
        size(&patched(&lossy, b"\x9D\x01\x2A", b"\x9D\x01\x2B")),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        size(&patched(&lossy, b"VP8 ", b"VP9 ")),
        Err(Refusal::Malformed)
    );
    let mut inter = lossy.clone();
    inter[20] |= 1;
    assert_eq!(size(&inter), Err(Refusal::Malformed));
    let mut lossless = fixture("lossless.webp");
    lossless[20] = 0x2E;
    assert_eq!(size(&lossless), Err(Refusal::Malformed));
    lossless[20] = 0x2F;
    lossless[24] |= 0x20;
    assert_eq!(size(&lossless), Err(Refusal::Malformed));
    let mut longer = lossy.clone();
    longer[4] += 2;
    assert_eq!(size(&longer), Err(Refusal::Truncated));
}

#[test]
fn heif_is_the_primary_item_of_the_claimed_kind() {
    let plain = fixture("plain.heic");
    let avif = fixture("plain.avif");
    // Brands: the format, but not without its codec.
    let renamed = [
        b"\0\0\0\x10ftypavif\0\0\0\0".as_slice(),
        &plain[usize::from(plain[3])..],
    ]
    .concat();
    assert_eq!(verdict(&renamed), Err(Refusal::Malformed));
    let renamed = [
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif".as_slice(),
        &avif[usize::from(avif[3])..],
    ]
    .concat();
    assert_eq!(verdict(&renamed).unwrap().format, Format::Avif);
    let both = [
        b"\0\0\0\x18ftypmif1\0\0\0\0heicavif".as_slice(),
        &avif[usize::from(avif[3])..],
    ]
    .concat();
    assert_eq!(verdict(&both).unwrap().format, Format::Heif);
    let generic = [
        b"\0\0\0\x10ftypmsf1\0\0\0\0".as_slice(),
        &plain[usize::from(plain[3])..],
    ]
    .concat();
    assert_eq!(verdict(&generic).unwrap().format, Format::Heif);
    let video = [
        b"\0\0\0\x18ftypisom\0\0\0\0isommp41".as_slice(),
        &plain[usize::from(plain[3])..],
    ]
    .concat();
    assert_eq!(verdict(&video), Err(Refusal::UnknownType));
    // No items: a video that claims to be an image.
    assert_eq!(
        verdict(b"\0\0\0\x14ftypheic\0\0\0\0heic\0\0\0\x08moov"),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        verdict(b"\0\0\0\x14ftypheic\0\0\0\0heic\0\0\0\x09moov"),
        Err(Refusal::Truncated)
    );
    assert_eq!(
        size(&patched(&plain, b"pict", b"mdta")),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        size(&patched(&plain, b"pitm", b"free")),
        Err(Refusal::Malformed)
    );
    assert_eq!(
        size(&patched(&plain, b"ispe", b"free")),
        Err(Refusal::Malformed)
    );
    // Box sizes: 64 bits are legal, less than the header is not.
    let start = usize::from(plain[3]);
    let with_box = |bytes: &[u8]| size(&[&plain[..start], bytes, &plain[start..]].concat());
    assert_eq!(with_box(b"\0\0\0\x01free\0\0\0\0\0\0\0\x10"), Ok((120, 80)));
    assert_eq!(
        with_box(b"\0\0\0\x01free\0\0\0\0\0\0\0\x0F"),
        Err(Refusal::Malformed)
    );
    assert_eq!(with_box(b"\0\0\0\x07free"), Err(Refusal::Malformed));
    assert_eq!(with_box(b"\0\0\0\0free"), Err(Refusal::Malformed));
    assert_eq!(
        with_box(b"\0\0\0\x01free\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
        Err(Refusal::Truncated)
    );
    // Items behind more data than is ever fetched.
    let data = 2_u32 << 20;
    let mut far = [&plain[..start], &(data + 8).to_be_bytes(), b"mdat"].concat();
    far.resize(far.len() + data as usize, 0);
    far.extend(&plain[start..]);
    assert_eq!(size(&far), Err(Refusal::TooDeep));
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
