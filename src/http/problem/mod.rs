//! Error responses: RFC 9457 problems with stable codes, which `code` lists. `from_domain`, `from_accounts`, `from_service_keys`
//! and `from_limits` map the domain's errors to problems; `OPERATIONS` in the handlers' files has the codes of each operation.
//!
//! A detail states what is wrong and what to do, in fixed text or with the service's own limits; never with the caller's values.

use poem::{
    IntoResponse, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};
use uuid::Uuid;

mod code;
mod from_accounts;
mod from_domain;
mod from_limits;
mod from_service_keys;

pub use self::code::Code;

/// Detail of problems with an unknown outcome. Without an idempotency key, a repeat may open a second upload, which expires unused.
pub const UNKNOWN_OUTCOME: &str =
    "It is not known whether the request took effect. Repeat it, with the same Idempotency-Key if it had one.";

/// A member, parameter or header of the request that breaks a rule.
#[derive(Debug, Clone, Object)]
pub struct FieldError {
    /// Path of the member, such as `items[3].sha256`, or name of the parameter or header; empty for the whole body.
    pub field: String,
    /// The rule that it breaks, as the end of a sentence that begins with `field`.
    pub message: String,
}

/// An error (RFC 9457), sent as `application/problem+json`. In a batch, each failed item has one.
#[derive(Debug, Object)]
#[oai(rename = "Problem", rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct ProblemBody {
    /// URI of the kind of problem; ends in the code.
    #[oai(rename = "type")]
    kind: String,
    /// The same text for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Identifies the kind of problem. Handle an unknown code by its HTTP status.
    code: Code,
    /// For people: the error in this request, and the remedy.
    detail: String,
    /// Identifies the request in the service's logs; also in the header `x-request-id`.
    request_id: String,
    /// The members, parameters or headers that break a rule.
    errors: Option<Vec<FieldError>>,
    /// Only in Uppy's operations: one sentence, which Uppy shows to people.
    message: Option<String>,
}

/// A problem before it is sent. The middleware `errors` writes it, with the request's id.
#[derive(Debug)]
pub struct Problem {
    /// Identifies the kind; has the status and the title.
    pub code: Code,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_for_uppy: bool,
}

impl Problem {
    /// Creates a problem. `detail` states what is wrong with this request and what to do.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), is_for_uppy: false }
    }

    /// Returns the problem for a resource that does not exist or belongs to another user: clients must not be able to distinguish
    /// the two.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "It does not exist, or it is not yours.")
    }

    /// Returns the problem of a call to `/api/admin` for a user who does not exist.
    #[must_use]
    pub fn user_not_found() -> Self {
        Self::new(Code::NotFound, "No user has this id, or the user was deleted.")
    }

    /// Returns the problem for a suspended account.
    #[must_use]
    pub fn account_suspended() -> Self {
        Self::new(Code::AccountSuspended, "The account is suspended. Ask the app's operator.")
    }

    /// Returns the problem for a valid token whose session has ended or whose account was deleted.
    #[must_use]
    pub fn session_ended() -> Self {
        Self::new(Code::SessionEnded, "The session has ended or the account was deleted. Sign in again.")
    }

    /// Returns a 503 with a random Retry-After of 1 to 10 seconds, so that clients rejected together do not return together.
    /// `cause` is a sentence.
    #[must_use]
    pub fn too_many(cause: &str) -> Self {
        let wait = 1 + u16::from(Uuid::new_v4().as_bytes()[0] % 10);
        let detail = format!("{cause} Repeat the request after the wait in Retry-After.");
        Self::new(Code::Unavailable, detail).header(header::RETRY_AFTER, HeaderValue::from(wait))
    }

    /// Adds a member, parameter or header that breaks `rule`, the end of a sentence that begins with its name.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, rule: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: rule.into() });
        self
    }

    /// Renames the members in the errors. Each pair is a name in the domain and the name in this operation's requests.
    #[must_use]
    pub fn with_names(mut self, names: &[(&str, &str)]) -> Self {
        for error in &mut self.errors {
            let member = error.field.split(['.', '[']).next().unwrap_or_default();
            if let Some((_, name)) = names.iter().find(|(known, _)| *known == member) {
                error.field = (*name).to_owned();
            }
        }
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns one sentence for Uppy's users: the detail, or the title with the broken rules.
    fn sentence(&self) -> String {
        // The last segment of a path: `size` of `metadata[size]`.
        let last = |field: &str| field.rsplit(['.', '[']).next().unwrap_or_default().trim_end_matches(']').to_owned();
        let rules: Vec<_> = self.errors.iter().map(|error| format!("{} {}", last(&error.field), error.message)).collect();
        if rules.is_empty() { self.detail.clone() } else { format!("{}: {}.", self.code.title(), rules.join("; ")) }
    }

    /// Adds the member `message`, which Uppy shows to people.
    #[must_use]
    pub fn for_uppy(mut self) -> Self {
        self.is_for_uppy = true;
        self
    }

    /// Returns the body: of the response, or of one item of a batch.
    #[must_use]
    pub fn into_body(self, request_id: &str) -> ProblemBody {
        let status = self.code.status();
        ProblemBody {
            kind: format!("urn:valet:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: status.as_u16(),
            code: self.code,
            message: self.is_for_uppy.then(|| self.sentence()),
            detail: self.detail,
            request_id: request_id.to_owned(),
            errors: (!self.errors.is_empty()).then_some(self.errors),
        }
    }

    /// Returns the response: the problem, the challenge of a 401, and Retry-After if a repeat may succeed.
    #[must_use]
    pub fn respond(mut self, request_id: &str) -> Response {
        let (code, status) = (self.code, self.code.status());
        let extra = std::mem::take(&mut self.headers);
        let body = self.into_body(request_id);
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/problem+json")
            .header(header::CACHE_CONTROL, "no-store")
            .body(body.to_json_string());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750 section 3: an error code only when a token was sent.
            let challenge = match code {
                Code::TokenInvalid | Code::TokenExpired | Code::SessionEnded => "Bearer error=\"invalid_token\"",
                // RFC 9470 section 3.
                Code::TokenTooOld => "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"",
                _ => "Bearer",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(code, Code::Unavailable | Code::RateLimited | Code::Timeout) {
            // Seconds; a problem with a header of its own replaces them below.
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        // Not `extend`, which would repeat the headers that are set above.
        for (name, value) in extra {
            headers.insert(name, value);
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code.as_str())
    }
}

impl std::error::Error for Problem {}

impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Returns a response that is never sent: the middleware `errors` takes the problem out of the error and adds the request's id.
    fn as_response(&self) -> Response {
        self.code.status().into_response()
    }
}

impl ApiResponse for Problem {
    /// Registers the schema, which poem-openapi would leave out as unused. `http::openapi` replaces this response with each
    /// operation's own problems.
    fn meta() -> MetaResponses {
        let content = MetaMediaType { content_type: "application/problem+json", schema: ProblemBody::schema_ref() };
        let problem = MetaResponse {
            description: "A problem.",
            status: None,
            status_range: None,
            content: vec![content],
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![problem] }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{StoreError, accounts::SignUpError};

    /// The account may have been created: repeating the request would only answer that the address is taken.
    #[test]
    fn a_sign_up_of_unknown_outcome_recommends_to_sign_in() {
        for error in [StoreError::DatabaseTimeout, StoreError::Contention { subject: "x" }] {
            let problem = Problem::from(SignUpError::from(error));
            assert!(problem.detail.contains("may have been created. Sign in"), "{problem:?}");
            assert_eq!(problem.respond("x").headers()[header::RETRY_AFTER], "2");
        }
    }

    #[test]
    fn the_documented_codes_are_those_that_are_sent() {
        for code in Code::ALL {
            assert_eq!(code.to_json(), Some(serde_json::Value::from(code.as_str())));
        }
    }

    /// A transient failure has Retry-After; a permanent one does not.
    #[test]
    fn only_transient_failures_ask_for_a_repeat() {
        let operation = "HeadObject";
        let reason = || "503".to_owned();
        for (error, status) in [
            (StoreError::Contention { subject: "images" }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Update(reason()), StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::NotPrimary, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Objects { operation, reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::ObjectNotVisible, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::ObjectsMisconfigured { operation, reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Credentials { reason: reason() }, StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::DatabaseTimeout, StatusCode::GATEWAY_TIMEOUT),
            (StoreError::ObjectsTimeout { operation }, StatusCode::GATEWAY_TIMEOUT),
            (StoreError::ObjectRejected { operation, reason: reason() }, StatusCode::CONFLICT),
            (StoreError::ObjectsUnsupported { operation, reason: reason() }, StatusCode::CONFLICT),
            (StoreError::Corrupt { collection: "images", id: "7".to_owned(), field: "size" }, StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let response = Problem::from(error.clone()).respond("a request");
            assert_eq!(response.status(), status, "{error}");
            let has_retry_after = response.headers().contains_key(header::RETRY_AFTER);
            let is_transient = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(has_retry_after, is_transient, "{error}");
        }
    }
}
