//! The defects of stores, and the rules of `valet check` that each of them violates.

/// A defect of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Accepts any request without verifying signature, headers or expiry (moto).
    VerifiesNothing,
    /// A second PUT replaces the object (Garage).
    ReplacesObjects,
    /// Two concurrent PUTs both succeed (s3s-fs).
    HasNoLocks,
    /// Rejects both of two concurrent PUTs.
    RejectsOverlap,
    /// Rejects every part with a checksum.
    RejectsSummedParts,
    /// Rejects wrong bytes but stores them (s3s-fs).
    KeepsRejectedBytes,
    /// Ignores checksums and stores none (Ceph RGW).
    KnowsNoChecksums,
    /// Serves objects without credentials (LocalStack).
    IsPublic,
    /// The store's clock is an hour ahead.
    LivesInTheFuture,
    /// Serves whole objects only.
    IgnoresRanges,
    /// Ignores response overrides in the query.
    IgnoresOverrides,
    /// The policy lacks `ListBucket`, so that missing keys are answered 403.
    HidesMissingKeys,
    /// Does not support CORS.
    KnowsNoOrigins,
    /// Does not expose `ETag` to pages of other origins.
    ExposesNothing,
    /// Completes an upload over an existing object (Ceph RGW, Garage).
    CompletesTwice,
    /// Keeps the parts of aborted uploads.
    KeepsAborted,
    /// Copies the current object whatever its entity tag.
    CopiesAnything,
    /// An unsigned header turns a PUT into a copy (Ceph RGW).
    TakesUnsignedCopySource,
    /// A proxy drops a signed header, so that the store rejects every PUT.
    StripsIfNoneMatch,
    /// Rejects every PUT once public ACLs are blocked (Ceph RGW).
    RejectsPutsUnderBlockPublicAcls,
    /// Answers every query about the bucket with a list of objects (nanio, fauxqs).
    ListsObjectsInstead,
    /// A truncated listing whose next page is the first one again.
    ListsTheSameAgain,
    /// Rejects ranges that end after the object's end (nanio).
    RejectsLongRanges,
    /// Sends a wrong checksum with a range of an object.
    SendsWrongChecksums,
    /// Answers 404 to every HEAD of an upload.
    HeadFindsNothing,
    /// Sends no length in answers to HEAD, like a compressing proxy.
    OmitsLength,
    /// Adds its own metadata to copies (rclone).
    DatesCopies,
    /// Sends no entity tag in answers to HEAD.
    OmitsEntityTag,
    /// Replaces the type of copies and completed uploads (localbucket).
    TypesAsItLikes,
    /// Lists parts without their checksums, and requires them at completion (`SeaweedFS`).
    HidesPartChecksums,
    /// Cannot abort multipart uploads (s3rver).
    AbortsNothing,
    /// Versioning was enabled after the objects were written.
    HasVersionsSinceLately,
    /// Cannot delete versions, because Object Lock retains them.
    RetainsVersions,
    /// A proxy that has lost its store.
    IsLost,
    /// Answers 503 instead of a rejection.
    IsOverloaded,
    /// Does not accept form uploads (Swift).
    TakesNoForms,
    /// Each call takes a quarter of a second.
    IsFarAway,
    /// A proxy that rejects bodies above 1 MiB by their announced length.
    CapsBodies,
    /// A proxy that rejects parts above 1 MiB by their announced length.
    CapsParts,
    /// Reports another region than the one that requests are signed for.
    IsElsewhere,
    /// Retains every new version by default.
    LocksByDefault,
    /// Uses root elements of its own and wraps errors (gofakes3, moto).
    NamesRootsOtherwise,
    /// Lists no objects: the policy lacks `ListBucket` for these credentials.
    ListsNothing,
}

/// Each defect with the rules that it violates, in the table's order.
pub const ALL: &[(Defect, &[&str])] = &[
    (
        Defect::VerifiesNothing,
        &[
            "upload: signature verified",
            "upload: signed length enforced",
            "upload: signed type enforced",
            "upload: checksum enforced",
            "upload: If-None-Match enforced",
            "upload: one winner of overlapping PUTs",
            "upload: expired URL refused",
            "object: anonymous access refused",
        ],
    ),
    (Defect::ReplacesObjects, &["upload: If-None-Match enforced", "upload: one winner of overlapping PUTs"]),
    (Defect::HasNoLocks, &["upload: one winner of overlapping PUTs"]),
    (Defect::RejectsOverlap, &["upload: one winner of overlapping PUTs"]),
    (Defect::RejectsSummedParts, &["multipart: part checksum enforced", "multipart: part checksums listed"]),
    (Defect::KeepsRejectedBytes, &["upload: checksum enforced"]),
    (Defect::KnowsNoChecksums, &["upload: checksum enforced", "object: HEAD returns the checksum"]),
    (Defect::IsPublic, &["object: anonymous access refused"]),
    (Defect::LivesInTheFuture, &["S3: clock agrees with ours"]),
    (Defect::IgnoresRanges, &["object: range GET"]),
    (Defect::IgnoresOverrides, &["object: response-* overrides"]),
    (Defect::HidesMissingKeys, &["object: missing key is 404"]),
    (Defect::KnowsNoOrigins, &["CORS: every origin may upload", "CORS: ETag exposed"]),
    (Defect::ExposesNothing, &["CORS: ETag exposed"]),
    (Defect::CompletesTwice, &["multipart: If-None-Match on complete"]),
    (Defect::KeepsAborted, &["multipart: abort"]),
    (Defect::CopiesAnything, &["object: conditional copy"]),
    (Defect::TakesUnsignedCopySource, &["upload: unsigned copy source refused", "upload: sealed PUT refuses unsigned headers"]),
    (Defect::HidesPartChecksums, &["multipart: part checksums listed"]),
    (Defect::TakesNoForms, &["upload: signed form accepted"]),
    (Defect::RetainsVersions, &["object: versions deleted"]),
    (Defect::CapsBodies, &["upload: body of UPLOAD_MAX_BYTES accepted", "multipart: part of 5 MiB accepted"]),
    (Defect::CapsParts, &["multipart: part of 5 MiB accepted"]),
    (Defect::IsElsewhere, &["S3: region is the bucket's"]),
    (Defect::LocksByDefault, &["bucket: no default retention"]),
    (Defect::NamesRootsOtherwise, &[]),
];
