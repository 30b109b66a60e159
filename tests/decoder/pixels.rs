//! Covers colours and orientations: every fixture is displayed as Pillow and its `LittleCMS` display it. Also covers colour
//! profiles, and placeholders (`ThumbHash`).

use super::{Pixels, fixture, format_of, path, render};

/// Returns the colours of the four fields of a fixture's picture, at the middle of each, which no edge affects.
fn fields(jpeg: &[u8]) -> [[u8; 3]; 4] {
    let pixels = Pixels::of(jpeg);
    assert_eq!((pixels.width, pixels.height), (48, 32));
    [(12, 8), (36, 8), (12, 24), (36, 24)].map(|(x, y)| pixels.at(x, y))
}

/// Returns the rows of `expected.txt`: the name of a file, and the colours of its fields.
fn expected() -> Vec<(String, [[u8; 3]; 4])> {
    let table = std::fs::read_to_string(path("decoder/fixtures/expected.txt")).unwrap();
    let colour =
        |text: &str| -> [u8; 3] { text.split(',').map(|value| value.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap() };
    let row = |line: &str| {
        let (name, colours) = line.split_once(' ').unwrap();
        (name.to_owned(), colours.split(' ').map(colour).collect::<Vec<_>>().try_into().unwrap())
    };
    table.lines().map(row).collect()
}

/// Returns the content of the first segment of a JPEG that has this marker and begins with `start`, without `start`.
fn segment<'a>(jpeg: &'a [u8], marker: u8, start: &[u8]) -> Option<&'a [u8]> {
    let mut rest = jpeg.strip_prefix(b"\xFF\xD8")?;
    while let [0xFF, found, high, low, ..] = *rest {
        let (content, after) = rest[2..].split_at(usize::from(u16::from_be_bytes([high, low])));
        match content[2..].strip_prefix(start) {
            Some(content) if found == marker => return Some(content),
            _ if found == 0xDA => return None,
            _ => rest = after,
        }
    }
    None
}

#[tokio::test]
async fn every_kind_of_pixels_has_its_colours() {
    let rows = expected();
    assert!(rows.len() >= 29, "{}", rows.len());
    for (name, colours) in rows {
        let rendered = render(format_of(&name), fixture(&name)).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let [picture] = &rendered.pictures[..] else { panic!("{name}: {} pictures", rendered.pictures.len()) };
        let found_fields = fields(&picture.jpeg);
        for (found, expected) in found_fields.as_flattened().iter().zip(colours.as_flattened()) {
            // JPEG changes colours by a few of 255 levels.
            assert!(found.abs_diff(*expected) <= 5, "{name}: {found} is not {expected} in {found_fields:?} and {colours:?}");
        }
        assert_eq!(segment(&picture.jpeg, 0xE1, b""), None, "{name}: metadata");
    }
}

#[tokio::test]
async fn small_profiles_are_kept_and_large_ones_converted() {
    let profile = |jpeg: &[u8]| segment(jpeg, 0xE2, b"ICC_PROFILE\0\x01\x01").map(<[u8]>::to_vec);
    let file_profile = profile(&fixture("p3.jpg")).unwrap();
    for name in ["p3.jpg", "p3.png"] {
        let rendered = render(format_of(name), fixture(name)).await.unwrap();
        assert_eq!(profile(&rendered.pictures[0].jpeg), Some(file_profile.clone()), "{name}");
    }
    let converted = render(format_of("p3-large.jpg"), fixture("p3-large.jpg")).await.unwrap();
    assert_eq!(profile(&converted.pictures[0].jpeg), None);
    // A ThumbHash has no profile, so its colours are those of sRGB, whether the picture keeps the profile or not.
    let with_profile = render(format_of("p3.jpg"), fixture("p3.jpg")).await.unwrap();
    let plain = render(format_of("orientation-1.jpg"), fixture("orientation-1.jpg")).await.unwrap();
    assert_eq!(with_profile.thumb_hash, converted.thumb_hash);
    assert_ne!(with_profile.thumb_hash, plain.thumb_hash);
}

#[tokio::test]
async fn placeholders_are_those_of_the_client_package() {
    // The pixels of plain.png, hashed by clients/js/src/thumbhash.js.
    let rendered = render(format_of("plain.png"), fixture("plain.png")).await.unwrap();
    assert_eq!(rendered.thumb_hash.to_string(), include_str!("fixtures/plain.thumbhash").trim());
}
