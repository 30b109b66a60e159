//! Clean-up with one call that fails permanently for one image: each call, with each permanent error. All other images are swept,
//! and the sweeper removes all objects and uploads of this image that it can remove.

use serde_json::json;

use super::{
    super::{
        files::fixture,
        s3_faults::{Misbehavior, Operation, Rule},
        single_server::SingleServer,
    },
    AFTER_LAST_CHECK,
};
use Operation::{AbortMultipart, DeleteObject, GetObject, HeadObject, ListUploads, ListVersions};

/// Statuses and codes of permanent errors.
const PERMANENT_ERRORS: [(u16, &str); 6] = [
    (400, "InvalidRequest"),
    (403, "AccessDenied"),
    (403, "InvalidObjectState"),
    (404, "NoSuchKey"),
    (405, "MethodNotAllowed"),
    (501, "NotImplemented"),
];

/// Opens an upload as Uppy does, with an object at its key and two multipart uploads open at that key. Returns the image's id and
/// the key.
async fn open_uppy_upload_with_leftovers(server: &SingleServer) -> (String, String) {
    let opening = server.post("/api/uppy/presign", json!({ "method": "POST", "key": "a.png", "size": 9_000 })).await.json;
    let key = opening["key"].as_str().unwrap().to_owned();
    let open = async || {
        let opened = server.http.post(opening["url"].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
        let (_, id) = opened.split_once("<UploadId>").unwrap();
        id.split_once('<').unwrap().0.to_owned()
    };
    let upload_id = open().await;
    let part = json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 });
    let part = server.post("/api/uppy/presign", part).await.json;
    let put = server.http.put(part["url"].as_str().unwrap()).body(fixture("plain.png")).send().await.unwrap();
    assert_eq!(put.status(), 200);
    open().await;
    let bytes = fixture("plain.png").into();
    server.s3.put_object().bucket(&server.bucket).key(&key).body(bytes).send().await.unwrap();
    (key.rsplit('/').next().unwrap().to_owned(), key)
}

/// Returns the number of open multipart uploads in the bucket.
async fn count_open_uploads(server: &SingleServer) -> usize {
    server.s3.list_multipart_uploads().bucket(&server.bucket).send().await.unwrap().uploads().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn permanently_failing_step_does_not_stop_other_steps() {
    let server = SingleServer::start(&[]).await;
    for operation in [HeadObject, GetObject, ListVersions, DeleteObject, ListUploads, AbortMultipart] {
        for (status, code) in PERMANENT_ERRORS {
            if (operation, status) == (DeleteObject, 404) {
                // A 404 for a deletion counts as success, so nothing fails permanently.
                continue;
            }
            let case = format!("{operation:?} {status} {code}");
            let (id, key) = open_uppy_upload_with_leftovers(&server).await;
            let others = [server.upload_ready().await, open_uppy_upload_with_leftovers(&server).await.0];
            server.faults.add(Rule::new(&[operation], Misbehavior::error(status, code)).only_for(&id));
            for id in others.iter().chain([&id]) {
                assert_eq!(server.delete(id).await.status, 204, "{case}");
            }
            server.sweep(AFTER_LAST_CHECK).await;
            for other in &others {
                assert_eq!(server.state(other).await, "gone", "{case}");
            }
            let keys = server.keys().await;
            let state = server.state(&id).await;
            assert!(operation == DeleteObject || keys.is_empty(), "{case}: {keys:?} of {id}, which is {state}");
            // Without a listing only one upload is known by its id; the other one is left to the bucket's lifecycle rule.
            let most_uploads = match operation {
                AbortMultipart => 2,
                ListUploads => 1,
                _ => 0,
            };
            assert!(count_open_uploads(&server).await <= most_uploads, "{case}");
            server.faults.heal();
            // The sweeper postpones a failed step by at most a day.
            server.sweep(2 * AFTER_LAST_CHECK).await;
            assert_eq!(server.state(&id).await, "gone", "{case}");
            let open_uploads_at_key =
                server.s3.list_multipart_uploads().bucket(&server.bucket).prefix(&key).send().await.unwrap();
            for upload in open_uploads_at_key.uploads() {
                let abort = server.s3.abort_multipart_upload().bucket(&server.bucket).key(&key);
                abort.upload_id(upload.upload_id().unwrap()).send().await.unwrap();
            }
        }
    }
}

/// The sweeper deletes an account's record after the account's objects, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn account_record_stays_until_its_bytes_are_deleted() {
    let server = SingleServer::start(&[]).await;
    let (id, _) = open_uppy_upload_with_leftovers(&server).await;
    server.faults.add(Rule::new(&[DeleteObject], Misbehavior::error(403, "AccessDenied")).only_for(&id));
    assert_eq!(server.post("/api/auth/me/delete", json!({ "password": "three small blue boats" })).await.status, 204);
    for later in 1..=3 {
        assert_eq!(server.sweep(later * AFTER_LAST_CHECK).await.accounts, 0);
    }
    assert!(!server.keys().await.is_empty());
    server.faults.heal();
    let mut accounts = 0;
    for later in 4..=6 {
        accounts += server.sweep(later * AFTER_LAST_CHECK).await.accounts;
    }
    assert_eq!((accounts, server.keys().await), (1, Vec::<String>::new()));
    let users = server.db.collection::<mongodb::bson::Document>("users");
    assert_eq!(users.count_documents(mongodb::bson::doc! {}).await.unwrap(), 0);
}
