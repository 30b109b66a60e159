//! The permitted shape of requests: each header and parameter once, no Content-Encoding, and a body only where one is documented.
//! Anything that could change a request's meaning and is not read is refused, never ignored.

use std::collections::BTreeSet;

use poem::{
    Request,
    http::{HeaderName, HeaderValue, Method, header},
};

use super::problem::{Code, Problem};

/// Headers with a single value. A repeated `Authorization` is a refused token (401) instead, and audited.
const ONCE: [HeaderName; 4] = [header::CONTENT_TYPE, header::EXPECT, header::ORIGIN, HeaderName::from_static("idempotency-key")];

/// Checks headers and query.
///
/// # Errors
/// 400 for a repeated header or parameter; 415 for a body under a content coding (RFC 9110 section 15.5.16).
pub fn check(request: &Request) -> Result<(), Problem> {
    let coded = request.headers().get_all(header::CONTENT_ENCODING).iter().any(|coding| {
        let codings = coding.to_str().unwrap_or("other").split(',');
        codings.map(str::trim).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
    });
    if coded {
        let detail = "Send the request body without a Content-Encoding.";
        let identity = HeaderValue::from_static("identity");
        return Err(Problem::new(Code::UnsupportedMediaType, detail).header(header::ACCEPT_ENCODING, identity));
    }
    if let Some(twice) = ONCE.iter().find(|name| request.headers().get_all(*name).iter().nth(1).is_some()) {
        return Err(
            Problem::new(Code::InvalidRequest, "A header appears more than once.").field(twice.as_str(), "must appear once")
        );
    }
    let mut seen = BTreeSet::new();
    for (name, _) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        // Uppy sends what a page says of a file as `metadata[…]`, as often as the page says it.
        if !name.starts_with("metadata[") && !seen.insert(name) {
            return Err(Problem::new(Code::InvalidRequest, "A query parameter appears more than once. Send each once."));
        }
    }
    Ok(())
}

/// Returns whether a body is empty, `{}` or `null`, which generated clients send to operations without a body.
#[must_use]
pub fn is_nothing(body: &[u8]) -> bool {
    matches!(body.trim_ascii(), b"" | b"{}" | b"null")
}

/// Returns whether requests of this method have bodies.
#[must_use]
pub fn has_bodies(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Returns the 400 for a body where none is documented.
#[must_use]
pub fn no_body() -> Problem {
    Problem::new(Code::InvalidRequest, "This operation takes no request body. Leave it out.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal(uri: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let mut request = Request::builder().method(Method::POST).uri(uri.parse().unwrap()).finish();
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        check(&request).err().map(|problem| problem.code)
    }

    #[test]
    fn what_is_given_twice_or_coded_is_refused() {
        for (headers, expected) in [
            (vec![("content-encoding", "gzip")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity, br")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity"), ("content-encoding", "zstd")], Some(Code::UnsupportedMediaType)),
            (vec![("content-encoding", "identity")], None),
            (vec![("idempotency-key", "a"), ("idempotency-key", "a")], Some(Code::InvalidRequest)),
            (vec![("content-type", "a"), ("content-type", "b")], Some(Code::InvalidRequest)),
            (vec![("if-none-match", "\"a\""), ("if-none-match", "\"b\"")], None),
        ] {
            assert_eq!(refusal("/api/images/upload", &headers), expected, "{headers:?}");
        }
        for (query, expected) in [
            ("limit=5&limit=6", Some(Code::InvalidRequest)),
            ("limit=5&%6Cimit=5", Some(Code::InvalidRequest)),
            ("limit=5&cursor=x", None),
            ("metadata[a]=1&metadata[a]=2", None),
            ("", None),
        ] {
            assert_eq!(refusal(&format!("/x?{query}"), &[]), expected, "{query}");
        }
    }
}
