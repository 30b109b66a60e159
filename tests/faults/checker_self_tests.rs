//! Tests the checker: after a clean load, plants one violation of each kind (in MongoDB, in the bucket, in the log, or in the
//! recorded answers where the program cannot be made to give such an answer) and asserts that the checker reports exactly the
//! planted violations.

mod answers;
mod documents;
mod events;
mod objects;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_s3::primitives::ByteStream;
use mongodb::bson::{Document, doc};

use super::{
    checker::{Checker, evidence::Evidence, evidence::Image, timeline::Timelines},
    cluster::{Cluster, LeaseWait, Options},
    files::sha256,
    journal::{Call, Journal},
    workload::{Profile, Workload},
};

/// A quiescent cluster after a clean load. Each planted violation is reverted before the next one.
struct CleanCluster {
    cluster: Cluster,
    journal: Arc<Journal>,
    /// Evidence gathered while the cluster was clean.
    base: Evidence,
    timelines: Timelines,
    /// A checker that has already sampled the clean cluster.
    checker: Checker,
    /// Bytes and content type of each object, by key.
    bytes: BTreeMap<String, (Vec<u8>, String)>,
    /// Planted violations for which the checker reported other invariants than expected.
    mismatches: Mutex<Vec<String>>,
}

impl CleanCluster {
    /// Runs loads until one has produced every kind of image that a violation is planted on: the result of a load depends on races
    /// between its clients.
    async fn prepare() -> Self {
        // Twenty loads at most; any seeds would do.
        for seed in 7..27 {
            let clean = Self::after_a_load(seed).await;
            if clean.is_complete() {
                return clean;
            }
        }
        panic!("no load produced all images that violations are planted on");
    }

    /// Runs a load with this seed and gathers the evidence of the quiescent cluster.
    async fn after_a_load(seed: u64) -> Self {
        // No sweep may repair the planted violations.
        let change = Box::new(|_, settings: super::program::Settings| settings.with("SWEEP_INTERVAL", "1h"));
        let cluster = Cluster::start(Options { servers: 1, change, ..Options::default() }).await;
        let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
        let profile = Profile { clients: 6, users: 3, seed, ..Profile::default() };
        let tally = Workload::once(&cluster, &journal, profile).finished().await;
        assert_eq!(tally.given_up.load(std::sync::atomic::Ordering::Relaxed), 0);
        cluster.quiesce(LeaseWait::Skipped).await;
        let mut checker = Checker::default();
        checker.check(&cluster, &journal, Duration::ZERO).await.assert_clean();
        let base = Evidence::collect(&cluster, &journal).await;
        let timelines = Timelines::of(&base.record);
        let mut bytes = BTreeMap::new();
        for object in &base.objects {
            let got = cluster.s3.get_object().bucket(&cluster.bucket).key(&object.key).send().await.unwrap();
            let body = got.body.collect().await.unwrap().to_vec();
            bytes.insert(object.key.clone(), (body, object.content_type.clone()));
        }
        Self { cluster, journal, base, timelines, checker, bytes, mismatches: Mutex::default() }
    }

    /// Returns a ready PNG for which `is_wanted` is true: one whose record has a digest, which has no preview, and which its owner
    /// cannot have deleted.
    fn ready(&self, is_wanted: impl Fn(&Image) -> bool) -> Option<Image> {
        let plain = |image: &&Image| image.has("sha256") && image.preview().is_none() && image.text("contentType") == "image/png";
        let is_known_and_kept =
            |image: &&Image| self.timelines.images.contains_key(image.id()) && !self.timelines.may_be_deleted(image.id());
        self.base.ready().filter(plain).filter(is_known_and_kept).find(|image| is_wanted(image)).cloned()
    }

    /// Returns whether the cluster has every kind of image and user that a violation is planted on.
    fn is_complete(&self) -> bool {
        [self.find_acknowledged(), self.find_confirmed_by_sweeper(), self.find_deleted()].iter().all(Option::is_some)
            && self.users_with_password().len() > 1
    }

    /// Returns whether a confirm of the image was answered 200.
    fn was_confirmed(&self, image: &Image) -> bool {
        !self.timelines.images[image.id()].confirmed.is_empty()
    }

    /// Returns whether the journal has digests of the image's bytes.
    fn was_fetched(&self, image: &Image) -> bool {
        !self.timelines.images[image.id()].fetched.is_empty()
    }

    /// Finds an image whose confirm was answered 200 and whose bytes were never fetched.
    fn find_acknowledged(&self) -> Option<Image> {
        self.ready(|image| self.was_confirmed(image) && !self.was_fetched(image))
    }

    /// Finds an image that the sweeper made ready because its client never confirmed it.
    fn find_confirmed_by_sweeper(&self) -> Option<Image> {
        self.ready(|image| !self.was_confirmed(image) && !self.was_fetched(image))
    }

    /// Finds an image that an existing user has deleted and whose bytes were never fetched: planted bytes would differ from
    /// fetched ones.
    fn find_deleted(&self) -> Option<Image> {
        let deleted = |image: &&Image| {
            let timeline = self.timelines.images.get(image.id());
            image.state() == "gone" && timeline.is_some_and(|known| known.deleted.is_some() && known.fetched.is_empty())
        };
        let has_owner = |image: &&Image| self.base.users.iter().any(|user| user.get_str("_id").ok() == Some(image.user()));
        self.base.images.iter().filter(has_owner).find(deleted).cloned()
    }

    /// Returns the image of [`Self::find_acknowledged`].
    fn acknowledged_image(&self) -> Image {
        self.find_acknowledged().expect("`is_complete` has checked it")
    }

    /// Returns the image of [`Self::find_confirmed_by_sweeper`].
    fn image_confirmed_by_sweeper(&self) -> Image {
        self.find_confirmed_by_sweeper().expect("`is_complete` has checked it")
    }

    /// Returns the image of [`Self::find_deleted`].
    fn deleted_image(&self) -> Image {
        self.find_deleted().expect("`is_complete` has checked it")
    }

    /// Returns the users of local accounts: those of the app's backend have no password.
    fn users_with_password(&self) -> Vec<String> {
        let with_password = self.base.users.iter().filter(|user| user.contains_key("passwordHash"));
        with_password.filter_map(|user| user.get_str("_id").ok()).map(str::to_owned).collect()
    }

    /// Returns another user who has a password.
    fn user_other_than(&self, user: &str) -> String {
        self.users_with_password().into_iter().find(|id| id != user).expect("`is_complete` has checked it")
    }

    fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.cluster.db.collection(name)
    }

    /// Updates one document without going through the server.
    async fn update(&self, collection: &str, id: &str, update: Document) {
        let done = self.collection(collection).update_one(doc! { "_id": id }, update).await.unwrap();
        assert_eq!(done.matched_count, 1, "{id}");
    }

    /// Writes an object without going through the server; returns its entity tag.
    async fn put(&self, key: &str, content_type: &str, bytes: &[u8]) -> String {
        let put = self.cluster.s3.put_object().bucket(&self.cluster.bucket).key(key).content_type(content_type);
        put.body(ByteStream::from(bytes.to_vec())).send().await.unwrap().e_tag().unwrap().to_owned()
    }

    /// Deletes an object without going through the server.
    async fn delete_object(&self, key: &str) {
        self.cluster.s3.delete_object().bucket(&self.cluster.bucket).key(key).send().await.unwrap();
    }

    /// Writes other bytes to the image's key, and updates its record to match these bytes.
    async fn rewrite(&self, image: &Image, bytes: &[u8], content_type: &str) {
        let etag = self.put(image.key(), content_type, bytes).await;
        self.update("images", image.id(), doc! { "$set": { "etag": etag, "sha256": sha256(bytes) } }).await;
    }

    /// Compares the invariants that a new checker finds violated in MongoDB and S3 with the `expected` ones; restores the cluster.
    async fn assert_reports(&self, case: &str, expected: &[u8]) {
        let evidence = Evidence::collect(&self.cluster, &self.journal).await;
        self.compare_violations(case, &Checker::default(), &evidence, expected);
        self.restore().await;
    }

    /// Compares like [`Self::assert_reports`], with the checker that has already sampled the clean cluster.
    async fn assert_reports_with_history(&self, case: &str, expected: &[u8]) {
        let evidence = Evidence::collect(&self.cluster, &self.journal).await;
        self.compare_violations(case, &self.checker, &evidence, expected);
        self.restore().await;
    }

    /// Compares the violated invariants with the `expected` ones after `change` has altered the evidence of the clean cluster.
    fn assert_reports_change(&self, case: &str, expected: &[u8], change: impl FnOnce(&mut Evidence)) {
        let mut evidence = self.base.clone();
        change(&mut evidence);
        self.compare_violations(case, &Checker::default(), &evidence, expected);
    }

    /// Adds to `mismatches` if other invariants are violated than the `expected` ones.
    fn compare_violations(&self, case: &str, checker: &Checker, evidence: &Evidence, expected: &[u8]) {
        let report = checker.check_evidence(evidence, Duration::ZERO);
        if report.violated().into_iter().collect::<Vec<_>>() != expected {
            self.mismatches.lock().unwrap().push(format!("{case}: expected {expected:?}; {report}"));
        }
    }

    /// Restores the clean cluster.
    async fn restore(&self) {
        let images: Vec<_> = self.base.images.iter().map(|image| image.0.clone()).collect();
        for (name, documents) in [
            ("images", &images),
            ("users", &self.base.users),
            ("sessions", &self.base.sessions),
            ("deliveries", &self.base.deliveries),
        ] {
            self.collection(name).delete_many(doc! {}).await.unwrap();
            self.collection(name).insert_many(documents).await.unwrap();
        }
        let current_objects = Evidence::objects(&self.cluster).await;
        for object in current_objects.iter().filter(|object| !self.bytes.contains_key(&object.key)) {
            self.delete_object(&object.key).await;
        }
        for object in &self.base.objects {
            let same = |current: &&super::checker::evidence::Object| {
                (&current.sha256, &current.content_type, &current.metadata)
                    == (&object.sha256, &object.content_type, &object.metadata)
            };
            if !current_objects.iter().filter(|current| current.key == object.key).any(|current| same(&current)) {
                let (bytes, content_type) = &self.bytes[&object.key];
                self.put(&object.key, content_type, bytes).await;
            }
        }
        for (key, upload) in self.open_uploads().await {
            let abort = self.cluster.s3.abort_multipart_upload().bucket(&self.cluster.bucket).key(key).upload_id(upload);
            abort.send().await.unwrap();
        }
    }

    /// Returns the key and the upload id of each open multipart upload.
    async fn open_uploads(&self) -> Vec<(String, String)> {
        let listed = self.cluster.s3.list_multipart_uploads().bucket(&self.cluster.bucket).send().await.unwrap();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        listed.uploads().iter().map(|upload| (text(upload.key()), text(upload.upload_id()))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_violation_is_reported() {
    let clean = CleanCluster::prepare().await;
    objects::plant(&clean).await;
    documents::plant(&clean).await;
    answers::plant(&clean);
    events::plant(&clean).await;
    // The restored cluster has no violations, so all violations that were found above were planted.
    let evidence = Evidence::collect(&clean.cluster, &clean.journal).await;
    clean.compare_violations("nothing", &clean.checker, &evidence, &[]);
    let mismatches = clean.mismatches.lock().unwrap().join("\n");
    assert!(mismatches.is_empty(), "{mismatches}");
    // The load made every kind of call that the plants rely on.
    let calls: std::collections::HashSet<_> = clean.base.record.ops.iter().map(|op| op.request.call).collect();
    for call in [Call::Probe, Call::Get, Call::Delete, Call::RefreshReuse, Call::Logout, Call::DeleteAccount, Call::Administer] {
        assert!(calls.contains(&call), "{call:?}");
    }
}
