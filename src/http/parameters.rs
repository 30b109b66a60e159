//! Parses ids and idempotency keys, which several resources take.

use poem::Request;

use super::problem::{Code, Problem};
use crate::model::{IdempotencyKey, ImageId, InvalidIdempotencyKey, UserId};

/// Parses an image id of a path.
///
/// # Errors
/// 404 for a text that cannot be an id, as for an unknown id.
pub fn parse_image_id(text: &str) -> Result<ImageId, Problem> {
    ImageId::parse(text).ok_or_else(Problem::not_found)
}

/// Parses a user id of a path.
///
/// # Errors
/// 404 for a text that cannot be an id, as for an unknown id.
pub fn parse_user_id(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).ok_or_else(Problem::user_not_found)
}

/// Parses an idempotency key; `member` is the name of the member or header that has it.
///
/// # Errors
/// 400 that names `member`.
pub fn parse_idempotency_key(text: &str, member: &str) -> Result<IdempotencyKey, Problem> {
    let to_problem = |error: InvalidIdempotencyKey| {
        Problem::new(Code::InvalidRequest, "The idempotency key is not valid.").field(member, error.to_string())
    };
    IdempotencyKey::parse(text).map_err(to_problem)
}

/// Parses the header `Idempotency-Key`. poem drops a value that is not ASCII; such a header is rejected here, because without its
/// key a repeat would open a second upload.
///
/// # Errors
/// 400 for an invalid key.
pub fn parse_idempotency_header(request: &Request, key: Option<&str>) -> Result<Option<IdempotencyKey>, Problem> {
    const NAME: &str = "Idempotency-Key";
    if key.is_none() && request.headers().contains_key(NAME) {
        // The dropped value is not available. The empty text is invalid as well, and gets the same problem.
        return parse_idempotency_key("", NAME).map(Some);
    }
    key.map(|text| parse_idempotency_key(text, NAME)).transpose()
}
