//! The vocabulary: identifiers, checked values and the image's states with their legal moves.
//!
//! No I/O lives here, and nothing of poem, mongodb or aws. A value of one of these types has passed its
//! checks; the rest of the program does not check again.

mod caption;
mod content_type;
pub mod cors;
mod email;
mod file_name;
mod format;
mod id;
mod idempotency;
mod image;
mod loose;
mod multipart;
#[cfg(test)]
pub(crate) mod mutations;
mod object_key;
mod prefix;
mod preview;
mod refusal;
mod reservation;
mod saved_name;
mod sha256;
#[cfg(test)]
mod tests;
mod user;

pub use caption::Caption;
pub use content_type::ContentType;
pub use email::{Email, InvalidEmail};
pub use file_name::{FileName, InvalidFileName};
pub use format::Format;
pub use id::{DeploymentId, ImageId, SessionId, StepId, UserId};
pub use idempotency::{Idempotency, IdempotencyKey, InvalidIdempotencyKey};
pub use image::{Dimensions, Image, ImageState, Lifetimes, ObjectKey, Position, Upload, Verified};
pub use loose::Loose;
pub use multipart::{Multipart, PartChecksums};
pub use object_key::KeyOwner;
pub use prefix::{Holder, Prefix};
pub use preview::{InvalidThumbHash, Preview, ThumbHash};
pub use refusal::{Refusal, Rejection};
pub use reservation::{Books, OPENING, Place, Reservation, Settlement, Urls};
pub use sha256::{InvalidSha256, Sha256};
pub use user::{Usage, User};
