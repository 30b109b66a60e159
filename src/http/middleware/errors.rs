//! Converts every error and panic of the inner layers to a problem: the framework's own texts may repeat the caller's values.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response,
    error::{MethodNotAllowedError, NotFoundError, ParsePathError},
    http::{HeaderValue, Method, StatusCode, header},
};
use poem_openapi::error::{AuthorizationError, ContentTypeError, ParseParamError};

use super::{request_body::not_json, request_id::RequestId};
use crate::http::{
    problem::{Code, Problem},
    route_table::RouteTable,
};

/// Detail of a problem whose cause is in the log.
const INTERNAL_DETAIL: &str = "An internal error was logged under this request id.";

/// The properties of a request on which the problem for its error depends.
struct FailedRequest {
    path: String,
    method: Method,
    /// Whether the request had an `Authorization` header with a token.
    has_token: bool,
}

/// Answers errors and panics with problems, and `OPTIONS` with the methods of the path.
pub fn with_problems<E>(endpoint: E, routes: Arc<RouteTable>) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.around(move |next, request| {
        let routes = routes.clone();
        async move {
            let RequestId(id) = RequestId::of(&request);
            let failed = FailedRequest::new(&request);
            let problem = match AssertUnwindSafe(next.call(request)).catch_unwind().await {
                Ok(Ok(response)) => return Ok(response),
                // RFC 9110 section 9.3.7.
                Ok(Err(error)) if failed.method == Method::OPTIONS && error.is::<MethodNotAllowedError>() => {
                    let allow = routes.allowed_methods(&failed.path);
                    return Ok(StatusCode::NO_CONTENT.with_header(header::ALLOW, allow).into_response());
                }
                Ok(Err(error)) => failed.explain(error, &routes),
                Err(_) => {
                    tracing::error!("handler panicked");
                    Problem::new(Code::Internal, INTERNAL_DETAIL)
                }
            };
            let problem = if failed.path.starts_with("/uppy/") { problem.for_uppy() } else { problem };
            Ok(problem.respond(&id))
        }
    })
}

impl FailedRequest {
    fn new(request: &Request) -> Self {
        // Some generated clients send a scheme without a token while they have none.
        let is_empty = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"bearer");
        let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
        Self {
            path: request.uri().path().to_owned(),
            method: request.method().clone(),
            has_token: values.any(|value| !is_empty(value.as_bytes().trim_ascii())),
        }
    }

    /// Returns the problem for an error.
    fn explain(&self, error: poem::Error, routes: &RouteTable) -> Problem {
        if let Some(param) = error.downcast_ref::<ParseParamError>() {
            let rule = match param.name {
                "order" => "must be uploaded or taken",
                // poem's reason contains the name of the type.
                _ if param.reason.contains("boolean") => "must be true or false",
                _ => "must be an integer",
            };
            return Problem::new(Code::InvalidRequest, "A parameter has an invalid value.").field(param.name, rule);
        }
        if error.is::<AuthorizationError>() {
            return if self.has_token {
                Problem::new(Code::TokenInvalid, "Send the access token as `Authorization: Bearer …`.")
            } else {
                Problem::new(Code::TokenMissing, "Sign in and send the access token as `Authorization: Bearer …`.")
            };
        }
        if error.is::<ContentTypeError>() {
            return not_json(&self.path);
        }
        // `ParsePathError`: a path that is not UTF-8.
        if error.is::<NotFoundError>() || error.is::<ParsePathError>() {
            return Problem::new(Code::NotFound, "No such path. The OpenAPI document lists all paths.");
        }
        if error.is::<MethodNotAllowedError>() {
            let allow = routes.allowed_methods(&self.path);
            let problem = Problem::new(Code::MethodNotAllowed, format!("This path supports {allow}."));
            return match HeaderValue::from_str(&allow) {
                Ok(allow) => problem.header(header::ALLOW, allow),
                Err(_) => problem,
            };
        }
        let status = error.status();
        match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(_) if status.is_client_error() && status != StatusCode::UNAUTHORIZED => {
                Problem::new(Code::InvalidRequest, "The request does not match the documented format.")
            }
            Err(error) => {
                tracing::error!(%status, %error, method = %self.method, "framework returned an error");
                Problem::new(Code::Internal, INTERNAL_DETAIL)
            }
        }
    }
}
