//! Entity tags (RFC 9110 section 8.8.3): comparison with `If-None-Match`, and files that are sent only if the client lacks them.

use bytes::Bytes;
use poem::{
    Request, Response, ResponseBuilder,
    http::{StatusCode, header},
};

/// Returns whether `If-None-Match` has this tag (RFC 9110 section 13.1.2: compared weakly).
pub fn is_tag_listed(if_none_match: &str, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if_none_match.trim() == "*" || if_none_match.split(',').any(|tag| opaque(tag) == opaque(etag))
}

/// Returns the file, or 304 if the request names its tag. `response` has the headers of both.
pub fn file_response(
    request: &Request,
    response: ResponseBuilder,
    etag: &str,
    content_type: &'static str,
    content: Bytes,
) -> Response {
    let response = response.header(header::ETAG, etag);
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    if known.is_some_and(|tags| is_tag_listed(tags, etag)) {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    response.content_type(content_type).body(poem::Body::from_bytes(content))
}

#[cfg(test)]
mod tests {
    use super::is_tag_listed;

    #[test]
    fn tags_are_compared_weakly() {
        for given in ["W/\"a\"", "\"a\"", "*", "\"b\", W/\"a\"", " \"b\",\"a\" "] {
            assert!(is_tag_listed(given, "W/\"a\""), "{given}");
        }
        for given in ["", "a", "W/\"b\"", "\"A\"", "\"a"] {
            assert!(!is_tag_listed(given, "W/\"a\""), "{given}");
        }
    }
}
