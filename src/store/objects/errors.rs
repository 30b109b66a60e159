//! What a failed call means. Decided by the status first: stores differ in their codes.
//!
//! A 404 says that the object is not there only where the store says so itself. The bucket may be what is missing, or a proxy in
//! front of the store has no such path: those are outages, and nothing may be expired or forgotten for one.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use super::StoreError;

/// What S3 answers with 400 or 403 when it is our credentials, our clock or our connection that it does not take ("Error
/// responses" in the S3 API reference).
const OURS: [&str; 10] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "RequestTimeout",
    "RequestLimitExceeded",
];

pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// The store says that this object, version or upload is not there. Not to be asked of HEAD, whose 404 has no words.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    // `NotFound` is the client's own word for an answer without any.
    status(error) == Some(404) && error.code().is_some_and(|code| !matches!(code, "NoSuchBucket" | "NotFound"))
}

/// Deleted, or replaced, since its entity tag was read.
pub(super) fn is_gone<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    status(error) == Some(412) || is_absent(error)
}

/// The store has no such call, or its policy does not let us make it.
pub(super) fn is_withheld<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match status(error) {
        Some(405 | 501) => true,
        Some(400 | 403) => error.code().is_some_and(|code| !OURS.contains(&code)),
        _ => false,
    }
}

pub(super) fn failed<E: ProvideErrorMetadata + std::error::Error>(operation: &'static str, error: &SdkError<E>) -> StoreError {
    let reason = match error {
        SdkError::TimeoutError(_) => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(_) => "S3 cannot be reached".to_owned(),
        SdkError::ConstructionFailure(_) => "the request could not be built".to_owned(),
        _ => {
            let status = status(error).map_or_else(|| "no status".to_owned(), |status| status.to_string());
            let id = error.raw_response().and_then(RequestId::request_id).unwrap_or("-");
            format!("{status} {}, S3 request {id}", error.code().unwrap_or("without a code"))
        }
    };
    StoreError::Objects { operation, reason }
}
