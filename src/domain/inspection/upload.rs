//! Chooses how a pending upload is inspected: as one object, as a copy, or after completing its parts.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Inspection, completing::select_by_length};
use crate::{
    domain::{
        inspection::{CopyInspector, ObjectInspector, PartsCompletion},
        store_capabilities::{KnownCapabilities, UnsupportedUpload, UploadClass},
    },
    model::{Image, UploadKind, Verified},
    store::StoreError,
};

/// Inspects pending uploads of every kind.
#[derive(Debug)]
pub(in crate::domain) struct UploadInspector {
    pub(in crate::domain) capabilities: Arc<KnownCapabilities>,
    pub(in crate::domain) parts_completion: Arc<PartsCompletion>,
    pub(in crate::domain) copy_inspector: Arc<CopyInspector>,
    pub(in crate::domain) object_inspector: Arc<ObjectInspector>,
}

impl UploadInspector {
    /// Inspects a pending upload. A multipart upload whose parts have all arrived is completed first.
    pub(in crate::domain) async fn inspect_upload(&self, image: &Image, now: OffsetDateTime) -> Result<Inspection, StoreError> {
        Ok(match self.inspect_by_kind(image, now).await? {
            Inspection::Verified(verified) => {
                let capture = verified.capture.without_future(now).or_taken_at(image.upload.taken_at);
                Inspection::Verified(Verified { capture, ..verified })
            }
            other => other,
        })
    }

    /// Inspects an upload according to its kind: completes its parts, copies its object, or inspects the object at its own key.
    async fn inspect_by_kind(&self, image: &Image, now: OffsetDateTime) -> Result<Inspection, StoreError> {
        if image.upload.sha256().is_none() {
            // On a store that obeys an unsigned copy source, the parts may be copies of another user's object.
            match self.capabilities.require_support(UploadClass::WithoutDigest) {
                Ok(()) => {}
                Err(UnsupportedUpload::Store(error)) => return Err(error),
                Err(unsupported) => return Ok(Inspection::Unsupported(unsupported)),
            }
        }
        if let UploadKind::Parts(layout) = image.upload.kind {
            return self.parts_completion.complete_multipart(image, &|stored| select_by_length(layout, stored), now).await;
        }
        if image.key.is_incoming() {
            return self.copy_inspector.inspect_copy(image, now).await;
        }
        let inspection = self.object_inspector.inspect_object(image, image.key.clone()).await?;
        // The parts were completed by a request of Uppy. Other open uploads of this key were left by a server that died.
        if image.upload.kind == UploadKind::UndeclaredParts && !matches!(inspection, Inspection::Missing) {
            self.parts_completion.abort_other_uploads(image).await?;
        }
        Ok(inspection)
    }
}
