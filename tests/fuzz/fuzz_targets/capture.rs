//! Fuzzes the metadata of uploaded files: time, camera and position. The input is a file, so any image is a seed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valet::{
    domain::content::{FetchedRanges, read_capture},
    model::{Camera, Capture, Format, Location, TakenAt, TimelineMonth},
};

/// Reads the metadata of a file that is fetched in ranges, which end at these offsets and at the file's end.
fn read(format: Format, file: &[u8], cuts: &[usize]) -> Capture {
    let (mut fetched, mut start) = (FetchedRanges::default(), 0);
    for end in cuts.iter().copied().chain([file.len()]) {
        fetched.keep(start as u64, &file[start..end]);
        start = end;
    }
    read_capture(format, &fetched)
}

fuzz_target!(|file: &[u8]| {
    // FNV-1a: the same file is always cut at the same offset.
    let hash = file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let cut = (hash % (file.len() as u64 + 1)) as usize;
    for format in Format::ALL {
        let whole = read(format, file, &[]);
        assert_eq!(read(format, file, &[cut]), whole, "adjacent ranges are read like one");
        let Capture { taken_at, camera, location } = whole;
        if let Some(taken_at) = taken_at {
            // The text has whole seconds, unlike the time.
            let text = taken_at.to_string();
            assert_eq!(TakenAt::parse(&text).unwrap().to_string(), text);
            let month = TimelineMonth::of(taken_at.sort_time());
            assert_eq!(TimelineMonth::parse(&month.to_string()), Some(month));
            assert!(text.starts_with(&month.to_string()), "the month is that of the camera's clock");
        }
        if let Some(camera) = camera {
            assert!(camera.as_str().chars().count() <= Camera::MAX_CHARS && !camera.as_str().contains(char::is_control));
            assert_eq!(Camera::parse(camera.as_str()), Some(camera));
        }
        if let Some(location) = location {
            assert_eq!(Location::new(location.latitude(), location.longitude()), Some(location));
        }
        // First only the end of the file is fetched; then its beginning and, at an offset of 1 MiB, its rest, with a hole between
        // them.
        let mut fetched = FetchedRanges::default();
        fetched.keep(cut as u64, &file[cut..]);
        let _ = read_capture(format, &fetched);
        let mut fetched = FetchedRanges::default();
        fetched.keep(0, &file[..cut]);
        fetched.keep(1 << 20, &file[cut..]);
        let _ = read_capture(format, &fetched);
    }
});
