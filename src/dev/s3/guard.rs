//! What AWS refuses of a request's signature and the protocol layer lets pass.

use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use s3s::{S3Result, s3_error};

/// The longest life of a presigned URL: seven days, in seconds.
const MAX_EXPIRES: u32 = 604_800;

/// Refuses signature version 2, a life beyond seven days, and `x-amz-*` headers that nobody signed.
///
/// # Errors
/// 400 or 403, with AWS's words.
pub(super) fn check(request: &Parts) -> S3Result<()> {
    let query = request.uri.query().unwrap_or_default();
    let pair = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
    let authorization = request.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let old = pair("Signature").is_some() || authorization.is_some_and(|a| a.trim_start().starts_with("AWS "));
    if old {
        return Err(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        ));
    }
    let signed = if pair("X-Amz-Signature").is_some() {
        if authorization.is_some() {
            return Err(s3_error!(InvalidArgument, "Only one auth mechanism allowed"));
        }
        match pair("X-Amz-Expires").and_then(|e| e.parse::<u32>().ok()) {
            Some(1..=MAX_EXPIRES) => {}
            _ => {
                return Err(s3_error!(
                    AuthorizationQueryParametersError,
                    "X-Amz-Expires must be a number of seconds from 1 to a week"
                ));
            }
        }
        pair("X-Amz-SignedHeaders").map(|s| s.replace("%3B", ";").replace("%3b", ";"))
    } else {
        authorization.and_then(|a| {
            let rest = a.split_once("SignedHeaders=")?.1;
            Some(rest.split([',', ' ']).next()?.to_owned())
        })
    };
    // An anonymous request is refused by the protocol layer; a form is signed in its fields.
    let Some(signed) = signed else { return Ok(()) };
    let is_signed = |name: &str| signed.split(';').any(|s| s.eq_ignore_ascii_case(name));
    match unsigned(&request.headers, is_signed) {
        Some(name) => Err(s3_error!(AccessDenied, "There were headers present in the request which were not signed: {name}")),
        None => Ok(()),
    }
}

fn unsigned(headers: &HeaderMap, is_signed: impl Fn(&str) -> bool) -> Option<&str> {
    headers.keys().map(hyper::header::HeaderName::as_str).find(|n| n.starts_with("x-amz-") && !is_signed(n))
}

/// A browser's form upload: signed in its fields, by a policy that has an expiry of its own.
pub(super) fn is_form(request: &Parts) -> bool {
    let kind = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    request.method == Method::POST && kind.get(..19).is_some_and(|k| k.eq_ignore_ascii_case("multipart/form-data"))
}
