//! Tests with metadata as cameras and editors write it, in every format, and with damaged metadata.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{super::tests::build, FetchedRanges, date_time::parse_date_time, exif::Exif, read_capture, xmp::Xmp};
use crate::model::{Capture, Format};

// Tags of TIFF and Exif.
const MAKE: u16 = 0x010F;
const MODEL: u16 = 0x0110;
const MODIFIED: u16 = 0x0132;
const ORIGINAL: u16 = 0x9003;
const DIGITIZED: u16 = 0x9004;
const OFFSET_MODIFIED: u16 = 0x9010;
const OFFSET_ORIGINAL: u16 = 0x9011;
const OFFSET_DIGITIZED: u16 = 0x9012;
const SUBSECOND_ORIGINAL: u16 = 0x9291;
const EXIF_DIRECTORY: u16 = 0x8769;
const GPS_DIRECTORY: u16 = 0x8825;

/// A value of a tag, written in big-endian order.
enum Value<'a> {
    Text(&'a str),
    Rationals(&'a [[u32; 2]]),
    Directory(&'a [(u16, Value<'a>)]),
}
use Value::{Directory, Rationals, Text};

/// Returns a TIFF file with this main directory.
fn tiff(entries: &[(u16, Value<'_>)]) -> Vec<u8> {
    let mut file = b"MM\0*\0\0\0\x08".to_vec();
    append_directory(&mut file, entries);
    file
}

/// Appends a directory of TIFF with these entries.
fn append_directory(file: &mut Vec<u8>, entries: &[(u16, Value<'_>)]) {
    let start = file.len();
    file.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
    file.resize(start + 2 + 12 * entries.len() + 4, 0);
    for (index, (tag, value)) in entries.iter().enumerate() {
        let end = u32::try_from(file.len()).unwrap();
        let (kind, count, field) = match value {
            Text(text) => {
                let bytes = [text.as_bytes(), b"\0"].concat();
                let count = bytes.len();
                if count <= 4 {
                    let mut field = [0; 4];
                    field[..count].copy_from_slice(&bytes);
                    (2_u16, count, field)
                } else {
                    file.extend(bytes);
                    (2, count, end.to_be_bytes())
                }
            }
            Rationals(fractions) => {
                file.extend(fractions.as_flattened().iter().flat_map(|n| n.to_be_bytes()));
                (5, fractions.len(), end.to_be_bytes())
            }
            Directory(entries) => {
                append_directory(file, entries);
                (4, 1, end.to_be_bytes())
            }
        };
        let entry = [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &u32::try_from(count).unwrap().to_be_bytes(), &field].concat();
        file[start + 2 + 12 * index..][..12].copy_from_slice(&entry);
    }
}

/// Returns the time that is read from a block with these texts in its Exif directory.
fn taken(tags: &[(u16, &str)]) -> Option<String> {
    let entries: Vec<_> = tags.iter().map(|(tag, text)| (*tag, Text(text))).collect();
    Exif::read(&tiff(&[(EXIF_DIRECTORY, Directory(&entries))]))?.taken_at.map(|taken_at| taken_at.to_string())
}

/// A case, its tags and the expected time.
type TimeCase<'a> = (&'a str, &'a [(u16, &'a str)], Option<&'a str>);

/// Cases that users of other galleries reported, most of them because the gallery guessed a zone.
const TIMES: &[TimeCase<'_>] = &[
    ("a phone that records no offset", &[(ORIGINAL, "2022:10:02 16:18:17")], Some("2022-10-02T16:18:17")),
    (
        "a camera without offsets",
        &[(ORIGINAL, "2023:12:30 23:04:21"), (DIGITIZED, "2023:12:30 23:04:21")],
        Some("2023-12-30T23:04:21"),
    ),
    (
        "a phone with all offsets",
        &[
            (ORIGINAL, "2024:01:23 06:39:15"),
            (OFFSET_MODIFIED, "+08:00"),
            (OFFSET_ORIGINAL, "+08:00"),
            (OFFSET_DIGITIZED, "+08:00"),
        ],
        Some("2024-01-23T06:39:15+08:00"),
    ),
    (
        "edited in winter, taken in summer",
        &[
            (ORIGINAL, "2024:07:01 12:00:00"),
            (OFFSET_MODIFIED, "+01:00"),
            (OFFSET_ORIGINAL, "+02:00"),
            (OFFSET_DIGITIZED, "+02:00"),
        ],
        Some("2024-07-01T12:00:00+02:00"),
    ),
    (
        "the offset of the edit alone",
        &[(MODIFIED, "2026:06:01 10:00:00"), (ORIGINAL, "2026:05:30 02:13:00"), (OFFSET_MODIFIED, "+02:00")],
        Some("2026-05-30T02:13:00"),
    ),
    (
        "only the offset of the other date",
        &[(ORIGINAL, "2024:12:21 23:39:24"), (DIGITIZED, "2024:12:21 23:39:24"), (OFFSET_DIGITIZED, "+01:00")],
        Some("2024-12-21T23:39:24"),
    ),
    ("half an hour west", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "-05:30")], Some("2024-12-21T23:39:24-05:30")),
    (
        "a quarter of an hour",
        &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "+12:45")],
        Some("2024-12-21T23:39:24+12:45"),
    ),
    ("the date line", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "+14:00")], Some("2024-12-21T23:39:24+14:00")),
    ("an impossible offset", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "+15:00")], Some("2024-12-21T23:39:24")),
    ("an unknown offset", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "   :  ")], Some("2024-12-21T23:39:24")),
    ("an offset that means none", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "-00:00")], Some("2024-12-21T23:39:24")),
    ("an offset of none within the date", &[(ORIGINAL, "2025:01:14 18:31:30-0000")], Some("2025-01-14T18:31:30")),
    ("UTC", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "Z")], Some("2024-12-21T23:39:24Z")),
    ("Greenwich", &[(ORIGINAL, "2024:12:21 23:39:24"), (OFFSET_ORIGINAL, "+00:00")], Some("2024-12-21T23:39:24Z")),
    ("an offset within the date", &[(ORIGINAL, "2025:01:14 18:31:30+0000")], Some("2025-01-14T18:31:30Z")),
    (
        "no original date",
        &[(DIGITIZED, "2003:04:05 06:07:08"), (OFFSET_DIGITIZED, "+02:00"), (OFFSET_ORIGINAL, "+05:00")],
        Some("2003-04-05T06:07:08+02:00"),
    ),
    (
        "an unset original date",
        &[(ORIGINAL, "0000:00:00 00:00:00"), (DIGITIZED, "2003:04:05 06:07:08")],
        Some("2003-04-05T06:07:08"),
    ),
    (
        "an unknown original date",
        &[(ORIGINAL, "    :  :     :  :  "), (DIGITIZED, "2003:04:05 06:07:08")],
        Some("2003-04-05T06:07:08"),
    ),
    ("the first hour as 24", &[(ORIGINAL, "2015:08:22 24:08:19")], Some("2015-08-22T00:08:19")),
    ("a leap second", &[(ORIGINAL, "2016:12:31 23:59:60")], Some("2016-12-31T23:59:59")),
    (
        "a second that no clock shows",
        &[(ORIGINAL, "2016:12:31 23:59:61"), (DIGITIZED, "2003:04:05 06:07:08")],
        Some("2003-04-05T06:07:08"),
    ),
    ("ISO 8601", &[(ORIGINAL, "2017-07-10T21:55:11.000+08:00")], Some("2017-07-10T21:55:11+08:00")),
    ("the 30th of February", &[(ORIGINAL, "2015:02:30 10:00:00")], None),
    ("a date before photography", &[(ORIGINAL, "0001:01:01 00:00:00")], None),
    ("the time of a change", &[(MODIFIED, "2024:12:21 23:39:24"), (OFFSET_MODIFIED, "+01:00")], None),
    ("a date alone", &[(ORIGINAL, "2015:02:03")], None),
    ("nothing", &[(ORIGINAL, "")], None),
];

#[test]
fn times_of_cameras_and_editors_are_what_their_clocks_showed() {
    for (case, tags, expected) in TIMES {
        assert_eq!(taken(tags).as_deref(), *expected, "{case}");
    }
}

#[test]
fn images_of_one_second_are_ordered_by_its_fraction() {
    let sort_time = |subsecond: &str| {
        let tags = [(ORIGINAL, Text("2024:12:21 23:39:24")), (SUBSECOND_ORIGINAL, Text(subsecond))];
        Exif::read(&tiff(&[(EXIF_DIRECTORY, Directory(&tags))])).unwrap().taken_at.unwrap().sort_time()
    };
    assert!(sort_time("9") > sort_time("67") && sort_time("67") > sort_time("0669") && sort_time("0669") > sort_time("none"));
}

#[test]
fn dates_are_also_found_in_the_main_directory() {
    let block = tiff(&[(MAKE, Text("NIKON CORPORATION")), (ORIGINAL, Text("2024:12:21 23:39:24"))]);
    let exif = Exif::read(&block).unwrap();
    assert_eq!(exif.taken_at.unwrap().to_string(), "2024-12-21T23:39:24");
    assert_eq!(exif.make.as_deref(), Some("NIKON CORPORATION"));
    // A text of four bytes with its NUL, which is in the entry itself.
    assert_eq!(Exif::read(&tiff(&[(MODEL, Text("E-1"))])).unwrap().model.as_deref(), Some("E-1"));
}

#[test]
fn positions_are_read_and_zeros_are_ignored() {
    let position = |latitude: [[u32; 2]; 3], latitude_ref: &str, longitude: [[u32; 2]; 3], longitude_ref: &str| {
        // The tags of latitude and longitude, each after the tag of its direction.
        let gps = [(1, Text(latitude_ref)), (2, Rationals(&latitude)), (3, Text(longitude_ref)), (4, Rationals(&longitude))];
        let location = Exif::read(&tiff(&[(GPS_DIRECTORY, Directory(&gps))])).unwrap().location?;
        Some((location.latitude(), location.longitude()))
    };
    let paris = [[48, 1], [51, 1], [30_1334, 10_000]];
    assert_eq!(position(paris, "N", [[2, 1], [17, 1], [40_1316, 10_000]], "E"), Some((48.858_370, 2.294_481)));
    assert_eq!(position([[33, 1], [5189, 100], [0, 0]], "S", [[151, 1], [0, 1], [0, 1]], "W"), Some((-33.864_833, -151.0)));
    let zero = [[0, 1]; 3];
    assert_eq!(position(zero, "N", zero, "E"), None, "no fix");
    assert_eq!(position([[91, 1], [0, 1], [0, 1]], "N", zero, "E"), None, "out of range");
    assert_eq!(position([[48, 0], [0, 1], [0, 1]], "N", zero, "E"), None, "no fraction");
    assert_eq!(position(paris, "X", zero, "E"), None, "no direction");
}

#[test]
fn properties_of_xmp_are_read_as_attributes_and_elements() {
    let taken = |rdf: &str| Xmp::read(rdf.as_bytes()).taken_at.map(|taken_at| taken_at.to_string());
    for (rdf, expected) in [
        (r#"<rdf:Description exif:DateTimeOriginal="2024-12-21T23:39:24.67+01:00"/>"#, Some("2024-12-21T23:39:24+01:00")),
        ("<exif:DateTimeOriginal>2024-12-21T23:39</exif:DateTimeOriginal>", Some("2024-12-21T23:39:00")),
        ("<a photoshop:DateCreated='2001-02-03T04:05:06Z' xmp:CreateDate='2002-02-03T04:05:06Z'/>", Some("2001-02-03T04:05:06Z")),
        ("<a xexif:DateTimeOriginal='2024-12-21T23:39:24' exif:DateTimeOriginalX='2024-12-21T23:39:24'/>", None),
        ("<a exif:DateTimeOriginal='2024-12-21'/>", None),
        ("<a exif:DateTimeOriginal='2024-12-21T23:39:24", None),
        ("exif:DateTimeOriginal", None),
    ] {
        assert_eq!(taken(rdf).as_deref(), expected, "{rdf}");
    }
    let xmp = Xmp::read(b"<a tiff:Make='Canon' tiff:Model='A&amp;B'/>");
    assert_eq!((xmp.make.as_deref(), xmp.model), (Some("Canon"), None));
}

/// Returns metadata as an iPhone writes it.
fn photograph() -> Vec<u8> {
    let exif = [(ORIGINAL, Text("2024:12:21 23:39:24")), (OFFSET_ORIGINAL, Text("+01:00"))];
    tiff(&[(MAKE, Text("Apple")), (MODEL, Text("iPhone 15 Pro")), (EXIF_DIRECTORY, Directory(&exif))])
}

/// XMP as an editor writes it.
const RDF: &[u8] = b"<a exif:DateTimeOriginal='2001-02-03T04:05:06' tiff:Make='Canon' tiff:Model='Canon EOS R5'/>";

/// Returns time and camera as texts, from the first 64 KiB of a file.
fn read(format: Format, file: &[u8]) -> [Option<String>; 2] {
    let mut fetched = FetchedRanges::default();
    fetched.keep(0, &file[..file.len().min(64 << 10)]);
    let Capture { taken_at, camera, .. } = read_capture(format, &fetched);
    [taken_at.map(|taken_at| taken_at.to_string()), camera.map(|camera| camera.to_string())]
}

/// Box of a HEIF with the bytes of an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemBox {
    Idat,
    Mdat,
}

/// Returns a HEIF with one item of this type, whose bytes are in this box.
fn heif(item_box: ItemBox, kind: &[u8], item: &[u8]) -> Vec<u8> {
    let is_in_meta = item_box == ItemBox::Idat;
    let number = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
    let build = |offset: usize| {
        let construction = [0, u8::from(is_in_meta)];
        let location = [&[0, 7][..], &construction, &[0, 0, 0, 1], &number(offset), &number(item.len())].concat();
        let children = [
            build::full(b"hdlr", 0, 0, &[&[0; 4], b"pict", &[0; 13]]),
            build::full(b"iinf", 0, 0, &[&[0, 1], &build::full(b"infe", 2, 0, &[&[0, 7, 0, 0], kind])]),
            build::full(b"iloc", 1, 0, &[&[0x44, 0, 0, 1], &location]),
            if is_in_meta { build::boxed(b"idat", &[item]) } else { Vec::new() },
        ];
        let meta = build::full(b"meta", 0, 0, &[&children.concat()]);
        let start = [build::ftyp(&[b"heic", b"mif1"]), build::boxed(b"free", &[&[0; 9]]), meta].concat();
        let item_offset = start.len() + 8;
        (if is_in_meta { start } else { [start, build::boxed(b"mdat", &[item])].concat() }, item_offset)
    };
    // The length of the file does not depend on the offset that it names.
    let (_, item_offset) = build(0);
    build(if is_in_meta { 0 } else { item_offset }).0
}

#[test]
fn metadata_of_every_format_is_found() {
    let (exif, with_prefix) = (photograph(), [b"Exif\0\0", &photograph()[..]].concat());
    let item = [&[0, 0, 0, 6][..], &with_prefix].concat();
    let xmp_segment = build::segment(0xE1, &[b"http://ns.adobe.com/xap/1.0/\0", RDF].concat());
    let text = [b"XML:com.adobe.xmp\0\0\0en\0key\0", RDF].concat();
    let extended = build::vp8x(0x08, 75, 45);
    let webp = |chunk: &[u8]| build::riff(&[&extended, &build::vp8(), chunk], 0);
    let plain = super::super::tests::fixture("plain.png");
    // The last chunk, `IEND`, has 12 bytes.
    let (start, iend) = plain.split_at(plain.len() - 12);
    let with_chunk_first =
        [&plain[..8], &build::chunk(b"tEXt", b"a\0b"), &plain[8..33], &build::chunk(b"eXIf", &exif), &plain[33..]].concat();
    let behind_pixels = [start, &build::chunk(b"eXIf", &exif), iend].concat();
    for (name, format, file, is_exif) in [
        ("JPEG", Format::Jpeg, build::jpeg(&[&xmp_segment, &build::exif(&exif)]), true),
        ("JPEG, an empty block first", Format::Jpeg, build::jpeg(&[&build::exif(b""), &build::exif(&exif)]), true),
        ("JPEG, two bytes behind the block", Format::Jpeg, build::jpeg(&[&build::exif(&[&exif[..], &[0; 2]].concat())]), true),
        (
            "JPEG, another fill byte",
            Format::Jpeg,
            build::jpeg(&[&build::segment(0xE1, &[b"Exif\0\xFF", &exif[..]].concat())]),
            true,
        ),
        ("JPEG with XMP", Format::Jpeg, build::jpeg(&[&xmp_segment]), false),
        ("PNG", Format::Png, build::png(&[&build::chunk(b"iTXt", &text), &build::chunk(b"eXIf", &exif)]), true),
        ("PNG behind the pixels", Format::Png, behind_pixels, true),
        ("PNG with a prefix", Format::Png, build::png(&[&build::chunk(b"eXIf", &with_prefix)]), true),
        ("PNG with a chunk before its header", Format::Png, with_chunk_first, true),
        ("PNG with XMP", Format::Png, build::png(&[&build::chunk(b"iTXt", &text)]), false),
        ("WebP", Format::Webp, webp(&build::riff_chunk(b"EXIF", &exif)), true),
        ("WebP with a prefix", Format::Webp, webp(&build::riff_chunk(b"EXIF", &with_prefix)), true),
        ("WebP with XMP", Format::Webp, webp(&build::riff_chunk(b"XMP ", RDF)), false),
        ("HEIF", Format::Heif, heif(ItemBox::Mdat, b"Exif\0", &item), true),
        (
            "HEIF, the prefix not counted",
            Format::Heif,
            heif(ItemBox::Mdat, b"Exif\0", &[&[0; 4], &with_prefix[..]].concat()),
            true,
        ),
        ("HEIF, only the prefix", Format::Heif, heif(ItemBox::Mdat, b"Exif\0", &with_prefix), true),
        ("HEIF, only TIFF", Format::Heif, heif(ItemBox::Mdat, b"Exif\0", &exif), true),
        ("HEIF with idat", Format::Heif, heif(ItemBox::Idat, b"Exif\0", &item), true),
        ("AVIF with XMP", Format::Avif, heif(ItemBox::Mdat, b"mime\0application/rdf+xml\0", RDF), false),
    ] {
        let expected =
            if is_exif { ["2024-12-21T23:39:24+01:00", "Apple iPhone 15 Pro"] } else { ["2001-02-03T04:05:06", "Canon EOS R5"] };
        assert_eq!(read(format, &file), expected.map(|text| Some(text.to_owned())), "{name}");
    }
}

#[test]
fn ranges_that_follow_each_other_are_one() {
    let file = build::jpeg(&[&build::exif(&photograph())]);
    for cut in [1, 20, 60, file.len()] {
        let (first, second) = file.split_at(cut);
        let mut fetched = FetchedRanges::default();
        fetched.keep(0, first);
        fetched.keep(cut as u64, second);
        assert!(read_capture(Format::Jpeg, &fetched).taken_at.is_some(), "{cut}");
    }
    // A file in two ranges, the second from `meta` on.
    let file = heif(ItemBox::Mdat, b"Exif\0", &[&[0; 4], &photograph()[..]].concat());
    let meta = file.windows(4).position(|window| window == b"meta").unwrap() - 4;
    let mut fetched = FetchedRanges::default();
    fetched.keep(0, &file[..meta]);
    // An empty range elsewhere, so that the second range is not joined to the first.
    fetched.keep(meta as u64 + 1000, &file[..0]);
    assert_eq!(read_capture(Format::Heif, &fetched), Capture::default());
    fetched.keep(meta as u64, &file[meta..]);
    assert!(read_capture(Format::Heif, &fetched).taken_at.is_some());
}

#[test]
fn items_of_a_file_in_tiles_are_found() {
    // Its Exif item has a make and no time (tests/fixtures/make.py).
    let [taken_at, camera] = read(Format::Heif, &super::super::tests::fixture("iphone.heic"));
    assert_eq!((taken_at, camera.as_deref()), (None, Some("Valet")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(format in prop::sample::select(Format::ALL.to_vec()), magic in 0..4_usize, bytes: Vec<u8>, at in 0..4_u64) {
        let magic: &[u8] = [&b""[..], b"\xFF\xD8\xFF\xE1\x10\0Exif\0\0", b"\0\0\0\x10ftypheic\0\0\0\0\0\0\0\0meta\0\0\0\0", b"\x89PNG\r\n\x1A\n"][magic];
        let mut fetched = FetchedRanges::default();
        fetched.keep(at, [magic, &bytes].concat());
        let _ = read_capture(format, &fetched);
        let _ = Exif::read(&[b"MM\0*\0\0\0\x08", &bytes[..]].concat());
        let _ = Xmp::read(&[b" exif:DateTimeOriginal=", &bytes[..]].concat());
    }

    #[test]
    fn no_flipped_bits_panic(sample in 0..4_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..8)) {
        let item = [&[0, 0, 0, 0][..], &photograph()].concat();
        let (format, mut file) = match sample {
            0 => (Format::Jpeg, build::jpeg(&[&build::exif(&photograph())])),
            1 => (Format::Png, build::png(&[&build::chunk(b"eXIf", &photograph())])),
            2 => (Format::Heif, heif(ItemBox::Mdat, b"Exif\0", &item)),
            _ => (Format::Heif, heif(ItemBox::Idat, b"Exif\0", &item)),
        };
        for (at, bit) in flips {
            let at = at.index(file.len().min(600));
            file[at] ^= 1 << bit;
        }
        let _ = read(format, &file);
    }

    #[test]
    fn dates_are_read_as_they_are_written(text in "[12][0-9]{3}[:-][01][0-9][:-][0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9]") {
        if let Some(taken_at) = parse_date_time(&text) {
            let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
            let (given, shown) = (digits(&text), digits(&taken_at.to_string()));
            prop_assert!(given == shown || &given[8..10] == "24", "{} {}", given, shown);
        }
    }
}
