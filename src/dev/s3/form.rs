//! Form uploads of browsers ("POST Object" in the S3 API reference): their fields, their signature, and the answer.
//!
//! `s3s` can parse forms too, but keeps files in memory and differs from AWS in its errors.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use multer::{Field, Multipart};
use s3s::dto::{ChecksumAlgorithm, Timestamp, TimestampFormat};
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode, S3Result, s3_error};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use tokio::time::timeout;
use url::Url;

use super::authentication;
use super::checksum::{Algorithm, Checksums, DeclaredDigests};
use super::condition::WriteCondition;
use super::errors::{ErrorAnswer, escaped};
use super::folder::Folder;
use super::gate::SharedBody;
use super::ingest::Length;
use super::listing::percent_encode;
use super::object::{Headers, Meta, millis};
use super::policy::{Fields, Policy};
use super::put::{self, NewObject};
use super::unsupported;

/// Maximum bytes of all fields before the file (AWS: 20 KB).
const MAX_FIELDS_BYTES: usize = 20 * 1024;
/// Longest time for the fields to arrive.
const FIELDS_TIMEOUT: StdDuration = StdDuration::from_secs(60);
/// Longest lifetime of a form's version 4 signature, whatever its policy allows: seven days.
const MAX_SIGNATURE_SECONDS: u32 = 604_800;

/// Keys and region with which forms are signed.
pub(super) struct Signing {
    /// The only access key id.
    pub(super) access_key: String,
    /// Secret of that key.
    pub(super) secret_key: SecretString,
    /// The server's region.
    pub(super) region: String,
}

/// A form up to its file.
struct Form {
    fields: Fields,
    file: Field<'static>,
}

/// Stores the file of a form.
///
/// # Errors
///
/// 4xx as AWS answers; nothing is stored then.
pub(super) async fn post(
    folder: &Arc<Folder>,
    signing: &Signing,
    parts: &Parts,
    body: SharedBody,
) -> Result<HttpResponse, ErrorAnswer> {
    let name = parts.uri.path().trim_matches('/');
    if name.is_empty() || name.contains('/') {
        return Err(s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource.").into());
    }
    let bucket = folder.bucket(name)?;
    let read = timeout(FIELDS_TIMEOUT, Form::read(&parts.headers, body)).await;
    let mut form = read.map_err(|_elapsed| s3_error!(RequestTimeout, "The form's fields did not come in time."))??;
    let policy = signing.check(&form.fields, OffsetDateTime::now_utc())?;
    // A `bucket` field must match, and the policy must mention the bucket in any case.
    if form.fields.insert("bucket".to_owned(), name.to_owned()).is_some_and(|sent| sent != name) {
        return Err(s3_error!(
            AccessDenied,
            "Invalid according to Policy: Policy Condition failed: [\"eq\", \"$bucket\", \"{name}\"]"
        )
        .into());
    }
    policy.check(&form.fields, OffsetDateTime::now_utc())?;
    form.fields.iter().try_for_each(|(name, value)| unsupported::check_field(name, value))?;
    let new = form.object()?;
    let file = form.file.map(|chunk| chunk.map_err(|e| malformed(&e)));
    let stored = put::store(folder, bucket, new, file, Length::Within(policy.length.clone()), None).await;
    match stored {
        Ok(meta) => Ok(answer(&form.fields, &meta, name, &parts.headers)),
        Err(error) => Err(with_bounds(error, &policy)),
    }
}

/// Adds the bound that the file's length does not satisfy.
fn with_bounds(error: S3Error, policy: &Policy) -> ErrorAnswer {
    let elements = match error.code() {
        S3ErrorCode::EntityTooLarge => vec![("MaxSizeAllowed", policy.length.end().to_string())],
        S3ErrorCode::EntityTooSmall => vec![("MinSizeAllowed", policy.length.start().to_string())],
        _ => Vec::new(),
    };
    ErrorAnswer { error, elements }
}

/// Returns the error for a body that is not a form.
fn malformed(error: &multer::Error) -> S3Error {
    s3_error!(MalformedPOSTRequest, "The body of your POST request is not well-formed multipart/form-data: {error}")
}

/// Returns the error for an invalid field.
fn argument(message: &str, name: &'static str, value: &str) -> ErrorAnswer {
    let elements = vec![("ArgumentName", name.to_owned()), ("ArgumentValue", value.to_owned())];
    ErrorAnswer { error: S3Error::with_message(S3ErrorCode::InvalidArgument, message.to_owned()), elements }
}

/// Returns the error for a missing field.
fn missing(name: &'static str) -> ErrorAnswer {
    let text =
        format!("Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.");
    argument(&text, name, "")
}

impl Form {
    /// Reads up to the file. Later fields are ignored.
    async fn read(headers: &HeaderMap, body: SharedBody) -> Result<Self, ErrorAnswer> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(kind).map_err(|e| malformed(&e))?;
        let mut parts = Multipart::new(body.into_data_stream(), boundary);
        let (mut fields, mut size) = (Fields::new(), 0);
        while let Some(mut part) = parts.next_field().await.map_err(|e| malformed(&e))? {
            let name = part.name().unwrap_or_default().to_ascii_lowercase();
            if name == "file" {
                check_key(&fields)?;
                put_file_name(&mut fields, part.file_name().unwrap_or_default());
                return Ok(Self { fields, file: part });
            }
            size += name.len();
            let mut value = Vec::new();
            while let Some(chunk) = part.chunk().await.map_err(|e| malformed(&e))? {
                size += chunk.len();
                value.extend_from_slice(&chunk);
                if size > MAX_FIELDS_BYTES {
                    let code = S3ErrorCode::Custom("MaxPostPreDataLengthExceeded".into());
                    let text = "Your POST request fields preceding the upload file were too large.";
                    let mut error = S3Error::with_message(code, text);
                    error.set_status_code(StatusCode::BAD_REQUEST);
                    return Err(error.into());
                }
            }
            let value = String::from_utf8(value).map_err(|_| s3_error!(InvalidArgument, "A form's fields must be in UTF-8."))?;
            if fields.insert(name, value).is_some() {
                return Err(s3_error!(InvalidArgument, "Each field of a form must be given once.").into());
            }
        }
        check_key(&fields)?;
        Err(argument("POST requires exactly one file upload per request.", "file", "0"))
    }

    /// Returns the object that the fields describe.
    fn object(&self) -> S3Result<NewObject> {
        let text = |name: &str| self.fields.get(name).cloned();
        let expires = text("expires").and_then(|date| Timestamp::parse(TimestampFormat::HttpDate, &date).ok());
        let user =
            self.fields.iter().filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone())));
        let headers = Headers {
            content_type: text("content-type"),
            cache_control: text("cache-control"),
            content_disposition: text("content-disposition"),
            content_encoding: put::stored_encoding(self.fields.get("content-encoding").map(String::as_str)),
            content_language: text("content-language"),
            expires: expires.as_ref().map(millis),
            user: put::user_metadata(Some(user.collect()))?,
        };
        let sums: Checksums = Algorithm::ALL.into_iter().filter_map(|a| Some((a, text(a.header())?))).collect();
        let announced = text("x-amz-checksum-algorithm").or_else(|| text("x-amz-sdk-checksum-algorithm"));
        let announced = announced.map(ChecksumAlgorithm::from);
        Ok(NewObject {
            key: text("key").unwrap_or_default(),
            headers,
            declared: DeclaredDigests::new(sums, self.fields.get("content-md5").map(String::as_str), announced.as_ref())?,
            condition: WriteCondition::Always,
        })
    }
}

/// Checks that the form has a key.
fn check_key(fields: &Fields) -> Result<(), ErrorAnswer> {
    if fields.get("key").is_some_and(|key| !key.is_empty()) {
        return Ok(());
    }
    Err(missing("key"))
}

/// Replaces `${filename}` in any field by the file's name, without the folders that some browsers send with it. Policies are
/// checked afterwards.
fn put_file_name(fields: &mut Fields, sent: &str) {
    let name = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    for value in fields.values_mut().filter(|value| value.contains("${filename}")) {
        *value = value.replace("${filename}", name);
    }
}

impl Signing {
    /// Checks a form's signature, of version 4 or, as AWS does for buckets from before June 2020, of version 2. Returns its
    /// policy.
    fn check(&self, fields: &Fields, now: OffsetDateTime) -> Result<Policy, ErrorAnswer> {
        let text = |name: &str| fields.get(name).map(String::as_str);
        let policy = text("policy").ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let is_right = if text("x-amz-algorithm").is_some() || text("x-amz-credential").is_some() {
            let algorithm = text("x-amz-algorithm").ok_or_else(|| missing("X-Amz-Algorithm"))?;
            let credential = text("x-amz-credential").ok_or_else(|| missing("X-Amz-Credential"))?;
            let date = text("x-amz-date").ok_or_else(|| missing("X-Amz-Date"))?;
            let signature = text("x-amz-signature").ok_or_else(|| missing("X-Amz-Signature"))?;
            if algorithm != authentication::ALGORITHM {
                return Err(argument("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"", "X-Amz-Algorithm", algorithm));
            }
            let key = self.day_key(credential, date, now)?;
            hex::decode(signature).is_ok_and(|tag| hmac::verify(&key, policy.as_bytes(), &tag).is_ok())
        } else {
            let id = text("awsaccesskeyid").ok_or_else(|| missing("AWSAccessKeyId"))?;
            let signature = text("signature").ok_or_else(|| missing("Signature"))?;
            self.check_id(id)?;
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret_key.expose_secret().as_bytes());
            hmac::verify(&key, policy.as_bytes(), &BASE64.decode(signature).unwrap_or_default()).is_ok()
        };
        if !is_right {
            let text = "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
            let elements = vec![("AWSAccessKeyId", self.access_key.clone()), ("StringToSign", policy.to_owned())];
            return Err(ErrorAnswer { error: s3_error!(SignatureDoesNotMatch, "{text}"), elements });
        }
        Ok(Policy::parse(policy)?)
    }

    /// Checks the access key id.
    fn check_id(&self, id: &str) -> Result<(), ErrorAnswer> {
        if id == self.access_key {
            return Ok(());
        }
        let error = s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.");
        Err(ErrorAnswer { error, elements: vec![("AWSAccessKeyId", id.to_owned())] })
    }

    /// Checks a credential, and returns the signing key of its scope.
    fn day_key(&self, credential: &str, date: &str, now: OffsetDateTime) -> Result<hmac::Key, ErrorAnswer> {
        let wrong = |message: &str| argument(message, "X-Amz-Credential", credential);
        let Some(scope) = authentication::CredentialScope::parse(credential) else {
            return Err(wrong("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."));
        };
        self.check_id(scope.access_key)?;
        if scope.service != "s3" {
            return Err(wrong("incorrect service. This endpoint belongs to \"s3\"."));
        }
        if scope.region != self.region {
            let mut error = wrong(&format!("the region '{}' is wrong; expecting '{}'", scope.region, self.region));
            error.elements.push(("Region", self.region.clone()));
            return Err(error);
        }
        let Some(signed_at) = authentication::parse_time(date) else {
            return Err(argument("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"", "X-Amz-Date", date));
        };
        if !date.starts_with(scope.date) {
            return Err(wrong("the date of the Credential is not that of X-Amz-Date."));
        }
        authentication::check_lifetime(signed_at, MAX_SIGNATURE_SECONDS, now)?;
        let secret = format!("AWS4{}", self.secret_key.expose_secret());
        let first = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Ok([scope.date, scope.region, scope.service, "aws4_request"]
            .iter()
            .fold(first, |key, step| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref())))
    }
}

/// Returns the answer to a stored form, as its fields request it.
fn answer(fields: &Fields, meta: &Meta, bucket: &str, headers: &HeaderMap) -> HttpResponse {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let location = format!("http://{host}/{bucket}/{}", percent_encode(&meta.key));
    let tag = format!("\"{}\"", meta.etag);
    let redirect = fields.get("success_action_redirect").or_else(|| fields.get("redirect"));
    let status = fields.get("success_action_status").map_or("204", String::as_str);
    let mut response = Response::new(Body::empty());
    let mut texts: Vec<(HeaderName, String)> = vec![(ETAG, tag.clone())];
    // AWS ignores a redirect that is not a URL.
    if let Some(url) = redirect.and_then(|url| Url::parse(url).ok()).filter(|url| matches!(url.scheme(), "http" | "https")) {
        let mut url = url;
        url.query_pairs_mut().append_pair("bucket", bucket).append_pair("key", &meta.key).append_pair("etag", &tag);
        *response.status_mut() = StatusCode::SEE_OTHER;
        texts.push((LOCATION, url.to_string()));
    } else {
        texts.push((LOCATION, location.clone()));
        *response.status_mut() = match status {
            "200" => StatusCode::OK,
            "201" => StatusCode::CREATED,
            _ => StatusCode::NO_CONTENT,
        };
        if status == "201" {
            let [location, key, tag] = [&location, &meta.key, &tag].map(|text| escaped(text));
            let xml = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{location}</Location><Bucket>{bucket}</Bucket>\
                 <Key>{key}</Key><ETag>{tag}</ETag></PostResponse>"
            );
            texts.extend([(CONTENT_TYPE, "application/xml".to_owned()), (CONTENT_LENGTH, xml.len().to_string())]);
            *response.body_mut() = Body::from(Bytes::from(xml));
        }
    }
    let sums = meta.named_sums().into_iter().map(|(algorithm, sum)| (HeaderName::from_static(algorithm.header()), sum));
    texts.extend(sums);
    let values = texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?)));
    response.headers_mut().extend(values);
    response
}
