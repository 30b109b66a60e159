//! Diagnoses why the bucket cannot be used. The response to a HEAD has no body, so after a failed one the bucket is read by a
//! GET, whose body has S3's code and message ("Error responses" in the S3 API reference).

use std::fmt;

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, head_bucket::HeadBucketOutput, list_objects_v2::ListObjectsV2Error},
};

use super::{Objects, StoreError, no_response_cause::NoResponseCause};

/// Maximum length of a text of the store in a diagnosis, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// The reason why the bucket cannot be used, the remedy, and the store's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Scheme, host and, in path style, the bucket's name.
    pub address: String,
    /// The HTTP status.
    pub status: Option<u16>,
    /// S3's error code.
    pub code: Option<String>,
    /// S3's message.
    pub message: Option<String>,
    /// S3's id of the request.
    pub request_id: Option<String>,
    cause: Cause,
}

/// The cause, by S3's error code, or by the status and headers of a response without one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    NoAnswer(NoResponseCause),
    UnknownKey,
    Signature,
    Denied,
    NoBucket,
    Clock,
    /// The session token of temporary credentials is wrong or has expired.
    Session,
    /// The bucket is in another region, named by the store if known.
    Region(Option<String>),
    /// A redirect to another host.
    Redirect(Option<String>),
    /// A rejection by a proxy or firewall in front of the store.
    Refused,
    /// A response that is not S3's, with its media type.
    NotS3(Option<String>),
    /// The store fails, or is overloaded.
    Failing,
    /// GET works where HEAD fails.
    NoHead,
    /// Another error code of S3.
    Other,
}

impl std::error::Error for Diagnosis {}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.address)?;
        match &self.cause {
            Cause::NoAnswer(cause) => write!(f, "S3 cannot be reached: {cause}")?,
            Cause::UnknownKey => f.write_str("the store does not know the access key id")?,
            Cause::Signature => f.write_str(
                "the signature is wrong: the secret access key does not belong to the access key id, or a proxy changes Host or \
                 path",
            )?,
            Cause::Denied => f.write_str("the credentials may not list the bucket")?,
            Cause::NoBucket => f.write_str("the store has no bucket of this name")?,
            Cause::Clock => f.write_str("this machine's clock and the store's are too far apart")?,
            Cause::Session => f.write_str("the session token is not valid, or has expired")?,
            Cause::Region(Some(region)) => {
                write!(f, "the bucket is in the region {region}, and requests are signed for another")?;
            }
            Cause::Region(None) => f.write_str("the bucket is in another region than requests are signed for")?,
            Cause::Redirect(Some(host)) => write!(f, "the address redirects to {host}")?,
            Cause::Redirect(None) => f.write_str("the address redirects to another one")?,
            Cause::Refused => f.write_str("the request is refused without an S3 error code, as by a proxy or a firewall")?,
            Cause::NotS3(Some(media_type)) => write!(f, "the server is not S3 ({media_type})")?,
            Cause::NotS3(None) => f.write_str("the server is not S3")?,
            Cause::Failing => f.write_str("the store fails, or is overloaded")?,
            Cause::NoHead => f.write_str("HEAD is refused, but GET is not")?,
            Cause::Other => f.write_str("the store refuses to list the bucket")?,
        }
        let Some(status) = self.status else { return Ok(()) };
        write!(f, " (HTTP {status}")?;
        for text in [&self.code, &self.message].into_iter().flatten() {
            write!(f, ", {text}")?;
        }
        f.write_str(")")
    }
}

impl Diagnosis {
    /// Returns the remedy for an operator.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match &self.cause {
            Cause::NoAnswer(cause) => cause.remedy(),
            Cause::UnknownKey => {
                "check AWS_ACCESS_KEY_ID, or the profile or role, and that S3_ENDPOINT is the store that gave the key"
            }
            Cause::Signature => {
                "check AWS_SECRET_ACCESS_KEY; make a proxy before the store pass Host and path unchanged; check S3_FORCE_PATH_STYLE"
            }
            Cause::Denied => {
                "give the credentials s3:ListBucket on the bucket, and the other permissions of deploy/aws/iam-policy.json"
            }
            Cause::NoBucket => "create the bucket, or check S3_BUCKET, S3_ENDPOINT and S3_FORCE_PATH_STYLE",
            Cause::Clock => "run an NTP client on both machines",
            Cause::Session => "renew the credentials; without a session, unset AWS_SESSION_TOKEN",
            Cause::Region(_) => "set AWS_REGION to the bucket's region",
            Cause::Redirect(_) => "set S3_ENDPOINT to the address that it leads to, or AWS_REGION to the bucket's region",
            Cause::Refused => "check the proxy or firewall before the store, and S3_ENDPOINT",
            Cause::NotS3(_) => "check S3_ENDPOINT: host, port and scheme of the store's S3 API, with nothing after them",
            Cause::Failing => "check the store, and run this again",
            Cause::NoHead => "make the proxy before the store pass HEAD requests",
            Cause::Other => {
                "check S3_BUCKET, S3_ENDPOINT, S3_FORCE_PATH_STYLE, AWS_REGION and the permissions of the credentials"
            }
        }
    }

    /// Returns the diagnosis for a call without a response, or without a response that explains the cause.
    fn new(address: String, cause: Cause) -> Self {
        Self { address, cause, status: None, code: None, message: None, request_id: None }
    }

    /// Diagnoses a failed `ListObjectsV2`.
    fn from_error(address: String, error: &SdkError<ListObjectsV2Error>) -> Self {
        let Some(response) = error.raw_response() else {
            let cause = match error {
                SdkError::TimeoutError(_) => NoResponseCause::Silent,
                SdkError::DispatchFailure(failure) if failure.is_timeout() => NoResponseCause::Silent,
                error => NoResponseCause::find(error),
            };
            return Self::new(address, Cause::NoAnswer(cause));
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).filter(|value| !value.is_empty()).map(clean);
        let body = response.body().bytes().and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default();
        let region = header("x-amz-bucket-region").or_else(|| member(body, "Region"));
        let cause = match (error.code(), status) {
            (Some("InvalidAccessKeyId" | "InvalidClientTokenId" | "NotSignedUp"), _) => Cause::UnknownKey,
            (Some("SignatureDoesNotMatch"), _) => Cause::Signature,
            (Some("NoSuchBucket"), _) => Cause::NoBucket,
            (Some("RequestTimeTooSkewed" | "RequestExpired"), _) => Cause::Clock,
            (Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"), _) => Cause::Session,
            (Some("PermanentRedirect" | "IllegalLocationConstraintException"), _) => Cause::Region(region),
            (Some("AuthorizationHeaderMalformed"), _) if region.is_some() || body.contains("region") => Cause::Region(region),
            (Some("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "UnauthorizedAccess"), _) => Cause::Denied,
            (_, 300..=399) if region.is_some() => Cause::Region(region),
            (_, 300..=399) => Cause::Redirect(header("location").and_then(|url| host(&url))),
            (_, 429 | 500 | 502..=599) => Cause::Failing,
            (Some(_), _) => Cause::Other,
            (None, 401 | 403 | 407) => Cause::Refused,
            (None, _) => Cause::NotS3(header("content-type").map(|text| text.split(';').next().unwrap_or_default().to_owned())),
        };
        let request_id = response.request_id().map(clean);
        let (code, message) = (error.code().map(clean), error.message().map(clean));
        Self { address, status: Some(status), code, message, request_id, cause }
    }
}

impl Objects {
    /// Verifies that the bucket can be used, and returns its region if the store reports it.
    ///
    /// # Errors
    /// [`Diagnosis`].
    pub async fn diagnose(&self) -> Result<Option<String>, Diagnosis> {
        let address = self.internal_location.bucket_url().to_owned();
        let region_of = |answer: HeadBucketOutput| answer.bucket_region.filter(|region| !region.is_empty());
        let first = self.head_bucket().await;
        if matches!(first, Err(StoreError::ObjectsTimeout { .. })) {
            return Err(Diagnosis::new(address, Cause::NoAnswer(NoResponseCause::Silent)));
        }
        let listed = self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).send().await;
        match (first, listed.map_err(|error| Diagnosis::from_error(address.clone(), &error))) {
            // A server that responds 200 to every HEAD need not be S3.
            (_, Err(diagnosis)) if matches!(diagnosis.cause, Cause::NotS3(_)) => Err(diagnosis),
            // Some credentials permit everything needed except listing.
            (Ok(answer), _) => Ok(region_of(answer)),
            (Err(_), Err(diagnosis)) => Err(diagnosis),
            // GET works: the failure was temporary, or a proxy rejects every HEAD.
            (Err(_), Ok(_)) => self.head_bucket().await.map(region_of).map_err(|_| Diagnosis::new(address, Cause::NoHead)),
        }
    }

    /// Returns the region that requests are signed for.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }
}

/// Returns text of the store on one line, without a query.
fn clean(text: &str) -> String {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_TEXT_CHARS).collect();
    line.split('?').next().unwrap_or_default().trim().to_owned()
}

/// Returns the text of the first element of this name in an XML body.
fn member(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| clean(value)).filter(|value| !value.is_empty())
}

/// Returns the scheme, host and port of a URL.
fn host(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    url.host_str().map(|host| format!("{}://{host}{port}", url.scheme()))
}
