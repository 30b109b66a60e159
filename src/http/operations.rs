//! All operations of the API.

use super::{admin_users, auth, batch, events, gallery, health, multipart, operation::Operation, sessions, uploads, uppy};

/// Metadata of the operations, by resource.
const BY_RESOURCE: [&[Operation]; 10] = [
    auth::OPERATIONS,
    sessions::OPERATIONS,
    uploads::OPERATIONS,
    batch::OPERATIONS,
    multipart::OPERATIONS,
    gallery::OPERATIONS,
    events::OPERATIONS,
    admin_users::OPERATIONS,
    uppy::OPERATIONS,
    health::OPERATIONS,
];

/// Returns the metadata of every operation.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    BY_RESOURCE.into_iter().flatten()
}

/// Returns the metadata of the operation with this `operationId`.
#[must_use]
pub fn find(id: &str) -> Option<&'static Operation> {
    all().find(|operation| operation.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{openapi, operation::RequestBody};

    #[test]
    fn every_documented_operation_has_metadata_that_agrees_about_its_body() {
        let documented = openapi::operations(openapi::Offered::All);
        assert!(documented.len() > 30, "{}", documented.len());
        for documented in &documented {
            let found: Vec<_> = all().filter(|operation| operation.id == documented.id).collect();
            assert_eq!(found.len(), 1, "{}: has no metadata, or twice", documented.id);
            assert_eq!(found[0].body != RequestBody::None, documented.has_body, "{}", documented.id);
        }
        assert_eq!(all().count(), documented.len());
    }
}
