//! What the run's store does, where stores differ: tests of what only an enforcing store gives ask here first.

use reqwest::StatusCode;
use tokio::sync::OnceCell;
use valet::domain::doctor::{self, Answer, Options, Report};

use super::app::{TestApp, finalize, s3_is_local};

/// The names `valet check` has for what tests rest on.
pub const ONCE: &str = "upload: If-None-Match enforced";
pub const OVERLAP: &str = "upload: one winner of overlapping PUTs";
pub const COPY_SOURCE: &str = "upload: unsigned copy source refused";
pub const CHECKSUM: &str = "upload: checksum enforced";
pub const PARTS_SUMMED: &str = "multipart: part checksums listed";
pub const PART_CHECKSUM: &str = "multipart: part checksum enforced";

/// Whether uploads are final where they are put in this run, so that an image lies at `u/<user>/<id>` and nowhere else.
pub fn in_place() -> bool {
    finalize() == "in-place"
}

impl TestApp {
    /// Whether the store keeps these rules of `valet check`, which is run once. The local S3 keeps all: there no test is
    /// left out.
    pub async fn store_keeps(&self, rules: &[&str]) -> bool {
        static REPORT: OnceCell<Report> = OnceCell::const_new();
        if s3_is_local() {
            return true;
        }
        let report = REPORT.get_or_init(|| doctor::run(&self.config, Options::default())).await;
        rules.iter().all(|rule| matches!(report.answer(rule), Some(Answer::Yes(_))))
    }

    /// Whether a status is the store's for what is not as it was signed: 403 as AWS has it, or Garage's 400.
    pub fn is_refusal(status: StatusCode) -> bool {
        status == 403 || (status == 400 && !s3_is_local())
    }

    /// The status of a second PUT under one URL.
    pub async fn second_put(&self) -> u16 {
        if self.store_keeps(&[ONCE]).await { 412 } else { 200 }
    }

    /// Where the image's bytes lie now, or are to be put.
    pub async fn db_key(&self, id: &str) -> String {
        self.db_image(id).await.unwrap().get_str("key").unwrap().to_owned()
    }
}
