//! Entry points of `tests/fuzz` to private functions of `http`. Compiled only with `cfg(fuzzing)`, which cargo-fuzz sets.

use serde::de::DeserializeOwned;

use super::{admin_users, auth, batch, body, gallery, multipart, problem::Problem, sessions, uploads, uppy::dto};
pub use super::{
    body::is_json,
    entity_tags::is_tag_listed,
    middleware::compression::accepts_gzip,
    pagination::{Listing, encode_cursor, parse_cursor},
};

/// Function that reads a request body as an operation does.
pub type Read = fn(&[u8]) -> Result<(), Problem>;

/// Readers of all request types.
pub const BODIES: &[Read] = &[
    read::<auth::SignInCredentials>,
    read::<auth::PasswordChange>,
    read::<auth::AccountDeletion>,
    read::<sessions::RefreshToken>,
    read::<admin_users::AppTokenRequest>,
    read::<admin_users::UserQuota>,
    read::<uploads::NewUpload>,
    read::<batch::UploadBatch>,
    read::<batch::ImageIds>,
    read::<multipart::NewMultipart>,
    read::<multipart::PartsToSign>,
    read::<gallery::ImageUpdate>,
    read::<dto::UppyFile>,
    read::<dto::UppyPartsToJoin>,
    read::<dto::UppyRequest>,
];

/// Parses a body, and drops the result.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), Problem> {
    body::read::<T>(bytes).map(drop)
}
