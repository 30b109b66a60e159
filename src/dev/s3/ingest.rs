//! Receives bytes from a request or another file into `tmp/` and hashes them. Nothing is published here.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hyper::StatusCode;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};

use super::checksum::{self, Algorithm, Checksums};
use super::folder::{Folder, Temp, blocking, internal};
use super::object::{self, Meta};

/// Maximum size of one PUT or one part (AWS: 5 GiB).
pub(super) const MAX_BYTES: u64 = 5 << 30;
/// Bytes that are buffered before they are written to the disk.
const BATCH_BYTES: usize = 1 << 20;
/// Longest time without a byte within a body; AWS ends the request after about 20 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// A file that is being written and hashed.
pub(super) struct Sink {
    temp: Temp,
    file: File,
    md5: Md5,
    hasher: ChecksumHasher,
    size: u64,
}

/// A complete body: in a file of `tmp/`, without its metadata yet.
pub(super) struct Received {
    temp: Temp,
    file: File,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) sums: Checksums,
}

impl Sink {
    /// Creates a file, and hashers for these checksums besides MD5.
    pub(super) fn create(folder: &Folder, algorithms: impl IntoIterator<Item = Algorithm>) -> io::Result<Self> {
        let temp = folder.temp();
        let file = File::options().write(true).create_new(true).open(temp.path())?;
        Ok(Self { temp, file, md5: Md5::new(), hasher: checksum::hasher(algorithms), size: 0 })
    }

    /// Appends bytes to the file and to the hashes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.md5.update(bytes);
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Appends the next `length` bytes of a file.
    pub(super) fn copy(&mut self, from: &mut File, length: u64) -> io::Result<()> {
        let mut left = length;
        let mut buffer = vec![0; BATCH_BYTES];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
            let got = from.read(&mut buffer[..want])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.write(&buffer[..got])?;
            left -= got as u64;
        }
        Ok(())
    }

    /// Completes the hashes.
    pub(super) fn finish(self) -> Received {
        Received {
            temp: self.temp,
            file: self.file,
            size: self.size,
            md5: self.md5.finalize(),
            sums: checksum::finish(self.hasher),
        }
    }
}

impl Received {
    /// Appends the metadata: the file is now a complete object without a name.
    pub(super) fn seal(mut self, meta: &Meta) -> S3Result<Temp> {
        object::seal(&mut self.file, meta).map_err(internal)?;
        Ok(self.temp)
    }
}

/// Permitted length of a body.
pub(super) enum Length {
    /// Exactly the announced length.
    Exactly(u64),
    /// A length that a form's policy allows.
    Within(RangeInclusive<u64>),
}

impl Length {
    /// Checks that a body that has `size` bytes so far is not too long.
    fn check_growing(&self, size: u64) -> S3Result<()> {
        let max_bytes = match self {
            Self::Exactly(length) => (*length).min(MAX_BYTES),
            Self::Within(range) => (*range.end()).min(MAX_BYTES),
        };
        if size > max_bytes {
            return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
        }
        Ok(())
    }

    /// Checks that a complete body of `size` bytes is not too short.
    fn check_whole(&self, size: u64) -> S3Result<()> {
        match self {
            Self::Exactly(length) if *length != size => Err(incomplete()),
            Self::Within(range) if size < *range.start() => {
                Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the bytes of a request's body.
pub(super) fn chunks(body: Option<StreamingBlob>) -> impl Stream<Item = S3Result<Bytes>> + Unpin {
    stream::iter(body).flatten().map(|chunk| chunk.map_err(|e| body_error(&e)))
}

/// Writes a body to a file.
///
/// # Errors
///
/// If the body ends early, stalls, has too few or too many bytes or fails a check of `s3s`. The file is removed
/// then.
pub(super) async fn receive(
    folder: &Arc<Folder>,
    mut body: impl Stream<Item = S3Result<Bytes>> + Unpin,
    length: Length,
    algorithms: Vec<Algorithm>,
) -> S3Result<Received> {
    if let Length::Exactly(length) = length
        && length > MAX_BYTES
    {
        return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
    }
    let for_sink = Arc::clone(folder);
    let mut sink = blocking(move || Sink::create(&for_sink, algorithms).map_err(internal)).await?;
    let mut batch: Vec<Bytes> = Vec::new();
    let mut batch_length = 0;
    loop {
        let next = tokio::time::timeout(SILENCE_TIMEOUT, body.next()).await.map_err(|_elapsed| {
            s3_error!(RequestTimeout, "Your socket connection to the server was not read from within the timeout.")
        })?;
        let end = next.is_none();
        if let Some(chunk) = next {
            let chunk = chunk?;
            batch_length += chunk.len();
            batch.push(chunk);
        }
        if batch_length >= BATCH_BYTES || (end && batch_length > 0) {
            length.check_growing(sink.size + batch_length as u64)?;
            let chunks = std::mem::take(&mut batch);
            batch_length = 0;
            sink = blocking(move || {
                chunks.iter().try_for_each(|c| sink.write(c)).map_err(internal)?;
                Ok(sink)
            })
            .await?;
        }
        if end {
            break;
        }
    }
    length.check_whole(sink.size)?;
    Ok(sink.finish())
}

/// Returns the error for a body that ended early.
fn incomplete() -> S3Error {
    s3_error!(IncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header")
}

/// Maps a stream error of `s3s`. Its types are private, so only the text distinguishes them.
fn body_error(e: &StdError) -> S3Error {
    let text = e.to_string();
    if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::with_message(code, "The provided 'x-amz-content-sha256' header does not match.");
        error.set_status_code(StatusCode::BAD_REQUEST);
        error
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "A chunk's signature does not match.")
    } else {
        incomplete()
    }
}
