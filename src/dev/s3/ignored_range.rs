//! A `Range` that AWS ignores because it cannot parse it, or because it names several ranges. `s3s` verifies the signature, which
//! may cover the header, and then rejects the header. So the header is removed between these two steps.

use hyper::header::{AUTHORIZATION, HeaderMap, RANGE};
use hyper::http::{Extensions, request::Parts};
use hyper::{Method, Request, Uri};
use s3s::dto::Range;
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

/// Marks a request whose `Range` is ignored.
#[derive(Debug, Clone, Copy)]
struct Ignored;

/// Marks a read whose `Range` AWS ignores.
pub(super) fn mark(request: &mut Parts) {
    let mut ranges = request.headers.get_all(RANGE).iter();
    let is_valid = |range: &hyper::header::HeaderValue| range.to_str().is_ok_and(|range| Range::parse(range).is_ok());
    let is_ignored = ranges.next().is_some_and(|first| !is_valid(first) || ranges.next().is_some());
    if is_ignored && matches!(request.method, Method::GET | Method::HEAD) {
        request.extensions.insert(Ignored);
    }
}

/// Answers marked requests, whose signatures are verified, without their `Range`.
pub(super) struct WithoutRange {
    /// The same protocol layer, which verifies no signature.
    pub(super) verified: S3Service,
}

#[async_trait::async_trait]
impl S3Route for WithoutRange {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, extensions: &mut Extensions) -> bool {
        extensions.remove::<Ignored>().is_some()
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let S3Request { input, method, uri, mut headers, .. } = request;
        headers.remove(RANGE);
        headers.remove(AUTHORIZATION);
        let failed = || s3_error!(InternalError, "The answer could not be written");
        let mut unsigned = Request::builder().method(method).uri(without_signature(&uri)).body(input).map_err(|_e| failed())?;
        *unsigned.headers_mut() = headers;
        let (answer, body) = self.verified.call(unsigned).await.map_err(|_e| failed())?.into_parts();
        let mut response = S3Response::with_headers(body, answer.headers);
        response.status = Some(answer.status);
        Ok(response)
    }
}

/// Returns the URI without the parameters of a presigned URL.
fn without_signature(uri: &Uri) -> String {
    let is_other = |pair: &&str| !pair.starts_with("X-Amz-");
    let query: Vec<_> = uri.query().unwrap_or_default().split('&').filter(is_other).collect();
    format!("{}?{}", uri.path(), query.join("&"))
}
