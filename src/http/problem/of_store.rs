//! Problems of uploads that the object store cannot take safely.

use super::{Code, Problem};
use crate::domain::store_capabilities::{UnsupportedUpload, UploadClass};

impl From<UnsupportedUpload> for Problem {
    fn from(error: UnsupportedUpload) -> Self {
        match error {
            UnsupportedUpload::NotSupported(UploadClass::WithoutDigest) => Self::new(
                Code::NotSupportedByStore,
                "The object store would accept other bytes than the user's through this kind of upload. Declare the file's SHA-256 \
                 and upload it with one PUT: POST to /api/images/upload.",
            ),
            UnsupportedUpload::NotSupported(UploadClass::WithDigest) => Self::new(
                Code::NotSupportedByStore,
                "The object store obeys headers that no URL signs, which could publish or replace an upload. Nothing can be uploaded \
                 until the operator corrects this: `valet check` says how.",
            ),
            UnsupportedUpload::Store(error) => error.into(),
        }
    }
}
