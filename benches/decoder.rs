//! Benchmark of `valet decode`: `cargo bench --bench decoder`, on Linux with GNU time (`/usr/bin/time`).
//!
//! For photographs of several sizes it prints the processor time of the child process, from its start to its end, its peak memory,
//! and the number of such images that one core decodes in a second. Other load of the machine hardly changes processor time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use jpeg_encoder::{ColorType, Encoder};
use valet::model::{
    Format, Orientation,
    decoding::{DecodeOutput, DecodeRequest, Sandbox},
};

/// Number of runs whose median is printed.
const RUNS: usize = 5;

/// Bound of the processor time of decoding the photograph of 12 megapixels, in milliseconds.
const MAX_CPU_MS: u64 = 250;
/// Bound of the peak memory of decoding it, in MiB.
const MAX_MIB: u64 = 80;

fn main() {
    let program = std::env::var("VALET_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_valet").to_owned());
    println!("{:24} {:>9} {:>9} {:>14}", "image", "CPU in ms", "MiB", "images/s, core");
    // Name, width, height, and whether the JPEG is progressive. Large images are decoded at a quarter of their sides.
    for (name, width, height, progressive) in [
        ("12 MP", 4032, 3024, false),
        ("12 MP, progressive", 4032, 3024, true),
        ("41 MP, full size", 7392, 5544, false),
        ("48 MP, at a quarter", 8064, 6048, false),
        ("200 MP, at a quarter", 16_320, 12_240, false),
    ] {
        let file = photograph(width, height, progressive);
        let mut times = Vec::new();
        let mut peak_kib = 0;
        for _ in 0..RUNS {
            let (cpu_ms, kib) = measure(&program, &file, width, height);
            times.push(cpu_ms);
            peak_kib = peak_kib.max(kib);
        }
        times.sort_unstable();
        let (median, mib) = (times[RUNS / 2], peak_kib / 1024);
        println!("{name:24} {median:9} {mib:9} {:14.1}", 1000.0 / median.max(1) as f64);
        if name == "12 MP" && (median > MAX_CPU_MS || mib > MAX_MIB) {
            println!("warning: more than {MAX_CPU_MS} ms or {MAX_MIB} MiB");
        }
    }
}

/// Decodes a file in a child. Returns its processor time in milliseconds and its peak memory in KiB.
fn measure(program: &str, file: &[u8], width: u16, height: u16) -> (u64, u64) {
    let file_bytes = u32::try_from(file.len()).unwrap();
    let request = DecodeRequest { format: Format::Jpeg, orientation: Orientation::NORMAL, width, height, file_bytes };
    let mut child = Command::new("/usr/bin/time")
        .args(["-f", "%U %S %M", program, "decode"])
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
    let output = DecodeOutput::parse(&done.stdout).unwrap();
    assert_eq!(output.reply.unwrap().unwrap().pictures.len(), 2);
    assert_eq!(output.sandbox, Sandbox::COMPLETE);
    let printed = String::from_utf8(done.stderr).unwrap();
    let numbers: Vec<f64> = printed.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // Seconds in user mode, seconds in the kernel, KiB.
    (((numbers[0] + numbers[1]) * 1000.0).round() as u64, numbers[2] as u64)
}

/// Side in pixels of the square that photographs repeat.
const TILE: u16 = 2048;

/// Returns a JPEG of this size with texture and noise.
fn photograph(width: u16, height: u16, progressive: bool) -> Vec<u8> {
    let tile = tile();
    let row = usize::from(TILE) * 3;
    let mut rgb = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..usize::from(height) {
        let start = y % usize::from(TILE) * row;
        let line = &tile[start..start + row];
        rgb.extend(line.iter().cycle().take(usize::from(width) * 3));
    }
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 88);
    encoder.set_progressive(progressive);
    encoder.encode(&rgb, width, height, ColorType::Rgb).unwrap();
    jpeg
}

/// Returns the red, green and blue values of a square of waves and noise.
fn tile() -> Vec<u8> {
    let mut noise = 1_u32;
    let mut rgb = Vec::with_capacity(usize::from(TILE) * usize::from(TILE) * 3);
    for y in 0..TILE {
        for x in 0..TILE {
            let (x, y) = (f32::from(x), f32::from(y));
            for wave in [(x / 97.0 + y / 211.0).sin(), (x / 53.0 - y / 131.0).sin(), (x / 171.0 + y / 37.0).cos()] {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let grain = (noise >> 24) as f32 / 8.0 - 16.0;
                rgb.push((127.0 + 100.0 * wave + grain).clamp(0.0, 255.0) as u8);
            }
        }
    }
    rgb
}
