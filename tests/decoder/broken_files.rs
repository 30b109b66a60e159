//! Covers files that are broken, cut off or too large: a picture or a named failure, never a crash.

use bytes::Bytes;
use valet::{domain::rendering::RenderFailure, model::Format};

use super::{fixture, format_of, path, render};

/// Renders a file that must not crash the child. Returns the failure's name, or `None` if the file has pictures.
async fn outcome(format: Format, file: Bytes, case: &str) -> Option<&'static str> {
    match render(format, file).await {
        Ok(_) => None,
        Err(RenderFailure::Undecodable(failure)) => RenderFailure::from(failure).name(),
        Err(other) => panic!("{case}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_files_have_pictures_or_a_named_failure() {
    for name in [
        "orientation-6.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "plain.png",
        "interlaced.png",
        "lossy.webp",
        "alpha.webp",
        "animated.gif",
    ] {
        let whole = fixture(name);
        for percent in 0..100 {
            let part = whole.slice(..whole.len() * percent / 100);
            let outcome = outcome(format_of(name), part, &format!("{percent} % of {name}")).await;
            assert!(matches!(outcome, None | Some("corrupt")), "{percent} % of {name}: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_have_pictures_or_a_named_failure() {
    for name in ["orientation-6.jpg", "progressive.jpg", "palette.png", "lossy.webp", "animated.webp", "animated.gif"] {
        let whole = fixture(name);
        for round in 0..40_usize {
            let mut damaged = whole.to_vec();
            // Knuth's multiplier spreads the positions over the file.
            let at = (round * 2_654_435_761) % damaged.len();
            damaged[at] ^= 1 << (round % 8);
            let _ = outcome(format_of(name), damaged.into(), &format!("{name} with another byte {at}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fixtures_of_other_tests_have_pictures_except_avif_and_heic() {
    let mut count = 0;
    for entry in std::fs::read_dir(path("fixtures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".py") && !name.ends_with(".md") {
            let file = std::fs::read(path("fixtures").join(&name)).unwrap().into();
            let expected = matches!(format_of(&name), Format::Avif | Format::Heif).then_some("unsupported");
            assert_eq!(outcome(format_of(&name), file, &name).await, expected, "{name}");
            count += 1;
        }
    }
    assert!(count > 30);
}

#[tokio::test]
async fn a_file_of_another_format_is_corrupt() {
    assert_eq!(outcome(Format::Png, fixture("grey.jpg"), "a JPEG as PNG").await, Some("corrupt"));
}

/// Returns a grey PNG of this size without pixels.
fn png(width: u32, height: u32) -> Bytes {
    let chunk = |kind: &[u8], content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let named = [kind, content].concat();
        [&length[..], &named, &crc32fast::hash(&named).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &header), chunk(b"IDAT", b"\x78\x9C\x03\0\0\0\0\x01"), chunk(b"IEND", b"")];
    [b"\x89PNG\r\n\x1A\n".to_vec(), chunks.concat()].concat().into()
}

/// Hexadecimal digits of a lossless WebP of 12,592 by 7,940 pixels.
const LARGE_WEBP: &str = concat!(
    "524946464a800000574542505650384c3d0000002f2ff1c007101f20102053224448241048421d772c81002147a020a90201",
    "224a20839e02d06eb7849ab68da0922cc923f966ee1cd1ff093036665628cc0c00",
);

#[tokio::test]
async fn a_file_at_which_a_decoder_panics_is_corrupt() {
    let file = std::fs::read(path("fuzz/corpus/decode_webp/frame-without-height.webp")).unwrap();
    assert_eq!(outcome(Format::Webp, file.into(), "a frame without height").await, Some("corrupt"));
}

#[tokio::test]
async fn images_of_too_many_pixels_are_rejected() {
    // 268 megapixels, which the worker rejects by the header: it starts no child.
    assert_eq!(outcome(Format::Png, png(16_380, 16_380), "a bomb").await, Some("too_big"));
    // 150 megapixels, which the child rejects.
    assert_eq!(outcome(Format::Png, png(12_500, 12_000), "a smaller one").await, Some("too_big"));
    // 100 megapixels without alpha: the decoder needs seven bytes for each pixel.
    let lossless = hex::decode(LARGE_WEBP).unwrap();
    assert_eq!(outcome(Format::Webp, lossless.into(), "a lossless WebP").await, Some("too_big"));
    // One byte more than 100 MiB.
    let long = vec![0; (100 << 20) + 1];
    assert_eq!(outcome(Format::Jpeg, long.into(), "a long file").await, Some("too_big"));
}
