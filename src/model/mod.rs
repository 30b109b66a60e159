//! The vocabulary: identifiers, validated values, and the states of an image with their legal transitions.
//!
//! No I/O lives here, and nothing of poem, mongodb or aws. A value of one of these types has been validated; the rest of the
//! program does not validate it again.

mod caption;
mod content_type;
pub mod cors;
mod download_name;
mod email;
mod file_name;
mod format;
mod id;
mod idempotency;
mod image;
mod network;
mod object_key;
#[cfg(test)]
mod parser_tests;
mod part_layout;
mod preview;
mod rejection;
mod reservation;
mod sha256;
#[cfg(test)]
pub(crate) mod text_strategies;
mod upload;
mod user;

pub use caption::Caption;
pub use content_type::ContentType;
pub use email::{Email, InvalidEmail};
pub use file_name::{FileName, InvalidFileName};
pub use format::Format;
pub use id::{DeploymentId, ImageId, SessionId, StepId, UserId};
pub use idempotency::{Idempotency, IdempotencyKey, InvalidIdempotencyKey};
pub use image::{Dimensions, End, Image, ImageState, ImageStatus, Lifetimes, ObjectKey, Position, ReadyImage, Verified};
pub use network::{NetworkPrefix, RequestOrigin};
pub use object_key::KeyOwner;
pub use part_layout::{PartChecksums, PartLayout};
pub use preview::{InvalidThumbHash, Preview, ThumbHash};
pub use rejection::{Refusal, Rejection};
pub use reservation::{OPENING_GRACE, QuotaCounter, Reservation, ReservationStep, UrlLifetime, UsageCounts};
pub use sha256::{InvalidSha256, Sha256};
pub use upload::{Upload, UploadKind};
pub use user::{Usage, User};
