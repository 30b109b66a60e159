//! The child process that decodes one untrusted image (`valet decode`), for the worker that starts it.
//!
//! A decoder is the part of a program that a hostile file attacks, so this process has no rights: the worker starts it with
//! an empty environment and two pipes, and it gives up every right (`sandbox`) before it reads the first byte. It decodes one image
//! and ends. Its output is checked by the worker as if the image had written it: [`crate::model::decoding`] has the messages.
//!
//! Everything runs on the process's only thread.

mod colour;
#[cfg(target_os = "linux")]
mod filter;
mod gif;
mod jpeg;
mod pictures;
mod pixels;
mod png;
mod sandbox;
mod thumb_hash;
mod webp;

#[cfg(feature = "dev")]
pub mod attempts;
#[cfg(fuzzing)]
pub mod fuzzing;

use std::{
    io::{self, Read, Write},
    panic::{self, AssertUnwindSafe},
};

use crate::model::{
    Format,
    decoding::{DecodeReply, DecodeRequest, MAX_FILE_BYTES, Undecodable, write_reply},
};

pub use sandbox::{limit_and_execute, limit_and_restart};
pub use thumb_hash::thumb_hash;

/// Number of pixels, at most, of a PNG, WebP or GIF; `jpeg` has its own limits.
const MAX_PIXELS: u64 = 100_000_000;

/// Number of bytes, at most, that a decoder may hold of one image at its full size. With the file and the pictures that is below
/// [`sandbox::MEMORY_BYTES`].
const MAX_DECODED_BYTES: u64 = 480 << 20;

/// Enters the sandbox, then decodes the image on standard input. `attempt` runs once the request has been read: it does nothing,
/// except in tests of the sandbox.
///
/// # Errors
/// When standard input ends early or has another message, and when the result cannot be written.
pub fn run(attempt: fn()) -> io::Result<()> {
    let sandbox = sandbox::enter();
    let mut output = io::stdout().lock();
    output.write_all(&sandbox.to_bytes())?;
    output.flush()?;
    let mut input = io::stdin().lock();
    let mut header = [0; DecodeRequest::BYTES];
    input.read_exact(&mut header)?;
    let request = DecodeRequest::parse(&header).ok_or(io::ErrorKind::InvalidData)?;
    attempt();
    let reply =
        if request.file_bytes > MAX_FILE_BYTES { Err(Undecodable::TooBig) } else { decode(&request, file(request, input)?) };
    output.write_all(&write_reply(&reply))?;
    output.flush()
}

/// Reads the file that follows the request.
fn file(request: DecodeRequest, input: impl Read) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    file.try_reserve_exact(usize::try_from(request.file_bytes).unwrap_or(usize::MAX))?;
    input.take(u64::from(request.file_bytes)).read_to_end(&mut file)?;
    if file.len() as u64 == u64::from(request.file_bytes) { Ok(file) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Decodes a file, and makes its pictures. The request alone chooses the decoder.
///
/// # Errors
/// [`Undecodable`] when no pictures can be made of this file.
pub fn decode(request: &DecodeRequest, file: Vec<u8>) -> DecodeReply {
    // Some decoders panic at some broken files. The state that they leave behind is dropped with them.
    let decoded = panic::catch_unwind(AssertUnwindSafe(|| decode_file(request, file)));
    decoded.unwrap_or(Err(Undecodable::Corrupt))
}

/// Decodes a file and makes its pictures; may panic.
fn decode_file(request: &DecodeRequest, file: Vec<u8>) -> DecodeReply {
    let decoded = match request.format {
        Format::Jpeg => jpeg::decode(&file)?,
        Format::Png => png::decode(&file)?,
        Format::Webp => webp::decode(&file)?,
        Format::Gif => gif::decode(&file)?,
        Format::Avif | Format::Heif => return Err(Undecodable::Unsupported),
    };
    drop(file);
    pictures::make(decoded, request)
}
