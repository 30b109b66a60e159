//! Classifies failed S3 calls, by status and error code; stores differ in their codes.
//!
//! A 404 means that the object does not exist only if the store itself says so. The bucket may be missing instead, or a proxy
//! in front of the store may not know the path: those are outages, for which nothing may be expired or deleted.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use super::{StoreError, no_response_cause::NoResponseCause};

/// The class of a failed call: whether the same call can succeed later, by S3's response ("Error responses" in the S3 API
/// reference).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The object, part, version or upload in the call is rejected, and every repeat too.
    Object,
    /// The store does not support the operation.
    Unsupported,
    /// Credentials, permissions, the bucket or its encryption keys are wrong: after an operator has corrected them, a repeat
    /// succeeds.
    Configuration,
    /// Load, an outage, a clock, credentials that are being renewed, or a broken connection: a repeat succeeds by itself.
    Temporary,
}

/// Codes of [`Failure::Temporary`], although their status is 4xx.
const TEMPORARY_CODES: [&str; 18] = [
    "BadDigest",
    "ConditionalRequestConflict",
    "ExpiredToken",
    "IncompleteBody",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestExpired",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "RestoreAlreadyInProgress",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TokenRefreshRequired",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
];

/// Codes of [`Failure::Configuration`]: an operator has to change credentials, permissions, the bucket or its encryption keys.
const CONFIGURATION_CODES: [&str; 20] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "AuthorizationQueryParametersError",
    "IllegalLocationConstraintException",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidSecurity",
    "InvalidStorageClass",
    "InvalidToken",
    "MissingContentLength",
    "MissingSecurityHeader",
    "NoSuchBucket",
    "NotSignedUp",
    "PermanentRedirect",
    "SignatureDoesNotMatch",
    "TemporaryRedirect",
    "UnauthorizedAccess",
];

/// Codes of [`Failure::Object`] that concern only the object or upload in the call, with any status.
const OBJECT_CODES: [&str; 9] = [
    "EntityTooLarge",
    "EntityTooSmall",
    "InvalidObjectState",
    "InvalidPart",
    "InvalidPartOrder",
    "KeyTooLongError",
    "NoSuchKey",
    "NoSuchUpload",
    "NoSuchVersion",
];

/// Classifies a response by its status and S3's error code. `status` is `None` for a call without a response, `code` for a
/// response without a code, which a proxy in front of the store may have sent.
#[must_use]
pub fn classify(status: Option<u16>, code: Option<&str>) -> Failure {
    match (status, code) {
        (None, _) => Failure::Temporary,
        (_, Some(code)) if TEMPORARY_CODES.contains(&code) => Failure::Temporary,
        (_, Some(code)) if CONFIGURATION_CODES.contains(&code) || code.starts_with("KMS.") => Failure::Configuration,
        (_, Some(code)) if OBJECT_CODES.contains(&code) => Failure::Object,
        (Some(405 | 501), _) | (_, Some("NotImplemented" | "MethodNotAllowed")) => Failure::Unsupported,
        (Some(301..=308 | 401 | 403 | 404 | 411), _) => Failure::Configuration,
        (Some(408 | 409 | 425 | 429), _) => Failure::Temporary,
        (Some(400..=499), Some(_)) => Failure::Object,
        _ => Failure::Temporary,
    }
}

/// Returns whether the code itself shows that the response concerns the object or upload. Other codes of [`Failure::Object`],
/// such as `InvalidRequest`, may reject the form of the call for every object.
pub(super) fn is_about_object<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code().is_some_and(|code| OBJECT_CODES.contains(&code))
}

/// Classifies a failed call as [`classify`] does.
pub(super) fn classify_error<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Failure {
    classify(status(error), error.code())
}

/// Returns the HTTP status of the response; `None` without a response.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Returns whether the store reports that this object, version or upload does not exist. Not for HEAD, whose 404 has no body.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    // `NotFound` is the SDK's code for a response without a code.
    status(error) == Some(404) && error.code().is_some_and(|code| !matches!(code, "NoSuchBucket" | "NotFound"))
}

/// Returns whether the object was deleted or replaced since its entity tag was read.
pub(super) fn is_deleted_or_replaced<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    status(error) == Some(412) || is_absent(error)
}

/// Returns whether the store does not support the operation, or its policy does not permit it.
pub(super) fn is_unavailable<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match status(error) {
        Some(405 | 501) => true,
        Some(400 | 403) => {
            let has_other_cause =
                |code: &str| code != "AccessDenied" && (TEMPORARY_CODES.contains(&code) || CONFIGURATION_CODES.contains(&code));
            error.code().is_some_and(|code| !has_other_cause(code))
        }
        _ => false,
    }
}

/// Returns whether the store listed the bucket's objects with status 200 instead: some stores do so for unknown subresources.
pub(super) fn lists_objects<E>(error: &SdkError<E>) -> bool {
    let answer = error.raw_response().filter(|answer| answer.status().is_success());
    let text = answer.and_then(|answer| answer.body().bytes()).and_then(|body| std::str::from_utf8(body).ok());
    text.is_some_and(|text| text.contains("<ListBucketResult"))
}

/// Returns whether the response is a 404 with an empty body, which may concern the object, the bucket or the path.
pub(super) fn is_bodyless_404<E>(error: &SdkError<E>) -> bool {
    let body = error.raw_response().and_then(|answer| answer.body().bytes());
    status(error) == Some(404) && body.is_some_and(<[u8]>::is_empty)
}

/// Returns the error of a failed call, according to [`classify`].
pub(super) fn error_of<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    error: &SdkError<E>,
) -> StoreError {
    match classify_error(error) {
        Failure::Object => StoreError::ObjectRejected { operation, reason: reason(error) },
        Failure::Unsupported => StoreError::ObjectsUnsupported { operation, reason: reason(error) },
        Failure::Configuration => StoreError::ObjectsMisconfigured { operation, reason: reason(error) },
        // Includes calls without a response.
        Failure::Temporary => outage(operation, error),
    }
}

/// Returns a transient error for any response: for responses that must not decide about an object.
pub(super) fn outage<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    error: &SdkError<E>,
) -> StoreError {
    match error {
        SdkError::TimeoutError(_) => StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(failure) if failure.is_timeout() => StoreError::ObjectsTimeout { operation },
        _ => StoreError::Objects { operation, reason: reason(error) },
    }
}

/// Describes a failed call by status, code and request id, or by the cause of the missing response: never by a URL.
pub(super) fn reason<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    match error {
        SdkError::DispatchFailure(_) => format!("S3 cannot be reached: {}", NoResponseCause::find(error)),
        SdkError::ConstructionFailure(_) => format!("the request could not be built: {}", NoResponseCause::find(error)),
        _ => {
            let id = error.raw_response().and_then(RequestId::request_id).unwrap_or("-");
            let answer = match status(error) {
                Some(status @ 200..300) if error.code().is_none() => format!("{status} with a response that is not S3's"),
                Some(status) => format!("{status} {}", error.code().unwrap_or("without a code")),
                None => "no status".to_owned(),
            };
            format!("{answer}, S3 request {id}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_response_has_one_class() {
        for (status, code, class) in [
            (400, "EntityTooSmall", Failure::Object),
            (400, "EntityTooLarge", Failure::Object),
            (400, "InvalidPartOrder", Failure::Object),
            (400, "InvalidRequest", Failure::Object),
            (400, "InvalidArgument", Failure::Object),
            (403, "InvalidObjectState", Failure::Object),
            (412, "PreconditionFailed", Failure::Object),
            (404, "NoSuchUpload", Failure::Object),
            (405, "MethodNotAllowed", Failure::Unsupported),
            (501, "NotImplemented", Failure::Unsupported),
            (400, "NotImplemented", Failure::Unsupported),
            (403, "AccessDenied", Failure::Configuration),
            (403, "SomethingNew", Failure::Configuration),
            (404, "NoSuchBucket", Failure::Configuration),
            (400, "InvalidToken", Failure::Configuration),
            (400, "KMS.DisabledException", Failure::Configuration),
            (400, "AuthorizationHeaderMalformed", Failure::Configuration),
            (301, "PermanentRedirect", Failure::Configuration),
            (400, "ExpiredToken", Failure::Temporary),
            (403, "RequestTimeTooSkewed", Failure::Temporary),
            (400, "RequestTimeout", Failure::Temporary),
            (409, "OperationAborted", Failure::Temporary),
            (429, "SlowDown", Failure::Temporary),
            (500, "InternalError", Failure::Temporary),
            (503, "SlowDown", Failure::Temporary),
            (507, "XMinioStorageFull", Failure::Temporary),
        ] {
            assert_eq!(classify(Some(status), Some(code)), class, "{status} {code}");
        }
        assert_eq!(classify(None, None), Failure::Temporary, "no answer");
        assert_eq!(classify(Some(400), None), Failure::Temporary, "a proxy's response does not reject an object");
        assert_eq!(classify(Some(403), None), Failure::Configuration);
        assert_eq!(classify(Some(404), None), Failure::Configuration);
    }

    #[test]
    fn every_code_has_one_class() {
        let all: Vec<_> = TEMPORARY_CODES.iter().chain(&CONFIGURATION_CODES).chain(&OBJECT_CODES).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
