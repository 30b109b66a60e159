//! Failures of the database and of the object store, and what a caller may conclude from each.

use mongodb::error::ErrorKind;

use super::mongo::DEADLINE;

/// A failed call. The caller cannot know whether a write was applied, so the write must be safe to repeat.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database returned an error, or could not be reached.
    #[error("{}", describe(.0))]
    Database(#[source] mongodb::error::Error),
    /// An update of a bulk write was rejected.
    #[error("the database refused an update: {0}")]
    Update(String),
    /// The database did not respond in time.
    #[error("the database did not respond within {} s", DEADLINE.as_secs())]
    DatabaseTimeout,
    /// The server of the database that answered takes no writes: another one is being elected, or was.
    #[error("the server of the database that answered takes no writes")]
    NotPrimary,
    /// A document deviates from those that this program writes.
    #[error("the document {id} in {collection} cannot be read: {field} is missing or malformed")]
    Corrupt {
        /// The collection.
        collection: &'static str,
        /// The document.
        id: String,
        /// The field.
        field: &'static str,
    },
    /// The object store returned an error, or could not be reached.
    #[error("the object store failed ({operation}): {reason}")]
    Objects {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code, or the text of the transport error. Never a URL.
        reason: String,
    },
    /// The object store rejects this object, part or upload, and would reject it again.
    #[error("the object store rejected the request permanently ({operation}): {reason}")]
    ObjectRejected {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store does not support this operation.
    #[error("the object store does not support {operation}: {reason}")]
    ObjectsUnsupported {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store rejects the credentials, their permissions, the bucket or its encryption key.
    #[error("the object store is misconfigured ({operation}): {reason}")]
    ObjectsMisconfigured {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// Other requests changed the same records concurrently, in every attempt.
    #[error("concurrent changes of {subject} in every attempt")]
    Contention {
        /// The records, as the message names them.
        subject: &'static str,
    },
    /// A GET finds the object and a HEAD does not: it was just written, so no decision about it may be based on this.
    #[error("HeadObject finds no object where GetObject finds one")]
    ObjectNotVisible,
    /// The object store did not respond in time.
    #[error("the object store did not respond in time ({operation})")]
    ObjectsTimeout {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The object store retains deleted data: versions under Object Lock or a policy without `s3:DeleteObjectVersion`, or
    /// uploads that it cannot abort.
    #[error("the object store retains {objects} deleted objects, or versions of them")]
    ObjectsRemain {
        /// Objects and uploads.
        objects: u64,
    },
    /// No credentials to sign with are available.
    #[error("no valid credentials for S3: {reason}")]
    Credentials {
        /// Message of the credential provider chain.
        reason: String,
    },
}

/// Duration and extent of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureClass {
    /// The database or the object store fails, so other calls may fail too; after a while, the same call may succeed.
    Outage,
    /// Only this call failed; after a while, it may succeed.
    Collision,
    /// The same call fails until an operator has corrected a record, or settings of the object store.
    NeedsOperator,
    /// Every repeat of the same call fails in the same way.
    Final,
}

impl StoreError {
    /// Returns the class of the failure.
    fn class(&self) -> FailureClass {
        match self {
            Self::Database(_)
            | Self::DatabaseTimeout
            | Self::NotPrimary
            | Self::Objects { .. }
            | Self::ObjectsTimeout { .. }
            | Self::Credentials { .. } => FailureClass::Outage,
            Self::Update(_) | Self::Contention { .. } | Self::ObjectNotVisible => FailureClass::Collision,
            Self::Corrupt { .. } | Self::ObjectsMisconfigured { .. } | Self::ObjectsRemain { .. } => FailureClass::NeedsOperator,
            Self::ObjectRejected { .. } | Self::ObjectsUnsupported { .. } => FailureClass::Final,
        }
    }

    /// Returns whether every repeat of the same call fails in the same way, even after an operator has changed credentials or
    /// permissions: waiting does not help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.class() == FailureClass::Final
    }

    /// Returns whether the same call may succeed by itself after a while. After any other failure, calls are retried at growing
    /// intervals.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.class(), FailureClass::Outage | FailureClass::Collision)
    }

    /// Returns whether the database or the object store fails, so that calls for other records may fail too.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.class() == FailureClass::Outage
    }
}

/// Describes an error of the driver, without its dump of the topology.
fn describe(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => "no server that takes writes could be reached within 3 s".to_owned(),
        ErrorKind::Authentication { .. } => "the database refused the user or the password".to_owned(),
        kind => format!("the database failed: {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_classified_as_outage_temporary_or_final() {
        let (operation, reason) = ("HeadObject", "503".to_owned());
        let corrupt = StoreError::Corrupt { collection: "images", id: "7".to_owned(), field: "size" };
        // Each error, and whether it is an outage, is temporary, is final.
        for (error, expected) in [
            (StoreError::Database(mongodb::error::Error::custom("broken")), (true, true, false)),
            (StoreError::DatabaseTimeout, (true, true, false)),
            (StoreError::NotPrimary, (true, true, false)),
            (StoreError::Objects { operation, reason: reason.clone() }, (true, true, false)),
            (StoreError::ObjectsTimeout { operation }, (true, true, false)),
            (StoreError::Credentials { reason: reason.clone() }, (true, true, false)),
            (StoreError::Update(reason.clone()), (false, true, false)),
            (StoreError::Contention { subject: "images" }, (false, true, false)),
            (StoreError::ObjectNotVisible, (false, true, false)),
            (corrupt, (false, false, false)),
            (StoreError::ObjectsMisconfigured { operation, reason: reason.clone() }, (false, false, false)),
            (StoreError::ObjectsRemain { objects: 1 }, (false, false, false)),
            (StoreError::ObjectRejected { operation, reason: reason.clone() }, (false, false, true)),
            (StoreError::ObjectsUnsupported { operation, reason }, (false, false, true)),
        ] {
            assert_eq!((error.is_outage(), error.is_temporary(), error.is_final()), expected, "{error}");
        }
    }
}
