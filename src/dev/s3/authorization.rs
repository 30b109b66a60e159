//! Checks of the `Authorization` header, with AWS's codes and messages, which `s3s` does not have ("Authenticating Requests:
//! Using the Authorization Header" in the S3 API reference).

use hyper::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, s3_error};
use time::OffsetDateTime;

use super::authentication::{ALGORITHM, CredentialScope, MAX_SKEW, day, format_time, parse_time, rfc3339, text_of};
use super::errors::ErrorAnswer;

const DATE_HEADER: &str = "x-amz-date";
const DIGEST_HEADER: &str = "x-amz-content-sha256";

/// An `Authorization` header, whose signature is not verified yet.
pub(super) struct Authorization<'a> {
    /// Names of the signed headers, separated by semicolons.
    pub(super) signed_headers: &'a str,
    /// Time of the signature.
    pub(super) signed_at: OffsetDateTime,
}

impl<'a> Authorization<'a> {
    /// Parses the header and checks all but the signature.
    ///
    /// # Errors
    ///
    /// 400 or 403.
    pub(super) fn check(headers: &'a HeaderMap, region: &str, now: OffsetDateTime) -> Result<Self, ErrorAnswer> {
        let value = text_of(headers, AUTHORIZATION).unwrap_or_default().trim();
        let Some(components) = value.strip_prefix(ALGORITHM) else {
            let error = s3_error!(InvalidArgument, "Unsupported Authorization Type");
            return Err(argument(error, "Authorization", value));
        };
        let component = |name: &str| {
            let mut all = components.split(',').filter_map(|part| part.trim().split_once('='));
            all.find(|(key, text)| *key == name && !text.is_empty()).map(|(_, text)| text)
        };
        let (Some(credential), Some(signed_headers), Some(_)) =
            (component("Credential"), component("SignedHeaders"), component("Signature"))
        else {
            return Err(malformed(
                "the authorization header requires three components: Credential, SignedHeaders, and Signature.",
            )
            .into());
        };
        let scope = CredentialScope::parse(credential).ok_or_else(|| {
            malformed("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
        })?;
        if scope.service != "s3" {
            let fault = format!("incorrect service \"{}\". This endpoint belongs to \"s3\".", scope.service);
            return Err(malformed(&fault).into());
        }
        if scope.region != region {
            let error = malformed(&format!("the region '{}' is wrong; expecting '{region}'", scope.region));
            return Err(ErrorAnswer { error, elements: vec![("Region", region.to_owned())] });
        }
        let signed_at = signing_time(headers)
            .ok_or_else(|| s3_error!(AccessDenied, "AWS authentication requires a valid Date or x-amz-date header"))?;
        if scope.date != day(signed_at) {
            let fault = wrong_day(&scope, signed_at);
            return Err(malformed(&fault).into());
        }
        check_skew(signed_at, now)?;
        check_digest(headers)?;
        Ok(Self { signed_headers, signed_at })
    }
}

/// Returns the message for a credential whose day is not the one of the signing time.
pub(super) fn wrong_day(scope: &CredentialScope<'_>, signed_at: OffsetDateTime) -> String {
    let day = day(signed_at);
    format!("Invalid credential date \"{}\". This date is not the same as X-Amz-Date: \"{day}\".", scope.date)
}

/// Adds `x-amz-date`, which `s3s` requires, to a request that has only a `Date`.
pub(super) fn add_date(headers: &mut HeaderMap, signed_at: OffsetDateTime) {
    if !headers.contains_key(DATE_HEADER)
        && let Ok(value) = HeaderValue::try_from(format_time(signed_at))
    {
        headers.insert(DATE_HEADER, value);
    }
}

/// Returns the error for a malformed header.
fn malformed(fault: &str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {fault}"))
}

/// Adds the XML elements for an invalid argument.
fn argument(error: S3Error, name: &str, value: &str) -> ErrorAnswer {
    ErrorAnswer { error, elements: vec![("ArgumentName", name.to_owned()), ("ArgumentValue", value.to_owned())] }
}

/// Returns the time in `x-amz-date`, or else in `Date`, which may have the format of either.
fn signing_time(headers: &HeaderMap) -> Option<OffsetDateTime> {
    if headers.contains_key(DATE_HEADER) {
        return parse_time(text_of(headers, DATE_HEADER)?);
    }
    let date = text_of(headers, DATE)?;
    parse_time(date).or_else(|| Timestamp::parse(TimestampFormat::HttpDate, date).ok().map(OffsetDateTime::from))
}

/// Checks the distance of the signing time from now.
fn check_skew(signed_at: OffsetDateTime, now: OffsetDateTime) -> Result<(), ErrorAnswer> {
    if (signed_at - now).abs() <= MAX_SKEW {
        return Ok(());
    }
    let error = s3_error!(RequestTimeTooSkewed, "The difference between the request time and the current time is too large.");
    let elements = vec![
        ("RequestTime", format_time(signed_at)),
        ("ServerTime", rfc3339(now)),
        ("MaxAllowedSkewMilliseconds", MAX_SKEW.whole_milliseconds().to_string()),
    ];
    Err(ErrorAnswer { error, elements })
}

/// Checks the form of `x-amz-content-sha256`.
fn check_digest(headers: &HeaderMap) -> Result<(), ErrorAnswer> {
    let Some(digest) = text_of(headers, DIGEST_HEADER) else {
        return Err(s3_error!(InvalidRequest, "Missing required header for this request: {DIGEST_HEADER}").into());
    };
    let is_hash = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash || digest == "UNSIGNED-PAYLOAD" || digest.starts_with("STREAMING-") {
        return Ok(());
    }
    let error = s3_error!(
        InvalidArgument,
        "{DIGEST_HEADER} must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, or a valid sha256 value."
    );
    Err(argument(error, DIGEST_HEADER, digest))
}
