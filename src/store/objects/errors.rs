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

/// A store that does not know what it was asked of the bucket lists the bucket's objects instead, with status 200.
pub(super) fn lists_objects<E>(error: &SdkError<E>) -> bool {
    let answer = error.raw_response().filter(|answer| answer.status().is_success());
    let text = answer.and_then(|answer| answer.body().bytes()).and_then(|body| std::str::from_utf8(body).ok());
    text.is_some_and(|text| text.contains("<ListBucketResult"))
}

/// A 404 with an empty body: it may be of the object or of anything else.
pub(super) fn is_wordless<E>(error: &SdkError<E>) -> bool {
    let body = error.raw_response().and_then(|answer| answer.body().bytes());
    status(error) == Some(404) && body.is_some_and(<[u8]>::is_empty)
}

pub(super) fn failed<E: ProvideErrorMetadata + std::error::Error>(operation: &'static str, error: &SdkError<E>) -> StoreError {
    let reason = match error {
        SdkError::TimeoutError(_) => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(_) => "S3 cannot be reached".to_owned(),
        SdkError::ConstructionFailure(_) => "the request could not be built".to_owned(),
        _ => {
            let id = error.raw_response().and_then(RequestId::request_id).unwrap_or("-");
            let said = match status(error) {
                Some(status @ 200..300) if error.code().is_none() => format!("{status} with an answer that is not S3's"),
                Some(status) => format!("{status} {}", error.code().unwrap_or("without a code")),
                None => "no status".to_owned(),
            };
            format!("{said}, S3 request {id}")
        }
    };
    StoreError::Objects { operation, reason }
}
