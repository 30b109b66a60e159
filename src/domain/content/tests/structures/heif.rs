//! Structures of HEIF and AVIF.

use super::super::build::*;
use super::super::fixture;
use super::{MIB, Structure, rows};
use crate::domain::content::ContentError::*;

pub(super) fn heics() -> Vec<Structure> {
    let heic = Heif::heic();
    let behind = |filler: usize| Heif { data_first: true, filler, ..heic.clone() };
    let free = |length: usize| boxed(b"free", &[&vec![0; length]]);
    let sefd = boxed(b"sefd", &[&[0; 143]]);
    rows(
        "image/heic",
        vec![
            ("plain", Ok((120, 80)), heic.build()),
            ("turned", Ok((80, 120)), heic.clone().with(irot(3)).build()),
            ("Samsung: pixels of 1.3 MB first", Ok((120, 80)), [behind(1_300_000).build(), free(20_000), sefd.clone()].concat()),
            ("Samsung: pixels of 6 MB first, turned", Ok((80, 120)), [behind(6_000_000).with(irot(1)).build(), sefd].concat()),
            (
                "pixels first by a length of 64 bits",
                Ok((120, 80)),
                Heif { before: wide(b"mdat", &vec![0; 1_200_000]), ..heic.clone() }.build(),
            ),
            (
                "index of 330 KB behind the pixels",
                Ok((80, 120)),
                Heif { within: free(330_000), ..behind(1_900_000) }.with(irot(1)).build(),
            ),
            ("index of 3 MB", Ok((120, 80)), Heif { within: free(3 * MIB), ..heic.clone() }.build()),
            ("index to the end of the file", Ok((120, 80)), Heif { to_end: true, ..behind(1_200_000) }.build()),
            (
                "several data boxes",
                Ok((120, 80)),
                Heif {
                    before: [
                        boxed(b"uuid", &[&[0; 40]]),
                        boxed(b"mdat", &[&vec![0; 700_000]]),
                        free(20),
                        boxed(b"mdat", &[&vec![0; 700_000]]),
                    ]
                    .concat(),
                    ..heic.clone()
                }
                .build(),
            ),
            ("14 boxes of 100 KB", Ok((120, 80)), Heif { before: free(100_000).repeat(14), ..heic.clone() }.build()),
            ("60 boxes of 20 KB", Ok((120, 80)), Heif { before: free(20_000).repeat(60), ..heic.clone() }.build()),
        ],
    )
}

/// Returns files whose picture cannot be found.
pub(super) fn broken_heics() -> Vec<Structure> {
    let heic = Heif::heic();
    let behind = |filler: usize| Heif { data_first: true, filler, ..heic.clone() };
    rows(
        "image/heic",
        vec![
            ("cut in pixels that come first", Err(Truncated), behind(1_500_000).build()[..1_200_000].to_vec()),
            ("cut in the index behind the pixels", Err(Truncated), {
                let file = behind(1_200_000).build();
                file[..file.len() - 40].to_vec()
            }),
            (
                "pixels first, no index",
                Err(NoPicture),
                [ftyp(&[b"heic", b"mif1", b"heic"]), boxed(b"mdat", &[&vec![0; 1_200_000]])].concat(),
            ),
            ("no location of the item", Err(NoPicture), replaced(heic.build(), b"iloc", b"free")),
            ("no item information", Err(NoPicture), replaced(heic.build(), b"iinf", b"free")),
            ("no configuration of the decoder", Err(NoPicture), replaced(heic.build(), b"hvcC", b"free")),
            (
                "a configuration that is not the item's",
                Err(NoPicture),
                replaced(heic.build(), b"\0\x01\x02\x01\x82", b"\0\x01\x02\x01\x01"),
            ),
        ],
    )
}

pub(super) fn cropped() -> Vec<Structure> {
    let heic = Heif::heic();
    rows(
        "image/heic",
        vec![
            ("crop", Ok((100, 60)), heic.clone().with(clap([100, 1, 60, 1, 0, 1, 0, 1])).build()),
            ("crop, then turned", Ok((60, 100)), heic.clone().with(clap([100, 1, 60, 1, 0, 1, 0, 1])).with(irot(1)).build()),
            ("crop with a denominator of zero", Ok((120, 80)), heic.clone().with(clap([100, 0, 60, 1, 0, 1, 0, 1])).build()),
            ("crop of no width", Ok((120, 80)), heic.clone().with(clap([0, 1, 60, 1, 0, 1, 0, 1])).build()),
            ("crop larger than the image", Ok((120, 80)), heic.clone().with(clap([121, 1, 60, 1, 0, 1, 0, 1])).build()),
            ("crop outside of the image", Ok((120, 80)), heic.clone().with(clap([100, 1, 60, 1, 40, 1, 0, 1])).build()),
            ("crop cut short", Ok((120, 80)), heic.clone().with(boxed(b"clap", &[&[0, 0, 0, 9]])).build()),
        ],
    )
}

pub(super) fn avifs() -> Vec<Structure> {
    let avif = Heif::avif();
    let branded = |brands: &[&'static [u8; 4]]| Heif { brands: brands.to_vec(), ..avif.clone() }.build();
    rows(
        "image/avif",
        vec![
            ("plain", Ok((120, 80)), avif.build()),
            (
                "pixels of 1.2 MB first, turned",
                Ok((80, 120)),
                Heif { data_first: true, filler: 1_200_000, ..avif.clone() }.with(irot(1)).build(),
            ),
            (
                "free space of 1.2 MB first",
                Ok((120, 80)),
                Heif { before: boxed(b"free", &[&vec![0; 1_200_000]]), ..avif.clone() }.build(),
            ),
            ("brands of both codings", Ok((120, 80)), branded(&[b"mif1", b"mif1", b"heic", b"avif", b"miaf"])),
            ("major brand heic", Ok((120, 80)), branded(&[b"heic", b"mif1", b"avif", b"miaf"])),
            ("major brand miaf", Ok((120, 80)), branded(&[b"miaf", b"avif", b"mif1"])),
            ("no compatible brands", Ok((120, 80)), branded(&[b"avif"])),
            ("crop at the origin", Ok((100, 60)), avif.clone().with(clap([100, 1, 60, 1, -10, 1, -10, 1])).build()),
            ("crop outside of the image", Ok((120, 80)), avif.clone().with(clap([100, 1, 60, 1, 40, 1, 0, 1])).build()),
            ("crop with a denominator of zero", Ok((120, 80)), avif.clone().with(clap([100, 1, 60, 0, 0, 1, 0, 1])).build()),
            ("turned twice", Ok((80, 120)), Heif { order: vec![3, 3], ..avif.clone() }.with(irot(1)).build()),
            ("no configuration of the decoder", Err(NoPicture), replaced(avif.build(), b"av1C", b"free")),
            (
                "a configuration that is not the item's",
                Err(NoPicture),
                replaced(avif.build(), b"\0\x01\x02\x01\x82", b"\0\x01\x02\x01\x01"),
            ),
            ("size by a later version of the property", Err(Malformed), replaced(avif.build(), b"ispe\0", b"ispe\x01")),
            ("size unlike the picture's", Ok((100, 60)), Heif { size: (100, 60), ..avif.clone() }.build()),
            (
                "size unlike the picture's, turned",
                Ok((160, 240)),
                Heif { size: (240, 160), ..avif.clone() }.with(irot(1)).build(),
            ),
            ("crop, turned and mirrored", Ok((60, 100)), {
                let crop = clap([100, 1, 60, 1, -10, 1, -10, 1]);
                avif.clone().with(crop).with(irot(1)).with(boxed(b"imir", &[&[1]])).build()
            }),
            ("layers", Ok((120, 80)), avif.clone().with(boxed(b"a1op", &[&[0]])).with(boxed(b"lsel", &[&[0xFF; 2]])).build()),
            ("boxes with lengths of 64 bits", Ok((120, 80)), {
                let file = avif.build();
                let (start, data) = file.split_at(file.windows(4).position(|window| window == b"mdat").unwrap() - 4);
                // The item's data is eight bytes further on.
                let at = u32::try_from(start.len() + 8).unwrap().to_be_bytes();
                let moved = u32::try_from(start.len() + 16).unwrap().to_be_bytes();
                [replaced(start.to_vec(), &at, &moved), wide(b"mdat", &data[8..])].concat()
            }),
            ("pixels of 17 MiB first", Ok((80, 120)), {
                Heif { data_first: true, filler: 17 * MIB, ..avif.clone() }.with(irot(1)).build()
            }),
            ("grid of odd sides", Ok((230, 150)), Heif { derived: Some(grid(2, 2, 230, 150)), ..avif.clone() }.build()),
            ("data in several pieces", Ok((120, 80)), Heif { pieces: 3, ..avif.clone() }.build()),
        ],
    )
}

/// Returns images without `meta`.
pub(super) fn minimized() -> Vec<Structure> {
    let mini = || Mini { minor: b"avif", types: None, orientation: 1, is_large: false };
    let mini_of_types = |types| Mini { types: Some(types), ..mini() }.build();
    rows(
        "image/avif",
        vec![
            ("minimized", Ok((120, 80)), mini().build()),
            ("minimized, turned", Ok((80, 120)), Mini { orientation: 6, ..mini() }.build()),
            ("minimized, mirrored", Ok((120, 80)), Mini { orientation: 4, ..mini() }.build()),
            ("minimized, with sides of 15 bits", Ok((120, 80)), Mini { is_large: true, ..mini() }.build()),
            ("minimized, with its coding in the box", Ok((120, 80)), mini_of_types([b"av01", b"av1C"])),
            ("minimized, of no coding", Err(UnknownType), Mini { minor: b"\0\0\0\0", ..mini() }.build()),
            ("minimized, of an unknown coding", Err(NoPicture), mini_of_types([b"xxxx", b"xxxC"])),
            ("minimized, without its brand", Err(NoPicture), replaced(mini().build(), b"mif3", b"avif")),
            ("minimized, of a later version", Err(Malformed), replaced(mini().build(), b"mini\x08", b"mini\x48")),
            ("minimized, cut short", Err(Truncated), mini().build()[..200].to_vec()),
        ],
    )
}

/// Returns image sequences: a track, with or without items.
pub(super) fn sequences() -> Vec<Structure> {
    let animated = fixture("animated.avif");
    let bare = replaced(replaced(animated.clone(), b"meta", b"free"), b"avifavis", b"avisavis");
    let wider = |file: Vec<u8>| replaced(file, b"\x40\0\0\0\0\x40\0\0\0\x30\0\0", b"\x40\0\0\0\0\x50\0\0\0\x30\0\0");
    rows(
        "image/avif",
        vec![
            ("sequence with an item", Ok((64, 48)), animated.clone()),
            ("sequence without an item", Ok((64, 48)), bare.clone()),
            ("sequence with the handler of videos", Ok((64, 48)), {
                let handler = bare.windows(4).rposition(|window| window == b"pict").unwrap();
                [&bare[..handler], b"vide", &bare[handler + 4..]].concat()
            }),
            (
                "sequence of another major brand and a size unlike the item's",
                Ok((80, 48)),
                replaced(wider(animated.clone()), b"ftypavis", b"ftypmsf1"),
            ),
            ("track of a size unlike the item's before it", Ok((64, 48)), {
                let file = replaced(wider(animated.clone()), b"ftypavis", b"ftypavif");
                let at = |kind: &[u8; 4]| file.windows(4).position(|window| window == kind).unwrap() - 4;
                let (meta, moov, data) = (at(b"meta"), at(b"moov"), at(b"mdat"));
                [&file[..meta], &file[moov..data], &file[meta..moov], &file[data..]].concat()
            }),
            ("sequence of a size unlike the item's", Ok((80, 48)), wider(animated.clone())),
            ("sequence whose track has no media", Err(NoPicture), replaced(bare, b"mdia", b"free")),
        ],
    )
}

/// Returns images whose coded picture has another size than `ispe`. libheif 1.15 and macOS show the picture; later versions of
/// libheif reject the files.
pub(super) fn sized() -> Vec<Structure> {
    let heic = |width, height| Heif { size: (width, height), ..Heif::heic() };
    rows(
        "image/heic",
        vec![
            ("another size: below the picture's", Ok((120, 80)), heic(100, 60).build()),
            ("another size: above the picture's", Ok((120, 80)), heic(4000, 3000).build()),
            ("another size: turned", Ok((80, 120)), heic(200, 100).with(irot(1)).build()),
            ("another size: cropped", Ok((119, 79)), heic(122, 82).with(clap([119, 1, 79, 1, -3, 2, -3, 2])).build()),
            (
                "another size: cropped above the picture's",
                Ok((120, 80)),
                heic(240, 160).with(clap([200, 1, 100, 1, -20, 1, -30, 1])).build(),
            ),
            ("another size: turned, cropped", Ok((60, 110)), {
                heic(122, 82).with(irot(1)).with(clap([60, 1, 110, 1, 0, 1, 0, 1])).build()
            }),
            ("size of no width", Err(EmptyDimensions), heic(0, 80).build()),
            ("size of another version", Err(Malformed), replaced(heic(120, 80).build(), b"ispe\0", b"ispe\x01")),
            ("another size: unreadable parameter sets", Ok((100, 60)), {
                let heic = heic(100, 60);
                Heif { config: boxed(b"hvcC", &[&heic.config[8..40]]), ..heic }.build()
            }),
        ],
    )
}

/// Returns images that are composed of others.
pub(super) fn composed() -> Vec<Structure> {
    let composition = |derived: Derived| Heif { derived: Some(derived), ..Heif::heic() };
    let overlay = |width: u16, height: u16| Derived {
        kind: b"iovl",
        data: [&[0; 10][..], &width.to_be_bytes(), &height.to_be_bytes(), &[0; 8]].concat(),
        size: (width.into(), height.into()),
        parts: 2,
        is_in_meta: true,
    };
    let identity = || Derived { kind: b"iden", data: Vec::new(), size: (120, 80), parts: 1, is_in_meta: true };
    rows(
        "image/heic",
        vec![
            ("grid", Ok((240, 80)), composition(grid(1, 2, 240, 80)).build()),
            ("grid of odd sides", Ok((231, 151)), composition(grid(2, 2, 231, 151)).build()),
            ("grid, turned", Ok((80, 240)), composition(grid(1, 2, 240, 80)).with(irot(1)).build()),
            ("grid, cropped", Ok((100, 60)), composition(grid(1, 2, 240, 80)).with(clap([100, 1, 60, 1, 0, 1, 0, 1])).build()),
            (
                "grid whose data is in another box",
                Ok((240, 80)),
                composition(Derived { is_in_meta: false, ..grid(1, 2, 240, 80) }).build(),
            ),
            ("another size: grid", Ok((240, 80)), composition(Derived { size: (4000, 3000), ..grid(1, 2, 240, 80) }).build()),
            ("overlay", Ok((200, 100)), composition(overlay(200, 100)).build()),
            ("another size: overlay", Ok((200, 100)), composition(Derived { size: (400, 300), ..overlay(200, 100) }).build()),
            ("identity", Ok((120, 80)), composition(identity()).build()),
            ("identity, turned", Ok((80, 120)), composition(identity()).with(irot(1)).build()),
            ("another size: identity", Ok((120, 80)), composition(Derived { size: (300, 200), ..identity() }).build()),
        ],
    )
}

/// Returns a sequence with the boxes and brands of images, sequences and neither.
pub(super) fn branded() -> Vec<Structure> {
    let animated = fixture("animated.avif");
    let brands = |brands: &[&[u8; 4]], file: &[u8]| {
        let end = usize::try_from(u32::from_be_bytes(file[..4].try_into().unwrap())).unwrap();
        let ftyp = ftyp(brands);
        // The offsets in the file stay right.
        let filler = boxed(b"free", &[&vec![0; end - ftyp.len() - 8]]);
        [&ftyp, &filler, &file[end..]].concat()
    };
    let animated_without = |kind: &[u8; 4]| replaced(animated.clone(), kind, b"free");
    let (track, item) = (animated_without(b"meta"), animated_without(b"moov"));
    rows(
        "image/avif",
        vec![
            ("track with the brand of images", Err(NoPicture), brands(&[b"avif", b"avif"], &track)),
            ("track with another major brand and the brand of images", Err(NoPicture), brands(&[b"msf1", b"avif"], &track)),
            ("track with both brands", Err(NoPicture), brands(&[b"avis", b"avif"], &track)),
            ("track with the brand of sequences", Ok((64, 48)), brands(&[b"iso8", b"avis"], &track)),
            ("item with both brands", Err(NoPicture), brands(&[b"avif", b"avis"], &item)),
            ("item with the brand of sequences", Err(NoPicture), brands(&[b"avis", b"avis"], &item)),
            ("item with the brand of images", Ok((64, 48)), brands(&[b"avif", b"avif"], &item)),
            ("neither item nor track", Err(NoPicture), replaced(track.clone(), b"moov", b"free")),
            (
                "neither item nor track, of images",
                Err(NoPicture),
                brands(&[b"avif", b"mif1"], &replaced(track, b"moov", b"free")),
            ),
        ],
    )
}
