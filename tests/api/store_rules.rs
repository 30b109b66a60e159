//! The rules of `valet check` that the store of this run satisfies, and the object keys and statuses that depend on them. Tests
//! of guarantees that only some stores give call `skip_unless_store_satisfies` or `skip_unless_local_s3` first.

use reqwest::StatusCode;
use tokio::sync::OnceCell;
use valet::domain::doctor::{self, Answer, Options, Report};

use super::{
    app::{TestApp, finalize, s3_is_local},
    skipping::skip,
};

// Names of rules in `valet check`.
pub const ONCE: &str = "upload: If-None-Match enforced";
pub const OVERLAP: &str = "upload: one winner of overlapping PUTs";
pub const COPY_SOURCE: &str = "upload: unsigned copy source refused";
pub const CHECKSUM: &str = "upload: checksum enforced";
pub const PARTS_SUMMED: &str = "multipart: part checksums listed";
pub const PART_CHECKSUM: &str = "multipart: part checksum enforced";

/// Returns whether this run confirms objects at the keys to which clients send them, `u/<user>/<id>`, without a copy.
pub fn in_place() -> bool {
    finalize() == "in-place"
}

/// Reports the calling test as skipped and returns true if the run's store is not the local S3.
pub fn skip_unless_local_s3() -> bool {
    if !s3_is_local() {
        skip("needs the local S3");
    }
    !s3_is_local()
}

impl TestApp {
    /// Reports the calling test as skipped and returns true if the store violates one of these rules of `valet check`.
    pub async fn skip_unless_store_satisfies(&self, rules: &[&str]) -> bool {
        let is_satisfied = self.store_satisfies(rules).await;
        if !is_satisfied {
            skip(&format!("needs a store that satisfies {rules:?}"));
        }
        !is_satisfied
    }

    /// Returns whether the store satisfies these rules of `valet check`, which runs once. The local S3 satisfies all of them, so
    /// no test with the local S3 is skipped.
    pub async fn store_satisfies(&self, rules: &[&str]) -> bool {
        static REPORT: OnceCell<Report> = OnceCell::const_new();
        if s3_is_local() {
            return true;
        }
        let report = REPORT.get_or_init(|| doctor::run(&self.config, Options::default())).await;
        rules.iter().all(|rule| matches!(report.answer(rule), Some(Answer::Yes(_))))
    }

    /// Returns whether the status is that of a request that the store rejects by its signature: 403 as on AWS, or Garage's 400.
    pub fn is_signature_rejection(status: StatusCode) -> bool {
        status == 403 || (status == 400 && !s3_is_local())
    }

    /// Returns the expected status of a second PUT with one URL.
    pub async fn second_put_status(&self) -> u16 {
        if self.store_satisfies(&[ONCE]).await { 412 } else { 200 }
    }

    /// Returns the object key of the image's bytes, which may not be in the store yet.
    pub async fn db_key(&self, id: &str) -> String {
        self.db_image(id).await.unwrap().get_str("key").unwrap().to_owned()
    }
}
