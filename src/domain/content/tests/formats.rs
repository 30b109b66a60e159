//! Tests of each format's rules, with one broken header at a time.

use super::super::{ContentError, Format, Orientation, exif};
use super::{build, fixture, size, verdict};

/// Returns the file with `old`, which it contains once, replaced by `new`.
fn patched(file: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let found: Vec<_> = file.windows(old.len()).enumerate().filter(|(_, window)| *window == old).collect();
    let [(at, _)] = found[..] else { panic!("{} occurrences", found.len()) };
    [&file[..at], new, &file[at + old.len()..]].concat()
}

#[test]
fn jpeg_follows_decoders() {
    let plain = fixture("plain.jpg");
    let after_soi = |insert: &[u8]| [&plain[..2], insert, &plain[2..]].concat();
    // Fill bytes, a restart marker and stray bytes between segments.
    assert_eq!(size(&after_soi(b"\xFF\xFF\xFF")), Ok((120, 80)));
    assert_eq!(size(&after_soi(b"\xFF\xD0")), Ok((120, 80)));
    assert_eq!(size(&after_soi(b"\xFF\xFE\0\x02stray\xFF\0")), Ok((120, 80)));
    // A second start.
    assert_eq!(size(&after_soi(b"\xFF\xD8")), Err(ContentError::NoPicture));
    // One component, one table, one scan: the smallest set that makes a picture.
    let table = build::segment(0xDB, &[0; 65]);
    let frame = build::segment(0xC0, b"\x08\0\x10\0\x20\x01\x01\x11\0");
    let scan = build::segment(0xDA, b"\x01\x01\0\0\x3F\0");
    let parts = |parts: &[&[u8]]| size(&[b"\xFF\xD8", &parts.concat()[..]].concat());
    assert_eq!(parts(&[&table, &frame, &scan]), Ok((32, 16)));
    assert_eq!(parts(&[&frame, &table, &scan]), Ok((32, 16)));
    assert_eq!(parts(&[&frame, &scan]), Err(ContentError::Malformed), "no table");
    assert_eq!(parts(&[&table, &scan]), Err(ContentError::Malformed), "no frame");
    assert_eq!(parts(&[&table, &frame]), Err(ContentError::Truncated), "no scan");
    assert_eq!(parts(&[&table, &build::segment(0xC0, b"\x08\0\x10\0\x20\x01\x01\x11"), &scan]), Err(ContentError::Malformed));
    // Lossless frames have no tables, and precisions of their own.
    assert_eq!(parts(&[&build::segment(0xC3, b"\x10\0\x10\0\x20\x01\x01\x11\0"), &scan]), Ok((32, 16)));
    assert_eq!(parts(&[&table, &build::segment(0xC0, b"\x10\0\x10\0\x20\x01\x01\x11\0"), &scan]), Err(ContentError::Malformed));
    // The frame of a thumbnail inside of EXIF is ignored.
    let thumbnail = [b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0".as_slice(), &plain].concat();
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let mut outer = b"\xFF\xD8\xFF\xE1".to_vec();
    outer.extend(length);
    outer.extend(thumbnail);
    outer.extend([table, frame, scan].concat());
    assert_eq!(size(&outer), Ok((32, 16)));
}

#[test]
fn exif_orientation_is_read_as_browsers_read_it() {
    let orientation = |entries: &[[u8; 12]]| {
        let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
        tiff.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
        tiff.extend(entries.as_flattened());
        exif::orientation(&tiff).map(Orientation::number)
    };
    let entry = |tag: u16, kind: u8, count: u8, value: u8| {
        let [high, low] = tag.to_be_bytes();
        [high, low, 0, kind, 0, 0, 0, count, 0, value, 0, 0]
    };
    for value in 0..=9 {
        let expected = (1..=8).contains(&value).then_some(value);
        assert_eq!(orientation(&[entry(0x0112, 3, 1, value)]), expected, "{value}");
    }
    assert_eq!(orientation(&[entry(0x010F, 2, 2, 65), entry(0x0112, 3, 1, 6)]), Some(6));
    assert_eq!(orientation(&[entry(0x0112, 4, 1, 6)]), None, "a LONG");
    assert_eq!(orientation(&[entry(0x0112, 3, 2, 6)]), None, "two of them");
    assert_eq!(orientation(&[]), None);
    assert_eq!(exif::orientation(b"MM\0*\xFF\xFF\xFF\xFF"), None);
    assert_eq!(exif::orientation(b"MM\0*\0\0\0\x08\xFF\xFF"), None);
    // A broken block leaves the image as it is stored.
    assert_eq!(size(&patched(&fixture("orientation-6.jpg"), b"Exif\0\0MM", b"Exif\0\0XX")), Ok((120, 80)));
}

#[test]
fn png_needs_a_sound_header_and_image_data() {
    let plain = fixture("plain.png");
    let size_with_byte = |at: usize, byte: u8| {
        let mut header = plain[8..33].to_vec();
        header[at] = byte;
        let crc = crc32fast::hash(&header[4..21]).to_be_bytes();
        header[21..].copy_from_slice(&crc);
        size(&build::png_of(&header, &[&build::png_rest()]))
    };
    assert_eq!(size_with_byte(3, 14), Err(ContentError::Malformed), "length of IHDR");
    assert_eq!(size_with_byte(4, b'J'), Err(ContentError::Malformed), "its name");
    assert_eq!(size_with_byte(16, 3), Err(ContentError::Malformed), "depth");
    assert_eq!(size_with_byte(16, 16), Ok((90, 50)));
    assert_eq!(size_with_byte(17, 5), Err(ContentError::Malformed), "colour type");
    assert_eq!(size_with_byte(18, 1), Err(ContentError::Malformed), "compression");
    assert_eq!(size_with_byte(19, 1), Err(ContentError::Malformed), "filter");
    assert_eq!(size_with_byte(20, 2), Err(ContentError::Malformed), "interlace");
    assert_eq!(size(&patched(&plain, b"IDAT", b"IEND")), Err(ContentError::NoPicture));
    // Browsers ignore an eXIf behind the pixels.
    let file = fixture("orientation-6.png");
    let chunk = file.windows(4).position(|window| window == b"eXIf").unwrap() - 4;
    let length = 12 + usize::from(file[chunk + 3]);
    let end = file.len() - 12;
    let late = [&file[..chunk], &file[chunk + length..end], &file[chunk..chunk + length], &file[end..]].concat();
    assert_eq!(late.len(), file.len());
    assert_eq!((size(&file), size(&late)), (Ok((50, 90)), Ok((90, 50))));
}

#[test]
fn gif_needs_a_frame_and_its_screen_is_widened_to_it() {
    let gif = |screen: [u8; 4], blocks: &[u8]| size(&[b"GIF87a", screen.as_slice(), b"\0\0\0", blocks].concat());
    let frame = b"\x2C\x02\0\x01\0\x05\0\x03\0";
    assert_eq!(gif([10, 0, 10, 0], frame), Ok((10, 10)));
    assert_eq!(gif([4, 0, 10, 0], frame), Ok((7, 10)));
    assert_eq!(gif([0; 4], frame), Ok((7, 4)));
    assert_eq!(gif([10, 0, 10, 0], &[b"\x21\xFE\x02hi\x01!\0".as_slice(), frame].concat()), Ok((10, 10)));
    assert_eq!(gif([10, 0, 10, 0], b"\x3B"), Err(ContentError::NoPicture));
    assert_eq!(gif([10, 0, 10, 0], b"\x21\xFE\x05hi"), Err(ContentError::Truncated));
    assert_eq!(gif([0; 4], b"\x2C\0\0\0\0\0\0\0\0"), Err(ContentError::EmptyDimensions));
}

#[test]
fn webp_headers_are_checked() {
    let lossy = fixture("lossy.webp");
    // The two bits above 14 request upscaling, which decoders ignore.
    let scaled = patched(&lossy, b"\x9D\x01\x2A\x4B\0\x2D\0", b"\x9D\x01\x2A\x4B\xC0\x2D\x40");
    assert_eq!(size(&scaled), Ok((75, 45)));
    assert_eq!(size(&patched(&lossy, b"\x9D\x01\x2A", b"\x9D\x01\x2B")), Err(ContentError::Malformed));
    assert_eq!(size(&patched(&lossy, b"VP8 ", b"VP9 ")), Err(ContentError::Malformed));
    let mut inter = lossy.clone();
    inter[20] |= 1;
    assert_eq!(size(&inter), Err(ContentError::Malformed));
    let mut lossless = fixture("lossless.webp");
    lossless[20] = 0x2E;
    assert_eq!(size(&lossless), Err(ContentError::Malformed));
    lossless[20] = 0x2F;
    lossless[24] |= 0x20;
    assert_eq!(size(&lossless), Err(ContentError::Malformed));
}

#[test]
fn heif_is_the_primary_item_of_the_claimed_kind() {
    let plain = fixture("plain.heic");
    let avif = fixture("plain.avif");
    // Brands allow a format, the item's coding decides.
    let renamed = [b"\0\0\0\x10ftypavif\0\0\0\0".as_slice(), &plain[usize::from(plain[3])..]].concat();
    assert_eq!(verdict(&renamed), Err(ContentError::Malformed));
    let renamed = [b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif".as_slice(), &avif[usize::from(avif[3])..]].concat();
    assert_eq!(verdict(&renamed).unwrap().format, Format::Avif);
    for (file, format) in [(&avif, Format::Avif), (&plain, Format::Heif)] {
        let two_brands = [b"\0\0\0\x18ftypmif1\0\0\0\0heicavif".as_slice(), &file[usize::from(file[3])..]].concat();
        assert_eq!(verdict(&two_brands).unwrap().format, format);
    }
    for file in [&avif, &plain] {
        let generic = [b"\0\0\0\x10ftypmsf1\0\0\0\0".as_slice(), &file[usize::from(file[3])..]].concat();
        assert_eq!(verdict(&generic).unwrap().format, Format::Heif);
    }
    let video = [b"\0\0\0\x18ftypisom\0\0\0\0isommp41".as_slice(), &plain[usize::from(plain[3])..]].concat();
    assert_eq!(verdict(&video), Err(ContentError::UnknownType));
    // No items: a video that claims to be an image.
    assert_eq!(verdict(b"\0\0\0\x14ftypheic\0\0\0\0heic\0\0\0\x08moov"), Err(ContentError::NoPicture));
    assert_eq!(verdict(b"\0\0\0\x14ftypheic\0\0\0\0heic\0\0\0\x09moov"), Err(ContentError::Truncated));
    assert_eq!(size(&patched(&plain, b"pict", b"mdta")), Err(ContentError::NoPicture));
    assert_eq!(size(&patched(&plain, b"pitm", b"free")), Err(ContentError::NoPicture));
    assert_eq!(size(&patched(&plain, b"ispe", b"free")), Err(ContentError::Malformed));
    // Box sizes: 64 bits are legal, less than the header is not.
    let start = usize::from(plain[3]);
    let with_box = |bytes: &[u8]| size(&[&plain[..start], bytes, &plain[start..]].concat());
    assert_eq!(with_box(b"\0\0\0\x01free\0\0\0\0\0\0\0\x10"), Ok((120, 80)));
    assert_eq!(with_box(b"\0\0\0\x01free\0\0\0\0\0\0\0\x0F"), Err(ContentError::Malformed));
    assert_eq!(with_box(b"\0\0\0\x07free"), Err(ContentError::Malformed));
    assert_eq!(with_box(b"\0\0\0\0free"), Err(ContentError::NoPicture));
    assert_eq!(with_box(b"\0\0\0\x01free\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), Err(ContentError::Truncated));
}

#[test]
fn heif_items_are_found_by_wide_numbers_and_their_properties_applied_in_order() {
    use build::{boxed, full};
    // Returns a file whose item is 65,537, associated in a second `ipma` by 15-bit indices; the first `ipma` names item 1, by 7-bit
    // ones. Properties: 1 and 2 are sizes, 3 turns by a quarter, 4 crops to 50 by 30; 0 means no property, and 5 does not exist.
    let file = |order: &[u16]| {
        let extents = |width: u32, height: u32| boxed(b"ispe", &[&[0; 4], &width.to_be_bytes(), &height.to_be_bytes()]);
        let crop = [100, 2, 90, 3, 0, 1, 0, 1].map(u32::to_be_bytes);
        let properties = [extents(9000, 9000), extents(200, 40), boxed(b"irot", &[&[1]]), boxed(b"clap", &[crop.as_flattened()])];
        let indices: Vec<u8> = order.iter().flat_map(|index| (index | 0x8000).to_be_bytes()).collect();
        let count = [u8::try_from(order.len()).unwrap()];
        let first = b"\0\0\0\0\0\0\0\x01\0\x01\x02\x81\x03";
        let meta = full(
            b"meta",
            0,
            0,
            &[
                &full(b"hdlr", 0, 0, &[&[0; 4], b"pict", &[0; 13]]),
                &full(b"pitm", 1, 0, &[&65_537_u32.to_be_bytes()]),
                &full(b"iinf", 1, 0, &[&[0, 0, 0, 1], &full(b"infe", 3, 0, &[&65_537_u32.to_be_bytes(), &[0, 0], b"jpeg\0"])]),
                &full(b"iloc", 2, 0, &[]),
                &boxed(
                    b"iprp",
                    &[
                        &boxed(b"ipco", &[&properties.concat()]),
                        &boxed(b"ipma", &[first]),
                        &full(b"ipma", 1, 1, &[b"\0\0\0\x01\0\x01\0\x01", &count, &indices]),
                    ],
                ),
            ],
        );
        [boxed(b"ftyp", &[b"heic\0\0\0\0"]), meta].concat()
    };
    assert_eq!(size(&file(&[2])), Ok((200, 40)));
    assert_eq!(size(&file(&[2, 0, 3])), Ok((40, 200)));
    assert_eq!(size(&file(&[2, 3, 3])), Ok((200, 40)));
    assert_eq!(size(&file(&[2, 4])), Ok((50, 30)));
    assert_eq!(size(&file(&[2, 4, 3])), Ok((30, 50)));
    // Turned first, the size is 40 by 200. The crop is wider, so it is ignored.
    assert_eq!(size(&file(&[2, 3, 4])), Ok((40, 200)));
    assert_eq!(size(&file(&[2, 5])), Err(ContentError::Malformed));
    assert_eq!(size(&file(&[3])), Err(ContentError::Malformed));
    assert_eq!(size(&file(&[])), Err(ContentError::Malformed));
}
