//! Tests of the child process that decodes images (`valet decode`) with the real program: its sandbox and that of an operator's
//! command, from inside; its pixels and sizes; broken and mutated files; HEIF by a command; whole folders of files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod broken_files;
#[cfg(target_os = "linux")]
mod command_sandbox;
mod corpus;
#[cfg(unix)]
mod heif;
#[cfg(unix)]
#[path = "../support/heif_commands.rs"]
mod heif_commands;
mod mutations;
mod pixels;
mod sandbox;
mod sizes;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use valet::{
    domain::rendering::{RenderFailure, Rendered, Renderer},
    model::{Format, decoding::Sandbox},
};

/// The program, which is built with the tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_valet");

/// Returns a renderer that starts the program under test.
fn renderer() -> Renderer {
    Renderer::new(PROGRAM.into())
}

/// Returns the path of a file or folder in `tests`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Reads a file of `tests/decoder/fixtures`.
fn fixture(name: &str) -> Bytes {
    std::fs::read(path("decoder/fixtures").join(name)).unwrap().into()
}

/// Returns the format by the extension of a name.
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

/// Renders a file; on Linux, asserts that the sandbox was complete.
async fn render(format: Format, file: impl Into<Bytes>) -> Result<Rendered, RenderFailure> {
    let rendered = renderer().render(format, file.into()).await;
    if cfg!(target_os = "linux")
        && let Ok(rendered) = &rendered
    {
        assert_eq!(rendered.sandbox, Sandbox::COMPLETE);
    }
    rendered
}

/// Pixels of a picture: red, green and blue of each, row by row.
struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Pixels {
    /// Decodes a JPEG.
    fn of(jpeg: &[u8]) -> Self {
        let mut decoder = zune_jpeg::JpegDecoder::new(zune_core::bytestream::ZCursor::new(jpeg));
        let rgb = decoder.decode().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        assert_eq!(rgb.len(), width * height * 3);
        Self { width, height, rgb }
    }

    /// Returns red, green and blue of a pixel.
    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].try_into().unwrap()
    }
}
