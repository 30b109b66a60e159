//! The HTTP gate before the protocol: CORS, the guard, request ids, and reading a refused body to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, LOCATION, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Error, S3Result, s3_error};
use secrecy::ExposeSecret as _;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use uuid::Uuid;

use super::api::Api;
use super::folder::Folder;
use super::put::{FileName, FormLocation};
use super::{Options, cors, errors, guard};
use crate::config::CorsOrigins;

/// How long a refused body is read on, so that its sender sees the answer and not a broken connection.
const DRAIN: Duration = Duration::from_secs(30);
/// How long its sender may be silent meanwhile.
const SILENCE: Duration = Duration::from_secs(2);
/// Forms are held in memory by the protocol layer.
const MAX_FORM_BYTES: u64 = 1 << 30;

/// Bytes of a form that the protocol layer gets at once. It gives a file up when a piece that ends with the beginning of a
/// delimiter (one `\r` will do) is followed by one above 64 KiB.
const PIECE: usize = 32 * 1024;

/// The longest that a form's fields are looked through, in bytes: AWS takes 20 KB of them.
const MAX_FIELDS: usize = 64 * 1024;

/// One per server.
pub(super) struct Gate {
    folder: Arc<Folder>,
    /// The origins of a bucket without rules of its own.
    cors: CorsOrigins,
    region: String,
    requests: S3Service,
    /// The protocol layer has one clock skew for everything; a form's signing time may be as old as its policy allows.
    forms: S3Service,
}

struct OneKey {
    access_key: String,
    secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            Ok(self.secret_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
        }
    }
}

impl Gate {
    /// The gate of this folder.
    pub(super) fn new(options: &Options, folder: Arc<Folder>) -> Self {
        let service = |skew: u32| {
            let mut config = S3Config::default();
            config.post_object_max_file_size = MAX_FORM_BYTES;
            config.presigned_url_max_skew_time_secs = skew;
            let mut builder = S3ServiceBuilder::new(Api::new(Arc::clone(&folder)));
            builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
            builder.set_auth(OneKey {
                access_key: options.access_key.clone(),
                secret_key: SecretKey::from(options.secret_key.expose_secret()),
            });
            builder.build()
        };
        let (requests, forms) = (service(900), service(604_800));
        Self { folder, cors: options.cors.clone(), region: options.region.clone(), requests, forms }
    }

    /// Answers one request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let page = cors::CorsRequest::made(parts.method.as_str(), &parts.headers);
        let path = parts.uri.path().to_owned();
        let condition = errors::failed_condition(&parts.headers);
        let id = Uuid::new_v4().simple().to_string().to_ascii_uppercase();
        let head = parts.method == Method::HEAD;
        let mut response = if parts.method == Method::OPTIONS {
            self.preflight(&parts).await.unwrap_or_else(refusal)
        } else {
            // AWS ignores a range that it cannot read, or that names several.
            if parts.headers.get(RANGE).is_some_and(|r| r.to_str().map_or(true, |r| s3s::dto::Range::parse(r).is_err())) {
                parts.headers.remove(RANGE);
            }
            self.serve(parts, body).await
        };
        let mut members = vec![("Resource", path.clone()), ("RequestId", id.clone()), ("HostId", "local".to_owned())];
        if response.status() == StatusCode::PRECONDITION_FAILED {
            members.extend(condition.map(|name| ("Condition", name.to_owned())));
        }
        errors::add_members(&mut response, &members);
        if response.status() == StatusCode::NOT_MODIFIED || (head && !response.status().is_success()) {
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        // As AWS has it: an answer to a request without an origin says nothing of CORS, not even `Vary`.
        if let Some(page) = page
            && let Ok(Some(headers)) = cors::granted((&self.folder, &self.cors), &path, &page).await
        {
            response.headers_mut().extend(headers);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        Ok(response)
    }

    async fn preflight(&self, parts: &Parts) -> S3Result<HttpResponse> {
        let announced = cors::CorsRequest::announced(&parts.headers)?;
        let granted = cors::granted((&self.folder, &self.cors), parts.uri.path(), &announced).await?;
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = granted.ok_or_else(cors::forbidden)?;
        Ok(response)
    }

    async fn serve(&self, parts: Parts, body: Incoming) -> HttpResponse {
        let waits = parts.headers.contains_key(EXPECT);
        let form = guard::is_form(&parts);
        let name = FileName::default();
        let (piece, head) =
            if form { (PIECE, Some(Head { bytes: Vec::new(), name: name.clone(), is_read: false })) } else { (usize::MAX, None) };
        let reading = Reading { body, left: Bytes::new(), piece, head };
        let body = Shared(Arc::new(Inner { reading: Mutex::new(reading), touched: AtomicBool::new(false) }));
        let rest = body.clone();
        let response = match guard::check(&parts, &self.region, OffsetDateTime::now_utc()) {
            Err(refused) => {
                let mut response = refusal(refused.error);
                errors::add_members(&mut response, &refused.members);
                response
            }
            Ok(()) => {
                let service = if form { &self.forms } else { &self.requests };
                let mut request = Request::from_parts(parts, Body::http_body(body));
                request.extensions_mut().insert(name);
                // The protocol layer logs whole requests, presigned queries included: it has no subscriber.
                let answer = service.call(request).with_subscriber(Dispatch::none()).await;
                match answer {
                    Ok(answer) if form && !answer.status().is_success() && rest.lacks_key() => refusal(s3_error!(
                        InvalidArgument,
                        "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields."
                    )),
                    Ok(answer) if form && says(&answer, "<Code>MalformedPOSTRequest</Code>") && rest.lacks_file() => {
                        refusal(s3_error!(InvalidArgument, "POST requires exactly one file upload per request."))
                    }
                    Ok(answer) if form && breaks_policy(&answer) => {
                        refusal(s3_error!(AccessDenied, "Invalid according to Policy: Policy Condition failed"))
                    }
                    Ok(mut answer) => {
                        if let Some(FormLocation(location)) = answer.extensions_mut().remove::<FormLocation>()
                            && answer.status() != StatusCode::SEE_OTHER
                        {
                            answer.headers_mut().extend(HeaderValue::try_from(location).ok().map(|value| (LOCATION, value)));
                        }
                        answer
                    }
                    Err(_e) => refusal(s3_error!(InternalError, "The answer could not be written")),
                }
            }
        };
        let asked_to_continue = !waits || rest.0.touched.load(Ordering::Relaxed);
        if !response.status().is_success() && asked_to_continue {
            rest.drain().await;
        }
        response
    }
}

fn refusal(error: S3Error) -> HttpResponse {
    error.to_http_response().unwrap_or_else(|_e| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// Whether the protocol layer answers a form outside its policy with 400, as it does a malformed policy; AWS says 403.
fn breaks_policy(answer: &HttpResponse) -> bool {
    says(answer, "<Code>InvalidPolicyDocument</Code>")
        && (says(answer, "<Message>Policy condition") || says(answer, "<Message>Bucket in form field"))
}

/// Whether a 400 has this text.
fn says(answer: &HttpResponse, text: &str) -> bool {
    let body = answer.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    answer.status() == StatusCode::BAD_REQUEST && body.contains(text)
}

/// A request's body that the gate keeps hold of while the protocol reads it.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    reading: Mutex<Reading>,
    touched: AtomicBool,
}

/// A body in pieces.
struct Reading {
    body: Incoming,
    /// Of a frame that was longer than a piece.
    left: Bytes,
    piece: usize,
    /// Of a form.
    head: Option<Head>,
}

/// The fields of a form, up to the file: what the protocol layer does not pass on of them.
struct Head {
    bytes: Vec<u8>,
    name: FileName,
    is_read: bool,
}

impl Head {
    fn read(&mut self, piece: &[u8]) {
        if self.is_read {
            return;
        }
        self.bytes.extend_from_slice(piece);
        let after = |text: &str| Some(self.find(text)? + text.len());
        if let Some(name) = after("name=\"file\"; filename=\"").and_then(|at| self.bytes.get(at..))
            && let Some(end) = name.iter().position(|byte| *byte == b'"')
        {
            self.name.set(&String::from_utf8_lossy(&name[..end]));
            self.is_read = true;
        }
        self.is_read |= self.bytes.len() > MAX_FIELDS;
    }

    fn find(&self, text: &str) -> Option<usize> {
        self.bytes.windows(text.len()).position(|window| window.eq_ignore_ascii_case(text.as_bytes()))
    }
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.left = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.left.split_to(self.left.len().min(self.piece));
        if let Some(head) = &mut self.head {
            head.read(&piece);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Shared {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.0.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lacks_key(&self) -> bool {
        self.reading().head.as_ref().is_some_and(|head| !head.bytes.is_empty() && head.find("name=\"key\"").is_none())
    }

    fn lacks_file(&self) -> bool {
        self.reading().head.as_ref().is_some_and(|head| head.find("name=\"file\"").is_none())
    }

    async fn drain(mut self) {
        let end = Instant::now() + DRAIN;
        // A sender that is slower or silent finds its connection closed.
        while let Ok(Some(Ok(_frame))) = timeout(SILENCE, self.frame()).await
            && Instant::now() < end
        {}
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.touched.store(true, Ordering::Relaxed);
        self.reading().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let reading = self.reading();
        reading.left.is_empty() && reading.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let reading = self.reading();
        let (hint, left) = (reading.body.size_hint(), reading.left.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + left);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + left);
        }
        whole
    }
}
