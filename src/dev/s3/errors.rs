//! Bodies of errors as AWS sends them: adds the XML elements and messages that `s3s` omits, and replaces the codes that differ.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, RANGE,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use s3s::{Body, HttpResponse, S3Error};

use super::object::MAX_KEY_BYTES;

/// An error, and the XML elements that AWS adds to it.
pub(super) struct ErrorAnswer {
    /// The error.
    pub(super) error: S3Error,
    /// Names and values of the elements.
    pub(super) elements: Vec<(&'static str, String)>,
}

impl From<S3Error> for ErrorAnswer {
    fn from(error: S3Error) -> Self {
        Self { error, elements: Vec::new() }
    }
}

impl ErrorAnswer {
    /// Returns the answer to the request.
    pub(super) fn into_response(self) -> HttpResponse {
        let mut response = self.error.to_http_response().unwrap_or_else(|_e| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
        append(&mut response, &self.elements);
        // The answer to a HEAD has no body: clients that signed for another region correct themselves by this header.
        let region = self.elements.iter().find(|(name, _)| *name == "Region");
        if let Some(region) = region.and_then(|(_, region)| HeaderValue::try_from(region).ok()) {
            response.headers_mut().insert("x-amz-bucket-region", region);
        }
        response
    }
}

/// Host id in all answers.
pub(super) const HOST_ID: &str = "local";
/// End of an error's XML.
const END: &str = "</Error>";

/// Adds elements before the end of an error's XML; other bodies stay unchanged.
fn append(response: &mut HttpResponse, elements: &[(&str, String)]) {
    if response.status().is_success() || elements.is_empty() {
        return;
    }
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let Some(head) = text.trim_end().strip_suffix(END) else { return };
    let mut body = head.to_owned();
    for (name, value) in elements {
        let _ = write!(body, "<{name}>{}</{name}>", escaped(value));
    }
    body.push_str(END);
    set_body(response, body);
}

/// The parts of a request that the XML of its error contains.
pub(super) struct RequestSummary {
    method: String,
    /// As sent, percent-encoded.
    path: String,
    /// As sent, percent-encoded.
    query: String,
    /// Name of the conditional header.
    condition: Option<&'static str>,
    /// The header `Range`.
    range: Option<String>,
    /// The header `Authorization`.
    authorization: Option<String>,
}

impl RequestSummary {
    /// Copies these parts of a request.
    pub(super) fn new(request: &Parts) -> Self {
        let text = |name: HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            method: request.method.to_string(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            condition: first_condition(&request.headers),
            range: text(RANGE),
            authorization: text(AUTHORIZATION),
        }
    }

    /// Adds the elements of an error that depend on its code, and those of every error ("REST error responses" in the S3 API
    /// reference). Successes stay unchanged.
    pub(super) fn add_elements(&self, response: &mut HttpResponse, request_id: &str) {
        if response.status().is_success() {
            return;
        }
        replace_code_and_message(response);
        let body = response.body().bytes().unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let code = body.split_once("<Code>").and_then(|(_, rest)| Some(rest.split_once("</Code>")?.0)).unwrap_or_default();
        let (bucket, key) = self.path.trim_start_matches('/').split_once('/').unwrap_or((self.path.trim_matches('/'), ""));
        let query = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
            pairs.find(|(given, _)| given == name).map(|(_, value)| value.into_owned())
        };
        let mut elements = match code {
            "NoSuchKey" => vec![("Key", Some(decoded(key)))],
            "NoSuchBucket" | "InvalidBucketName" | "BucketNotEmpty" | "BucketAlreadyOwnedByYou" => {
                vec![("BucketName", Some(decoded(bucket)))]
            }
            "NoSuchUpload" => vec![("UploadId", query("uploadId"))],
            "NoSuchVersion" => vec![("Key", Some(decoded(key))), ("VersionId", query("versionId"))],
            "PreconditionFailed" => vec![("Condition", self.condition.map(str::to_owned))],
            "InvalidAccessKeyId" if !body.contains("<AWSAccessKeyId>") => vec![("AWSAccessKeyId", self.access_key(query))],
            "SignatureDoesNotMatch" if !body.contains("<AWSAccessKeyId>") => {
                vec![("AWSAccessKeyId", self.access_key(query)), ("SignatureProvided", self.signature(query))]
            }
            "KeyTooLongError" => {
                vec![("MaxSizeAllowed", Some(MAX_KEY_BYTES.to_string())), ("Size", Some(decoded(key).len().to_string()))]
            }
            "MethodNotAllowed" => {
                let resource = if key.is_empty() { "BUCKET" } else { "OBJECT" };
                vec![("Method", Some(self.method.clone())), ("ResourceType", Some(resource.to_owned()))]
            }
            "InvalidRange" => {
                let size = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes */"));
                vec![("RangeRequested", self.range.clone()), ("ActualObjectSize", size.map(str::to_owned))]
            }
            _ => Vec::new(),
        };
        elements.extend([
            ("Resource", Some(self.path.clone())),
            ("RequestId", Some(request_id.to_owned())),
            ("HostId", Some(HOST_ID.to_owned())),
        ]);
        let elements: Vec<_> = elements.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        append(response, &elements);
    }

    /// Returns the key id of the credential in the query or in the `Authorization`.
    fn access_key(&self, query: impl Fn(&str) -> Option<String>) -> Option<String> {
        let credential = query("X-Amz-Credential").or_else(|| self.component("Credential="))?;
        Some(credential.split_once('/')?.0.to_owned())
    }

    /// Returns the signature in the query or in the `Authorization`.
    fn signature(&self, query: impl Fn(&str) -> Option<String>) -> Option<String> {
        query("X-Amz-Signature").or_else(|| self.component("Signature="))
    }

    /// Returns a component of the `Authorization`, up to the next comma.
    fn component(&self, name: &str) -> Option<String> {
        let (_, rest) = self.authorization.as_ref()?.split_once(name)?;
        Some(rest.split(',').next()?.trim().to_owned())
    }
}

/// Messages of AWS for errors that `s3s` sends without one.
const MESSAGES: [(&str, &str); 6] = [
    ("InvalidBucketName", "The specified bucket is not valid."),
    ("KeyTooLongError", "Your key is too long"),
    ("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"),
    ("MissingRequestBodyError", "Request Body is empty"),
    (
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
    ("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed."),
];

/// Replaces `NotImplemented` for an unknown operation by `MethodNotAllowed`, and adds AWS's message to an error without one.
fn replace_code_and_message(response: &mut HttpResponse) {
    const UNKNOWN: &str = "<Code>NotImplemented</Code><Message>Unknown operation</Message>";
    const NOT_ALLOWED: &str =
        "<Code>MethodNotAllowed</Code><Message>The specified method is not allowed against this resource.</Message>";
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let body = if text.contains(UNKNOWN) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        text.replace(UNKNOWN, NOT_ALLOWED)
    } else if !text.contains("<Message>")
        && let Some((code, message)) = MESSAGES.iter().find(|(code, _)| text.contains(&format!("<Code>{code}</Code>")))
    {
        let end = format!("<Code>{code}</Code>");
        text.replace(&end, &format!("{end}<Message>{}</Message>", escaped(message)))
    } else {
        return;
    };
    set_body(response, body);
}

/// Replaces the body, and its length in the headers.
pub(super) fn set_body(response: &mut HttpResponse, body: String) {
    response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    *response.body_mut() = Body::from(Bytes::from(body));
}

/// Decodes a path's percent-encoding. The decoder is one of query values, so the text is made the value of `v`, and `+`, which
/// stands for a space in a query, is encoded first.
fn decoded(text: &str) -> String {
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

/// Returns the first conditional header that the request has, for the body of a 412: clients send one of them.
fn first_condition(headers: &HeaderMap) -> Option<&'static str> {
    let conditions: [(HeaderName, &str); 4] = [
        (IF_NONE_MATCH, "If-None-Match"),
        (IF_MATCH, "If-Match"),
        (IF_UNMODIFIED_SINCE, "If-Unmodified-Since"),
        (IF_MODIFIED_SINCE, "If-Modified-Since"),
    ];
    conditions.into_iter().find(|(header, _)| headers.contains_key(header)).map(|(_, name)| name)
}

/// Escapes text for XML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
