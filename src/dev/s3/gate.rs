//! The HTTP layer in front of the protocol: CORS, authentication checks, request ids, and reading a rejected body to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Error, S3Result, s3_error};
use secrecy::ExposeSecret as _;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use uuid::Uuid;

use super::api::Api;
use super::authentication::SignatureLocation;
use super::errors::ErrorAnswer;
use super::folder::Folder;
use super::form::{self, Signing};
use super::ignored_range::{self, WithoutRange};
use super::{LocalS3Options, authentication, authorization, cors, errors, read, xml_digest};
use crate::config::CorsOrigins;

/// Longest time for reading a rejected body, so that its sender gets the answer and not a broken connection.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time without a byte while a rejected body is read.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The HTTP layer of a server.
pub(super) struct Gate {
    folder: Arc<Folder>,
    /// Origins for a bucket without its own rules.
    cors: CorsOrigins,
    /// Keys with which forms are signed.
    signing: Signing,
    /// The protocol layer.
    requests: S3Service,
}

/// The only pair of keys.
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
    /// Creates the gate of this folder.
    pub(super) fn new(options: &LocalS3Options, folder: Arc<Folder>) -> Self {
        let verified = S3ServiceBuilder::new(Api::new(Arc::clone(&folder))).build();
        let mut builder = S3ServiceBuilder::new(Api::new(Arc::clone(&folder)));
        builder.set_route(WithoutRange { verified });
        builder.set_auth(OneKey {
            access_key: options.access_key.clone(),
            secret_key: SecretKey::from(options.secret_key.expose_secret()),
        });
        let signing = Signing {
            access_key: options.access_key.clone(),
            secret_key: options.secret_key.clone(),
            region: options.region.clone(),
        };
        Self { folder, cors: options.cors.clone(), signing, requests: builder.build() }
    }

    /// Answers one request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let cors_request = cors::CorsRequest::from_request(parts.method.as_str(), &parts.headers);
        let path = parts.uri.path().to_owned();
        let summary = errors::RequestSummary::new(&parts);
        let is_attributes = read::is_attributes_query(parts.uri.query().unwrap_or_default());
        let id = Uuid::new_v4().simple().to_string().to_ascii_uppercase();
        let is_head = parts.method == Method::HEAD;
        let mut response = if parts.method == Method::OPTIONS {
            self.preflight(&parts).await.unwrap_or_else(ErrorAnswer::into_response)
        } else {
            ignored_range::mark(&mut parts);
            self.serve(parts, body).await
        };
        if is_attributes && response.status().is_success() {
            read::unquote_entity_tag(&mut response);
        }
        summary.add_elements(&mut response, &id);
        if response.status() == StatusCode::NOT_MODIFIED || (is_head && !response.status().is_success()) {
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        // As on AWS, an answer to a request without an origin has no CORS headers, not even `Vary`.
        if let Some(cors_request) = cors_request
            && let Ok(Some(headers)) = cors::response_headers(&self.folder, &self.cors, &path, &cors_request).await
        {
            response.headers_mut().extend(headers);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-amz-request-id", id);
            response.headers_mut().insert("x-amz-id-2", HeaderValue::from_static(errors::HOST_ID));
        }
        Ok(response)
    }

    /// Answers a preflight request.
    async fn preflight(&self, parts: &Parts) -> Result<HttpResponse, ErrorAnswer> {
        let announced = cors::CorsRequest::from_preflight(&parts.headers)?;
        let path = parts.uri.path();
        if self.lacks_bucket(path) {
            return Err(cors::forbidden("CORSResponse: Bucket not found", &announced, path));
        }
        let granted = cors::response_headers(&self.folder, &self.cors, path, &announced).await?;
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = granted.ok_or_else(|| cors::forbidden(cors::NO_RULE, &announced, path))?;
        Ok(response)
    }

    /// Returns whether a path names a bucket that does not exist.
    fn lacks_bucket(&self, path: &str) -> bool {
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        !name.is_empty() && self.folder.bucket(name).is_err()
    }

    /// Answers through `s3s`, which verifies the signature.
    async fn call(&self, request: Request<Body>) -> HttpResponse {
        // `s3s` logs whole requests with their presigned queries, so it gets no subscriber.
        let answer = self.requests.call(request).with_subscriber(Dispatch::none()).await;
        answer.unwrap_or_else(|_e| error_response(s3_error!(InternalError, "The answer could not be written")))
    }

    /// Checks the authentication of a request that is not a preflight, and answers it.
    async fn serve(&self, mut parts: Parts, body: Incoming) -> HttpResponse {
        let expects_continue = parts.headers.contains_key(EXPECT);
        let body = SharedBody(Arc::new(SharedIncoming { body: Mutex::new(body), is_read: AtomicBool::new(false) }));
        let rest = body.clone();
        let checked = authentication::check(&parts, &self.signing.region, OffsetDateTime::now_utc());
        if let Ok(SignatureLocation::InHeader { at }) = checked {
            authorization::add_date(&mut parts.headers, at);
        }
        let response = match checked {
            Err(error) => error.into_response(),
            Ok(_) if authentication::is_form(&parts) => {
                form::post(&self.folder, &self.signing, &parts, body).await.unwrap_or_else(ErrorAnswer::into_response)
            }
            // As on AWS, where a missing bucket is reported without authentication.
            Ok(SignatureLocation::Nowhere) if self.lacks_bucket(parts.uri.path()) => {
                error_response(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
            }
            Ok(SignatureLocation::Nowhere) => error_response(s3_error!(AccessDenied, "Access Denied")),
            Ok(SignatureLocation::InQuery | SignatureLocation::InHeader { .. }) if xml_digest::is_required(&parts) => {
                match xml_digest::verified(&parts, body).await {
                    Ok(bytes) => self.call(Request::from_parts(parts, Body::from(bytes))).await,
                    Err(error) => error_response(error),
                }
            }
            Ok(SignatureLocation::InQuery | SignatureLocation::InHeader { .. }) => {
                self.call(Request::from_parts(parts, Body::http_body(body))).await
            }
        };
        // Reading the body makes hyper send `100 Continue`, so a body whose client still waits for that is not read.
        let is_being_sent = !expects_continue || rest.0.is_read.load(Ordering::Relaxed);
        if !response.status().is_success() && is_being_sent {
            rest.drain().await;
        }
        response
    }
}

/// Returns the response of an error without additional elements.
fn error_response(error: S3Error) -> HttpResponse {
    ErrorAnswer::from(error).into_response()
}

/// A request's body that the gate can continue to read after `s3s`.
#[derive(Clone)]
pub(super) struct SharedBody(Arc<SharedIncoming>);

/// The body of all clones of a [`SharedBody`].
struct SharedIncoming {
    body: Mutex<Incoming>,
    /// Whether reading has begun.
    is_read: AtomicBool,
}

impl SharedBody {
    /// Reads and drops the rest, within the deadlines.
    async fn drain(mut self) {
        let end = Instant::now() + DRAIN_DEADLINE;
        // A slower or silent sender gets its connection closed.
        while let Ok(Some(Ok(_frame))) = timeout(SILENCE_TIMEOUT, self.frame()).await
            && Instant::now() < end
        {}
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.is_read.store(true, Ordering::Relaxed);
        Pin::new(&mut *self.0.body.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.lock().size_hint()
    }
}
