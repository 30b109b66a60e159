//! Covers random sequences of every upload call by two users: compares the live server with a short reference model.
//!
//! After each step the test compares status, code and members of the answer; gallery, open uploads and usage of both users; and
//! every stored state and object. At the end it audits database and bucket. A failing sequence shrinks to a short one.
//! `VALET_TEST_CASES` is the number of sequences, by default 10; use some hundred for a long run. The order of calls is random, so
//! each run is different.
//!
//! Routes: POST /api/images/upload, POST /api/images/{id}/renew, POST /api/images/{id}/confirm, DELETE /api/images/{id}, POST
//! /api/images/multipart, POST /api/images/{id}/parts, GET /api/images/{id}/parts.

mod live_server;
mod reference_model;

use proptest::{prelude::*, test_runner::TestRunner};

use self::{live_server::Live, reference_model::Model};
use super::app::TestApp;

/// Index of one of the two users. In a generated operation on an image: 0 is the owner, 1 the other user.
type UserIndex = usize;
/// Index of an image in the order of opening; beyond the last: an unknown image. In a generated operation: 0 is the newest.
type ImageIndex = usize;

/// Quota of each user in bytes, small so that sequences reach it.
const QUOTA: u64 = 7000;
/// Number of open uploads that a user may have.
const MAX_PENDING: u32 = 4;

/// A declaration: a file of the pool, with a name and caption that distinguish requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Declared {
    /// Index of a file in the pool.
    file: usize,
    /// Number in the file's name.
    name: u8,
    /// Whether the request has a caption.
    caption: bool,
}

/// One step. An `Option<u8>` is an idempotency key.
#[derive(Debug, Clone)]
enum Op {
    Upload(UserIndex, Declared, Option<u8>),
    /// Items have different files, and at most one has a key: the database chooses among equal items of one call.
    UploadBatch(UserIndex, Vec<Declared>, Option<u8>),
    /// Declares a type that is not allowed.
    Unstorable(UserIndex),
    /// Sends the declared bytes.
    Put(ImageIndex),
    /// Writes other bytes directly to the bucket.
    Plant(ImageIndex),
    Renew(UserIndex, ImageIndex),
    RenewBatch(UserIndex, Vec<ImageIndex>),
    Confirm(UserIndex, ImageIndex),
    ConfirmBatch(UserIndex, Vec<ImageIndex>),
    Delete(UserIndex, ImageIndex),
    DeleteBatch(UserIndex, Vec<ImageIndex>),
    Get(UserIndex, ImageIndex),
    ReadBatch(UserIndex, Vec<ImageIndex>),
    /// Sets a caption; clears it if `true`.
    Caption(UserIndex, ImageIndex, bool),
    OpenParts(UserIndex, Declared, Option<u8>),
    SignPart(UserIndex, ImageIndex),
    PutPart(ImageIndex),
    ListParts(UserIndex, ImageIndex),
    /// Sweeps now, after the URLs' expiry, after a day, or after a week.
    Sweep(usize),
}

/// Offsets of the sweeper's clock in seconds, for [`Op::Sweep`].
const SWEEPS: [i64; 4] = [1, 4700, 90_000, 700_000];

/// Generates one operation.
fn op() -> impl Strategy<Value = Op> {
    let user = || 0..2_usize;
    let by = || prop::bool::weighted(0.12).prop_map(usize::from);
    let index = || prop_oneof![3 => 0..3_usize, 1 => 0..9_usize];
    let several = || prop::collection::vec(0..6_usize, 1..4);
    let key = || prop::option::weighted(0.4, 0..2_u8);
    let any_declaration =
        || (0..live_server::FILES, 0..2_u8, any::<bool>()).prop_map(|(file, name, caption)| Declared { file, name, caption });
    let distinct = prop::collection::vec(any_declaration(), 1..5).prop_map(|mut items| {
        items.sort_by_key(|item| item.file);
        items.dedup_by_key(|item| item.file);
        items
    });
    prop_oneof![
        8 => (user(), any_declaration(), key()).prop_map(|(user, declared, key)| Op::Upload(user, declared, key)),
        2 => (user(), distinct, key()).prop_map(|(user, declared, key)| Op::UploadBatch(user, declared, key)),
        1 => user().prop_map(Op::Unstorable),
        8 => index().prop_map(Op::Put),
        1 => index().prop_map(Op::Plant),
        2 => (by(), index()).prop_map(|(user, index)| Op::Renew(user, index)),
        1 => (by(), several()).prop_map(|(user, indexes)| Op::RenewBatch(user, indexes)),
        8 => (by(), index()).prop_map(|(user, index)| Op::Confirm(user, index)),
        2 => (by(), several()).prop_map(|(user, indexes)| Op::ConfirmBatch(user, indexes)),
        4 => (by(), index()).prop_map(|(user, index)| Op::Delete(user, index)),
        1 => (by(), several()).prop_map(|(user, indexes)| Op::DeleteBatch(user, indexes)),
        1 => (by(), index()).prop_map(|(user, index)| Op::Get(user, index)),
        1 => (by(), several()).prop_map(|(user, indexes)| Op::ReadBatch(user, indexes)),
        1 => (by(), index(), any::<bool>()).prop_map(|(user, index, clear)| Op::Caption(user, index, clear)),
        2 => (user(), any_declaration(), key()).prop_map(|(user, declared, key)| Op::OpenParts(user, declared, key)),
        2 => (by(), index()).prop_map(|(user, index)| Op::SignPart(user, index)),
        2 => index().prop_map(Op::PutPart),
        1 => (by(), index()).prop_map(|(user, index)| Op::ListParts(user, index)),
        3 => (0..SWEEPS.len()).prop_map(Op::Sweep),
    ]
}

/// Replaces the generated indices of an operation by those of existing images and of their owners: most calls concern a new image,
/// and are the owner's.
fn choose_target(op: &Op, images: &[reference_model::Image]) -> Op {
    let at = |index: ImageIndex| images.len().checked_sub(index + 1).unwrap_or(index);
    let all = |indexes: &[ImageIndex]| indexes.iter().map(|index| at(*index)).collect::<Vec<_>>();
    let by = |user: UserIndex, index: ImageIndex| images.get(at(index)).map_or(user, |image| (image.user + user) % 2);
    match op.clone() {
        Op::Put(index) => Op::Put(at(index)),
        Op::Plant(index) => Op::Plant(at(index)),
        Op::PutPart(index) => Op::PutPart(at(index)),
        Op::Renew(user, index) => Op::Renew(by(user, index), at(index)),
        Op::RenewBatch(user, indexes) => Op::RenewBatch(by(user, indexes[0]), all(&indexes)),
        Op::Confirm(user, index) => Op::Confirm(by(user, index), at(index)),
        Op::ConfirmBatch(user, indexes) => Op::ConfirmBatch(by(user, indexes[0]), all(&indexes)),
        Op::Delete(user, index) => Op::Delete(by(user, index), at(index)),
        Op::DeleteBatch(user, indexes) => Op::DeleteBatch(by(user, indexes[0]), all(&indexes)),
        Op::Get(user, index) => Op::Get(by(user, index), at(index)),
        Op::ReadBatch(user, indexes) => Op::ReadBatch(by(user, indexes[0]), all(&indexes)),
        Op::Caption(user, index, clear) => Op::Caption(by(user, index), at(index), clear),
        Op::SignPart(user, index) => Op::SignPart(by(user, index), at(index)),
        Op::ListParts(user, index) => Op::ListParts(by(user, index), at(index)),
        other @ (Op::Upload(..) | Op::UploadBatch(..) | Op::Unstorable(_) | Op::OpenParts(..) | Op::Sweep(_)) => other,
    }
}

/// Runs a sequence of operations on a new server and on the model, and compares them after each.
async fn run(ops: &[Op]) {
    let app = TestApp::start_with(|config| {
        config.uploads.quota_bytes = QUOTA;
        config.uploads.max_pending = MAX_PENDING;
    })
    .await;
    let live = Live::new(&app).await;
    let mut model = Model::new(live.sizes());
    for (at, op) in ops.iter().enumerate() {
        let op = &choose_target(op, &model.images);
        live.step(&mut model, op, at).await;
        live.compare(&model, &format!("after step {at}, {op:?}")).await;
    }
    live.walk_in_small_pages(&model).await;
    app.audit().await;
    app.sweep_to_the_end().await;
    app.audit().await;
}

#[test]
fn any_sequence_of_calls_matches_the_model() {
    if !super::store_rules::in_place() {
        super::skipping::skip("the model has one key per upload: needs S3_FINALIZE=in-place");
        return;
    }
    let cases = std::env::var("VALET_TEST_CASES").ok().map_or(10, |cases| cases.parse().expect("VALET_TEST_CASES is a number"));
    let config = ProptestConfig { cases, max_shrink_iters: 80, failure_persistence: None, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(config);
    let sequences = prop::collection::vec(op(), 30..50);
    let outcome = runner.run(&sequences, |ops| {
        // A failing sequence panics, which proptest shrinks.
        runtime.block_on(run(&ops));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
