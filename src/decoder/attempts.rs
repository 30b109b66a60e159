//! Attempts to leave the sandbox, for its tests: calls that a decoder might make after a file has taken it over. Not in
//! production builds.

use std::{
    fs::File,
    hint::black_box,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

/// Returns the attempt with this name.
///
/// # Panics
/// The returned function panics if the name is "panic".
#[must_use]
pub fn named(name: &str) -> Option<fn()> {
    Some(match name {
        "file" => || drop(File::open("/etc/passwd")),
        "write" => || drop(File::create("/tmp/valet-escaped")),
        "socket" => || drop(TcpStream::connect("127.0.0.1:1")),
        "process" => || drop(Command::new("/bin/true").status()),
        "thread" => || drop(std::thread::Builder::new().spawn(|| {})),
        "memory" => take_memory,
        "time" => take_time,
        "panic" => || assert_eq!(black_box(1), 2, "a decoder panics"),
        _ => return None,
    })
}

/// Takes 2 GiB.
fn take_memory() {
    let mut taken = Vec::new();
    for _ in 0..2048 {
        taken.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Computes for an hour.
fn take_time() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3600) {
        black_box((0..1_000_000_u64).fold(0, |sum: u64, number| black_box(sum.wrapping_add(number))));
    }
}
