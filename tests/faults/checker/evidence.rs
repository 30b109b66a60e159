//! Gathers the evidence for the checker, without judging it: all documents, all objects with the digests of their bytes, results
//! of requests without credentials, every user's gallery, received webhooks, the journal and the logs. Also samples the states of
//! images during the load.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_s3::error::ProvideErrorMetadata;
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, QUOTA},
    files::sha256,
    journal::{Journal, Record, now},
    webhook_receiver::Message,
    workload::users::password_of,
};

/// Number of concurrent calls to S3.
const CONCURRENT_CALLS: usize = 8;
/// Number of leading bytes that identify a file's type.
const MAGIC_BYTES: usize = 16;

/// A document of `images`.
#[derive(Debug, Clone)]
pub struct Image(pub Document);

impl Image {
    /// Returns a field; empty if it is absent.
    pub fn text(&self, field: &str) -> &str {
        self.0.get_str(field).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.text("_id")
    }

    pub fn user(&self) -> &str {
        self.text("user")
    }

    pub fn key(&self) -> &str {
        self.text("key")
    }

    pub fn state(&self) -> &str {
        self.text("state")
    }

    /// Returns whether the image is pending or ready.
    pub fn is_live(&self) -> bool {
        matches!(self.state(), "pending" | "ready")
    }

    /// Returns whether the document has a field.
    pub fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Returns the time in a field, in milliseconds since 1970.
    pub fn time(&self, field: &str) -> Option<i64> {
        self.0.get_datetime(field).ok().map(|at| at.timestamp_millis())
    }

    /// Returns the size in bytes; -1 if it is absent.
    pub fn size(&self) -> i64 {
        self.0.get_i64("size").unwrap_or(-1)
    }

    /// Returns the keys of the image's leftovers.
    pub fn leftover_keys(&self) -> impl Iterator<Item = &str> {
        self.0.get_array("strays").map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_str)
    }

    /// Returns the record of the client's preview.
    pub fn preview(&self) -> Option<&Document> {
        self.0.get_document("preview").ok()
    }
}

/// A version of an object.
#[derive(Debug, Clone)]
pub struct Object {
    pub key: String,
    pub size: i64,
    pub etag: String,
    /// Milliseconds since 1970.
    pub modified: i64,
    pub content_type: String,
    /// User metadata and the other headers that S3 stores with the bytes.
    pub metadata: String,
    /// SHA-256 of the bytes, computed here.
    pub sha256: String,
    /// The first bytes.
    pub magic: Vec<u8>,
    /// Whether this is the current version.
    pub is_latest: bool,
}

/// A request without credentials and its answer.
#[derive(Debug, Clone)]
pub struct AnonymousRequest {
    /// Method, and the last part of the path.
    pub request: String,
    /// Status; 0 without an answer.
    pub status: u16,
}

/// One image of a gallery: its id, and its upload time in the API's format.
pub type ShownImage = (String, String);

/// Everything that the checker judges.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub record: Record,
    pub images: Vec<Image>,
    pub users: Vec<Document>,
    pub sessions: Vec<Document>,
    pub deliveries: Vec<Document>,
    /// Messages that the endpoint has received.
    pub messages: Vec<Message>,
    /// Events whose claim the test has ended early.
    pub claims_ended_early: BTreeSet<String>,
    /// Signing secret of the endpoint.
    pub endpoint_secret: String,
    /// Service key of the app's backend.
    pub key: String,
    /// Every document of every collection, as text.
    pub dump: Vec<String>,
    pub objects: Vec<Object>,
    /// Open multipart uploads in S3: key, and start in milliseconds since 1970.
    pub open_uploads: Vec<(String, i64)>,
    /// `None` if the store does not check credentials, such as LocalStack.
    pub anonymous: Option<Vec<AnonymousRequest>>,
    /// Gallery of each user, by the user's id; the error is the reason why a gallery is missing.
    pub galleries: BTreeMap<String, Result<Vec<ShownImage>, String>>,
    pub log: String,
    /// Names of the bucket and the database, which no failing answer may contain.
    pub internals: Vec<String>,
    /// Time of the gathering, in milliseconds since 1970.
    pub at: i64,
    /// Indexes in `images`, by id.
    by_id: HashMap<String, usize>,
    /// Indexes of current versions in `objects`, by key.
    by_key: HashMap<String, usize>,
}

impl Evidence {
    /// Reads everything that the checks need from a cluster and a journal.
    pub async fn collect(cluster: &Cluster, journal: &Journal) -> Self {
        let (images, users) = (read_all(cluster, "images").await, read_all(cluster, "users").await);
        let (sessions, deliveries) = (read_all(cluster, "sessions").await, read_all(cluster, "deliveries").await);
        let backend = &cluster.backend;
        let mut dump = Vec::new();
        for collection in cluster.db.list_collection_names().await.unwrap() {
            dump.extend(read_all(cluster, &collection).await.iter().map(|document| format!("{collection}: {document}")));
        }
        let objects = Self::objects(cluster).await;
        let anonymous = anonymous(cluster, &objects).await;
        let mut galleries = BTreeMap::new();
        for user in &users {
            if let (Ok(id), Some(sign_in)) = (user.get_str("_id"), SignIn::of(user)) {
                galleries.insert(id.to_owned(), gallery(cluster, &sign_in).await);
            }
        }
        let images: Vec<_> = images.into_iter().map(Image).collect();
        let by_id = images.iter().enumerate().map(|(at, image)| (image.id().to_owned(), at)).collect();
        let latest = objects.iter().enumerate().filter(|(_, object)| object.is_latest);
        let by_key = latest.map(|(at, object)| (object.key.clone(), at)).collect();
        let (open_uploads, log, internals) =
            (open_uploads(cluster).await, cluster.log(), vec![cluster.bucket.clone(), cluster.db.name().to_owned()]);
        let record = journal.read();
        Self {
            record,
            images,
            users,
            sessions,
            deliveries,
            messages: backend.messages(),
            claims_ended_early: backend.claims_ended_early(),
            endpoint_secret: backend.secret.clone(),
            key: backend.key.clone(),
            dump,
            objects,
            open_uploads,
            anonymous,
            galleries,
            log,
            internals,
            at: now(),
            by_id,
            by_key,
        }
    }

    /// Returns every version of every object.
    pub async fn objects(cluster: &Cluster) -> Vec<Object> {
        objects(cluster).await
    }

    /// Returns the image of this id.
    pub fn image(&self, id: &str) -> Option<&Image> {
        self.by_id.get(id).map(|at| &self.images[*at])
    }

    /// Returns all ready images.
    pub fn ready(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().filter(|image| image.state() == "ready")
    }

    /// Returns the current version of the object at a key.
    pub fn object(&self, key: &str) -> Option<&Object> {
        self.by_key.get(key).map(|at| &self.objects[*at])
    }
}

/// Returns all documents of a collection, in the order of their ids.
async fn read_all(cluster: &Cluster, collection: &str) -> Vec<Document> {
    let found = cluster.db.collection::<Document>(collection).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    found.try_collect().await.unwrap()
}

/// Returns the state of each image, and the users above their quota.
pub async fn sample_states(cluster: &Cluster) -> (BTreeMap<String, String>, Vec<String>) {
    let images = cluster.db.collection::<Document>("images").find(doc! {}).projection(doc! { "state": 1 }).await;
    let states: Vec<Document> = match images {
        Ok(images) => images.try_collect().await.unwrap_or_default(),
        // The database is unreachable: there is nothing to read.
        Err(_) => Vec::new(),
    };
    let text = |document: &Document, field: &str| document.get_str(field).unwrap_or_default().to_owned();
    let states = states.iter().map(|image| (text(image, "_id"), text(image, "state"))).collect();
    let above = doc! { "usedBytes": { "$gt": i64::try_from(QUOTA).unwrap() } };
    let over: Vec<Document> = match cluster.db.collection::<Document>("users").find(above).await {
        Ok(users) => users.try_collect().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    (states, over.iter().map(Document::to_string).collect())
}

/// Returns key, version id, modification time and whether the version is current, for every version of every object. On a
/// store without versions, each object has one version without an id.
async fn list_versions(cluster: &Cluster) -> Vec<(String, Option<String>, i64, bool)> {
    let (mut found, mut key, mut version) = (Vec::new(), None, None);
    let millis = |at: Option<&aws_sdk_s3::primitives::DateTime>| at.and_then(|at| at.to_millis().ok()).unwrap_or_default();
    loop {
        let list = cluster.s3.list_object_versions().bucket(&cluster.bucket).set_key_marker(key).set_version_id_marker(version);
        match list.send().await {
            Ok(page) => {
                found.extend(page.versions().iter().map(|object| {
                    let version = object.version_id().filter(|id| *id != "null").map(str::to_owned);
                    (object.key().unwrap().to_owned(), version, millis(object.last_modified()), object.is_latest() != Some(false))
                }));
                if page.is_truncated() != Some(true) {
                    return found;
                }
                key = page.next_key_marker().map(str::to_owned);
                version = page.next_version_id_marker().map(str::to_owned);
            }
            Err(error) if matches!(error.code(), Some("NotImplemented" | "MethodNotAllowed")) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    let mut pages = cluster.s3.list_objects_v2().bucket(&cluster.bucket).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        found.extend(
            page.contents().iter().map(|object| (object.key().unwrap().to_owned(), None, millis(object.last_modified()), true)),
        );
    }
    found
}

/// Returns all objects of images, with the digests of their bytes.
async fn objects(cluster: &Cluster) -> Vec<Object> {
    // A server that is killed while it probes the store leaves objects under `check/`; the marker belongs to the deployment.
    let is_image = |key: &str| !key.starts_with("check/") && key != valet::store::objects::marker::KEY;
    let listed = list_versions(cluster).await.into_iter().filter(|(key, ..)| is_image(key));
    let read = listed.map(|(key, version, modified, is_latest)| async move {
        let get = cluster.s3.get_object().bucket(&cluster.bucket).key(&key).set_version_id(version);
        // The object may be deleted between the listing and this call.
        let got = get.send().await.ok()?;
        let (etag, content_type) =
            (got.e_tag().unwrap_or_default().to_owned(), got.content_type().unwrap_or_default().to_owned());
        let headers = [got.content_disposition(), got.cache_control(), got.content_encoding(), got.content_language()];
        let metadata = format!("{:?} {headers:?}", got.metadata());
        let bytes = got.body.collect().await.ok()?.into_bytes();
        Some(Object {
            size: i64::try_from(bytes.len()).unwrap(),
            sha256: sha256(&bytes),
            magic: bytes[..bytes.len().min(MAGIC_BYTES)].to_vec(),
            key,
            etag,
            modified,
            content_type,
            metadata,
            is_latest,
        })
    });
    stream::iter(read).buffered(CONCURRENT_CALLS).filter_map(|object| async move { object }).collect().await
}

/// Returns the key of each open multipart upload, and the time at which it was opened in milliseconds since 1970.
async fn open_uploads(cluster: &Cluster) -> Vec<(String, i64)> {
    let listed = cluster.s3.list_multipart_uploads().bucket(&cluster.bucket).send().await.unwrap();
    let begun = |at: Option<&aws_sdk_s3::primitives::DateTime>| at.and_then(|at| at.to_millis().ok()).unwrap_or_default();
    listed.uploads().iter().map(|upload| (upload.key().unwrap_or_default().to_owned(), begun(upload.initiated()))).collect()
}

/// Requests every key and the bucket without credentials.
async fn anonymous(cluster: &Cluster, objects: &[Object]) -> Option<Vec<AnonymousRequest>> {
    let http = reqwest::Client::new();
    let health = http.get(format!("{}/_localstack/health", cluster.s3_endpoint)).send().await;
    if health.is_ok_and(|answer| answer.status() == 200) {
        return None;
    }
    let base = format!("{}/{}", cluster.s3_endpoint, cluster.bucket);
    let mut requests = vec![(Method::GET, base.clone()), (Method::GET, format!("{base}?list-type=2"))];
    for object in objects {
        let url = format!("{base}/{}", object.key);
        requests.extend([Method::GET, Method::HEAD, Method::PUT].map(|method| (method, url.clone())));
    }
    let answers = requests.into_iter().map(|(method, url)| {
        let http = &http;
        async move {
            let request = http.request(method.clone(), &url);
            // A store that accepts the PUT still overwrites nothing.
            let request = if method == Method::PUT { request.header("if-none-match", "*").body("stranger") } else { request };
            let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
            AnonymousRequest { request: format!("{method} {}", url.rsplit_once('/').map_or("", |(_, last)| last)), status }
        }
    });
    Some(stream::iter(answers).buffered(CONCURRENT_CALLS).collect().await)
}

/// Way in which the owner of a gallery gets a token.
enum SignIn {
    Email(String),
    /// The app's backend creates a token for this subject.
    Subject(String),
}

impl SignIn {
    /// Returns the way by which a user signs in; `None` if the document has neither a subject nor an email.
    fn of(user: &Document) -> Option<Self> {
        let subject = user.get_document("identity").and_then(|identity| identity.get_str("subject"));
        let subject = subject.ok().map(|subject| Self::Subject(subject.to_owned()));
        subject.or_else(|| Some(Self::Email(user.get_str("email").ok()?.to_owned())))
    }
}

/// Reads the gallery as its owner, page by page; the error says why it is missing.
async fn gallery(cluster: &Cluster, sign_in: &SignIn) -> Result<Vec<ShownImage>, String> {
    let (http, base) = (reqwest::Client::new(), cluster.servers.first().ok_or("no server")?.base());
    let text = |error: reqwest::Error| error.without_url().to_string();
    let request_json = async |request: reqwest::RequestBuilder| -> Result<Value, String> {
        let answer = request.send().await.map_err(text)?;
        let status = answer.status();
        let json: Value = answer.json().await.map_err(text)?;
        if status == 200 { Ok(json) } else { Err(format!("{status}: {json}")) }
    };
    let session = request_json(match sign_in {
        SignIn::Email(email) => {
            http.post(format!("{base}/api/auth/login")).json(&json!({ "email": email, "password": password_of(email) }))
        }
        SignIn::Subject(subject) => {
            let request = http.post(format!("{base}/api/admin/tokens")).bearer_auth(&cluster.backend.key);
            request.json(&json!({ "subject": subject }))
        }
    })
    .await?;
    let token = session["token"].as_str().unwrap_or_default();
    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        // Small pages, so that galleries have several.
        let page = request_json(http.get(format!("{base}/api/images/gallery?limit=7{after}")).bearer_auth(token)).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        shown.extend(
            page["images"].as_array().into_iter().flatten().map(|image| (text(&image["id"]), text(&image["uploadedAt"]))),
        );
        match page["nextCursor"].as_str() {
            Some(cursor) if shown.len() < 100_000 => after = format!("&cursor={cursor}"),
            Some(_) => return Err("the gallery does not end".to_owned()),
            None => break,
        }
    }
    let _ = http.post(format!("{base}/api/auth/logout")).json(&json!({ "refreshToken": session["refreshToken"] })).send().await;
    Ok(shown)
}
