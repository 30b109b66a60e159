//! A file for each structure that the formats' specifications allow, or that writers make against them, with the verdict of
//! browsers and other decoders. `.ci/differential` shows the files to Chromium and Pillow.

mod heif;
mod webp;

use super::build::*;
use super::fixture;
use crate::domain::content::ContentError::{self, *};

/// A file with the expected verdict.
pub(super) struct Structure {
    pub name: &'static str,
    pub content_type: &'static str,
    /// Width and height as displayed, or the reason why the file is rejected.
    pub verdict: Result<(u32, u32), ContentError>,
    pub bytes: Vec<u8>,
}

const MIB: usize = 1 << 20;

/// A name, a verdict and the file.
type Row = (&'static str, Result<(u32, u32), ContentError>, Vec<u8>);

/// Returns structures of this type.
fn rows(content_type: &'static str, rows: Vec<Row>) -> Vec<Structure> {
    rows.into_iter().map(|(name, verdict, bytes)| Structure { name, content_type, verdict, bytes }).collect()
}

/// Returns all structures with their verdicts.
pub(super) fn all() -> Vec<Structure> {
    [
        jpegs(),
        jpeg_exif(),
        jpeg_frames(),
        pngs(),
        gifs(),
        webp::simple(),
        webp::extended(),
        heif::heics(),
        heif::broken_heics(),
        heif::cropped(),
        heif::sized(),
        heif::composed(),
        heif::avifs(),
        heif::minimized(),
        heif::sequences(),
        heif::branded(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn jpegs() -> Vec<Structure> {
    let exif6 = exif(&orientation(TURNED));
    let larger = replaced(jpeg(&[]), b"\x08\0\x50\0\x78", b"\x08\x08\0\x10\0");
    let scan = jpeg(&[]).windows(2).position(|window| window == b"\xFF\xDA").unwrap();
    rows(
        "image/jpeg",
        vec![
            ("plain", Ok((120, 80)), jpeg(&[])),
            ("orientation", Ok((80, 120)), jpeg(&[&exif6])),
            (
                "extended XMP of 1.6 MB behind Exif",
                Ok((80, 120)),
                jpeg(&[&exif6, &segments(0xE1, b"http://ns.adobe.com/xmp/extension/\0", 1_600_000)]),
            ),
            (
                "Photoshop blocks of 2 MB before Exif",
                Ok((80, 120)),
                jpeg(&[&segments(0xED, b"Photoshop 3.0\0", 2 * MIB), &exif6]),
            ),
            ("FlashPix of 1.3 MB", Ok((120, 80)), jpeg(&[&segments(0xE2, b"FPXR\0\x02\0\0", 1_300_000)])),
            ("12 MiB of segments before Exif", Ok((80, 120)), jpeg(&[&segments(0xE4, b"", 12 * MIB), &exif6])),
            ("17 MiB of segments before the frame", Err(TooDeep), jpeg(&[&segments(0xE4, b"", 17 * MIB)])),
            ("comment of length 0", Ok((120, 80)), jpeg(&[b"\xFF\xFE\0\0"])),
            ("comment of length 1", Ok((120, 80)), jpeg(&[b"\xFF\xFE\0\x01"])),
            ("APP0 of length 0", Ok((120, 80)), jpeg(&[b"\xFF\xE0\0\0"])),
            ("APP1 of length 0 before Exif", Ok((80, 120)), jpeg(&[b"\xFF\xE1\0\0", &exif6])),
            ("thumbnail larger than the image", Ok((120, 80)), jpeg(&[&segment(0xE0, &[b"JFXX\0\x10", &larger[..]].concat())])),
            ("second image larger than the first", Ok((120, 80)), [jpeg(&[&segment(0xE2, b"MPF\0")]), larger.clone()].concat()),
            ("JPEG in a segment", Ok((120, 80)), jpeg(&[&segment(0xE5, &larger)])),
            ("number of lines behind the scan", Err(EmptyDimensions), {
                let file = replaced(jpeg(&[]), b"\xFF\xC0\0\x11\x08\0\x50", b"\xFF\xC0\0\x11\x08\0\0");
                [&file[..file.len() - 2], &segment(0xDC, &[0, 80]), b"\xFF\xD9"].concat()
            }),
            ("arithmetic coding", Ok((120, 80)), replaced(jpeg(&[]), b"\xFF\xC0\0\x11", b"\xFF\xC9\0\x11")),
            ("fill bytes", Ok((120, 80)), jpeg(&[&[0xFF; 300]])),
            ("stray bytes", Ok((120, 80)), jpeg(&[b"\xFF\xFE\0\x02stray\xFF\0"])),
            ("restart marker before the frame", Ok((120, 80)), jpeg(&[b"\xFF\xD0"])),
            ("restart interval of length 3", Err(Malformed), jpeg(&[&segment(0xDD, b"\0")])),
            ("quantization table cut", Err(Malformed), jpeg(&[&segment(0xDB, &[0; 10])])),
            ("Huffman table of too many codes", Err(Malformed), jpeg(&[&segment(0xC4, &[0xFF; 60])])),
            ("cut in the scan's header", Err(Truncated), jpeg(&[])[..scan + 5].to_vec()),
            ("cut in the pixels", Ok((120, 80)), jpeg(&[])[..jpeg(&[]).len() - 200].to_vec()),
            (
                "scan of an unknown component",
                Err(Malformed),
                replaced(jpeg(&[]), b"\xFF\xDA\0\x0C\x03\x01", b"\xFF\xDA\0\x0C\x03\x09"),
            ),
            (
                "scan of a component twice",
                Err(Malformed),
                replaced(jpeg(&[]), b"\xFF\xDA\0\x0C\x03\x01\0\x02", b"\xFF\xDA\0\x0C\x03\x01\0\x01"),
            ),
            ("scan before any frame", Err(Malformed), jpeg(&[b"\xFF\xDA\0\x08\x01\x01\0\0\x3F\0"])),
            ("end before any scan", Err(NoPicture), jpeg(&[b"\xFF\xD9"])),
        ],
    )
}

fn jpeg_exif() -> Vec<Structure> {
    let exif6 = exif(&orientation(TURNED));
    let without_orientation = exif(&tiff(&[short(0x0100, 120)]));
    rows(
        "image/jpeg",
        vec![
            ("first Exif silent", Ok((120, 80)), jpeg(&[&without_orientation, &exif6])),
            ("first Exif empty", Ok((80, 120)), jpeg(&[&exif(b""), &exif6])),
            (
                "Exif with another fill byte",
                Ok((80, 120)),
                jpeg(&[&segment(0xE1, &[b"Exif\0\xFF", &orientation(TURNED)[..]].concat())]),
            ),
            ("Exif without a fill byte", Ok((120, 80)), jpeg(&[&segment(0xE1, &[b"Exif\0", &orientation(TURNED)[..]].concat())])),
            ("Exif with two bytes behind it", Ok((80, 120)), jpeg(&[&exif(&[&orientation(TURNED)[..], &[0; 2]].concat())])),
            ("Exif cut behind its entry", Ok((80, 120)), jpeg(&[&exif(&orientation(TURNED)[..22])])),
            ("Exif cut in its entry", Ok((120, 80)), jpeg(&[&exif(&orientation(TURNED)[..20])])),
            ("first Exif turned, second upright", Ok((80, 120)), jpeg(&[&exif6, &exif(&orientation(1))])),
            ("XMP before Exif", Ok((80, 120)), jpeg(&[&segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), &exif6])),
        ],
    )
}

fn jpeg_frames() -> Vec<Structure> {
    let frame = |code: u8| replaced(jpeg(&[]), b"\xFF\xC0\0\x11", &[0xFF, code, 0, 0x11]);
    let sof = b"\xFF\xC0\0\x11\x08\0\x50\0\x78\x03\x01";
    rows(
        "image/jpeg",
        vec![
            ("frame 5", Err(Undecodable), frame(0xC5)),
            ("frame 6", Err(Undecodable), frame(0xC6)),
            ("frame 7", Err(Undecodable), frame(0xC7)),
            ("frame 8, reserved", Err(Undecodable), frame(0xC8)),
            ("frame 11", Err(Undecodable), frame(0xCB)),
            ("frame 13", Err(Undecodable), frame(0xCD)),
            ("frame 14", Err(Undecodable), frame(0xCE)),
            ("frame 15", Err(Undecodable), frame(0xCF)),
            (
                "hierarchical progression before the frame",
                Ok((120, 80)),
                jpeg(&[&segment(0xDE, &[8, 0, 80, 0, 120, 1, 1, 0x11, 0])]),
            ),
            ("reserved marker", Ok((120, 80)), jpeg(&[&segment(0xF0, b"\0")])),
            ("reserved marker without content", Ok((120, 80)), jpeg(&[b"\xFF\x02"])),
            ("two frames", Err(Malformed), jpeg(&[&segment(0xC0, &[8, 0, 80, 0, 120, 1, 1, 0x11, 0])])),
            (
                "two components",
                Err(Undecodable),
                replaced(
                    jpeg(&[]),
                    &[sof, &b"\x22\0\x02\x11\x01\x03\x11\x01"[..]].concat(),
                    b"\xFF\xC0\0\x0E\x08\0\x50\0\x78\x02\x01\x22\0\x02\x11\x01",
                ),
            ),
            (
                "sampling factor of zero",
                Err(Malformed),
                replaced(jpeg(&[]), &[sof, &b"\x22"[..]].concat(), &[sof, &b"\x20"[..]].concat()),
            ),
            ("no lines", Err(EmptyDimensions), replaced(jpeg(&[]), sof, b"\xFF\xC0\0\x11\x08\0\0\0\x78\x03\x01")),
            (
                "wider than libjpeg decodes",
                Err(TooManyPixels),
                replaced(jpeg(&[]), sof, b"\xFF\xC0\0\x11\x08\0\x01\xFF\xFF\x03\x01"),
            ),
        ],
    )
}

fn pngs() -> Vec<Structure> {
    let exif6 = chunk(b"eXIf", &orientation(TURNED));
    let text = |length: usize| chunk(b"tEXt", &[b"Comment\0", &vec![b'A'; length][..]].concat());
    let (header, rest) = (ihdr(90, 50, 8, 2), png_rest());
    let palette = fixture("palette.png");
    let idat = palette.windows(4).position(|window| window == b"IDAT").unwrap() - 4;
    rows(
        "image/png",
        vec![
            ("plain", Ok((90, 50)), png(&[])),
            ("eXIf", Ok((50, 90)), png(&[&exif6])),
            ("eXIf, then 3 MB of text", Ok((50, 90)), png(&[&exif6, &text(3_000_000)])),
            ("eXIf, then 17 MiB of text", Ok((50, 90)), png(&[&exif6, &text(17 * MIB)])),
            ("eXIf, then 60 texts of 300 KB", Ok((50, 90)), png(&[&exif6, &text(300_000).repeat(60)])),
            ("20 texts of 60 KB, then eXIf", Ok((50, 90)), png(&[&text(60_000).repeat(20), &exif6])),
            ("3 MB of text, then eXIf", Ok((50, 90)), png(&[&text(3_000_000), &exif6])),
            ("eXIf cut in its entry", Ok((90, 50)), png(&[&chunk(b"eXIf", &orientation(TURNED)[..20])])),
            ("eXIf cut behind its entry", Ok((50, 90)), png(&[&chunk(b"eXIf", &orientation(TURNED)[..22])])),
            ("eXIf with a prefix", Ok((90, 50)), png(&[&chunk(b"eXIf", &[b"Exif\0\0", &orientation(TURNED)[..]].concat())])),
            ("eXIf with a wrong CRC", Ok((90, 50)), png(&[&broken(exif6.clone())])),
            ("eXIf with a wrong CRC, then a sound one", Ok((50, 90)), png(&[&broken(exif6.clone()), &exif6])),
            ("text with a wrong CRC", Ok((90, 50)), png(&[&broken(text(10))])),
            ("header with a wrong CRC", Err(Malformed), png_of(&broken(header.clone()), &[&rest])),
            ("two headers", Err(Malformed), png_of(&header, &[&header, &rest])),
            ("text before the header", Ok((90, 50)), png_of(&text(3), &[&header, &rest])),
            ("two unknown chunks before the header", Ok((90, 50)), png_of(&chunk(b"vaLt", b""), &[&text(3), &header, &rest])),
            ("palette before the header", Err(Malformed), png_of(&chunk(b"PLTE", &[7; 3]), &[&header, &rest])),
            ("pixels before the header", Err(Malformed), png_of(&rest, &[&header, &rest])),
            ("no pixels' chunk", Err(NoPicture), png_of(&header, &[&chunk(b"IEND", b"")])),
            ("cut in a chunk before the pixels", Err(Truncated), png(&[&text(500)])[..100].to_vec()),
            ("cut in the pixels", Ok((90, 50)), png(&[])[..png(&[]).len() - 60].to_vec()),
            ("palette", Ok((91, 51)), palette.clone()),
            (
                "palette with a wrong CRC",
                Err(Malformed),
                [&palette[..idat - 1], &[palette[idat - 1] ^ 1], &palette[idat..]].concat(),
            ),
            ("indices without a palette", Err(Malformed), png_of(&ihdr(90, 50, 8, 3), &[&rest])),
            ("two palettes", Err(Malformed), [&palette[..idat], &chunk(b"PLTE", &[7; 3]), &palette[idat..]].concat()),
            ("palette beside colours", Ok((90, 50)), png(&[&chunk(b"PLTE", &[7; 3])])),
            ("unknown critical chunk", Err(Malformed), png(&[&chunk(b"CgBI", b"P\0 \x02")])),
            ("chunk without a name", Err(Malformed), png(&[&chunk(&[0; 4], b"")])),
            ("unknown ancillary chunk", Ok((90, 50)), png(&[&chunk(b"iDOT", &[0; 28])])),
            ("wrong depth", Err(Malformed), png_of(&ihdr(90, 50, 3, 2), &[&rest])),
            ("wrong colour type", Err(Malformed), png_of(&ihdr(90, 50, 8, 5), &[&rest])),
            ("no columns", Err(EmptyDimensions), png_of(&ihdr(0, 50, 8, 2), &[&rest])),
            ("bomb", Err(TooManyPixels), png_of(&ihdr(60_000, 60_000, 8, 2), &[&rest])),
            ("chunk length of over 2^31", Err(Malformed), png(&[b"\x80\0\0\0tEXt"])),
        ],
    )
}

fn gifs() -> Vec<Structure> {
    rows(
        "image/gif",
        vec![
            ("plain", Ok((33, 21)), gif(&[])),
            ("comment of 1.2 MB", Ok((33, 21)), gif(&[&extension(0xFE, b"c", 1_200_000)])),
            ("XMP of 1.1 MB", Ok((33, 21)), gif(&[&extension(0xFF, b"XMP DataXMP", 1_100_000)])),
            ("zero byte between blocks", Ok((33, 21)), gif(&[b"\0"])),
            ("several zero bytes, an extension, another", Ok((33, 21)), gif(&[b"\0\0\0", &extension(0xFE, b"c", 0), b"\0"])),
            ("graphic control cut", Err(Malformed), gif(&[b"\x21\xF9\x02hi\0"])),
            ("graphic control longer than the standard's", Ok((33, 21)), gif(&[b"\x21\xF9\x06hihihi\0"])),
            (
                "frame larger than the screen",
                Ok((33, 30)),
                replaced(gif(&[]), b"\x2C\0\0\0\0\x21\0\x15\0", b"\x2C\0\0\x09\0\x21\0\x15\0"),
            ),
            ("second frame beyond the screen", Ok((33, 21)), {
                let file = gif(&[]);
                let frame = file.windows(3).position(|window| window == b"\x2C\0\0").unwrap();
                let moved = replaced(file[frame..].to_vec(), b"\x2C\0\0\0\0", b"\x2C\x14\0\x14\0");
                [&file[..file.len() - 1], &moved].concat()
            }),
            ("screen without sides", Ok((33, 21)), replaced(gif(&[]), b"GIF89a\x21\0\x15\0", b"GIF89a\0\0\0\0")),
            ("no frame", Err(NoPicture), gif(&[b"\x3B"])),
            ("cut in a comment", Err(Truncated), gif(&[&extension(0xFE, b"c", 400)])[..300].to_vec()),
            ("cut in the pixels", Ok((33, 21)), gif(&[])[..gif(&[]).len() - 20].to_vec()),
        ],
    )
}
