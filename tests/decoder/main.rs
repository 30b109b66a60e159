//! Tests of the child process that decodes images (`valet decode`) with the real program: its cage, from inside, and its pixels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod broken_files;
mod cage;
#[cfg(unix)]
mod heif;
mod pixels;
mod sizes;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use valet::{
    domain::rendering::{RenderFailure, Rendered, Renderer},
    model::{Format, decoding::Cage},
};

/// The program, which is built with the tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_valet");

fn renderer() -> Renderer {
    Renderer::new(PROGRAM.into())
}

/// Returns the path of a file of `tests`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn fixture(name: &str) -> Bytes {
    std::fs::read(path("decoder/fixtures").join(name)).unwrap().into()
}

fn format_of(name: &str) -> Format {
    match name.rsplit_once('.').unwrap().1 {
        "jpg" => Format::Jpeg,
        "png" => Format::Png,
        "webp" => Format::Webp,
        "gif" => Format::Gif,
        "avif" => Format::Avif,
        "heic" => Format::Heif,
        other => panic!("{other}"),
    }
}

async fn render(format: Format, file: impl Into<Bytes>) -> Result<Rendered, RenderFailure> {
    let rendered = renderer().render(format, file.into()).await;
    if cfg!(target_os = "linux")
        && let Ok(rendered) = &rendered
    {
        // Files that the tests themselves inherited reach the child too.
        assert_eq!(Cage { is_empty: true, ..rendered.cage }, Cage::COMPLETE);
    }
    rendered
}

/// Pixels of a picture: width, height, and three bytes for each.
struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Pixels {
    fn of(jpeg: &[u8]) -> Self {
        let mut decoder = zune_jpeg::JpegDecoder::new(zune_core::bytestream::ZCursor::new(jpeg));
        let rgb = decoder.decode().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        assert_eq!(rgb.len(), width * height * 3);
        Self { width, height, rgb }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].try_into().unwrap()
    }
}

/// Decodes a JPEG of 4032 by 3024 pixels in a child. Returns its processor time in milliseconds and its peak memory in KiB, as GNU
/// time measures them.
async fn measure(file: &[u8]) -> (u64, u64) {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use valet::model::{Orientation, decoding::DecodeRequest};

    let file_bytes = u32::try_from(file.len()).unwrap();
    let request = DecodeRequest { format: Format::Jpeg, orientation: Orientation::NORMAL, width: 4032, height: 3024, file_bytes };
    let mut child = Command::new("/usr/bin/time")
        .args(["-f", "%U %S %M", PROGRAM, "decode"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let message = [&request.to_bytes()[..], file].concat();
    let sender = std::thread::spawn(move || input.write_all(&message));
    let done = child.wait_with_output().unwrap();
    sender.join().unwrap().unwrap();
    assert!(done.status.success());
    let printed = String::from_utf8(done.stderr).unwrap();
    let numbers: Vec<f64> = printed.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (((numbers[0] + numbers[1]) * 1000.0).round() as u64, numbers[2] as u64)
}
