//! The deployment's marker in the bucket: a small object that contains the id, with the stamp in its metadata. Earlier versions
//! read only the id.

use aws_sdk_s3::primitives::ByteStream;
use time::OffsetDateTime;

use super::{
    Objects, StoreError,
    errors::{error_of, is_absent, status},
};
use crate::model::DeploymentId;

/// Key of the marker. No prefix under which Valet lists or deletes objects contains it.
pub const KEY: &str = "valet/deployment";
/// Name of the stamp in the metadata. Its value is in milliseconds since 1970.
const STAMP: &str = "valet-stamp";

/// The deployment that a bucket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Id of the deployment.
    pub id: DeploymentId,
    /// Time of the latest stamp that was written to the bucket; `None` before the first.
    pub stamp: Option<OffsetDateTime>,
}

impl Objects {
    /// Returns the bucket's marker; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`], also for a marker without a readable id.
    pub async fn read_marker(&self) -> Result<Option<Marker>, StoreError> {
        let got = match self.client.get_object().bucket(&self.bucket).key(KEY).send().await {
            Ok(got) => got,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error_of("GetObject", &error)),
        };
        let stamp = got.metadata().and_then(|metadata| metadata.get(STAMP)).and_then(|text| parse_stamp(text));
        let broken = |_| StoreError::Objects { operation: "GetObject", reason: format!("{KEY} broke off") };
        let bytes = got.body.collect().await.map_err(broken)?.into_bytes();
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        let damaged = || StoreError::Corrupt { collection: "the bucket", id: KEY.to_owned(), field: "id" };
        DeploymentId::parse(text).map(|id| Some(Marker { id, stamp })).ok_or_else(damaged)
    }

    /// Writes the marker, unless there is one (on stores that enforce `if-none-match`).
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_marker(&self, marker: Marker) -> Result<(), StoreError> {
        match self.put_marker(marker).if_none_match("*").send().await {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(()),
            Err(error) => Err(error_of("PutObject", &error)),
        }
    }

    /// Replaces the marker.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn replace_marker(&self, marker: Marker) -> Result<(), StoreError> {
        self.put_marker(marker).send().await.map(drop).map_err(|error| error_of("PutObject", &error))
    }

    /// Begins the PUT of the marker.
    fn put_marker(&self, marker: Marker) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        let body = ByteStream::from(format!("{}\n", marker.id).into_bytes());
        let put = self.client.put_object().bucket(&self.bucket).key(KEY).content_type("text/plain").body(body);
        match marker.stamp {
            Some(at) => put.metadata(STAMP, (at.unix_timestamp_nanos() / 1_000_000).to_string()),
            None => put,
        }
    }
}

/// Parses a stamp in milliseconds since 1970.
fn parse_stamp(text: &str) -> Option<OffsetDateTime> {
    let millis: i64 = text.trim().parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}
