//! Probes of the database and the bucket.

use std::sync::Arc;

use crate::store::{Objects, Store, StoreError, objects::Diagnosis};

/// The database and the bucket, for health probes and the gallery page.
#[derive(Debug)]
pub struct Dependencies {
    pub(super) store: Arc<Store>,
    pub(super) objects: Arc<Objects>,
}

impl Dependencies {
    /// Checks that the database answers and has a writable primary.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_database(&self) -> Result<(), StoreError> {
        self.store.now().await.map(drop)
    }

    /// Checks that the bucket answers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_objects(&self) -> Result<(), StoreError> {
        self.objects.probe().await
    }

    /// Checks that the bucket can be used. The error describes the cause for the operator.
    ///
    /// # Errors
    /// [`Diagnosis`].
    pub async fn diagnose_objects(&self) -> Result<(), Diagnosis> {
        self.objects.diagnose().await.map(drop)
    }

    /// Returns how far S3's clock is ahead of the server's, by its latest responses.
    #[must_use]
    pub fn clock_ahead(&self) -> time::Duration {
        self.objects.clock_ahead()
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.objects.bucket()
    }

    /// Returns the origin at which clients reach the bucket, for the page's content security policy.
    #[must_use]
    pub fn bucket_origin(&self) -> &str {
        self.objects.origin()
    }
}
