//! A proxy in front of S3 that records requests by their IAM actions.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming, http::request::Parts};
use serde::Serialize;

use crate::{
    app::TestApp,
    relay::{Upstream, listen},
};

/// A call of S3's API with one of the permissions that S3 requires for it; a copy needs two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRequest {
    /// Name of the operation in the SDK.
    pub operation: &'static str,
    /// The IAM action.
    pub action: &'static str,
    /// Key of the object; empty for the bucket itself.
    pub key: String,
    /// S3's name for the kind of signature.
    pub auth_type: &'static str,
}

/// A running proxy; it ends with the test's runtime.
pub struct S3Recorder {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
}

impl S3Recorder {
    /// Starts a proxy in front of the server's store.
    pub async fn start(app: &TestApp) -> Self {
        let (upstream, requests) = (Upstream::of(app), Arc::new(Mutex::new(Vec::new())));
        let prefix = format!("/{}", upstream.bucket);
        let recorded = Arc::clone(&requests);
        let answer = move |request: Request<Incoming>| {
            let (upstream, prefix, recorded) = (upstream.clone(), prefix.clone(), Arc::clone(&recorded));
            async move {
                let (parts, body) = request.into_parts();
                // A client may announce a body and never send it.
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let calls = permissions_of(&parts, &prefix, &body);
                let answer = upstream.forward(&parts, body).await;
                // A request that is rejected for its signature needs no permission.
                if ![400, 403].contains(&answer.status().as_u16()) {
                    recorded.lock().unwrap().extend(calls);
                }
                Ok::<_, Infallible>(answer)
            }
        };
        Self { endpoint: listen(answer).await, requests }
    }

    /// Returns the recorded requests; of requests that differ only in the key below a prefix, one.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        let recorded = self.requests.lock().unwrap();
        let prefix = |key: &str| key.split('/').next().unwrap().to_owned();
        let distinct: BTreeMap<_, _> =
            recorded.iter().map(|one| ((one.operation, one.action, prefix(&one.key), one.auth_type), one.clone())).collect();
        distinct.into_values().collect()
    }
}

/// Returns the permissions that S3's API reference lists for a request; an empty list for an unsigned request.
fn permissions_of(parts: &Parts, bucket: &str, body: &[u8]) -> Vec<RecordedRequest> {
    let query: Vec<_> = parts.uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap()).collect();
    let has = |name: &str| query.contains(&name);
    let key = parts.uri.path().strip_prefix(bucket).unwrap().trim_start_matches('/').to_owned();
    let form = (parts.method == "POST" && key.is_empty()).then(|| field(body, "key"));
    let auth_type = match () {
        () if has("X-Amz-Signature") => "REST-QUERY-STRING",
        () if parts.headers.contains_key("authorization") => "REST-HEADER",
        () if form.is_some() => "POST",
        () => return vec![],
    };
    let request = |operation, action, key: &str| RecordedRequest { operation, action, key: key.to_owned(), auth_type };
    let requests_of_key = |operation, action| vec![request(operation, action, &key)];
    let source = parts.headers.get("x-amz-copy-source").map(|source| format!("/{}", source.to_str().unwrap()));
    match (parts.method.as_str(), key.is_empty()) {
        ("GET", false) if has("uploadId") => requests_of_key("ListParts", "s3:ListMultipartUploadParts"),
        ("GET", false) => requests_of_key("GetObject", "s3:GetObject"),
        ("HEAD", false) => requests_of_key("HeadObject", "s3:GetObject"),
        ("PUT", false) if has("partNumber") => requests_of_key("UploadPart", "s3:PutObject"),
        ("PUT", false) if source.is_some() => {
            let from = source.unwrap().strip_prefix(bucket).unwrap().trim_start_matches('/').to_owned();
            vec![request("CopyObject", "s3:GetObject", &from), request("CopyObject", "s3:PutObject", &key)]
        }
        ("PUT", false) => requests_of_key("PutObject", "s3:PutObject"),
        ("POST", false) if has("uploads") => requests_of_key("CreateMultipartUpload", "s3:PutObject"),
        ("POST", false) if has("uploadId") => requests_of_key("CompleteMultipartUpload", "s3:PutObject"),
        ("DELETE", false) if has("uploadId") => requests_of_key("AbortMultipartUpload", "s3:AbortMultipartUpload"),
        ("DELETE", false) if has("versionId") => requests_of_key("DeleteObject", "s3:DeleteObjectVersion"),
        ("DELETE", false) => requests_of_key("DeleteObject", "s3:DeleteObject"),
        ("POST", true) => vec![request("PostObject", "s3:PutObject", &form.unwrap())],
        ("HEAD", true) => requests_of_key("HeadBucket", "s3:ListBucket"),
        ("GET", true) if has("versions") => requests_of_key("ListObjectVersions", "s3:ListBucketVersions"),
        ("GET", true) if has("uploads") => requests_of_key("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("GET", true) if has("list-type") => requests_of_key("ListObjectsV2", "s3:ListBucket"),
        ("GET", true) if has("cors") => requests_of_key("GetBucketCors", "s3:GetBucketCORS"),
        ("PUT", true) if has("cors") => requests_of_key("PutBucketCors", "s3:PutBucketCORS"),
        ("GET", true) if has("lifecycle") => requests_of_key("GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration"),
        ("PUT", true) if has("lifecycle") => requests_of_key("PutBucketLifecycleConfiguration", "s3:PutLifecycleConfiguration"),
        ("GET", true) if has("notification") => requests_of_key("GetBucketNotificationConfiguration", "s3:GetBucketNotification"),
        ("PUT", true) if has("notification") => requests_of_key("PutBucketNotificationConfiguration", "s3:PutBucketNotification"),
        ("GET", true) if has("object-lock") => {
            requests_of_key("GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration")
        }
        ("GET", true) if has("publicAccessBlock") => requests_of_key("GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock"),
        ("PUT", true) if has("publicAccessBlock") => requests_of_key("PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
        // Browsers send preflights without a signature.
        ("OPTIONS", _) => vec![],
        // This name matches no call of the source, so the test fails.
        _ => requests_of_key("a call without a row here", "none"),
    }
}

/// Returns a field of a form.
fn field(body: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once(&format!("name=\"{name}\"\r\n\r\n")).unwrap();
    rest.split_once("\r\n").unwrap().0.to_owned()
}
