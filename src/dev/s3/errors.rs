//! Error bodies with the members that AWS gives and the protocol layer leaves out.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use s3s::{Body, HttpResponse};

const END: &str = "</Error>";

/// Adds members before the end of an error's XML; other bodies stay as they are.
pub(super) fn add_members(response: &mut HttpResponse, members: &[(&str, String)]) {
    if response.status().is_success() || members.is_empty() {
        return;
    }
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let Some(head) = text.trim_end().strip_suffix(END) else { return };
    let mut body = head.to_owned();
    for (name, value) in members {
        let _ = write!(body, "<{name}>{}</{name}>", escaped(value));
    }
    body.push_str(END);
    let body = Bytes::from(body);
    response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    *response.body_mut() = Body::from(body);
}

/// Returns the condition that failed, for the body of a 412.
pub(super) fn failed_condition(request: &HeaderMap) -> Option<&'static str> {
    let named: [(HeaderName, &str); 4] = [
        (IF_NONE_MATCH, "If-None-Match"),
        (IF_MATCH, "If-Match"),
        (IF_UNMODIFIED_SINCE, "If-Unmodified-Since"),
        (IF_MODIFIED_SINCE, "If-Modified-Since"),
    ];
    named.into_iter().find(|(header, _)| request.contains_key(header)).map(|(_, name)| name)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
