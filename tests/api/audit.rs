//! Audits database and bucket without using the program.
//!
//! The audit expects that no work is in progress and every tombstone has expired: each ready image has its object, with the size,
//! type and digest of its document; no object and no open multipart upload lacks a live document; each user's counted bytes,
//! images and open uploads match the images, and each reservation matches its image's state.

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use time::OffsetDateTime;
use valet::domain::sweeper::Swept;

use super::{
    app::{TestApp, sha256},
    counts::{Counts, reservation_mismatch},
};

/// Time after which every upload of the default settings, every URL and every grace period has ended.
const SETTLED: Duration = Duration::from_secs(40 * 24 * 3600);

impl TestApp {
    /// Returns all documents of a collection.
    pub async fn db_all(&self, collection: &str) -> Vec<Document> {
        let found = self.db.collection::<Document>(collection).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        found.try_collect().await.unwrap()
    }

    /// Returns the keys and sizes of all objects of images.
    async fn bucket_objects(&self) -> BTreeMap<String, i64> {
        let mut objects = BTreeMap::new();
        let mut pages = self.s3.list_objects_v2().bucket(&self.config.s3.bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            // Probe objects have their own prefix and are removed by the next probe; the deployment's marker does not belong to
            // an image.
            let is_image = |key: &str| !key.starts_with("check/") && key != valet::store::objects::marker::KEY;
            let objects_of_images = page.contents().iter().filter(|object| is_image(object.key().unwrap()));
            objects.extend(objects_of_images.map(|object| (object.key().unwrap().to_owned(), object.size().unwrap())));
        }
        objects
    }

    /// Sweeps at a time when everything has expired, until nothing is left to do.
    pub async fn sweep_to_the_end(&self) {
        let end = OffsetDateTime::now_utc() + SETTLED;
        for round in 0.. {
            let swept = self.sweep(end).await;
            assert_eq!(swept.failed, 0, "{swept:?}");
            if swept == Swept::default() {
                return;
            }
            assert!(round < 1000, "the sweep does not end: {swept:?}");
        }
    }

    /// Audits database and bucket.
    ///
    /// # Panics
    ///
    /// If a document, object or counter does not match.
    pub async fn audit(&self) {
        self.wait_for_counts().await;
        let (images, users, mut objects) = (self.db_all("images").await, self.db_all("users").await, self.bucket_objects().await);
        for user in &users {
            let own_images = images.iter().filter(|image| image.get("user") == user.get("_id"));
            let recorded = Counts::of_user(user).unwrap_or_else(|| panic!("the counters cannot be read: {user}"));
            assert_eq!(recorded, Counts::of_images(own_images.clone()), "bytes, images and open uploads of {user}");
            assert_eq!(recorded_timeline(user), timeline_of(own_images), "the timeline of {user}");
        }
        for image in &images {
            self.audit_image(image, &mut objects).await;
        }
        // A killed probe of the store leaves objects under `check/`; the deployment's marker is under `valet/`.
        objects.retain(|key, _| !["check/", "valet/"].iter().any(|prefix| key.starts_with(prefix)));
        assert_eq!(objects, BTreeMap::new(), "objects without a document");
        self.audit_open_uploads(&images).await;
    }

    /// Waits until no server counts a confirmed image any more, except steps that a dead server left: for two seconds at most.
    async fn wait_for_counts(&self) {
        let users = self.db.collection::<Document>("users");
        for _ in 0..200 {
            if users.count_documents(doc! { "settling.step": { "$exists": true } }).await.unwrap() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Audits a document, and removes the objects that belong to it from `objects`.
    async fn audit_image(&self, image: &Document, objects: &mut BTreeMap<String, i64>) {
        assert_eq!(reservation_mismatch(image), None);
        let (state, key) = (text(image, "state"), text(image, "key"));
        let object = objects.remove(&key);
        let leftovers = image.get_array("strays").map_or(&[][..], Vec::as_slice);
        let leftovers: Vec<_> = leftovers.iter().filter_map(Bson::as_str).collect();
        if state != "gone" {
            objects.remove(&format!("{key}-preview"));
            self.audit_pictures(image, objects);
            objects.retain(|key, _| !leftovers.contains(&key.as_str()));
        }
        match state.as_str() {
            "ready" => {
                assert_eq!(object, image.get_i64("size").ok(), "the object of {image}");
                self.audit_object(image, &key).await;
                assert_eq!(image.contains_key("due"), !leftovers.is_empty(), "leftover objects are removed: {image}");
                assert!(image.get_bool("live").unwrap(), "{image}");
            }
            "pending" => assert!(image.contains_key("due") && image.get_bool("live").unwrap(), "{image}"),
            "gone" => {
                assert_eq!(object, None, "an object without a live document: {image}");
                assert!(!image.contains_key("due") && !image.contains_key("live") && image.contains_key("goneAt"), "{image}");
            }
            "deleting" | "rejected" | "expired" => {
                assert!(image.contains_key("due") && !image.contains_key("live"), "not queued for the sweeper: {image}");
            }
            _ => panic!("unknown state: {image}"),
        }
    }

    /// Asserts that the pictures that a worker recorded exist, and removes those that it may have written from `objects`.
    fn audit_pictures(&self, image: &Document, objects: &mut BTreeMap<String, i64>) {
        let key = text(image, "key");
        let may_exist = image.get_document("rendering").is_ok_and(|rendering| rendering.contains_key("written"));
        let keys = ["-w640", "-w1600"].map(|suffix| format!("{key}{suffix}"));
        let found = keys.iter().filter(|key| may_exist && objects.remove(*key).is_some()).count();
        let recorded = image.get_array("pictures").map_or(0, Vec::len);
        assert!(text(image, "state") != "ready" || recorded <= found, "a recorded picture without an object: {image}");
    }

    /// Compares type, entity tag and digest of a ready image's object with its document.
    async fn audit_object(&self, image: &Document, key: &str) {
        let head = self.s3.head_object().bucket(&self.config.s3.bucket).key(key);
        let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
        assert_eq!(head.content_type(), image.get_str("contentType").ok(), "{image}");
        assert_eq!(head.e_tag(), image.get_str("etag").ok(), "{image}");
        let Ok(digest) = image.get_str("sha256") else { return };
        let checksum = match head.checksum_sha256() {
            Some(checksum) => checksum.to_owned(),
            // For a store without checksums, hashes the bytes.
            None => {
                let read = self.s3.get_object().bucket(&self.config.s3.bucket).key(key).send().await.unwrap();
                sha256(&read.body.collect().await.unwrap().into_bytes())
            }
        };
        assert_eq!(checksum, digest, "{image}");
    }

    /// Asserts that every open multipart upload belongs to an image that can still use it.
    async fn audit_open_uploads(&self, images: &[Document]) {
        let open = self.s3.list_multipart_uploads().bucket(&self.config.s3.bucket).send().await.unwrap();
        for upload in open.uploads().iter().filter(|upload| !upload.key().is_some_and(|key| key.starts_with("check/"))) {
            let owner = images.iter().find(|image| Some(text(image, "key").as_str()) == upload.key());
            let is_owned = owner.is_some_and(|image| !matches!(text(image, "state").as_str(), "gone" | "ready"));
            assert!(is_owned, "an open multipart upload without a live document: {upload:?}, {owner:?}");
        }
    }
}

/// Returns the numbers of images by month in the user's record, without zeros.
fn recorded_timeline(user: &Document) -> BTreeMap<String, i64> {
    let months = user.get_document("timeline").ok().into_iter().flatten();
    months.map(|(month, images)| (month.clone(), images.as_i64().unwrap())).filter(|(_, images)| *images != 0).collect()
}

/// Counts a user's ready images by month. Images without `takenSort` were made ready by an earlier version, and are not in the
/// timeline.
fn timeline_of<'a>(images: impl Iterator<Item = &'a Document>) -> BTreeMap<String, i64> {
    let mut months = BTreeMap::new();
    for image in images.filter(|image| text(image, "state") == "ready") {
        if let Ok(at) = image.get_datetime("takenSort") {
            let at = OffsetDateTime::from_unix_timestamp(at.timestamp_millis().div_euclid(1000)).unwrap();
            *months.entry(valet::model::TimelineMonth::of(at).to_string()).or_default() += 1;
        }
    }
    months
}

/// Returns a field of a document that must be a string.
fn text(document: &Document, field: &str) -> String {
    document.get_str(field).unwrap().to_owned()
}
