//! Opening an upload in parts in S3, after its record is there.

use time::OffsetDateTime;

use crate::{
    domain::Valet,
    model::{Image, Lifetimes, OPENING_GRACE, PartChecksums},
    store::{Opened, StoreError},
};

/// The times of an upload in parts that S3 is being asked to open: should the request be given up meanwhile, its reservation ends
/// soon.
pub(in crate::domain) fn unopened_lifetimes(now: OffsetDateTime) -> Lifetimes {
    Lifetimes { created_at: now, expires_at: now + OPENING_GRACE, urls_die_at: now }
}

impl Valet {
    /// Opens S3's side and records its name in the place of the one `image` has. Of several at once the first to record
    /// wins, and the others abort what they opened: looking again tells.
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

    /// The times of an upload in parts, once S3 has opened it.
    pub(in crate::domain) fn opened_lifetimes(&self, image: &Image) -> Opened {
        let lives = if image.upload.unverified.is_some() { self.loose_parts_ttl() } else { self.uploads.multipart_ttl };
        Opened { expires_at: image.created_at + lives, due: self.quiet_from(image) }
    }
}
