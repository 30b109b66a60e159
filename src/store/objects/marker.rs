//! The deployment's id in the bucket: a small object that names it.

use aws_sdk_s3::primitives::ByteStream;

use super::{
    Objects, StoreError,
    errors::{error_of, is_absent, status},
};
use crate::model::DeploymentId;

/// The key of the marker. It lies outside every prefix that is listed or deleted from.
pub const KEY: &str = "valet/deployment";

impl Objects {
    /// Returns the id in the bucket's marker; `None` when there is no marker.
    ///
    /// # Errors
    /// [`StoreError`], also for a marker that holds no id.
    pub async fn deployment_id(&self) -> Result<Option<DeploymentId>, StoreError> {
        let got = match self.client.get_object().bucket(&self.bucket).key(KEY).send().await {
            Ok(got) => got,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error_of("GetObject", &error)),
        };
        let broken = |_| StoreError::Objects { operation: "GetObject", reason: format!("{KEY} broke off") };
        let bytes = got.body.collect().await.map_err(broken)?.into_bytes();
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        let damaged = || StoreError::Corrupt { collection: "the bucket", id: KEY.to_owned(), field: "id" };
        DeploymentId::parse(text).map(Some).ok_or_else(damaged)
    }

    /// Writes the marker, unless there is one (on stores that enforce `if-none-match`).
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn insert_deployment_id(&self, id: DeploymentId) -> Result<(), StoreError> {
        match self.put_marker(id).if_none_match("*").send().await {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(()),
            Err(error) => Err(error_of("PutObject", &error)),
        }
    }

    /// Writes the marker in the place of the one that is there.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn replace_deployment_id(&self, id: DeploymentId) -> Result<(), StoreError> {
        self.put_marker(id).send().await.map(drop).map_err(|error| error_of("PutObject", &error))
    }

    fn put_marker(&self, id: DeploymentId) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        let body = ByteStream::from(format!("{id}\n").into_bytes());
        self.client.put_object().bucket(&self.bucket).key(KEY).content_type("text/plain").body(body)
    }
}
