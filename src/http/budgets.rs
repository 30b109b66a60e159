//! The rate limits of each operation. The document's 429s are made of this table, and a test calls each operation until each of its
//! limits refuses: an operation that is not here, or is not held to what stands here, fails it.

use crate::domain::throttle::names::{
    ACCOUNT_FAILURES, CALLS, LOGIN, LOGIN_FAILURES, PASSWORD, REFRESH, S3, SIGNUP, UPLOAD, URLS,
};

/// The rate limits of an operation.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// Limits by their names.
    By(&'static [&'static str]),
    /// Nothing, for this reason.
    Free(&'static str),
}

use Budget::{By, Free};

/// Every operation of the document.
pub const OPERATIONS: &[(&str, Budget)] = &[
    ("sign_up", By(&[SIGNUP])),
    ("log_in", By(&[LOGIN, LOGIN_FAILURES, ACCOUNT_FAILURES])),
    ("get_me", By(&[CALLS])),
    ("change_password", By(&[CALLS, LOGIN, LOGIN_FAILURES, PASSWORD])),
    ("delete_account", By(&[CALLS, LOGIN, LOGIN_FAILURES, PASSWORD])),
    ("refresh_session", By(&[REFRESH])),
    ("log_out", By(&[REFRESH])),
    ("list_sessions", By(&[CALLS])),
    ("end_session", By(&[CALLS])),
    ("create_upload", By(&[CALLS, UPLOAD])),
    ("renew_upload", By(&[CALLS, URLS])),
    ("confirm_upload", By(&[CALLS, S3])),
    ("list_pending_uploads", By(&[CALLS])),
    ("create_uploads", By(&[CALLS, UPLOAD])),
    ("renew_uploads", By(&[CALLS, URLS])),
    ("confirm_uploads", By(&[CALLS, S3])),
    ("read_images", By(&[CALLS, URLS])),
    ("delete_images", By(&[CALLS, S3])),
    ("create_multipart_upload", By(&[CALLS, UPLOAD, S3])),
    ("sign_parts", By(&[CALLS, URLS])),
    ("list_parts", By(&[CALLS, S3])),
    ("list_images", By(&[CALLS])),
    ("get_image", By(&[CALLS])),
    ("download_image", By(&[CALLS])),
    ("update_image", By(&[CALLS])),
    ("delete_image", By(&[CALLS, S3])),
    ("create_uppy_session", By(&[CALLS])),
    ("sign_uppy_request", By(&[CALLS, UPLOAD, URLS, S3])),
    ("uppy_form", By(&[CALLS, UPLOAD, S3])),
    ("uppy_create_multipart", By(&[CALLS, UPLOAD, S3])),
    ("uppy_list_parts", By(&[CALLS, S3])),
    ("uppy_sign_part", By(&[CALLS, URLS, S3])),
    ("uppy_sign_parts", By(&[CALLS, URLS, S3])),
    ("uppy_complete_multipart", By(&[CALLS, S3])),
    ("uppy_abort_multipart", By(&[CALLS, S3])),
    ("get_liveness", Free("costs nothing, and orchestrators must never be refused")),
    ("get_readiness", Free("MongoDB and S3 are asked once a second however many ask, and balancers must never be refused")),
];

/// The limits of an operation.
#[must_use]
pub fn limits_of(operation: &str) -> &'static [&'static str] {
    match OPERATIONS.iter().find(|(id, _)| *id == operation) {
        Some((_, By(limits))) => limits,
        Some((_, Free(_))) | None => &[],
    }
}
