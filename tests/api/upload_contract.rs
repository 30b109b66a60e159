//! Covers requirements of uploads that concern several routes at once: names and keys, headers of the answers, repeated PUTs,
//! values sent with the confirm, metadata in the file (Exif), and the indexes that let records expire.
//!
//! Routes: POST /api/images/upload, POST /api/images/{id}/confirm, DELETE /api/images/{id}.

mod clock;
mod durability;

use std::time::Duration;

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    app::{TestApp, declaration, fixture, unique_png},
    store_rules::in_place,
};

/// Characters of a UUID.
const UUID_LENGTH: usize = 36;

/// File names as browsers, phones and attackers send them, and the stored names.
const NAMES: [(&str, &str); 16] = [
    ("../../etc/passwd", "passwd"),
    ("C:\\fakepath\\cat.png", "cat.png"),
    ("/var/mobile/IMG 0001.HEIC", "IMG 0001.HEIC"),
    ("  spaces \u{a0}.png  ", "spaces \u{a0}.png"),
    ("e\u{301}te\u{301}.png", "\u{e9}t\u{e9}.png"),
    ("\"><script>alert(1)<script>.png", "\"><script>alert(1)<script>.png"),
    ("$ne", "$ne"),
    ("%2e%2e%2f%00.png", "%2e%2e%2f%00.png"),
    ("'; DROP TABLE images;--.png", "'; DROP TABLE images;--.png"),
    ("\u{1F980}\u{200D}\u{1F525}.png", "\u{1F980}\u{200D}\u{1F525}.png"),
    ("\u{627}\u{644}\u{628}\u{62D}\u{631}.png", "\u{627}\u{644}\u{628}\u{62D}\u{631}.png"),
    ("\u{6F22}\u{5B57}.png", "\u{6F22}\u{5B57}.png"),
    (".htaccess", ".htaccess"),
    ("CON", "CON"),
    ("a?b=c&d#e.png", "a?b=c&d#e.png"),
    ("null", "null"),
];

#[tokio::test]
async fn u1_u13_file_names_are_stored_cleaned_and_never_part_of_a_key() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let longest = "x".repeat(255);
    for (sent, kept) in NAMES.into_iter().chain([(longest.as_str(), longest.as_str())]) {
        let image = ada.upload(sent, "image/png", &unique_png()).await;
        assert_eq!(image["fileName"], kept, "{sent:?}");
        let id = image["id"].as_str().unwrap();
        let document = app.db_image(id).await.unwrap();
        assert_eq!(document.get_str("fileName").unwrap(), kept);
        assert!(document.get_str("key").unwrap().starts_with(&format!("u/{}/{id}", ada.id)));
    }
    // If uploads are copied at confirm, the sweep removes the objects that were copied.
    app.sweep(time::OffsetDateTime::now_utc() + Duration::from_secs(1)).await;
    // Objects under `check/` belong to probes of the store's capabilities.
    let keys: Vec<_> = app.bucket_keys().await.into_iter().filter(|key| !key.starts_with("check/")).collect();
    assert_eq!(keys.len(), NAMES.len() + 1);
    let is_uuid =
        |text: &str| text.len() == UUID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    for key in keys {
        let segments: Vec<_> = key.split('/').collect();
        // A copy has a suffix behind the image's id.
        let is_image = |name: &str| if in_place() { is_uuid(name) } else { is_uuid(&name[..UUID_LENGTH]) };
        assert!(matches!(segments[..], ["u", user, name] if user == ada.id && is_image(name)), "{key}");
    }
}

#[tokio::test]
async fn u1_control_characters_are_removed_long_names_cut_and_empty_names_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bidirectional = ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}');
    let controls = ('\0'..' ').chain('\u{7F}'..'\u{A0}').chain(['\u{2028}', '\u{2029}']);
    let hidden: String = bidirectional.chain(controls).collect();
    let stored_name = async |name: &str| {
        let ticket = ada.open_upload(name, "image/png", &unique_png()).await;
        app.db_image(ticket.id()).await.unwrap().get_str("fileName").unwrap().to_owned()
    };
    assert_eq!(stored_name(&format!("a{hidden}b.png")).await, "ab.png");
    assert_eq!(stored_name(&format!("{}.png", "写".repeat(255))).await, format!("{}.png", "写".repeat(83)));
    assert_eq!(stored_name(&"x".repeat(5000)).await, "x".repeat(255));
    for name in ["", " ", ".", "..", "a/", "a\\", "../..", &hidden] {
        let answer = ada.open_upload(name, "image/png", &unique_png()).await;
        assert_eq!(answer.problem(), (422, "invalid_file_name"), "{name:?}");
    }
}

/// Caches must not store tickets, images and problems, which contain no secret except the URL.
#[tokio::test]
async fn u14_answers_are_no_store_and_contain_no_secret_except_the_url() {
    use secrecy::ExposeSecret;
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let path = format!("/api/images/{}", ticket.id());
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    let answers = [
        ada.post_empty(&format!("{path}/renew")).await,
        ada.post("/api/images/upload/batch", json!({ "items": [declaration("b.png", "image/png", &unique_png())] })).await,
        ada.post("/api/images/renew", json!({ "ids": [ticket.id()] })).await,
        ada.get("/api/images/pending").await,
        ada.confirm(ticket.id()).await,
        ada.get(&path).await,
        ada.get(&format!("{path}/download")).await,
        ada.open_upload("", "x", &bytes).await,
        ada.confirm("x").await,
        app.anonymous().get("/api/images/gallery").await,
        ticket,
    ];
    let secret = app.config.s3.credentials.as_ref().unwrap().secret_access_key.expose_secret().to_owned();
    for answer in answers {
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
        // LocalStack's secret is a word that also occurs in every URL.
        let searched = if super::app::s3_is_local() { &answer.text } else { "" };
        assert!(!searched.contains(&secret) && !answer.text.contains(super::app::JWT_SECRET), "{answer:?}");
        assert!(!answer.text.contains(ada.token.as_deref().unwrap()) && !answer.text.contains("argon2"), "{answer:?}");
    }
}

/// The PUT succeeds but its answer is lost: the repeat is answered 412, or 409 while S3 is still writing, and confirm decides.
#[tokio::test]
async fn u15_put_with_a_lost_answer_is_repeated_and_confirmed() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let upload = &ticket.json["upload"];
    let (address, target) = upload["url"].as_str().unwrap().strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut request = format!("PUT /{target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", bytes.len());
    for (name, value) in upload["headers"].as_object().unwrap() {
        request += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&[request.as_bytes(), b"\r\n", &bytes].concat()).await.unwrap();
    let began = std::time::Instant::now();
    while app.bucket_keys().await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "the PUT did not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(connection);
    let repeated = loop {
        match app.put(upload, bytes.clone()).await.as_u16() {
            409 => tokio::time::sleep(Duration::from_millis(20)).await,
            status => break status,
        }
    };
    assert_eq!(repeated, app.second_put_status().await);
    let image = ada.confirm(ticket.id()).await;
    assert_eq!((image.status, image.json["size"].as_u64()), (200, Some(bytes.len() as u64)));
    assert_eq!(app.put(upload, bytes).await, app.second_put_status().await, "the PUT is rejected again after the confirm");
}

/// Accepts connections and returns the beginning of what each of them sends. They stay open and are never answered.
fn heads_of_requests(listener: TcpListener) -> mpsc::UnboundedReceiver<String> {
    let (heads, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let _ = heads.send(String::from_utf8_lossy(&head[..length]).into_owned());
                std::future::pending::<()>().await;
            });
        }
    });
    received
}

/// A stalled S3 delays only the call that needs it: no transaction is open, and no document is locked.
#[tokio::test]
async fn c8_unresponsive_s3_blocks_no_other_writes_and_no_transaction_is_open() {
    let app = TestApp::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let stalled = TestApp::start_second_server(&app, |config| config.s3.endpoint = Some(endpoint.parse().unwrap())).await;
    let ada = app.user().await;
    let other = ada.upload("b.png", "image/png", &unique_png()).await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    crate::targeting::record_all(&app.db).await;
    let ada_on_stalled_server = super::app::Caller { app: &stalled, ..ada.clone() };
    let mut heads = heads_of_requests(silent);
    let is_answered = std::cell::Cell::new(false);
    let writes = async {
        // The confirm has read the image and waits for S3. Requests for other keys are those of the server's start.
        let request_for_object = async { while !heads.recv().await.unwrap().contains(ticket.id()) {} };
        tokio::time::timeout(Duration::from_secs(60), request_for_object).await.expect("the confirm requests the object from S3");
        let caption =
            ada.patch(&format!("/api/images/{}", other["id"].as_str().unwrap()), json!({ "caption": "meanwhile" })).await;
        assert_eq!(caption.status, 200);
        assert_eq!(ada.open_upload("c.png", "image/png", &unique_png()).await.status, 201);
        assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.status, 200, "the same document");
        let transactions = doc! { "command.autocommit": false };
        let profile = app.db.collection::<Document>("system.profile");
        assert_eq!(profile.count_documents(transactions).await.unwrap(), 0, "the confirm opened a transaction");
        assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
        assert!(!is_answered.get(), "the writes wait for the confirm");
    };
    let confirm = async {
        let confirmed = ada_on_stalled_server.confirm(ticket.id()).await;
        is_answered.set(true);
        confirmed
    };
    let (confirmed, ()) = tokio::join!(confirm, writes);
    // 404 if the confirm read the deleted image again after the deadline of S3's call; 503 or 504 if its own deadline had passed.
    assert!(matches!(confirmed.status, 404 | 503 | 504), "{confirmed:?}");
    assert_eq!(app.db_state(ticket.id()).await, "deleting");
}

/// S3 and the parser determine the image's values, whatever the confirm contains.
#[tokio::test]
async fn c10_confirm_rejects_a_body_and_ignores_query_parameters() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = fixture("orientation-6.jpg");
    let ticket = ada.open_upload("a.jpg", "image/jpeg", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
    let false_values = json!({ "width": 9999, "height": 9999, "size": 1, "contentType": "text/html", "sha256": "x", "state": "ready",
        "identified": true, "analyzed": true, "user": "another", "key": "u/another/key", "uploadedAt": "1970-01-01T00:00:00Z" });
    let path = format!("/api/images/{}/confirm?width=9999&size=1", ticket.id());
    assert_eq!(ada.post(&path, false_values).await.problem(), (400, "invalid_request"));
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    let image = ada.post_empty(&path).await;
    assert_eq!(image.status, 200, "{image:?}");
    let expected = json!({ "width": 80, "height": 120, "size": bytes.len(), "contentType": "image/jpeg",
        "sha256": super::app::sha256(&bytes) });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&image.json[member], value, "{member}");
    }
    let document = app.db_image(ticket.id()).await.unwrap();
    assert_eq!(document.get_str("user").unwrap(), ada.id);
    assert!(!document.contains_key("identified") && !document.contains_key("analyzed"));
}

/// Returns a JPEG with a GPS position.
fn located_jpeg() -> Vec<u8> {
    // TIFF, big-endian: one directory with the pointer to the GPS directory, which has GPSLatitudeRef "N".
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x88\x25\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0".to_vec();
    exif.extend(b"\0\x01\0\x01\0\x02\0\0\0\x02N\0\0\0\0\0\0\0");
    let mut bytes = fixture("plain.jpg");
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    bytes.splice(2..2, [&[0xff, 0xe1], &length[..], &exif].concat());
    bytes
}

/// Uploaded bytes are kept unchanged, GPS included, as documented; clients that want to remove the position do so before they
/// upload.
#[tokio::test]
async fn c11_exif_and_gps_are_kept_as_uploaded() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = located_jpeg();
    let image = ada.upload("a.jpg", "image/jpeg", &bytes).await;
    let download = ada.get(&format!("/api/images/{}/download", image["id"].as_str().unwrap())).await;
    for url in [&image["url"], &download.json["url"]] {
        let read = app.http.get(url.as_str().unwrap()).send().await.unwrap();
        assert!(read.bytes().await.unwrap() == bytes, "as uploaded");
    }
    assert!(
        ["GPS", "EXIF"].iter().all(|word| valet::http::openapi::text().contains(word)),
        "the OpenAPI document mentions the position"
    );
}

/// A TTL index never removes a record that owns an object.
#[tokio::test]
async fn d5_ttl_indexes_remove_only_records_without_an_object() {
    let app = TestApp::start().await;
    let indexes = async |collection: &str| -> Vec<Document> {
        let answer = app.db.run_command(doc! { "listIndexes": collection }).await.unwrap();
        let batch = answer.get_document("cursor").unwrap().get_array("firstBatch").unwrap().clone();
        batch.into_iter().map(|index| index.as_document().unwrap().clone()).collect()
    };
    let names: Vec<String> = app.db.list_collection_names().await.unwrap();
    assert!(names.contains(&"images".to_owned()) && names.contains(&"users".to_owned()));
    let mut ttl_indexes = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with("system.")) {
        for index in indexes(name).await.into_iter().filter(|index| index.contains_key("expireAfterSeconds")) {
            ttl_indexes.push((name.clone(), index.get_document("partialFilterExpression").ok().cloned()));
        }
    }
    ttl_indexes.sort_by(|a, b| a.0.cmp(&b.0));
    let without_object = Some(doc! { "state": "gone" });
    assert_eq!(ttl_indexes.iter().filter(|(name, _)| name == "users").count(), 0);
    assert_eq!(
        ttl_indexes.iter().filter(|(name, _)| name == "images").collect::<Vec<_>>(),
        [&("images".to_owned(), without_object)]
    );
}

#[tokio::test]
async fn c2_fifty_early_confirms_are_rejected_and_change_nothing() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    let before = app.db_image(ticket.id()).await.unwrap();
    let answers = join_all((0..50).map(|_| ada.confirm(ticket.id()))).await;
    assert!(answers.iter().all(|answer| answer.problem() == (409, "object_missing")), "{answers:?}");
    assert_eq!(app.db_image(ticket.id()).await.unwrap(), before);
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    let image: Value = ada.confirm(ticket.id()).await.json;
    assert_eq!(image["id"], ticket.id());
}
