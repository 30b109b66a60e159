//! Creates multipart uploads in S3, after their records are inserted.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use crate::{
    config,
    domain::{late_transfers::LateTransfers, store_capabilities::KnownCapabilities},
    model::{Image, Lifetimes, OPENING_GRACE, PartChecksums},
    store::{Objects, OpenedLifetimes, Store, StoreError},
};

/// Returns the times of a multipart upload that is not created in S3 yet: if the request is cancelled, its reservation ends soon.
pub(in crate::domain) fn unopened_lifetimes(now: OffsetDateTime) -> Lifetimes {
    Lifetimes { created_at: now, expires_at: now + OPENING_GRACE, urls_expire_at: now }
}

/// Creates multipart uploads in S3.
#[derive(Debug)]
pub(in crate::domain) struct MultipartOpening {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) objects: Arc<Objects>,
    pub(in crate::domain) settings: Arc<config::Uploads>,
    pub(in crate::domain) capabilities: Arc<KnownCapabilities>,
    pub(in crate::domain) late_transfers: LateTransfers,
}

impl MultipartOpening {
    /// Creates the multipart upload in S3, and records its upload id in place of the one in `image`. Of several concurrent
    /// requests, the first to record its id succeeds, and the others abort their multipart uploads: the caller reads the image
    /// again.
    pub(in crate::domain) async fn create_multipart_in_s3(
        &self,
        image: &Image,
        checksums: PartChecksums,
    ) -> Result<(), StoreError> {
        let announced = if self.capabilities.announces_part_checksums() { checksums } else { PartChecksums::None };
        let upload_id = self.objects.create_multipart(&image.key, image.upload.content_type, announced).await?;
        let opened = image.is_unopened().then(|| self.opened_lifetimes(image));
        if self.store.images.set_upload_id(image, &upload_id, opened).await?.is_none() {
            self.objects.abort_multipart(&image.key, &upload_id).await?;
        }
        Ok(())
    }

    /// Returns the times of a multipart upload after it was created in S3.
    pub(in crate::domain) fn opened_lifetimes(&self, image: &Image) -> OpenedLifetimes {
        // Only Uppy opens multipart uploads whose size is an upper bound.
        let ttl = if image.upload.is_size_bound() { self.uppy_parts_ttl() } else { self.settings.multipart_ttl };
        OpenedLifetimes { expires_at: image.created_at + ttl, due: self.late_transfers.writes_end_at(image) }
    }

    /// Returns the lifetime of a multipart upload by Uppy: at most that of a single PUT, because its reservation is an estimate,
    /// which takes quota from the user.
    pub(in crate::domain) fn uppy_parts_ttl(&self) -> Duration {
        self.settings.ttl.min(self.settings.multipart_ttl)
    }
}
