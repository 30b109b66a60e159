//! A relay in front of the local S3 that verifies presigned URLs like Ceph RGW 16.2: it obeys unsigned headers, and
//! ([`Seals::Yes`]) ignores signed headers that a request lacks. It signs accepted requests again for the store.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, http::request::Parts};
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use valet::signer::{self, AddressingStyle, BucketLocation, Credentials, Signer};

use crate::{
    app::TestApp,
    relay::{Answer, Upstream, listen, relayed},
};

/// Whether PUTs can be sealed (`src/store/objects/presigned_put.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seals {
    /// The store ignores signed headers that a request lacks.
    Yes,
    /// The store rejects requests that lack a signed header.
    No,
}

/// A running relay; it ends with the test's runtime.
pub struct HeaderObeyingStore {
    pub endpoint: String,
    state: Arc<State>,
}

/// State of the relay.
struct State {
    seals: Seals,
    upstream: Upstream,
    keys: Credentials,
    signer: Signer,
    /// Whether the store was replaced by one that rejects unsigned headers.
    is_repaired: AtomicBool,
    /// Keys of objects with a public ACL, which the bucket may ignore.
    public: Mutex<HashSet<String>>,
}

impl HeaderObeyingStore {
    /// Starts a relay in front of the server's store.
    pub async fn start(app: &TestApp, seals: Seals) -> Self {
        let keys = app.config.s3.credentials.clone().unwrap();
        let endpoint = app.config.s3.endpoint.as_deref().unwrap().parse().unwrap();
        let location = BucketLocation::endpoint(&endpoint, &app.config.s3.bucket, AddressingStyle::Path);
        let state = Arc::new(State {
            seals,
            signer: Signer::new(location, "us-east-1", keys.clone()),
            upstream: Upstream::of(app),
            keys,
            is_repaired: AtomicBool::default(),
            public: Mutex::default(),
        });
        let handler_state = Arc::clone(&state);
        Self { endpoint: listen(move |request| Arc::clone(&handler_state).answer(request)).await, state }
    }

    /// Replaces the store by one that rejects unsigned headers.
    pub fn repair(&self) {
        self.state.is_repaired.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// Answers a presigned request like RGW, and other requests like the real store.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let key = self.upstream.key(&parts);
        let is_anonymous = !query.contains("X-Amz-Signature") && !parts.headers.contains_key("authorization");
        if query.contains("X-Amz-Signature") && !self.is_repaired.load(Ordering::Relaxed) {
            return Ok(self.answer_presigned(&parts, &key, &query, body).await);
        }
        if is_anonymous && parts.method == Method::GET && self.is_public(&key).await {
            let found = self.upstream.s3.get_object().bucket(&self.upstream.bucket).key(key).send().await.unwrap();
            return Ok(Response::new(found.body.collect().await.unwrap().into_bytes().into()));
        }
        Ok(self.upstream.forward(&parts, body).await)
    }

    /// Returns whether the object has a public ACL, and the bucket does not ignore ACLs.
    async fn is_public(&self, key: &str) -> bool {
        let block = self.upstream.s3.get_public_access_block().bucket(&self.upstream.bucket).send().await.ok();
        let ignored = block.and_then(|block| block.public_access_block_configuration()?.ignore_public_acls());
        ignored != Some(true) && self.public.lock().unwrap().contains(key)
    }

    /// Answers a presigned request, and obeys headers that are not signed.
    async fn answer_presigned(&self, parts: &Parts, key: &str, query: &str, body: Bytes) -> Answer {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let value = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let signed_headers = value("X-Amz-SignedHeaders").unwrap();
        let names: Vec<&str> = signed_headers.split(';').collect();
        let lacks_signed_header = names.iter().any(|name| !parts.headers.contains_key(*name));
        if (lacks_signed_header && self.seals == Seals::No) || !self.is_signed(parts, query, &names, &value) {
            return status(StatusCode::FORBIDDEN, "<Error><Code>SignatureDoesNotMatch</Code></Error>");
        }
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        if let (&Method::PUT, Some(source)) = (&parts.method, header("x-amz-copy-source")) {
            if header("x-amz-acl").is_some() {
                self.public.lock().unwrap().insert(key.to_owned());
            }
            return self.copy(key, &source, value("uploadId").zip(value("partNumber"))).await;
        }
        let publishes = header("x-amz-acl").is_some_and(|acl| acl.starts_with("public")) || header("x-amz-grant-read").is_some();
        let makes_object = (parts.method == Method::PUT && value("partNumber").is_none())
            || (parts.method == Method::POST && value("uploads").is_some());
        let answer = self.pass_on(parts, key, &names, &pairs, body).await;
        if publishes && makes_object && answer.status().is_success() {
            self.public.lock().unwrap().insert(key.to_owned());
        }
        answer
    }

    /// Verifies the signature by the AWS document "Create a signed AWS API request", except for headers that the request lacks.
    fn is_signed(&self, parts: &Parts, query: &str, names: &[&str], value: &dyn Fn(&str) -> Option<String>) -> bool {
        let Some((canonical_query, signature)) = query.split_once("&X-Amz-Signature=") else { return false };
        let time = value("X-Amz-Date").unwrap();
        let credential = value("X-Amz-Credential").unwrap();
        let (_, scope) = credential.split_once('/').unwrap();
        let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let signed_at = time::PrimitiveDateTime::parse(&time, &format).unwrap().assume_utc();
        let lifetime = Duration::from_secs(value("X-Amz-Expires").unwrap().parse().unwrap());
        if signed_at + lifetime < OffsetDateTime::now_utc() {
            return false;
        }
        let lines = names.iter().filter_map(|name| {
            let value = parts.headers.get(*name)?.to_str().unwrap();
            Some(format!("{name}:{value}\n"))
        });
        let canonical = format!(
            "{}\n{}\n{canonical_query}\n{}\n{}\nUNSIGNED-PAYLOAD",
            parts.method,
            parts.uri.path(),
            lines.collect::<String>(),
            names.join(";")
        );
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref()));
        let mut key = format!("AWS4{}", self.keys.secret_access_key.expose_secret()).into_bytes();
        for part in scope.split('/') {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), to_sign.as_bytes()).as_ref()) == signature
    }

    /// Copies an object to a key, or to a part of an upload.
    async fn copy(&self, key: &str, source: &str, part: Option<(String, String)>) -> Answer {
        let from = source.trim_start_matches('/').strip_prefix(&format!("{}/", self.upstream.bucket)).unwrap().to_owned();
        let found = self.upstream.s3.get_object().bucket(&self.upstream.bucket).key(from).send().await.unwrap();
        let (content_type, bytes) = (found.content_type().map(str::to_owned), found.body.collect().await.unwrap().into_bytes());
        match part {
            Some((upload, number)) => {
                let part = self.upstream.s3.upload_part().bucket(&self.upstream.bucket).key(key).upload_id(upload);
                part.part_number(number.parse().unwrap()).body(bytes.into()).send().await.unwrap();
            }
            None => {
                let put = self.upstream.s3.put_object().bucket(&self.upstream.bucket).key(key).set_content_type(content_type);
                put.body(bytes.into()).send().await.unwrap();
            }
        }
        status(StatusCode::OK, "<CopyResult/>")
    }

    /// Signs the same request for the store, without headers that the store would reject, and forwards it.
    async fn pass_on(&self, parts: &Parts, key: &str, names: &[&str], pairs: &[(String, String)], body: Bytes) -> Answer {
        // The signer takes names of headers, parameters and methods with a static lifetime.
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let is_passed_on = |name: &str| name != "host" && (names.contains(&name) || !name.starts_with("x-amz-"));
        let present: Vec<(&'static str, &str)> = parts
            .headers
            .iter()
            .filter(|(name, _)| is_passed_on(name.as_str()))
            .map(|(name, value)| (leak(name.as_str()), value.to_str().unwrap()))
            .collect();
        let mut signed: Vec<_> = present.iter().copied().filter(|(name, _)| names.contains(name)).collect();
        signed.sort_unstable();
        let query: Vec<_> = pairs
            .iter()
            .filter(|(name, _)| !name.starts_with("X-Amz-"))
            .map(|(name, value)| (leak(name), value.as_str()))
            .collect();
        let request = signer::PresignRequest { method: leak(parts.method.as_str()), key, headers: &signed, query: &query };
        let url = self.signer.presign(&request, OffsetDateTime::now_utc(), Duration::from_secs(60)).unwrap().url;
        let sent = present.iter().filter(|(name, _)| *name != "content-length" && *name != "connection");
        let request = self.upstream.http.request(parts.method.clone(), url).body(body);
        relayed(sent.fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()).await
    }
}

/// Encodes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an answer with this status and body.
fn status(status: StatusCode, body: &'static str) -> Answer {
    let mut response = Response::new(Full::from(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
