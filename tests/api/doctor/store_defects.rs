//! A proxy in front of the real S3 that adds one defect of other stores, or of proxies in front of them; `defect` lists them.

mod defect;
mod other_stores;
mod retention;

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{DATE, HeaderValue, IF_NONE_MATCH, RANGE},
    http::request::Parts,
};

pub use self::defect::{ALL, Defect};
use crate::{
    app::TestApp,
    relay::{Answer, Upstream, listen},
};

/// A running proxy; it ends with the test's runtime.
pub struct Proxy {
    pub endpoint: String,
    /// Whether the proxy has no defect any more.
    is_repaired: Arc<AtomicBool>,
}

/// State of a proxy.
struct ProxyState {
    defect: Defect,
    is_repaired: Arc<AtomicBool>,
    /// Keys under a delete marker.
    marked: Mutex<HashSet<String>>,
    upstream: Upstream,
}

impl Proxy {
    /// Starts a proxy in front of the store that has this defect until it is repaired.
    pub async fn start(app: &TestApp, defect: Defect) -> Self {
        let is_repaired = Arc::new(AtomicBool::new(false));
        let repaired = Arc::clone(&is_repaired);
        let state = ProxyState { defect, is_repaired: repaired, marked: Mutex::default(), upstream: Upstream::of(app) };
        let state = Arc::new(state);
        let endpoint = listen(move |request| Arc::clone(&state).answer(request)).await;
        Self { endpoint, is_repaired }
    }

    /// Removes the defect.
    pub fn repair(&self) {
        self.is_repaired.store(true, Ordering::Relaxed);
    }
}

impl ProxyState {
    /// Answers a request with the defect, or as the real store does.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (mut parts, body) = request.into_parts();
        if self.exceeds_limit(&parts) {
            return Ok(status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        // The client announced a body and never sent it.
        let Ok(body) = body.collect().await else { return Ok(status(StatusCode::BAD_REQUEST)) };
        let body = body.to_bytes();
        if self.is_repaired.load(Ordering::Relaxed) {
            return Ok(self.upstream.forward(&parts, body).await);
        }
        if let Some(answer) = self.replace_request(&mut parts, &body).await {
            return Ok(answer);
        }
        let mut answer = self.upstream.forward(&parts, body.clone()).await;
        self.change_answer(&parts, &body, &mut answer).await;
        Ok(answer)
    }

    /// Answers a request in place of the store, or changes it before the store gets it.
    async fn replace_request(&self, parts: &mut Parts, body: &Bytes) -> Option<Answer> {
        let query = parts.uri.query().unwrap_or_default();
        let (presigned, part) = (query.contains("X-Amz-Signature"), query.contains("partNumber"));
        let anonymous = !presigned && !parts.headers.contains_key("authorization");
        let key = self.upstream.key(parts);
        let simple_put = parts.method == Method::PUT && !key.is_empty() && !part && (presigned || anonymous);
        match self.defect {
            Defect::TakesUnsignedCopySource if simple_put && presigned && parts.headers.contains_key("x-amz-copy-source") => {
                let source = parts.headers["x-amz-copy-source"].to_str().unwrap();
                let copy = self.upstream.s3.copy_object().bucket(&self.upstream.bucket).key(key).copy_source(source);
                copy.send().await.unwrap();
                Some(status(StatusCode::OK))
            }
            Defect::VerifiesNothing if simple_put => Some(self.store(parts, &key, body).await),
            Defect::VerifiesNothing | Defect::IsPublic if anonymous && parts.method == Method::GET => {
                Some(self.serve_object(&key).await)
            }
            // A signed header cannot be removed: the store would reject the signature.
            Defect::IgnoresRanges if !presigned && parts.headers.contains_key(RANGE) => {
                let whole = self.serve_object(&key).await;
                whole.status().is_success().then_some(whole)
            }
            Defect::IgnoresRanges => {
                parts.headers.remove(RANGE);
                None
            }
            Defect::KnowsNoOrigins => {
                parts.headers.remove("origin");
                None
            }
            Defect::StripsIfNoneMatch => {
                parts.headers.remove(IF_NONE_MATCH);
                None
            }
            Defect::RejectsPutsUnderBlockPublicAcls if simple_put => {
                let block = self.upstream.s3.get_public_access_block().bucket(&self.upstream.bucket).send().await.ok()?;
                let flags = block.public_access_block_configuration()?;
                (flags.block_public_acls() == Some(true)).then(|| status(StatusCode::FORBIDDEN))
            }
            Defect::RejectsLongRanges => {
                let range = parts.headers.get(RANGE)?.to_str().ok()?;
                let last: i64 = range.rsplit('-').next()?.parse().ok()?;
                let size =
                    self.upstream.s3.head_object().bucket(&self.upstream.bucket).key(key).send().await.ok()?.content_length()?;
                (last >= size).then(|| status(StatusCode::BAD_REQUEST))
            }
            // Only the overlapping PUTs have bodies of this size.
            Defect::RejectsOverlap if simple_put && body.len() == 256 * 1024 => Some(status(StatusCode::CONFLICT)),
            Defect::RejectsSummedParts if part && parts.headers.contains_key("x-amz-checksum-sha256") => {
                Some(status(StatusCode::FORBIDDEN))
            }
            Defect::AbortsNothing if parts.method == Method::DELETE && query.contains("uploadId") => {
                Some(status(StatusCode::METHOD_NOT_ALLOWED))
            }
            _ => self.replace_bucket_request(parts, key).await,
        }
    }

    /// Answers a request about the bucket, or about versions, in place of the store.
    async fn replace_bucket_request(&self, parts: &Parts, key: String) -> Option<Answer> {
        let query = parts.uri.query().unwrap_or_default();
        match self.defect {
            Defect::ListsObjectsInstead
                if key.is_empty()
                    && ["versions", "uploads", "cors", "lifecycle", "publicAccessBlock"]
                        .iter()
                        .any(|subresource| query.split('&').any(|pair| pair.split('=').next() == Some(subresource))) =>
            {
                Some(listing("<IsTruncated>false</IsTruncated>"))
            }
            Defect::ListsTheSameAgain if query.contains("list-type=2") => {
                Some(listing("<IsTruncated>true</IsTruncated><NextContinuationToken>here</NextContinuationToken>"))
            }
            Defect::LocksByDefault | Defect::ListsNothing => self.bucket_answer(query),
            Defect::RetainsVersions => self.retain(parts, key, query),
            Defect::HasVersionsSinceLately if parts.method == Method::DELETE && !query.contains("versionId=null") => {
                let mut marked = status(StatusCode::NO_CONTENT);
                marked.headers_mut().insert("x-amz-delete-marker", HeaderValue::from_static("true"));
                marked.headers_mut().insert("x-amz-version-id", HeaderValue::from_static("marker"));
                Some(marked)
            }
            Defect::TakesNoForms if parts.method == Method::POST && key.is_empty() => Some(status(StatusCode::NOT_IMPLEMENTED)),
            Defect::IsLost => {
                let mut lost = status(StatusCode::NOT_FOUND);
                *lost.body_mut() = Bytes::from_static(b"404 page not found").into();
                Some(lost)
            }
            Defect::IsFarAway => {
                tokio::time::sleep(Duration::from_millis(250)).await;
                None
            }
            _ => None,
        }
    }

    /// Changes the store's answer to a write, or turns a rejection into a success.
    async fn change_answer(&self, parts: &Parts, body: &Bytes, answer: &mut Answer) {
        let query = parts.uri.query().unwrap_or_default();
        match self.defect {
            Defect::KeepsRejectedBytes if answer.status() == StatusCode::BAD_REQUEST => {
                self.store(parts, &self.upstream.key(parts), body).await;
            }
            // `HasNoLocks` concerns only the overlapping PUTs, which are the large ones.
            Defect::ReplacesObjects | Defect::HasNoLocks
                if parts.method == Method::PUT
                    && answer.status() == StatusCode::PRECONDITION_FAILED
                    && !parts.headers.contains_key("x-amz-copy-source")
                    && (self.defect == Defect::ReplacesObjects || body.len() > 1024) =>
            {
                *answer = self.store(parts, &self.upstream.key(parts), body).await;
            }
            Defect::KnowsNoChecksums
                if parts.method == Method::PUT && answer.status() == StatusCode::BAD_REQUEST && !query.contains("partNumber") =>
            {
                *answer = self.store(parts, &self.upstream.key(parts), body).await;
            }
            Defect::KnowsNoChecksums => drop(answer.headers_mut().remove("x-amz-checksum-sha256")),
            Defect::CompletesTwice if parts.method == Method::POST && answer.status() == StatusCode::PRECONDITION_FAILED => {
                *answer = status(StatusCode::OK);
                *answer.body_mut() = Bytes::from_static(b"<CompleteMultipartUploadResult/>").into();
            }
            Defect::CopiesAnything
                if parts.headers.contains_key("x-amz-copy-source") && answer.status() == StatusCode::PRECONDITION_FAILED =>
            {
                *answer = status(StatusCode::OK);
                *answer.body_mut() = Bytes::from_static(b"<CopyObjectResult/>").into();
            }
            Defect::IsOverloaded if parts.method == Method::PUT && answer.status().is_client_error() => {
                *answer = status(StatusCode::SERVICE_UNAVAILABLE);
            }
            _ => self.change_read_answer(parts, answer).await,
        }
    }

    /// Changes the store's answer to a read, or headers of every answer.
    async fn change_read_answer(&self, parts: &Parts, answer: &mut Answer) {
        let query = parts.uri.query().unwrap_or_default();
        match self.defect {
            // The server's own client would adjust its clock to this date, and the real store would reject its requests.
            Defect::LivesInTheFuture if query.contains("X-Amz-Signature") => {
                let in_an_hour = time::OffsetDateTime::now_utc() + std::time::Duration::from_secs(3600);
                let date = in_an_hour.format(&time::format_description::well_known::Rfc2822).unwrap();
                answer.headers_mut().insert(DATE, HeaderValue::try_from(date.replace("+0000", "GMT")).unwrap());
            }
            Defect::RejectsPutsUnderBlockPublicAcls
                if query.contains("publicAccessBlock") && parts.method == Method::GET && answer.status().is_success() =>
            {
                let body = std::mem::take(answer.body_mut()).collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let renamed = text.replace("PublicAccessBlockConfiguration", "BlockPublicAccessBlockConfiguration");
                answer.headers_mut().remove("content-length");
                *answer.body_mut() = Bytes::from(renamed).into();
            }
            Defect::RetainsVersions if self.upstream.key(parts).is_empty() && parts.method == Method::GET => {
                self.list_marked(answer).await
            }
            Defect::IgnoresOverrides => drop(answer.headers_mut().remove("content-disposition")),
            Defect::ExposesNothing => drop(answer.headers_mut().remove("access-control-expose-headers")),
            Defect::HidesMissingKeys if parts.method == Method::HEAD && answer.status() == StatusCode::NOT_FOUND => {
                *answer.status_mut() = StatusCode::FORBIDDEN;
            }
            Defect::KeepsAborted
                if parts.method == Method::GET && query.contains("uploadId") && answer.status() == StatusCode::NOT_FOUND =>
            {
                *answer = status(StatusCode::OK);
                *answer.body_mut() = Bytes::from_static(b"<ListPartsResult/>").into();
            }
            Defect::TypesAsItLikes if parts.method == Method::HEAD && self.upstream.key(parts).starts_with("u/") => {
                answer.headers_mut().insert("content-type", HeaderValue::from_static("binary/octet-stream"));
            }
            Defect::HidesPartChecksums if parts.method == Method::GET && query.contains("uploadId") => {
                let body = std::mem::take(answer.body_mut()).collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let parts =
                    text.split("<ChecksumSHA256>").map(|rest| rest.split_once("</ChecksumSHA256>").map_or(rest, |cut| cut.1));
                answer.headers_mut().remove("content-length");
                *answer.body_mut() = Bytes::from(parts.collect::<String>()).into();
            }
            Defect::IsElsewhere | Defect::NamesRootsOtherwise => self.rewrite_answer(answer).await,
            Defect::SendsWrongChecksums if parts.headers.contains_key(RANGE) => {
                // The SHA-256 of no bytes.
                let wrong = HeaderValue::from_static("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
                answer.headers_mut().insert("x-amz-checksum-sha256", wrong);
            }
            Defect::DatesCopies if parts.method == Method::HEAD && parts.uri.path().contains("/u/") => {
                answer.headers_mut().insert("x-amz-meta-mtime", "1795884314.1".parse().unwrap());
            }
            Defect::HeadFindsNothing if parts.method == Method::HEAD && parts.uri.path().contains("/u/") => {
                *answer = status(StatusCode::NOT_FOUND);
            }
            Defect::OmitsLength if parts.method == Method::HEAD => drop(answer.headers_mut().remove("content-length")),
            Defect::OmitsEntityTag if parts.method == Method::HEAD => drop(answer.headers_mut().remove("etag")),
            _ => {}
        }
    }

    /// Stores the bytes without any verification.
    async fn store(&self, parts: &Parts, key: &str, body: &Bytes) -> Answer {
        let content_type = parts.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
        let put = self.upstream.s3.put_object().bucket(&self.upstream.bucket).key(key).set_content_type(content_type);
        let put = put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256);
        put.body(body.clone().into()).send().await.unwrap();
        status(StatusCode::OK)
    }

    /// Answers with the whole object, or 403 if it does not exist.
    async fn serve_object(&self, key: &str) -> Answer {
        let found = match self.upstream.s3.get_object().bucket(&self.upstream.bucket).key(key).send().await {
            Ok(found) if !key.is_empty() => found,
            _ => return status(StatusCode::FORBIDDEN),
        };
        let (tag, content_type) = (found.e_tag().unwrap().to_owned(), found.content_type().unwrap().to_owned());
        let mut answer = Response::new(found.body.collect().await.unwrap().into_bytes().into());
        answer.headers_mut().insert("etag", HeaderValue::try_from(tag).unwrap());
        answer.headers_mut().insert("content-type", HeaderValue::try_from(content_type).unwrap());
        answer
    }
}

/// Returns an empty answer with this status.
fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Returns the listing of a bucket whose root element contains this XML.
fn listing(inside: &str) -> Answer {
    let mut response = status(StatusCode::OK);
    let xml = format!(r#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</ListBucketResult>"#);
    *response.body_mut() = Bytes::from(xml).into();
    response
}
