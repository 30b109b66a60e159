//! Checks of a request's authentication that AWS makes and `s3s` omits, or reports with another code; parses the credentials and
//! times of signatures, and recognizes forms, whose fields are signed.

use super::authorization::{Authorization, wrong_day};
use super::errors::ErrorAnswer;
use hyper::Method;
use hyper::header::{AUTHORIZATION, AsHeaderName, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use s3s::{S3Error, s3_error};
use time::{Duration, OffsetDateTime, PrimitiveDateTime, format_description::FormatItem, macros::format_description};

/// Longest lifetime of a presigned URL: seven days, in seconds.
const MAX_EXPIRES: u32 = 604_800;
/// Largest distance of a presigned URL's signing time into the future, and of a signed request's from now.
pub(super) const MAX_SKEW: Duration = Duration::minutes(15);
/// The only supported algorithm of version 4 signatures.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Format of `X-Amz-Date`.
const TIME: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// Place of a request's signature.
pub(super) enum SignatureLocation {
    /// In its query; not verified yet.
    InQuery,
    /// In its `Authorization`; not verified yet.
    InHeader {
        /// Time of the signature.
        at: OffsetDateTime,
    },
    /// In neither: a form may have one in its fields.
    Nowhere,
}

/// Rejects signature version 2, malformed or expired presigned URLs, other regions, and unsigned `x-amz-*` headers (AWS,
/// "Authenticating Requests: Using Query Parameters").
///
/// # Errors
///
/// 400 or 403, with AWS's code and message.
pub(super) fn check(request: &Parts, region: &str, now: OffsetDateTime) -> Result<SignatureLocation, ErrorAnswer> {
    let query = Query(request.uri.query().unwrap_or_default());
    let authorization = text_of(&request.headers, AUTHORIZATION).filter(|text| !text.trim().is_empty());
    if query.get("Signature").is_some() || authorization.is_some_and(|a| a.trim_start().starts_with("AWS ")) {
        return Err(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        )
        .into());
    }
    if query.get("X-Amz-Signature").is_some() {
        if authorization.is_some() {
            return Err(s3_error!(InvalidArgument, "Only one auth mechanism allowed").into());
        }
        let signed_headers = check_presigned(query, region, now)?;
        reject_unsigned(&request.headers, &signed_headers)?;
        Ok(SignatureLocation::InQuery)
    } else if authorization.is_some() {
        let authorization = Authorization::check(&request.headers, region, now)?;
        reject_unsigned(&request.headers, authorization.signed_headers)?;
        Ok(SignatureLocation::InHeader { at: authorization.signed_at })
    } else {
        Ok(SignatureLocation::Nowhere)
    }
}

/// Returns a header, if it is text.
pub(super) fn text_of(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A presigned URL's query.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Returns the value of a parameter as it was sent.
    fn get(self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns the decoded value of a parameter. The decoder needs a pair, so the value is made that of `v`.
    fn decoded(self, name: &str) -> Option<String> {
        let pair = format!("v={}", self.get(name)?);
        let (_, value) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
        Some(value.into_owned())
    }
}

/// Checks the parameters of a presigned URL. Returns the names of the signed headers, separated by semicolons.
fn check_presigned(query: Query<'_>, region: &str, now: OffsetDateTime) -> Result<String, ErrorAnswer> {
    let malformed =
        |message: String| Err(S3Error::with_message(s3s::S3ErrorCode::AuthorizationQueryParametersError, message).into());
    let text = |name: &str| query.decoded(name).filter(|text| !text.is_empty());
    let (Some(algorithm), Some(credential), Some(date), Some(signed), Some(expires)) = (
        text("X-Amz-Algorithm"),
        text("X-Amz-Credential"),
        text("X-Amz-Date"),
        text("X-Amz-SignedHeaders"),
        query.decoded("X-Amz-Expires"),
    ) else {
        return malformed(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, \
             X-Amz-SignedHeaders, and X-Amz-Expires parameters."
                .to_owned(),
        );
    };
    if algorithm != ALGORITHM {
        return malformed(format!("X-Amz-Algorithm only supports \"{ALGORITHM}\""));
    }
    let Some(scope) = CredentialScope::parse(&credential) else {
        return malformed(
            "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \
             \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."
                .to_owned(),
        );
    };
    if scope.service != "s3" {
        let text = "Error parsing the X-Amz-Credential parameter; incorrect service. This endpoint belongs to \"s3\".";
        return malformed(text.to_owned());
    }
    if scope.region != region {
        let error = S3Error::with_message(
            s3s::S3ErrorCode::AuthorizationQueryParametersError,
            format!("Error parsing the X-Amz-Credential parameter; the region '{}' is wrong; expecting '{region}'", scope.region),
        );
        return Err(ErrorAnswer { error, elements: vec![("Region", region.to_owned())] });
    }
    let Some(signed_at) = parse_time(&date) else {
        return malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"".to_owned());
    };
    if scope.date != day(signed_at) {
        return malformed(wrong_day(&scope, signed_at));
    }
    let Some(expires @ 1..=MAX_EXPIRES) = expires.parse::<u32>().ok() else {
        return malformed("X-Amz-Expires must be a number of seconds from 1 to 604800, a week".to_owned());
    };
    check_lifetime(signed_at, expires, now)?;
    Ok(signed)
}

/// Parses an `X-Amz-Date`.
pub(super) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    PrimitiveDateTime::parse(text, TIME).ok().map(PrimitiveDateTime::assume_utc)
}

/// Writes an `X-Amz-Date`.
pub(super) fn format_time(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

/// Returns the day of a credential that signs at this time, as `YYYYMMDD`.
pub(super) fn day(time: OffsetDateTime) -> String {
    format_time(time).chars().take(8).collect()
}

/// Writes a time as the XML elements of errors do, in whole seconds.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Rejects a signature that is not valid yet, or has expired after `expires` seconds.
pub(super) fn check_lifetime(signed_at: OffsetDateTime, expires: u32, now: OffsetDateTime) -> Result<(), ErrorAnswer> {
    if signed_at - now > MAX_SKEW {
        return Err(s3_error!(AccessDenied, "Request is not yet valid").into());
    }
    let end = signed_at + Duration::seconds(i64::from(expires));
    if end < now {
        let elements = vec![("X-Amz-Expires", expires.to_string()), ("Expires", rfc3339(end)), ("ServerTime", rfc3339(now))];
        return Err(ErrorAnswer { error: s3_error!(AccessDenied, "Request has expired"), elements });
    }
    Ok(())
}

/// The parts of a credential.
pub(super) struct CredentialScope<'a> {
    /// The access key's id.
    pub(super) access_key: &'a str,
    /// The day, as `YYYYMMDD`.
    pub(super) date: &'a str,
    /// The region.
    pub(super) region: &'a str,
    /// The service.
    pub(super) service: &'a str,
}

impl<'a> CredentialScope<'a> {
    /// Parses a credential.
    pub(super) fn parse(credential: &'a str) -> Option<Self> {
        // A key id may contain slashes; the scope is the last four segments.
        let mut parts = credential.rsplitn(5, '/');
        let (end, service, region, date) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_valid = end == "aws4_request" && date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
        let access_key = parts.next().filter(|key| is_valid && !key.is_empty())?;
        Some(Self { access_key, date, region, service })
    }
}

/// Rejects a request with an `x-amz-*` header that is not signed.
fn reject_unsigned(headers: &HeaderMap, signed_headers: &str) -> Result<(), ErrorAnswer> {
    let is_signed = |name: &str| signed_headers.split(';').any(|signed| signed.eq_ignore_ascii_case(name));
    let mut names = headers.keys().map(hyper::header::HeaderName::as_str);
    match names.find(|name| name.starts_with("x-amz-") && !is_signed(name)) {
        Some(name) => {
            let error = s3_error!(AccessDenied, "There were headers present in the request which were not signed");
            Err(ErrorAnswer { error, elements: vec![("HeadersNotSigned", name.to_owned())] })
        }
        None => Ok(()),
    }
}

/// Media type of forms with files.
const FORM_DATA: &str = "multipart/form-data";

/// Returns whether the request is a browser's form upload, which is signed in its fields, by a policy with its own expiry.
pub(super) fn is_form(request: &Parts) -> bool {
    let kind = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let is_form_data = kind.get(..FORM_DATA.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM_DATA));
    request.method == Method::POST && is_form_data
}
