//! Entry points for `tests/fuzz` into this room's private functions: compiled under `cfg(fuzzing)`, which cargo-fuzz sets, and part of no
//! other build.

use serde::de::DeserializeOwned;

use super::{auth, batch, body, gallery, multipart, problem::Problem, sessions, uploads, uppy::shapes};
pub use super::{
    compression::accepts_gzip,
    image_page::matches,
    limits::is_json,
    page::{Listing, after, cursor},
};

/// Reads a body as one call would.
pub type Read = fn(&[u8]) -> Result<(), Problem>;

/// Every shape that clients send.
pub const BODIES: &[Read] = &[
    read::<auth::Credentials>,
    read::<auth::PasswordChange>,
    read::<auth::AccountDeletion>,
    read::<sessions::RefreshToken>,
    read::<uploads::NewUpload>,
    read::<batch::UploadBatch>,
    read::<batch::ImageIds>,
    read::<multipart::NewMultipart>,
    read::<multipart::PartsToSign>,
    read::<gallery::ImageUpdate>,
    read::<shapes::UppyFile>,
    read::<shapes::UppyPartsToJoin>,
    read::<shapes::UppyRequest>,
];

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), Problem> {
    body::read::<T>(bytes).map(drop)
}
