//! Sends changed files to the real child for a time: `.ci/nightly decoders`. Every file has pictures or a named failure, the
//! sandbox is complete, and no child crashes or hangs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use valet::{
    domain::rendering::{CrashCause, RenderFailure},
    model::{Format, decoding::Sandbox},
};

use super::{corpus::confirmed, path, renderer};

/// A generator of numbers (`SplitMix64`): the same seed gives the same files everywhere.
struct Random(u64);

impl Random {
    /// Returns a random number below `bound`; 0 for a `bound` of 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % bound.max(1) as u64).unwrap()
    }
}

/// Returns the offsets in a file at which segments, chunks or blocks may begin, in order.
fn elements(format: Format, file: &[u8]) -> Vec<usize> {
    let is_tag =
        |at: usize| file.get(at..at + 4).is_some_and(|tag| tag.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' '));
    let is_element = |at: &usize| match format {
        Format::Jpeg => file[*at] == 0xFF && file.get(at + 1).is_some_and(|marker| *marker >= 0xC0),
        Format::Png => is_tag(at + 4),
        Format::Webp => is_tag(*at),
        // The first byte of an extension or an image of a GIF.
        _ => matches!(file[*at], 0x21 | 0x2C),
    };
    (0..file.len()).filter(is_element).collect()
}

/// Returns the file with one to four changes: bytes are changed, inserted or removed, most of them near the beginning of an
/// element; ranges between two elements are removed or repeated; or the file is cut off.
fn changed(format: Format, file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=random.below(4) {
        let elements = elements(format, &file);
        if elements.is_empty() || file.len() < 16 {
            break;
        }
        let (one, other) = (elements[random.below(elements.len())], elements[random.below(elements.len())]);
        let near = (one + random.below(24)).min(file.len() - 1);
        let anywhere = random.below(file.len());
        let (from, to) = (one.min(other), one.max(other));
        match random.below(10) {
            0 => file[near] ^= 1 << random.below(8),
            1 => file[near] = random.below(256).to_le_bytes()[0],
            2 => file[near] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.below(6)],
            3 => file[anywhere] ^= 1 << random.below(8),
            4 => file.truncate(anywhere),
            5 => drop(file.drain(from..to)),
            6 => {
                let piece = file[from..to].to_vec();
                file.splice(from..from, piece);
            }
            7 => {
                let piece = file[from..to].to_vec();
                file.extend(piece);
            }
            8 => file.insert(near, random.below(256).to_le_bytes()[0]),
            _ => drop(file.remove(near)),
        }
    }
    if format == Format::Png {
        repair_checksums(&mut file);
    }
    file
}

/// Writes the correct checksum into each chunk of a PNG: the decoder reads no chunk with a wrong one.
fn repair_checksums(file: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = file.get(at..at + 4) {
        let length = usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap();
        let Some(content) = file.get(at + 4..at.saturating_add(8).saturating_add(length)) else { return };
        let checksum = crc32fast::hash(content).to_be_bytes();
        at += 8 + length;
        let Some(stored) = file.get_mut(at..at + 4) else { return };
        stored.copy_from_slice(&checksum);
        at += 4;
    }
}

/// Returns the tests' files of this format, and those in the folder `VALET_DECODER_CORPUS`, such as inputs that fuzzing has found.
fn seeds(format: Format, extension: &str) -> Vec<Vec<u8>> {
    let extra = env::var_os("VALET_DECODER_CORPUS").map(PathBuf::from);
    let folders = [path("decoder/fixtures"), path("fixtures"), path(&format!("fuzz/corpus/decode_{extension}"))];
    let entries = folders.into_iter().chain(extra).filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let read = entries.filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    read.filter(|file| file.len() < 200_000 && confirmed(file).is_ok_and(|content| content.format == format)).collect()
}

/// Renders changed files of a format for `VALET_DECODER_SECONDS` (5). Stores a file that makes the child crash or hang.
async fn render_changed_files(format: Format, extension: &str) {
    let seconds = env::var("VALET_DECODER_SECONDS").map_or(5, |text| text.parse().unwrap());
    let seed = env::var("VALET_SEED").map_or(1, |text| text.parse().unwrap());
    let (seeds, mut random) = (seeds(format, extension), Random(seed));
    assert!(seeds.len() > 3, "{} files", seeds.len());
    let began = Instant::now();
    let (mut pictures, mut failures) = (0, std::collections::BTreeMap::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let file = changed(format, &seeds[random.below(seeds.len())], &mut random);
        match renderer().render(format, file.clone().into()).await {
            Ok(rendered) => {
                pictures += 1;
                assert!(!cfg!(target_os = "linux") || rendered.sandbox == Sandbox::COMPLETE, "{:?}", rendered.sandbox);
            }
            Err(RenderFailure::Undecodable(failure)) => *failures.entry(failure.to_string()).or_insert(0) += 1,
            Err(failure) => {
                let stored = store_crash(&file, extension);
                // A child with an endless loop exceeds its processor time first: a missed deadline means an overloaded machine.
                let is_late = matches!(failure, RenderFailure::Crashed(CrashCause::Deadline));
                panic!("{failure}{}: {}", if is_late { " (again on an idle machine?)" } else { "" }, stored.display());
            }
        }
    }
    println!("{extension}: {pictures} with pictures, {failures:?}");
}

/// Stores a file that made the child crash or hang; returns the path.
fn store_crash(file: &[u8], extension: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{:08x}.{extension}", crc32fast::hash(file)));
    fs::write(&path, file).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form: .ci/nightly decoders"]
async fn changed_jpegs_have_pictures_or_a_named_failure() {
    render_changed_files(Format::Jpeg, "jpeg").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form: .ci/nightly decoders"]
async fn changed_pngs_have_pictures_or_a_named_failure() {
    render_changed_files(Format::Png, "png").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form: .ci/nightly decoders"]
async fn changed_webps_have_pictures_or_a_named_failure() {
    render_changed_files(Format::Webp, "webp").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form: .ci/nightly decoders"]
async fn changed_gifs_have_pictures_or_a_named_failure() {
    render_changed_files(Format::Gif, "gif").await;
}
