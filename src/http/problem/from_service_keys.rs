//! Maps the errors of service keys, and of the calls made with them, to problems.

use poem::http::{HeaderValue, header};

use super::{Code, Problem};
use crate::domain::{
    app_users::{CreateTokenError, MAX_LIFETIME_SECONDS, MIN_LIFETIME_SECONDS},
    service_keys::{InsufficientScope, KeyError},
    user_administration::{ListUsersError, MAX_QUOTA, UserError},
};

/// Rule of an email address, as the end of a sentence that begins with the member's name.
const INVALID_EMAIL: &str = "must be an email address of the form name@example.com";

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid => Self::new(
                Code::TokenInvalid,
                "Send a service key that is not revoked as `Authorization: Bearer vk_…`. Users' tokens are not accepted here.",
            ),
            KeyError::Expired => {
                Self::new(Code::TokenExpired, "The service key has expired. Create another one with `valet key create`.")
            }
            KeyError::Throttled(error) => error.into(),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<InsufficientScope> for Problem {
    fn from(InsufficientScope(scope): InsufficientScope) -> Self {
        let problem = Self::new(
            Code::InsufficientScope,
            "The service key does not have the scope of this operation. Create a key that has it with `valet key create`.",
        );
        // RFC 6750 section 3.1.
        match HeaderValue::from_str(&format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"")) {
            Ok(challenge) => problem.header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        }
    }
}

impl From<CreateTokenError> for Problem {
    fn from(error: CreateTokenError) -> Self {
        match error {
            CreateTokenError::Subject(rule) => {
                Self::new(Code::InvalidSubject, "Send the app's own id of the user.").field("subject", rule.to_string())
            }
            CreateTokenError::Email(_) => {
                Self::new(Code::InvalidEmail, "Send the user's email address, or leave it out.").field("email", INVALID_EMAIL)
            }
            CreateTokenError::Lifetime => Self::new(Code::InvalidLifetime, "Send a lifetime within the limits, or leave it out.")
                .field("expiresIn", format!("must be from {MIN_LIFETIME_SECONDS} to {MAX_LIFETIME_SECONDS} seconds")),
            CreateTokenError::Suspended => Self::new(Code::AccountSuspended, "The user is suspended. Resume the user first."),
            CreateTokenError::Store(error) => error.into(),
        }
    }
}

impl From<ListUsersError> for Problem {
    fn from(error: ListUsersError) -> Self {
        match error {
            ListUsersError::Email(_) => {
                Self::new(Code::InvalidEmail, "Send a whole email address.").field("email", INVALID_EMAIL)
            }
            ListUsersError::TwoFilters => Self::new(Code::InvalidRequest, "Send a subject or an email address, not both.")
                .field("email", "must not be sent together with `subject`"),
            ListUsersError::Store(error) => error.into(),
        }
    }
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        match error {
            UserError::NotFound => Self::user_not_found(),
            UserError::Quota => Self::new(Code::InvalidQuota, "Send a quota within the limits.")
                .field("bytes", format!("must be from 0 to {MAX_QUOTA} bytes")),
            UserError::Store(error) => error.into(),
        }
    }
}
