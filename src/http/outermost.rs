//! The outermost layer: request ids, deadlines, and the conversion of every error to a problem.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt;
use poem::{
    Endpoint, IntoResponse, Middleware, Request, Response, Result,
    error::{MethodNotAllowedError, NotFoundError, ParsePathError},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use poem_openapi::error::{AuthorizationError, ContentTypeError, ParseParamError};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    client,
    limits::{self, Room},
    openapi,
    problem::{Code, Problem, UNKNOWN},
    shape,
};
use crate::{
    config::{Config, TrustedProxies},
    metrics::{METRICS, RequestLabels},
    model::NetworkPrefix,
    telemetry::{
        AUDIT,
        context::{self, TraceContext},
        spans,
    },
};

const REQUEST_ID: &str = "x-request-id";

/// RFC 6797. Sent over TLS alone, where alone it means something.
const TLS_ONLY: &str = "max-age=31536000; includeSubDomains";

/// Says which request the answer is for.
pub fn name(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// Sets the security headers of every response: no-store by default, no framing, no sniffing, no cross-origin embedding, no
/// referrer.
pub fn protect(headers: &mut HeaderMap) {
    let fixed = HeaderValue::from_static;
    headers.entry(header::CACHE_CONTROL).or_insert(fixed("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(fixed("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
    // https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header: those who may read it ask by CORS.
    headers.insert("cross-origin-resource-policy", fixed("same-origin"));
    if is_page(headers) {
        headers.insert("permissions-policy", fixed("camera=(), geolocation=(), microphone=(), payment=(), usb=()"));
    }
}

/// Adds the header that is sent only over TLS (HSTS).
fn protect_further(headers: &mut HeaderMap) {
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TLS_ONLY));
    if is_page(headers) {
        // A page that holds tokens shares no window with pages that open it. Without TLS browsers ignore this, and complain of it.
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// The request's id, for answers that hold problems of their own.
#[derive(Clone)]
pub struct RequestId(pub String);

/// Wraps the routes.
pub struct Outermost {
    allowed: Arc<Allowed>,
    proxies: Arc<TrustedProxies>,
    room: Arc<Room>,
}

/// The methods of each documented path, its segments with `None` for a parameter.
type Allowed = Vec<(Vec<Option<String>>, Known)>;

/// A documented path.
struct Known {
    path: String,
    methods: Vec<String>,
    /// Those of the methods whose requests have no body.
    bodiless: Vec<String>,
}

impl Outermost {
    /// Reads the document for the methods of each path.
    pub fn new(proxies: Arc<TrustedProxies>, config: &Config) -> Self {
        let segment = |text: &str| (!text.starts_with('{')).then(|| text.to_owned());
        let without_body = openapi::without_body();
        let known = |(path, methods): (String, Vec<String>)| {
            let bodiless = without_body.iter().filter(|(known, _)| *known == path).map(|(_, method)| method.clone()).collect();
            (path.split('/').map(segment).collect(), Known { methods, bodiless, path })
        };
        let mut allowed: Allowed = openapi::paths(config.switches).into_iter().map(known).collect();
        // As the router does: a literal segment goes before a parameter.
        allowed.sort_by_key(|(segments, _)| segments.iter().filter(|segment| segment.is_none()).count());
        Self { allowed: Arc::new(allowed), proxies, room: Arc::new(Room::new(config.load.max_requests)) }
    }
}

impl<E: Endpoint> Middleware<E> for Outermost {
    type Output = OutermostEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        let Self { allowed, proxies, room } = self;
        OutermostEndpoint { inner, allowed: allowed.clone(), proxies: proxies.clone(), room: room.clone() }
    }
}

/// The endpoint behind [`Outermost`].
pub struct OutermostEndpoint<E> {
    inner: E,
    allowed: Arc<Allowed>,
    proxies: Arc<TrustedProxies>,
    room: Arc<Room>,
}

impl<E: Endpoint> Endpoint for OutermostEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let id = request_id(&request);
        request.set_data(RequestId(id.clone()));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        client::warn_of_strange_proxy(&request, &self.proxies);
        let (client, is_tls) = (client::address(&request, &self.proxies), client::is_tls(&request, &self.proxies));
        let (shown, route) = (loggable(&path), self.known(&path).map(|known| known.path.as_str()));
        let asked = spans::RequestAttributes { method: known(&method), route, path: &shown, id: &id };
        let traced = spans::ServerSpan::begin(caller(&request).as_ref(), &asked);
        let (trace_id, span_id) = (traced.ids().trace(), traced.ids().span());
        // The audit log's target: its lines come with the request, whatever else is logged.
        let span = tracing::info_span!(target: AUDIT, "request", id, %trace_id, %span_id, %client, %method, path = shown, user = tracing::field::Empty);
        let answer = async {
            let began = Instant::now();
            let asked = RequestLabels {
                route: route.unwrap_or("other").to_owned(),
                method: known(&method).unwrap_or("other"),
                status: HUNG_UP,
            };
            let under_way = UnderWay::begin(asked);
            let mut response = match self.answer(request, &path, NetworkPrefix::site(client)).await {
                Ok(response) => response,
                Err(problem) if path.starts_with("/uppy/") => problem.for_uppy().respond(&id),
                Err(problem) => problem.respond(&id),
            };
            let status = response.status().as_u16();
            under_way.answered(status);
            traced.record_response(status);
            tracing::info!(status, ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "answered");
            let headers = response.headers_mut();
            name(headers, &id);
            protect(headers);
            if is_tls {
                protect_further(headers);
            }
            if path.starts_with("/api/") {
                headers.append(header::VARY, HeaderValue::from_static("authorization"));
            }
            response
        };
        Ok(answer.instrument(span).instrument(traced.span()).await)
    }
}

impl<E: Endpoint> OutermostEndpoint<E> {
    async fn answer(&self, mut request: Request, path: &str, site: NetworkPrefix) -> Result<Response, Problem> {
        // Some generated clients send a scheme with nothing behind it while they have no token.
        let is_empty = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"bearer");
        let mut sent = request.headers().get_all(header::AUTHORIZATION).iter();
        let has_credentials = sent.any(|value| !is_empty(value.as_bytes().trim_ascii()));
        let method = request.method().clone();
        limits::check_target(&request)?;
        shape::check(&request)?;
        let takes_none = self.known(path).is_some_and(|known| known.bodiless.iter().any(|bodiless| method.as_str() == bodiless));
        let _body = self.room.admit(&mut request, site, takes_none).await?;
        // After the body has arrived, so that slow bodies hold no permit.
        let _under_way = self.room.enter(path, site)?;
        let call = AssertUnwindSafe(self.room.seated(site, self.inner.call(request))).catch_unwind();
        match tokio::time::timeout(limits::deadline(path), call).await {
            Ok(Ok(Ok(answer))) => Ok(answer.into_response()),
            // RFC 9110 section 9.3.7.
            Ok(Ok(Err(error))) if method == Method::OPTIONS && error.is::<MethodNotAllowedError>() => {
                Ok(StatusCode::NO_CONTENT.with_header(header::ALLOW, self.methods_of(path)).into_response())
            }
            Ok(Ok(Err(error))) => Err(self.explain(error, path, &method, has_credentials)),
            Ok(Err(_)) => {
                tracing::error!("a handler panicked");
                Err(Problem::new(Code::Internal, "An internal error was logged under this request id."))
            }
            Err(_) => Err(Problem::new(Code::Timeout, UNKNOWN)),
        }
    }

    /// Replaces an error of the framework, whose plain text may repeat the caller's values, by a problem.
    fn explain(&self, error: poem::Error, path: &str, method: &Method, has_credentials: bool) -> Problem {
        if let Some(param) = error.downcast_ref::<ParseParamError>() {
            return Problem::new(Code::InvalidRequest, "A parameter has the wrong type.").field(param.name, "must be an integer");
        }
        if error.is::<AuthorizationError>() {
            return if has_credentials {
                Problem::new(Code::TokenInvalid, "Send the access token as `Authorization: Bearer …`.")
            } else {
                Problem::new(Code::TokenMissing, "Sign in and send the access token as `Authorization: Bearer …`.")
            };
        }
        if error.is::<ContentTypeError>() {
            return limits::not_json(path);
        }
        // The latter: a path that is not UTF-8, which names nothing.
        if error.is::<NotFoundError>() || error.is::<ParsePathError>() {
            return Problem::new(Code::NotFound, "No such path. The OpenAPI document lists all paths.");
        }
        if error.is::<MethodNotAllowedError>() {
            let allow = self.methods_of(path);
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
                tracing::error!(%status, %error, %method, "the framework raised an error");
                Problem::new(Code::Internal, "An internal error was logged under this request id.")
            }
        }
    }

    /// RFC 9110 section 10.2.1: HEAD works where GET does, OPTIONS everywhere.
    fn methods_of(&self, path: &str) -> String {
        // Undocumented paths are the pages and their files.
        let mut methods = self.known(path).map_or_else(|| vec!["GET".to_owned()], |known| known.methods.clone());
        if let Some(at) = methods.iter().position(|method| method == "GET") {
            methods.insert(at + 1, "HEAD".to_owned());
        }
        methods.push("OPTIONS".to_owned());
        methods.join(", ")
    }

    fn known(&self, path: &str) -> Option<&Known> {
        let segments: Vec<_> = path.split('/').collect();
        let fits = |known: &[Option<String>]| {
            known.len() == segments.len()
                && known.iter().zip(&segments).all(|(known, given)| known.as_deref().is_none_or(|known| known == *given))
        };
        self.allowed.iter().find(|(known, _)| fits(known)).map(|(_, known)| known)
    }
}

/// The status in logs and metrics of a request whose client hung up before it was answered.
const HUNG_UP: u16 = 499;

/// A request that is worked on, until it is answered or its client hangs up: counted and timed either way.
struct UnderWay {
    asked: RequestLabels,
    began: Instant,
}

impl UnderWay {
    fn begin(asked: RequestLabels) -> Self {
        METRICS.in_flight.inc();
        Self { asked, began: Instant::now() }
    }

    fn answered(mut self, status: u16) {
        self.asked.status = status;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        METRICS.in_flight.dec();
        METRICS.requests.get_or_create(&self.asked).observe(self.began.elapsed().as_secs_f64());
        if self.asked.status == HUNG_UP {
            let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(status = HUNG_UP, ms, "the client hung up before it was answered");
        }
    }
}

/// A method's name for metrics: one of few.
fn known(method: &Method) -> Option<&'static str> {
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    names.into_iter().find(|name| method.as_str() == *name)
}

/// The span of the caller that the request says it belongs to.
fn caller(request: &Request) -> Option<TraceContext> {
    let lines = |name| request.headers().get_all(name).into_iter().map(HeaderValue::as_bytes);
    TraceContext::parse(lines(context::TRACEPARENT), lines(context::TRACESTATE))
}

/// The longest segment of a path of ours but the token of Uppy's, which must not be logged in any spelling.
const LONGEST_SEGMENT: usize = 64;

/// The path with what is too long to be a name in it left out.
fn loggable(path: &str) -> String {
    let shown = |segment: &str| if segment.len() > LONGEST_SEGMENT { "…".to_owned() } else { segment.to_owned() };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// The caller's own id when it is plain enough for a log line and a header, else a fresh one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    given.filter(plain).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
