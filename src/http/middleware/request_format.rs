//! The permitted format of requests: one path and host, each header and parameter once, no Content-Encoding. A part of a
//! request that this server does not read, and that could change the request's meaning, is rejected, not ignored.

use std::collections::BTreeSet;

use poem::{
    Request,
    http::{HeaderName, HeaderValue, Method, Version, header},
};

use crate::http::problem::{Code, Problem};

/// Headers that a request may have once. A repeated `Authorization` is rejected as an invalid token (401) instead, and audited.
const SINGLE_HEADERS: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::EXPECT,
    header::ORIGIN,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];

/// Checks target, headers and query.
///
/// # Errors
/// 400 for a target that is not a path and for a repeated header or parameter; 415 for a body with a content coding (RFC 9110
/// section 15.5.16).
pub fn check(request: &Request) -> Result<(), Problem> {
    check_target(request)?;
    check_headers(request)?;
    check_query(request)
}

/// Checks that no header is repeated, and that the body has no content coding.
fn check_headers(request: &Request) -> Result<(), Problem> {
    let is_encoded = request.headers().get_all(header::CONTENT_ENCODING).iter().any(|coding| {
        let codings = coding.to_str().unwrap_or("other").split(',');
        codings.map(str::trim).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
    });
    if is_encoded {
        let detail = "Send the request body without a Content-Encoding.";
        let identity = HeaderValue::from_static("identity");
        return Err(Problem::new(Code::UnsupportedMediaType, detail).header(header::ACCEPT_ENCODING, identity));
    }
    if let Some(repeated) = SINGLE_HEADERS.iter().find(|name| request.headers().get_all(*name).iter().nth(1).is_some()) {
        return Err(
            Problem::new(Code::InvalidRequest, "A header appears more than once.").field(repeated.as_str(), "must appear once")
        );
    }
    Ok(())
}

/// Checks that no query parameter is repeated.
fn check_query(request: &Request) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    for (name, _) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        // Uppy sends a file's metadata as `metadata[…]`, repeated as often as the page sets it.
        if !name.starts_with("metadata[") && !names.insert(name) {
            return Err(Problem::new(Code::InvalidRequest, "A query parameter appears more than once. Send each once."));
        }
    }
    Ok(())
}

/// Checks that the target is a path and that exactly one `Host`, by which proxies may have routed, is present (RFC 9112 section
/// 3.2).
fn check_target(request: &Request) -> Result<(), Problem> {
    if request.uri().path().is_empty() && request.method() != Method::CONNECT {
        return Err(Problem::new(Code::InvalidRequest, "The request target is not a path."));
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (request.version(), hosts) {
        (_, 1) | (Version::HTTP_10, 0) => Ok(()),
        _ => Err(Problem::new(Code::InvalidRequest, "Send one `Host` header.")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Returns the code of the problem for a request with these headers and the query of `uri`; `None` if it is accepted.
    fn rejection_code(uri: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let mut request = Request::builder().method(Method::POST).uri(uri.parse().unwrap()).finish();
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        check_headers(&request).and_then(|()| check_query(&request)).err().map(|problem| problem.code)
    }

    #[test]
    fn repeated_headers_or_parameters_and_content_encodings_are_rejected() {
        for (headers, expected) in [
            (vec![("content-encoding", "gzip")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity, br")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity"), ("content-encoding", "zstd")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity")], None),
            (vec![("idempotency-key", "a"), ("idempotency-key", "a")], Some(Code::InvalidRequest)),
            (vec![("content-type", "a"), ("content-type", "b")], Some(Code::InvalidRequest)),
            (vec![("if-none-match", "\"a\""), ("if-none-match", "\"b\"")], None),
        ] {
            assert_eq!(rejection_code("/api/images/upload", &headers), expected, "{headers:?}");
        }
        for (query, expected) in [
            ("limit=5&limit=6", Some(Code::InvalidRequest)),
            ("limit=5&%6Cimit=5", Some(Code::InvalidRequest)),
            ("limit=5&cursor=x", None),
            ("metadata[a]=1&metadata[a]=2", None),
            ("", None),
        ] {
            assert_eq!(rejection_code(&format!("/x?{query}"), &[]), expected, "{query}");
        }
    }
}
