//! The bucket: the only room that calls S3, and the one place where URLs are presigned.
//!
//! Errors carry S3's status and code, never a URL: presigned queries must not reach a log.

mod browser;
mod clock;
mod copying;
#[cfg(feature = "dev")]
mod counted;
mod credentials;
mod deleting;
pub mod listing;
mod measured;
mod multipart;
mod patience;
mod pool;
pub mod prober;
pub mod settings;
pub mod wire;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use aws_sdk_s3::{
    Client,
    config::{IdentityCache, Region, ResponseChecksumValidation, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    types::ChecksumMode,
};
use time::OffsetDateTime;
use tokio::sync::watch;

pub use self::browser::MultipartCall;
pub use self::copying::COPYING;
pub use self::multipart::{COMPLETING, NewPart, StoredPart};
use self::{clock::Clock, credentials::Known, patience::patient};
use super::StoreError;
use crate::{
    config,
    metrics::{METRICS, Metrics},
    model::{ContentType, FileName, ObjectKey, Sha256},
    signer::{Location, Presigned, Request, Signer},
};

/// The longest one S3 call may take, retries included: far enough below the ten seconds in which a request is answered that what
/// has to follow a failure is done in them too.
const DEADLINE: Duration = Duration::from_millis(6500);
/// The longest one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The longest a connection may take to be made: a second attempt must fit into a call.
const CONNECT: Duration = Duration::from_secs(2);

/// One bucket.
#[derive(Debug, Clone)]
pub struct Objects {
    client: Client,
    bucket: String,
    origin: String,
    /// Holds the credentials of the moment.
    signer: watch::Receiver<Arc<Signer>>,
    clock: Clock,
    /// Where this server itself finds the bucket.
    inside: Location,
}

/// What S3 says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    /// As it was sent with the PUT.
    pub content_type: Option<String>,
    /// The checksum S3 verified; absent on stores that keep none.
    pub sha256: Option<Sha256>,
    /// With its quotes, as conditional requests want it.
    pub etag: String,
}

/// A presigned PUT and the headers its signature covers.
#[derive(Debug, Clone)]
pub struct PresignedPut {
    /// The URL.
    pub signed: Presigned,
    /// What the client must send besides what every HTTP client sends by itself (host, content-length).
    pub headers: Vec<(&'static str, String)>,
}

impl Objects {
    /// Makes the client, and keeps the signing credentials fresh from then on.
    ///
    /// # Errors
    /// When the provider chain has no credentials or no region, said as an operator can act on it.
    pub async fn connect(config: &config::S3) -> Result<Self, StoreError> {
        let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest());
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(keys) = &config.credentials {
            loader = loader.credentials_provider(credentials::fixed(keys));
        }
        let sdk = loader.load().await;
        let region = sdk.region().map(ToString::to_string).ok_or_else(|| StoreError::Credentials {
            reason: "AWS_REGION is not set, and neither a profile nor the instance names a region".to_owned(),
        })?;
        let locate = |endpoint: Option<&String>| {
            match endpoint {
                Some(endpoint) => Location::endpoint(endpoint, &config.bucket, config.force_path_style),
                None => Location::aws(&region, &config.bucket, config.force_path_style),
            }
            .map_err(|error| StoreError::Credentials { reason: format!("the address of the bucket {error}") })
        };
        let (location, inside) = (locate(config.public_endpoint.as_ref())?, locate(config.endpoint.as_ref())?);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(ATTEMPT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(DEADLINE)
            .build();
        let provider = sdk.credentials_provider().ok_or_else(|| StoreError::Credentials { reason: "no provider".to_owned() })?;
        let (origin, clock) = (location.origin().to_owned(), Clock::default());
        let make = move |keys| Signer::new(location.clone(), &region, keys);
        let signer = credentials::keep_fresh(provider, clock.clone(), make).await?;
        let mut builder = aws_sdk_s3::config::Builder::from(&sdk)
            .force_path_style(config.force_path_style)
            .credentials_provider(Known(signer.clone()))
            .http_client(pool::Pool::new())
            .identity_cache(IdentityCache::no_cache())
            // Some stores send the whole object's checksum with a part of it. What counts is hashed here.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .interceptor(clock.clone())
            .interceptor(measured::Measured)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3));
        builder.set_endpoint_url(config.endpoint.clone());
        #[cfg(feature = "dev")]
        builder.push_interceptor(aws_sdk_s3::config::SharedInterceptor::new(counted::Counted));
        Ok(Self { client: Client::from_conf(builder.build()), bucket: config.bucket.clone(), origin, signer, clock, inside })
    }

    /// How far S3's clock is ahead of this machine's, by its latest answers; zero below five seconds.
    #[must_use]
    pub fn clock_ahead(&self) -> time::Duration {
        self.clock.ahead()
    }

    /// Where clients reach the bucket: scheme and host.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The same bucket with URLs for this server's own use, signed with the credentials of this moment: clients may see it
    /// under another name.
    #[must_use]
    pub fn from_inside(&self) -> Self {
        let signer = Arc::new(self.signer().at(self.inside.clone()));
        Self { signer: watch::channel(signer).1, ..self.clone() }
    }

    fn signer(&self) -> Arc<Signer> {
        self.signer.borrow().clone()
    }

    /// `signed_at`, and the end in the answer, are times of our clock; the URL speaks of S3's.
    fn presign(&self, request: &Request<'_>, signed_at: OffsetDateTime, ttl: Duration) -> Result<Presigned, StoreError> {
        let ahead = self.clock.ahead();
        Metrics::count(&METRICS.signed, request.method, 1);
        let signed = self.signer().presign(request, signed_at + ahead, ttl);
        let signed = signed.map_err(|error| StoreError::Credentials { reason: error.to_string() })?;
        Ok(Presigned { expires_at: signed.expires_at - ahead, ..signed })
    }

    /// A key to write these bytes once: type, length, digest and `if-none-match: *` are signed.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
    pub fn presign_put(
        &self,
        key: &ObjectKey,
        (content_type, size, sha256): (ContentType, u64, Sha256),
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<PresignedPut, StoreError> {
        let (size, sha256) = (size.to_string(), sha256.to_string());
        let headers = [
            ("content-length", size.as_str()),
            ("content-type", content_type.as_str()),
            ("if-none-match", "*"),
            ("x-amz-checksum-sha256", sha256.as_str()),
        ];
        let request = Request { method: "PUT", key: key.as_str(), headers: &headers, query: &[] };
        let signed = self.presign(&request, now, ttl)?;
        Ok(PresignedPut { signed, headers: headers[1..].iter().map(|(name, value)| (*name, (*value).to_owned())).collect() })
    }

    /// A key to read, with the verified type pinned. The same arguments give the same URL while the credentials last,
    /// so `cache_control` must be a constant.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
    pub fn presign_get(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        cache_control: &str,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let query = [("response-cache-control", cache_control), ("response-content-type", content_type.as_str())];
        self.presign(&Request { method: "GET", key: key.as_str(), headers: &[], query: &query }, signed_at, ttl)
    }

    /// [`Objects::presign_get`] for one of many, by the text of its key: appends the URL, plain ASCII without quotes or
    /// backslashes, and answers when it ends.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
    pub fn presign_get_into(
        &self,
        (key, content_type): (&str, ContentType),
        cache_control: &str,
        signed_at: OffsetDateTime,
        ttl: Duration,
        out: &mut Vec<u8>,
    ) -> Result<OffsetDateTime, StoreError> {
        let query = [("response-cache-control", cache_control), ("response-content-type", content_type.as_str())];
        let request = Request { method: "GET", key, headers: &[], query: &query };
        let ahead = self.clock.ahead();
        METRICS.signed_gets.inc();
        let ends = self.signer().presign_into(&request, signed_at + ahead, ttl, out);
        ends.map(|ends| ends - ahead).map_err(|error| StoreError::Credentials { reason: error.to_string() })
    }

    /// A key to save the object under `name`.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is nothing valid to sign with.
    pub fn presign_download(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        name: &FileName,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let disposition = name.attachment();
        let query = [("response-content-disposition", disposition.as_str()), ("response-content-type", content_type.as_str())];
        self.presign(&Request { method: "GET", key: key.as_str(), headers: &[], query: &query }, now, ttl)
    }

    /// What is there, or `None`.
    ///
    /// # Errors
    /// [`StoreError`]; also for 403, which S3 answers for a missing key when the policy lacks `s3:ListBucket`.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        let request = self.client.head_object().bucket(&self.bucket).key(key.as_str()).checksum_mode(ChecksumMode::Enabled);
        let found = match request.send().await {
            Ok(found) => found,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(failed("HeadObject", &error)),
        };
        // What the store, or a proxy before it, leaves out must not count as a wrong upload: that would be final.
        let untold = |what: &str| StoreError::Objects { operation: "HeadObject", reason: format!("the answer tells no {what}") };
        let size = found.content_length().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| untold("length"))?;
        let etag = found.e_tag().filter(|etag| !etag.is_empty()).ok_or_else(|| untold("entity tag"))?.to_owned();
        let sha256 = found.checksum_sha256().and_then(|text| Sha256::parse(text).ok());
        Ok(Some(Head { size, content_type: found.content_type().map(str::to_owned), sha256, etag }))
    }

    /// The first `length` bytes of the object that `etag` names, no more than it has: not every store takes a range that
    /// ends behind its end. `None` when it is not there any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_head(&self, key: &ObjectKey, etag: &str, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let range = format!("bytes=0-{}", length.saturating_sub(1));
        let request = self.client.get_object().bucket(&self.bucket).key(key.as_str()).range(range).if_match(etag);
        let read = async {
            let object = match request.send().await {
                Ok(object) => object,
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(failed("GetObject", &error)),
            };
            // A store that knows no ranges sends all of it.
            let (mut body, mut bytes) = (object.body, Vec::with_capacity(length));
            while bytes.len() < length
                && let Some(chunk) = body.next().await
            {
                bytes.extend_from_slice(&chunk.map_err(|error| broken(&error))?);
            }
            bytes.truncate(length);
            Ok(Some(bytes))
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "GetObject" }))
    }

    /// The digest of the whole object that `etag` names, computed here: for stores that keep no checksum. The bytes
    /// pass through this server, at no more memory than a chunk; a stall is bounded. `None` when it is not there any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn digest(&self, key: &ObjectKey, etag: &str) -> Result<Option<Sha256>, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket).key(key.as_str()).if_match(etag);
        let mut body = match request.send().await {
            Ok(object) => object.body,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed("GetObject", &error)),
        };
        let mut context = digest::Context::new(&digest::SHA256);
        let stalled = || StoreError::ObjectsTimeout { operation: "GetObject" };
        while let Some(chunk) = tokio::time::timeout(DEADLINE, body.next()).await.map_err(|_| stalled())? {
            context.update(&chunk.map_err(|error| broken(&error))?);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Ok(Some(Sha256::from_bytes(bytes)))
    }

    /// Whether the bucket is there and answers: the readiness probe.
    ///
    /// # Errors
    /// [`StoreError`] when it is not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let ask = || self.client.head_bucket().bucket(&self.bucket).send();
        let ahead = self.clock.ahead();
        let mut answer = ask().await;
        if answer.is_err() && self.clock.ahead() != ahead {
            // The answer has just said what time it is there; without a body, S3 could not say that this was the matter.
            answer = ask().await;
        }
        answer.map(drop).map_err(|error| failed("HeadBucket", &error))
    }
}

/// A store that does not know what it was asked of the bucket lists the bucket's objects instead, with status 200.
fn lists_objects<E>(error: &SdkError<E>) -> bool {
    let answer = error.raw_response().filter(|answer| answer.status().is_success());
    let text = answer.and_then(|answer| answer.body().bytes()).and_then(|body| std::str::from_utf8(body).ok());
    text.is_some_and(|text| text.contains("<ListBucketResult"))
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Deleted, or replaced, since its entity tag was read.
fn is_gone<E>(error: &SdkError<E>) -> bool {
    matches!(status(error), Some(404 | 412))
}

fn failed<E: ProvideErrorMetadata + std::error::Error>(operation: &'static str, error: &SdkError<E>) -> StoreError {
    let reason = match error {
        SdkError::TimeoutError(_) => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return StoreError::ObjectsTimeout { operation },
        SdkError::DispatchFailure(_) => "S3 cannot be reached".to_owned(),
        SdkError::ConstructionFailure(_) => "the request could not be built".to_owned(),
        _ => {
            let id = error.raw_response().and_then(RequestId::request_id).unwrap_or("-");
            let said = match status(error) {
                Some(status @ 200..300) if error.code().is_none() => format!("{status} with an answer that is not S3's"),
                Some(status) => format!("{status} {}", error.code().unwrap_or("without a code")),
                None => "no status".to_owned(),
            };
            format!("{said}, S3 request {id}")
        }
    };
    StoreError::Objects { operation, reason }
}

fn broken(_: &impl std::error::Error) -> StoreError {
    StoreError::Objects { operation: "GetObject", reason: "the body broke off".to_owned() }
}
