//! The bucket: the only module that calls S3 and presigns URLs.
//!
//! Errors carry S3's status and code, never a URL: presigned queries must not reach a log.
//!
//! - Calls: `read`, `list`, `copy`, `delete`, `multipart`, `open_uploads`, `pictures` and `marker`; `long_calls` has the deadlines
//!   of slow ones. `settings`, `lifecycle` and `notifications` have the bucket's settings, `prober` the probes of `valet check`,
//!   and `events_queue` the queue of notifications.
//! - URLs and forms: `presigned_put`, `post_policy`, `multipart`, and this file for GETs. `http_probe` probes what they permit.
//! - The client: `aws_environment`, `credentials`, `tls_trust`, `pool`, `clock`, `xml_roots`, and the interceptors.
//! - Failures: `errors` classifies them, `no_response_cause` and `diagnosis` explain them to operators.

mod aws_environment;
mod clock;
mod copy;
mod credentials;
mod delete;
mod diagnosis;
mod errors;
pub mod events_queue;
#[cfg(feature = "dev")]
mod failpoint_interceptor;
pub mod http_probe;
pub mod lifecycle;
pub mod list;
mod long_calls;
pub mod marker;
mod metrics_interceptor;
mod multipart;
mod no_response_cause;
pub mod notifications;
mod open_uploads;
mod pictures;
mod pool;
mod post_policy;
mod presigned_put;
pub mod prober;
mod read;
pub mod settings;
mod tls_trust;
mod xml_roots;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, IdentityCache, Region, ResponseChecksumValidation, retry::RetryConfig, timeout::TimeoutConfig},
    operation::head_bucket::HeadBucketOutput,
};
use time::OffsetDateTime;
use tokio::sync::watch;

pub use self::copy::COPY_DEADLINE;
pub use self::delete::PurgeOutcome;
pub use self::diagnosis::Diagnosis;
pub use self::errors::{Failure, classify};
pub use self::multipart::{COMPLETE_DEADLINE, Completion, NewPart, StoredPart};
pub use self::no_response_cause::NoResponseCause;
pub use self::open_uploads::{AbortProgress, OpenUploads};
pub use self::post_policy::MultipartCall;
pub use self::presigned_put::{NewObject, Sealing};
pub use self::read::{Head, Peek, PeekedObject, USER_METADATA};
use self::{
    aws_environment::AwsEnvironment, clock::Clock, credentials::CachedCredentials, errors::error_of, http_probe::ProbeClient,
    long_calls::long_timeouts, tls_trust::TlsTrust,
};
use super::StoreError;
use crate::{
    config,
    metrics::{METRICS, Metrics, PRESIGNED_GETS},
    model::{ContentType, FileName, ObjectKey},
    signer::{AddressingStyle, BucketLocation, Endpoint, PresignRequest, Presigned, Signer, UrlSeries},
};

/// Deadline of an S3 call, retries included: far enough below the ten seconds of a request that a failure can be handled within
/// them.
const DEADLINE: Duration = Duration::from_millis(6500);
/// Deadline of one attempt.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of connecting, so short that a second attempt fits into a call.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// A client of one bucket.
#[derive(Debug, Clone)]
pub struct Objects {
    client: Client,
    bucket: String,
    origin: String,
    /// Signer with the current credentials.
    signer: watch::Receiver<Arc<Signer>>,
    clock: Clock,
    /// The bucket's address for this server's own calls.
    internal_location: BucketLocation,
    /// Whether PUTs are sealed ([`Objects::seal_puts`]).
    sealed: Arc<AtomicBool>,
    trust: TlsTrust,
    /// The region that requests are signed for.
    region: String,
}

/// A presigned PUT and the headers its signature covers.
#[derive(Debug, Clone)]
pub struct PresignedPut {
    /// The URL.
    pub signed: Presigned,
    /// Headers that the client must send besides those that every HTTP client adds (host, content-length).
    pub headers: Vec<(&'static str, String)>,
}

/// Signer of GETs with the current credentials and the current difference from S3's clock. Equal ones sign equal URLs.
#[derive(Debug, Clone)]
pub struct GetSigner {
    signer: Arc<Signer>,
    ahead: time::Duration,
}

impl PartialEq for GetSigner {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.signer, &other.signer) && self.ahead == other.ahead
    }
}

impl GetSigner {
    /// Begins a series of the URLs that [`Objects::presign_get`] makes of these arguments and any key.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn series(
        &self,
        content_type: ContentType,
        cache_control: &str,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<GetSeries, StoreError> {
        let query = read_query(content_type, cache_control);
        let request = PresignRequest { method: "GET", key: "", headers: &[], query: &query };
        let urls = self.signer.series(&request, signed_at + self.ahead, ttl);
        let urls = urls.map_err(|error| StoreError::Credentials { reason: error.to_string() })?;
        Ok(GetSeries { expires_at: urls.expires_at() - self.ahead, urls })
    }
}

/// Returns the query of a GET with the verified type pinned, besides that of the signature.
fn read_query(content_type: ContentType, cache_control: &str) -> [(&'static str, &str); 2] {
    [("response-cache-control", cache_control), ("response-content-type", content_type.as_str())]
}

/// Presigned GETs of objects of one type, for one page.
#[derive(Debug)]
pub struct GetSeries {
    urls: UrlSeries,
    expires_at: OffsetDateTime,
}

impl GetSeries {
    /// Appends the URL of a key, plain ASCII without quotes or backslashes.
    pub fn push_url(&self, key: &str, out: &mut Vec<u8>) {
        PRESIGNED_GETS.inc();
        self.urls.push_url(key, out);
    }

    /// Returns the URL of a key.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        PRESIGNED_GETS.inc();
        self.urls.url(key)
    }

    /// Returns when the URLs expire.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }
}

impl Objects {
    /// Creates the client, and a task that renews its credentials.
    ///
    /// # Errors
    /// When the provider chain has no credentials or no region, described so that an operator can act on it.
    pub async fn connect(config: &config::S3) -> Result<Self, StoreError> {
        let trust = TlsTrust::new(config.ca_bundle.as_deref())?;
        let AwsEnvironment { region, provider, endpoint_variant } = AwsEnvironment::find(config, &trust).await?;
        let style = if config.force_path_style { AddressingStyle::Path } else { AddressingStyle::VirtualHost };
        let locate = |endpoint: Option<&Endpoint>| match endpoint {
            Some(endpoint) => Ok(BucketLocation::endpoint(endpoint, &config.bucket, style)),
            None => BucketLocation::aws(&region, &config.bucket, style, endpoint_variant)
                .map_err(|error| StoreError::Credentials { reason: error.to_string() }),
        };
        let (location, internal_location) = (locate(config.public_endpoint.as_ref())?, locate(config.endpoint.as_ref())?);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(ATTEMPT_DEADLINE)
            .operation_attempt_timeout(ATTEMPT_DEADLINE)
            .operation_timeout(DEADLINE)
            .build();
        let (origin, clock) = (location.origin().to_owned(), Clock::default());
        let signing_region = region.clone();
        let make_signer = move |keys| Signer::new(location.clone(), &signing_region, keys);
        let signer = credentials::keep_fresh(provider, clock.clone(), make_signer).await?;
        // Not based on the environment: its FIPS and dual-stack flags, endpoints and checksum settings must neither apply to a
        // store of the operator's own nor send calls to another host than the one that URLs are signed for.
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .use_fips(endpoint_variant.fips)
            .use_dual_stack(endpoint_variant.dualstack)
            .force_path_style(config.force_path_style)
            .credentials_provider(CachedCredentials(signer.clone()))
            .http_client(pool::Pool::new(trust.clone()))
            .identity_cache(IdentityCache::no_cache())
            // Some stores return the whole object's checksum with a range of it. Digests that matter are computed here.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .interceptor(clock.clone())
            .interceptor(metrics_interceptor::MetricsInterceptor)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3));
        builder.set_endpoint_url(config.endpoint.as_ref().map(Into::into));
        #[cfg(feature = "dev")]
        builder.push_interceptor(aws_sdk_s3::config::SharedInterceptor::new(failpoint_interceptor::FailpointInterceptor));
        let (client, bucket, sealed) = (Client::from_conf(builder.build()), config.bucket.to_string(), Arc::default());
        Ok(Self { client, bucket, origin, signer, clock, internal_location, sealed, trust, region })
    }

    /// Returns a client without credentials that trusts the same certificates.
    ///
    /// # Errors
    /// [`StoreError::Objects`] when the system has no certificates.
    pub fn probe_client(&self) -> Result<ProbeClient, StoreError> {
        Ok(ProbeClient::new(self.trust.connector()?))
    }

    /// Returns how far S3's clock is ahead of this machine's, by its latest responses; zero below five seconds.
    #[must_use]
    pub fn clock_ahead(&self) -> time::Duration {
        self.clock.ahead()
    }

    /// Returns the scheme and host at which clients reach the bucket.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the same bucket with URLs for this server's own use, signed with the current credentials: clients may use
    /// another address.
    #[must_use]
    pub fn for_internal_use(&self) -> Self {
        let signer = Arc::new(self.signer().with_location(self.internal_location.clone()));
        Self { signer: watch::channel(signer).1, ..self.clone() }
    }

    /// Returns the signer with the current credentials.
    fn signer(&self) -> Arc<Signer> {
        self.signer.borrow().clone()
    }

    /// Presigns a request. `signed_at` and the returned expiry are times of this machine's clock; the URL contains those of
    /// S3's clock.
    fn presign(&self, request: &PresignRequest<'_>, signed_at: OffsetDateTime, ttl: Duration) -> Result<Presigned, StoreError> {
        let ahead = self.clock.ahead();
        Metrics::count(&METRICS.presigned_urls, request.method, 1);
        let signed = self.signer().presign(request, signed_at + ahead, ttl);
        let signed = signed.map_err(|error| StoreError::Credentials { reason: error.to_string() })?;
        Ok(Presigned { expires_at: signed.expires_at - ahead, ..signed })
    }

    /// Presigns a GET with the verified type pinned. The same arguments give the same URL as long as the credentials stay the
    /// same, so `cache_control` must be constant.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_get(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        cache_control: &str,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let query = read_query(content_type, cache_control);
        self.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &query }, signed_at, ttl)
    }

    /// Returns the signer of GETs with the current credentials.
    #[must_use]
    pub fn get_signer(&self) -> GetSigner {
        GetSigner { signer: self.signer(), ahead: self.clock.ahead() }
    }

    /// Presigns a download that saves the object under `name`.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_download(
        &self,
        key: &ObjectKey,
        content_type: ContentType,
        name: &FileName,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, StoreError> {
        let disposition = name.content_disposition();
        let query = [("response-content-disposition", disposition.as_str()), ("response-content-type", content_type.as_str())];
        self.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &query }, now, ttl)
    }

    /// Verifies that the bucket exists and S3 responds: the readiness probe.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.head_bucket().await.map(drop)
    }

    /// Sends `HeadBucket`, again while a failure or a doubt may be due to the clock.
    async fn head_bucket(&self) -> Result<HeadBucketOutput, StoreError> {
        let send = || self.client.head_bucket().bucket(&self.bucket).send();
        let ahead = self.clock.ahead();
        let mut answer = send().await;
        for _ in 0..2 {
            // A response without a body cannot name a wrong clock as the cause, so a call is repeated if it failed and its response
            // corrected the clock. It is also repeated while the time of S3 is in doubt, because several responses decide it.
            let may_be_the_clock = answer.is_err() && self.clock.ahead() != ahead;
            if !may_be_the_clock && !self.clock.is_in_doubt() {
                break;
            }
            answer = send().await;
        }
        answer.map_err(|error| error_of("HeadBucket", &error))
    }
}
