//! The checker is proved: after a clean load a violation of each kind is planted, in MongoDB, in the bucket, in the log or, where
//! the program cannot be made to give the answer, in what was answered; and exactly what was planted is reported.

mod answers;
mod documents;
mod objects;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use mongodb::bson::{Document, doc};

use super::{
    checker::{Checker, evidence::Evidence, evidence::Image, timeline::Timelines},
    cluster::{Cluster, Options, Patience},
    files::sha256,
    journal::{Call, Journal},
    workload::{Profile, Workload},
};

/// A cluster at rest after a clean load, to which everything is brought back after each plant.
struct Field {
    cluster: Cluster,
    journal: Arc<Journal>,
    /// What was seen when it was clean.
    base: Evidence,
    timelines: Timelines,
    /// Remembers the clean cluster.
    checker: Checker,
    bytes: BTreeMap<String, (Vec<u8>, String)>,
}

impl Field {
    /// What the load leaves depends on who comes first where clients race: one that has all that is planted on.
    async fn prepare() -> Self {
        for seed in 7..12 {
            let field = Self::after_a_load(seed).await;
            if field.is_complete() {
                return field;
            }
        }
        panic!("no load leaves what is planted on");
    }

    async fn after_a_load(seed: u64) -> Self {
        // Nothing may sweep what is planted.
        let change = Box::new(|_, settings: super::program::Settings| settings.but("SWEEP_INTERVAL", "1h"));
        let cluster = Cluster::start(Options { servers: 1, change, ..Options::default() }).await;
        let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
        let profile = Profile { clients: 6, users: 3, seed, ..Profile::default() };
        let tally = Workload::once(&cluster, &journal, profile).finished().await;
        assert_eq!(tally.given_up.load(std::sync::atomic::Ordering::Relaxed), 0);
        cluster.quiesce(Patience::Hurried).await;
        let mut checker = Checker::default();
        checker.check(&cluster, &journal, Duration::ZERO).await.assert_clean();
        let base = Evidence::gather(&cluster, &journal).await;
        let timelines = Timelines::of(&base.record);
        let mut bytes = BTreeMap::new();
        for object in &base.objects {
            let got = cluster.s3.get_object().bucket(&cluster.bucket).key(&object.key).send().await.unwrap();
            let body = got.body.collect().await.unwrap().to_vec();
            bytes.insert(object.key.clone(), (body, object.content_type.clone()));
        }
        Self { cluster, journal, base, timelines, checker, bytes }
    }

    /// An image that is ready and of one PUT, so that its record has a digest.
    fn ready(&self, is: impl Fn(&Image) -> bool) -> Option<Image> {
        let plain = |image: &&Image| image.has("sha256") && image.preview().is_none() && image.text("contentType") == "image/png";
        let of_journal =
            |image: &&Image| self.timelines.images.contains_key(image.id()) && !self.timelines.may_be_deleted(image.id());
        self.base.ready().filter(plain).filter(of_journal).find(|image| is(image)).cloned()
    }

    fn is_complete(&self) -> bool {
        [self.find_acknowledged(), self.find_settled(), self.find_deleted()].iter().all(Option::is_some)
            && self.base.users.len() > 1
    }

    fn was_confirmed(&self, image: &Image) -> bool {
        !self.timelines.images[image.id()].confirmed.is_empty()
    }

    fn was_fetched(&self, image: &Image) -> bool {
        !self.timelines.images[image.id()].fetched.is_empty()
    }

    /// Acknowledged to its owner, and never fetched.
    fn find_acknowledged(&self) -> Option<Image> {
        self.ready(|image| self.was_confirmed(image) && !self.was_fetched(image))
    }

    /// Made ready by the sweeper, for a client that never asked again.
    fn find_settled(&self) -> Option<Image> {
        self.ready(|image| !self.was_confirmed(image) && !self.was_fetched(image))
    }

    fn find_deleted(&self) -> Option<Image> {
        let deleted = |image: &&Image| {
            image.state() == "gone" && self.timelines.images.get(image.id()).is_some_and(|timeline| timeline.deleted.is_some())
        };
        let of_now = |image: &&Image| self.base.users.iter().any(|user| user.get_str("_id").ok() == Some(image.user()));
        self.base.images.iter().filter(of_now).find(deleted).cloned()
    }

    fn acknowledged(&self) -> Image {
        self.find_acknowledged().expect("the field is complete")
    }

    fn settled(&self) -> Image {
        self.find_settled().expect("the field is complete")
    }

    fn deleted(&self) -> Image {
        self.find_deleted().expect("the field is complete")
    }

    fn user_but(&self, user: &str) -> String {
        let mut ids = self.base.users.iter().filter_map(|user| user.get_str("_id").ok());
        ids.find(|id| *id != user).expect("the load left two users").to_owned()
    }

    fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.cluster.db.collection(name)
    }

    async fn update(&self, collection: &str, id: &str, update: Document) {
        let done = self.collection(collection).update_one(doc! { "_id": id }, update).await.unwrap();
        assert_eq!(done.matched_count, 1, "{id}");
    }

    /// Writes an object behind the server's back; its entity tag.
    async fn put(&self, key: &str, content_type: &str, bytes: &[u8]) -> String {
        let put = self.cluster.s3.put_object().bucket(&self.cluster.bucket).key(key).content_type(content_type);
        put.body(ByteStream::from(bytes.to_vec())).send().await.unwrap().e_tag().unwrap().to_owned()
    }

    async fn delete_object(&self, key: &str) {
        self.cluster.s3.delete_object().bucket(&self.cluster.bucket).key(key).send().await.unwrap();
    }

    /// Makes the record agree with other bytes at its key.
    async fn rewrite(&self, image: &Image, bytes: &[u8], content_type: &str) {
        let etag = self.put(image.key(), content_type, bytes).await;
        self.update("images", image.id(), doc! { "$set": { "etag": etag, "sha256": sha256(bytes) } }).await;
    }

    /// What is in MongoDB and S3 now holds this, and nothing else, against these invariants.
    async fn reports(&self, what: &str, expected: &[u8]) {
        let evidence = Evidence::gather(&self.cluster, &self.journal).await;
        self.judged(what, &Checker::default(), &evidence, expected);
        self.restore().await;
    }

    /// The same by a checker that has seen the clean cluster.
    async fn is_remembered(&self, what: &str, expected: &[u8]) {
        let evidence = Evidence::gather(&self.cluster, &self.journal).await;
        self.judged(what, &self.checker, &evidence, expected);
        self.restore().await;
    }

    /// The same of what was answered.
    fn answered(&self, what: &str, expected: &[u8], change: impl FnOnce(&mut Evidence)) {
        let mut evidence = self.base.clone();
        change(&mut evidence);
        self.judged(what, &Checker::default(), &evidence, expected);
    }

    fn judged(&self, what: &str, checker: &Checker, evidence: &Evidence, expected: &[u8]) {
        let report = checker.judge(evidence, Duration::ZERO);
        assert_eq!(report.violated().into_iter().collect::<Vec<_>>(), expected, "{what}: {report}");
    }

    /// Back to the clean cluster.
    async fn restore(&self) {
        let images: Vec<_> = self.base.images.iter().map(|image| image.0.clone()).collect();
        for (name, documents) in [("images", &images), ("users", &self.base.users), ("sessions", &self.base.sessions)] {
            self.collection(name).delete_many(doc! {}).await.unwrap();
            self.collection(name).insert_many(documents).await.unwrap();
        }
        let now = Evidence::objects(&self.cluster).await;
        for object in now.iter().filter(|object| !self.bytes.contains_key(&object.key)) {
            self.delete_object(&object.key).await;
        }
        for object in &self.base.objects {
            let same = |now: &&super::checker::evidence::Object| {
                (&now.sha256, &now.content_type, &now.metadata) == (&object.sha256, &object.content_type, &object.metadata)
            };
            if !now.iter().filter(|now| now.key == object.key).any(|now| same(&now)) {
                let (bytes, content_type) = &self.bytes[&object.key];
                self.put(&object.key, content_type, bytes).await;
            }
        }
        for (key, upload) in self.open_uploads().await {
            let abort = self.cluster.s3.abort_multipart_upload().bucket(&self.cluster.bucket).key(key).upload_id(upload);
            abort.send().await.unwrap();
        }
    }

    async fn open_uploads(&self) -> Vec<(String, String)> {
        let listed = self.cluster.s3.list_multipart_uploads().bucket(&self.cluster.bucket).send().await.unwrap();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        listed.uploads().iter().map(|upload| (text(upload.key()), text(upload.upload_id()))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_violation_is_caught() {
    let field = Field::prepare().await;
    objects::plant(&field).await;
    documents::plant(&field).await;
    answers::plant(&field);
    // That it was the plants.
    let evidence = Evidence::gather(&field.cluster, &field.journal).await;
    field.judged("nothing", &field.checker, &evidence, &[]);
    // The journal tells of each thing that a plant needs: the load does what it is said to do.
    let calls: std::collections::HashSet<_> = field.base.record.ops.iter().map(|op| op.asked.call).collect();
    for call in [Call::Probe, Call::Get, Call::Delete, Call::RefreshReuse, Call::Logout, Call::DeleteAccount] {
        assert!(calls.contains(&call), "{call:?}");
    }
}
