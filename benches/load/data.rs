//! Users and images of the benchmarks, and the reads and writes of the driver alone, with which those of the server are compared.

use std::net::SocketAddr;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use mongodb::{
    Client, Collection, Database,
    bson::{DateTime, Document, RawDocumentBuf, doc, oid::ObjectId},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};
use serde_json::{Value, json};

use super::{
    client::{AsyncWork, Connection, request},
    servers::{DATABASE, Server},
};

/// Password of every user.
const PASSWORD: &str = "three small blue boats";
/// Number of images in the galleries that are read.
pub const IMAGES: i64 = 1000;

/// A user with a token.
#[derive(Clone)]
pub struct User {
    pub id: String,
    pub token: String,
    pub email: String,
}

impl User {
    /// Signs up with Valet.
    pub async fn sign_up(address: SocketAddr) -> Self {
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        let body = json!({ "email": email, "password": PASSWORD });
        let session = Connection::open(address).await.expect(&request("POST", "/api/auth/signup", None, Some(&body)), 201).await;
        Self { id: text(&session["user"]["id"]), token: text(&session["token"]), email }
    }

    /// Signs up with the Express server.
    pub async fn sign_up_at_express(server: &Server) -> Self {
        let email = "ada@example.com".to_owned();
        let body = json!({ "email": email, "password": PASSWORD });
        let mut api = Connection::open(server.address).await;
        let id = text(&api.expect(&request("POST", "/api/auth/signup", None, Some(&body)), 201).await["id"]);
        let token = text(&api.expect(&request("POST", "/api/auth/login", None, Some(&body)), 200).await["token"]);
        Self { id, token, email }
    }

    /// Returns a request with the user's token.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        request(method, path, Some(&self.token), body)
    }

    /// Returns a request that signs in as the user.
    pub fn login(&self) -> Vec<u8> {
        request("POST", "/api/auth/login", None, Some(&json!({ "email": self.email, "password": PASSWORD })))
    }
}

/// Returns the text of a JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Returns the declaration of these bytes.
pub fn declaration(bytes: &[u8]) -> Value {
    let sha256 = STANDARD.encode(digest::digest(&digest::SHA256, bytes));
    json!({ "fileName": "IMG_0042.png", "contentType": "image/png", "size": bytes.len(), "sha256": sha256 })
}

/// Returns a unique PNG: it ends with random bytes.
pub fn unique_png() -> Vec<u8> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/plain.png");
    let mut bytes = std::fs::read(fixture).unwrap();
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    bytes
}

/// Returns a MongoDB driver with the server's configuration.
pub async fn driver(uri: &str) -> Client {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    options.max_pool_size = Some(64);
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.read_concern = Some(ReadConcern::majority());
    Client::with_options(options).unwrap()
}

/// Inserts `count` ready images of a user, with the fields that confirm leaves.
pub async fn fill(images: &Collection<Document>, user: &str, count: i64) {
    let now = DateTime::now().timestamp_millis();
    let image = |n: i64| {
        let id = uuid::Uuid::now_v7().to_string();
        let at = DateTime::from_millis(now - n * 1000);
        let sha256 = STANDARD.encode(digest::digest(&digest::SHA256, id.as_bytes()));
        doc! { "_id": &id, "user": user, "key": format!("u/{user}/{id}"), "state": "ready", "live": true, "fileName": "IMG_0042.jpg",
        "contentType": "image/jpeg", "size": 4_194_304_i64 + n, "kind": "single", "sha256": sha256, "etag": "\"d41d8cd98f00b204e9800998ecf8427e\"",
        "width": 4032_i64, "height": 3024_i64, "createdAt": at, "uploadedAt": at, "expiresAt": at, "urlsDieAt": at }
    };
    for first in (0..count).step_by(10_000) {
        images.insert_many((first..count.min(first + 10_000)).map(image)).ordered(false).await.unwrap();
    }
}

/// Inserts [`IMAGES`] images for the Express server's user, in that server's form.
pub async fn fill_express(client: &Client, user: &str) {
    let user = ObjectId::parse_str(user).unwrap();
    let images = client.database("test").collection::<Document>("images");
    let now = DateTime::now().timestamp_millis();
    let image = |n: i64| {
        let at = DateTime::from_millis(now - n * 1000);
        doc! { "key": format!("{user}/{}", uuid::Uuid::new_v4()), "user": user, "fileName": "IMG_0042.jpg", "contentType": "image/jpeg",
        "size": 4_194_304 + n, "state": "ready", "uploadedAt": at, "__v": 0 }
    };
    images.insert_many((0..IMAGES).map(image)).await.unwrap();
}

/// Reads a gallery page as the server does, and discards it.
pub struct DriverGalleryRead {
    images: Collection<RawDocumentBuf>,
    user: String,
}

impl DriverGalleryRead {
    pub fn new(client: &Client, user: &str) -> Self {
        Self { images: client.database(DATABASE).collection("images"), user: user.to_owned() }
    }
}

impl AsyncWork for DriverGalleryRead {
    async fn once(&mut self) -> bool {
        let find = self.images.find(doc! { "user": &self.user, "state": "ready" }).sort(doc! { "uploadedAt": -1, "_id": -1 });
        let mut found = find.limit(50).batch_size(50).await.unwrap();
        let mut count = 0;
        while found.advance().await.unwrap() {
            count += 1;
        }
        assert_eq!(count, 50);
        true
    }
}

/// Writes the documents of an upload as the server does when it opens one: the conditional update of the user, then the image.
pub struct DriverUploadWrite {
    database: Database,
    users: Vec<String>,
    next_user: usize,
}

impl DriverUploadWrite {
    pub fn new(client: &Client, users: &[User], next_user: usize) -> Self {
        Self { database: client.database(DATABASE), users: users.iter().map(|user| user.id.clone()).collect(), next_user }
    }
}

impl AsyncWork for DriverUploadWrite {
    async fn once(&mut self) -> bool {
        self.next_user += 1;
        let user = &self.users[self.next_user % self.users.len()];
        let (id, now) = (uuid::Uuid::now_v7().to_string(), DateTime::now());
        let filter = doc! { "_id": user, "usedBytes": { "$lte": 10_i64 << 30 }, "pending": { "$lte": 999_i64 } };
        let entry = doc! { "image": &id, "bytes": 100_i64, "at": now };
        // At most five entries, as after five simultaneous openings.
        let opening = doc! { "$concatArrays": [{ "$slice": ["$opening", -4] }, [entry]] };
        let counts = doc! { "usedBytes": { "$add": ["$usedBytes", 100_i64] }, "pending": { "$add": ["$pending", 1_i64] } };
        let update = vec![doc! { "$set": { "opening": opening } }, doc! { "$set": counts }];
        let reserved = self.database.collection::<Document>("users").update_one(filter, update).await.unwrap();
        assert_eq!(reserved.matched_count, 1);
        let sha256 = STANDARD.encode(digest::digest(&digest::SHA256, id.as_bytes()));
        let image = doc! { "_id": &id, "user": user, "key": format!("u/{user}/{id}"), "state": "pending", "live": true, "fileName": "IMG_0042.png",
        "contentType": "image/png", "size": 100_i64, "kind": "single", "sha256": sha256, "createdAt": now, "expiresAt": now,
        "urlsDieAt": now, "reservation": { "bytes": 100_i64, "place": "pending", "due": now }, "due": DateTime::from_millis(now.timestamp_millis() + 86_400_000) };
        self.database.collection::<Document>("images").insert_one(image).await.unwrap();
        true
    }
}

/// Deletes all open uploads, and sets the counters of their users to zero.
pub async fn delete_open_uploads(database: &Database) {
    database.collection::<Document>("images").delete_many(doc! { "state": "pending" }).await.unwrap();
    let fresh = doc! { "$set": { "usedBytes": 0_i64, "pending": 0_i64, "opening": [], "holds": [] } };
    database.collection::<Document>("users").update_many(doc! {}, fresh).await.unwrap();
}
