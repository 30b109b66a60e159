//! Makes the pictures of an image in a child process that has no rights (`valet decode`, [`crate::model::decoding`]).
//!
//! This process parses headers alone: it verifies the format, and chooses the decoder by it. The child decodes (`child`). Its
//! output counts as hostile, and `verification` checks it. `heif` converts HEIC and AVIF by a command of the operator, in a
//! temporary `folder`.

mod child;
mod folder;
mod heif;
mod verification;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;

use super::content::{Content, ContentError, ContentInspector, ReadBudget};
use crate::model::{
    Format, Orientation, ThumbHash,
    decoding::{DecodeRequest, MAX_FILE_BYTES, Picture, Sandbox, Undecodable},
};

pub use child::CrashCause;

/// Time from the start of a child until it is killed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Maximum number of pixels of an image that is sent to a child; the child's own limits may be lower.
const MAX_PIXELS: u64 = 200_000_000;

/// Starts children that decode, one for each image.
#[derive(Debug, Clone)]
pub struct Renderer {
    program: PathBuf,
    arguments: Vec<String>,
    deadline: Duration,
    heif_command: Option<PathBuf>,
}

/// The pictures of an image.
#[derive(Debug)]
pub struct Rendered {
    /// The placeholder.
    pub thumb_hash: ThumbHash,
    /// One or two pictures, the smaller one first: JPEGs that were verified.
    pub pictures: Vec<Picture>,
    /// The restrictions that the child had: complete on Linux.
    pub sandbox: Sandbox,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum RenderFailure {
    /// The file cannot be decoded. Every other attempt at it fails, too.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The child ended without a result, or with a wrong one. Another attempt may succeed, such as one on another machine.
    #[error("the decoder crashed: {0}")]
    Crashed(CrashCause),
    /// An I/O error of this process while it started a child or exchanged data with one, or of a child that did not execute the
    /// command. Its cause is not the image.
    #[error("failed to run the decoder: {0}")]
    Io(std::io::Error),
}

impl RenderFailure {
    /// Returns the name that is stored with the image; `None` if the failure is not the image's.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Undecodable(Undecodable::Unsupported) => Some("unsupported"),
            Self::Undecodable(Undecodable::TooBig) => Some("too_big"),
            Self::Undecodable(Undecodable::Corrupt) => Some("corrupt"),
            Self::Crashed(_) => Some("crashed"),
            Self::Io(_) => None,
        }
    }

    /// Returns whether another attempt may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Undecodable(_))
    }
}

impl Renderer {
    /// Creates a renderer that starts this program.
    ///
    /// # Errors
    /// [`std::io::Error`] if the path of this program is unknown.
    pub fn of_this_program() -> std::io::Result<Self> {
        // The link leads to the running program even after its file was replaced by a newer one.
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        Ok(Self::new(program))
    }

    /// Creates a renderer that starts another build of this program.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, arguments: vec!["decode".to_owned()], deadline: DEADLINE, heif_command: None }
    }

    /// Sets the time until a child is killed.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets the command that makes a JPEG of HEIC and AVIF, such as `heif-dec` of libheif. It is called with the path of the
    /// image and that of the JPEG. Without it, these images are unsupported.
    ///
    /// It is a decoder in a weaker sandbox (`heif`), and the process that starts it becomes untraceable on Linux.
    #[must_use]
    pub fn with_heif_command(self, command: PathBuf) -> Self {
        Self { heif_command: Some(command), ..self }
    }

    /// Removes the temporary files of conversions whose process was killed, and returns the number of conversions.
    ///
    /// # Errors
    /// [`std::io::Error`] if the folder of temporary files cannot be read.
    pub fn remove_leftovers() -> std::io::Result<usize> {
        folder::remove_leftovers()
    }

    /// Returns whether a command makes a JPEG of HEIC and AVIF.
    #[must_use]
    pub fn has_heif_command(&self) -> bool {
        self.heif_command.is_some()
    }

    /// Makes each child attempt to leave its sandbox, for the tests of the sandbox.
    #[cfg(feature = "dev")]
    #[must_use]
    pub fn with_attempt(mut self, attempt: &str) -> Self {
        self.arguments.extend(["--attempt".to_owned(), attempt.to_owned()]);
        self
    }

    /// Makes the pictures of a file whose format was verified.
    ///
    /// # Errors
    /// [`RenderFailure`]
    pub async fn render(&self, format: Format, file: Bytes) -> Result<Rendered, RenderFailure> {
        let mut request = request(format, &file)?;
        let mut file = file;
        let mut is_converted = false;
        if matches!(format, Format::Avif | Format::Heif) {
            let command = self.heif_command.as_deref().ok_or(Undecodable::Unsupported)?;
            file = Box::pin(heif::convert(self, command, request, &file)).await?;
            is_converted = true;
            let file_bytes = u32::try_from(file.len()).map_err(|_| Undecodable::TooBig)?;
            // The command has turned the image.
            request = DecodeRequest { format: Format::Jpeg, orientation: Orientation::NORMAL, file_bytes, ..request };
        }
        let output = child::run(self, request, file).await?;
        let rendered =
            verification::verify(output, request).map_err(|wrong| RenderFailure::Crashed(CrashCause::Output(wrong)))?;
        rendered.map_err(|failure| match failure {
            // For HEIC and AVIF, `unsupported` means that no command was set.
            RenderFailure::Undecodable(Undecodable::Unsupported) if is_converted => Undecodable::Corrupt.into(),
            failure => failure,
        })
    }
}

/// Returns the request to decode a file, from its headers.
fn request(format: Format, file: &[u8]) -> Result<DecodeRequest, Undecodable> {
    let file_bytes = u32::try_from(file.len()).ok().filter(|bytes| *bytes <= MAX_FILE_BYTES).ok_or(Undecodable::TooBig)?;
    let found = inspect(file).map_err(|error| match error {
        ContentError::TooManyPixels => Undecodable::TooBig,
        _ => Undecodable::Corrupt,
    })?;
    let side = |side: u32| u16::try_from(side).map_err(|_| Undecodable::TooBig);
    let (width, height) = (side(found.width)?, side(found.height)?);
    if found.format != format {
        return Err(Undecodable::Corrupt);
    }
    Ok(DecodeRequest { format, orientation: found.orientation, width, height, file_bytes })
}

/// Returns the content of a whole file, from its headers.
fn inspect(file: &[u8]) -> Result<Content, ContentError> {
    // The bytes are in memory, so metadata of any length is read.
    let total = file.len() as u64;
    let mut inspector = ContentInspector::with_budget(total, MAX_PIXELS, ReadBudget { bytes: total, ..ReadBudget::DEFAULT });
    loop {
        let wanted = inspector.wanted();
        let range = usize::try_from(wanted.start).ok().zip(usize::try_from(wanted.end).ok());
        let bytes = range.and_then(|(start, end)| file.get(start..end)).unwrap_or_default();
        if let Some(verdict) = inspector.supply(bytes) {
            return verdict;
        }
    }
}
