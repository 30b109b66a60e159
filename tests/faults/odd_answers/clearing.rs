//! Clean-up that one step of stops for good: every call, refused in every way, for one image alone. All others are swept, and
//! what of the image can go is gone.

use serde_json::json;

use super::{
    super::{
        files::fixture,
        s3_faults::{Misdeed, Operation, Rule},
        shop::Shop,
    },
    EXPIRED,
};
use Operation::{AbortMultipart, DeleteObject, GetObject, HeadObject, ListParts, ListUploads, ListVersions};

const REFUSALS: [(u16, &str); 6] = [
    (400, "InvalidRequest"),
    (403, "AccessDenied"),
    (403, "InvalidObjectState"),
    (404, "NoSuchKey"),
    (405, "MethodNotAllowed"),
    (501, "NotImplemented"),
];

/// An upload as a client of Uppy's makes it: an object at the key and another upload open there.
async fn twofold(shop: &Shop) -> (String, String) {
    let opening = shop.post("/api/uppy/presign", json!({ "method": "POST", "key": "a.png", "size": 9_000 })).await.json;
    let key = opening["key"].as_str().unwrap().to_owned();
    let open = async || {
        let opened = shop.http.post(opening["url"].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
        let (_, id) = opened.split_once("<UploadId>").unwrap();
        id.split_once('<').unwrap().0.to_owned()
    };
    let upload_id = open().await;
    let part = json!({ "method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1 });
    let part = shop.post("/api/uppy/presign", part).await.json;
    let put = shop.http.put(part["url"].as_str().unwrap()).body(fixture("plain.png")).send().await.unwrap();
    assert_eq!(put.status(), 200);
    open().await;
    let bytes = fixture("plain.png").into();
    shop.s3.put_object().bucket(&shop.bucket).key(&key).body(bytes).send().await.unwrap();
    (key.rsplit('/').next().unwrap().to_owned(), key)
}

async fn open_uploads(shop: &Shop) -> usize {
    shop.s3.list_multipart_uploads().bucket(&shop.bucket).send().await.unwrap().uploads().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_that_fails_for_good_stops_the_others() {
    let shop = Shop::start(&[]).await;
    for operation in [HeadObject, GetObject, ListVersions, DeleteObject, ListUploads, ListParts, AbortMultipart] {
        for (status, code) in REFUSALS {
            if (operation, status) == (DeleteObject, 404) {
                // Then it is deleted.
                continue;
            }
            let what = format!("{operation:?} {status} {code}");
            let (id, key) = twofold(&shop).await;
            let others = [shop.ready().await, twofold(&shop).await.0];
            shop.faults.add(Rule::new(&[operation], Misdeed::error(status, code)).of(&id));
            for id in others.iter().chain([&id]) {
                assert_eq!(shop.delete(id).await.status, 204, "{what}");
            }
            shop.sweep(EXPIRED).await;
            for other in &others {
                assert_eq!(shop.state(other).await, "gone", "{what}");
            }
            let keys = shop.keys().await;
            let state = shop.state(&id).await;
            assert!(operation == DeleteObject || keys.is_empty(), "{what}: {keys:?} of {id}, which is {state}");
            // Without a listing, one upload is known by its name; the other is the bucket's lifecycle rule's.
            let left = match operation {
                AbortMultipart => 2,
                ListUploads => 1,
                _ => 0,
            };
            assert!(open_uploads(&shop).await <= left, "{what}");
            shop.faults.heal();
            // What was refused waits for a day at most.
            shop.sweep(2 * EXPIRED).await;
            assert_eq!(shop.state(&id).await, "gone", "{what}");
            let left = shop.s3.list_multipart_uploads().bucket(&shop.bucket).prefix(&key).send().await.unwrap();
            for upload in left.uploads() {
                let abort = shop.s3.abort_multipart_upload().bucket(&shop.bucket).key(&key);
                abort.upload_id(upload.upload_id().unwrap()).send().await.unwrap();
            }
        }
    }
}

/// The account is gone when its bytes are, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_bytes_the_store_keeps_is_not_gone() {
    let shop = Shop::start(&[]).await;
    let (id, _) = twofold(&shop).await;
    shop.faults.add(Rule::new(&[DeleteObject], Misdeed::error(403, "AccessDenied")).of(&id));
    assert_eq!(shop.post("/api/auth/me/delete", json!({ "password": "three small blue boats" })).await.status, 204);
    for later in 1..=3 {
        assert_eq!(shop.sweep(later * EXPIRED).await.accounts, 0);
    }
    assert!(!shop.keys().await.is_empty());
    shop.faults.heal();
    let mut accounts = 0;
    for later in 4..=6 {
        accounts += shop.sweep(later * EXPIRED).await.accounts;
    }
    assert_eq!((accounts, shop.keys().await), (1, Vec::<String>::new()));
    let users = shop.db.collection::<mongodb::bson::Document>("users");
    assert_eq!(users.count_documents(mongodb::bson::doc! {}).await.unwrap(), 0);
}
