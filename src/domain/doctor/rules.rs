//! The rules: what Valet needs of its database and its bucket, and what follows when it is not so.

use super::report::{
    Rule,
    Severity::{Advice, Broken, Weaker},
};

macro_rules! rules {
    ($($rule:ident: $severity:expr, $id:literal, $name:literal, $consequence:literal, $remedy:literal;)*) => {
        $(pub(super) static $rule: Rule =
            Rule { id: $id, name: $name, severity: $severity, consequence: $consequence, remedy: $remedy };)*
        /// All of them, in the order of the table. `docs/check.md` lists their ids.
        pub static ALL: &[&Rule] = &[$(&$rule),*];
    };
}

rules! {
    SETTINGS: Broken, "settings", "settings: well-formed",
        "nothing starts",
        "set what is named, as docs/configuration.md says";
    PAIR: Broken, "deployment_pair", "bucket and database belong together",
        "every object looks abandoned, and every image without an object: `serve`, `sweep` and `recount` refuse to start",
        "check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; after a deliberate restore or move, run `valet join`";
    DATABASE: Broken, "mongodb_reachable", "MongoDB: reachable",
        "nothing works",
        "check MONGODB_URI, the network and the user's rights";
    REPLICA_SET: Broken, "mongodb_replica_set", "MongoDB: replica set",
        "there are no transactions: `recount` cannot read a user and their images as of one moment",
        "make it a replica set (one member is enough: --replSet and replSetInitiate)";
    PRIMARY: Broken, "mongodb_primary", "MongoDB: writable primary",
        "nothing can be written: uploads and confirms answer 503",
        "connect to the whole set (replicaSet=… in MONGODB_URI), and see that it has a primary";
    MAJORITY: Broken, "mongodb_majority_write", "MongoDB: majority write",
        "no confirm can be acknowledged for good",
        "see that most data-bearing members are up, and that the user may write (readWrite on the database)";
    TRANSACTION: Broken, "mongodb_transaction", "MongoDB: transaction",
        "`recount` fails",
        "use a replica set or a sharded cluster of MongoDB 4.4 or newer";
    DATABASE_CLOCK: Weaker, "mongodb_clock", "MongoDB: clock agrees with ours",
        "URLs, sweeps and leases go by different clocks: uploads expire early or late",
        "run an NTP client on both machines";
    DATABASE_VERSION: Advice, "mongodb_version", "MongoDB: without known holes",
        "versions before 7.0.32 and 8.0.21 can be attacked over the network (CVE-2025-14847, CVE-2026-6914)",
        "update to 7.0.32, 8.0.21 or newer, and let nobody but this server reach it";

    PROVIDER: Broken, "provider_keys", "sign-in: provider's keys",
        "the identity provider's users get 503",
        "check OIDC_ISSUER (byte for byte the `issuer` of its /.well-known/openid-configuration) and the way to it";

    CREDENTIALS: Broken, "s3_credentials", "S3: credentials found",
        "nothing can be signed",
        "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, and AWS_REGION";
    BUCKET: Broken, "s3_bucket", "S3: bucket reachable",
        "nothing works",
        "check S3_BUCKET, S3_ENDPOINT, S3_FORCE_PATH_STYLE, AWS_REGION and the rights of the credentials";
    REGION: Weaker, "s3_region", "S3: region is the bucket's",
        "a store that verifies the region refuses every call and every URL",
        "set AWS_REGION to the bucket's region";
    TRANSPORT: Weaker, "s3_public_tls", "S3: public endpoint over TLS",
        "URLs and images can be read on their way, and pages served over https may not use them",
        "give S3_PUBLIC_ENDPOINT an https address";
    STORE_CLOCK: Weaker, "s3_clock", "S3: clock agrees with ours",
        "URLs begin or end at the wrong time; from 15 minutes on S3 refuses them",
        "run an NTP client on both machines";
    PUT: Broken, "upload_put", "upload: presigned PUT accepted",
        "no client can upload",
        "check S3_PUBLIC_ENDPOINT (the very host clients use, reachable from here), s3:PutObject, and proxies that change Host or headers; a certificate authority of your own is named in AWS_CA_BUNDLE or SSL_CERT_FILE";
    SIGNATURE: Broken, "upload_signature", "upload: signature verified",
        "anyone can write what and where they like",
        "turn signature checking on (LocalStack: S3_SKIP_SIGNATURE_VALIDATION=0), or use another store";
    LENGTH: Weaker, "upload_length", "upload: signed length enforced",
        "a URL can bring up to 5 GiB, whatever was declared; confirm rejects it, after it was stored",
        "use a store that verifies signed headers, or a proxy before it that limits bodies";
    TYPE: Weaker, "upload_type", "upload: signed type enforced",
        "a URL can bring any type; confirm rejects it, after it was stored",
        "use a store that verifies signed headers";
    UNSIGNED: Weaker, "upload_unsigned_headers", "upload: unsigned x-amz-* refused",
        "a client can add metadata, tags or a redirect to its own object, or make it unreadable; confirm refuses what would be served",
        "use a store that refuses unsigned x-amz-* headers";
    COPY_SOURCE: Broken, "upload_copy_source", "upload: unsigned copy source refused",
        "a URL can bring any object that these credentials can read: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store; confirm copies and checks all others",
        "use a store that refuses unsigned x-amz-* headers, or have every request to this one pass a proxy that refuses x-amz-copy-source in presigned requests; let the credentials read this bucket only; never set S3_FINALIZE=in-place";
    ACL: Broken, "upload_acl", "upload: unsigned ACL without effect",
        "a URL can publish what it writes: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store, and all others where a PUT cannot be sealed (the next line)",
        "valet check --fix sets the public access block, which ignores ACLs; servers notice within two minutes, or an hour where PUTs are sealed";
    SEALED: Weaker, "upload_sealed_put", "upload: sealed PUT refuses unsigned headers",
        "a PUT can be made a copy, which confirm hashes and refuses; with S3_FINALIZE=in-place, or where an unsigned ACL has an effect, every upload is refused with 409 not_supported_by_store",
        "leave S3_FINALIZE at auto; against ACLs run valet check --fix, which has the bucket ignore them; against copies nothing helps but a store that refuses unsigned x-amz-* headers, or a proxy that does";
    CHECKSUM: Weaker, "upload_checksum", "upload: checksum enforced",
        "other bytes than promised can be stored; with S3_FINALIZE=auto or copy, confirm copies each upload and hashes the copy",
        "nothing, unless S3_FINALIZE=in-place is set; expect each image's bytes to pass through this server once";
    ONCE: Weaker, "upload_once", "upload: If-None-Match enforced",
        "a URL can write again while it lives; with S3_FINALIZE=auto or copy, confirm copies each upload to a key that no URL writes",
        "nothing, unless S3_FINALIZE=in-place is set: then images can be replaced after confirm";
    OVERLAP: Weaker, "upload_overlap", "upload: one winner of overlapping PUTs",
        "two transfers of one URL can both succeed; with S3_FINALIZE=auto or copy, confirm copies each upload",
        "nothing, unless S3_FINALIZE=in-place is set";
    EXPIRY: Broken, "upload_expiry", "upload: expired URL refused",
        "URLs live for ever: deleted images can come back",
        "use a store that checks X-Amz-Expires, and see to its clock";
    BODY_CAP: Broken, "upload_body_cap", "upload: body of UPLOAD_MAX_BYTES accepted",
        "files that Valet accepts are refused by the store or by a proxy before it",
        "raise the limit of the proxy (nginx: client_max_body_size) or of the store, or lower UPLOAD_MAX_BYTES";

    FORM: Weaker, "upload_form", "upload: signed form accepted",
        "Uppy's plain uploads, which are forms, do not arrive; its multipart uploads and all other clients do not use them",
        "have Uppy send files in parts (shouldUseMultipart: true), or use a store that takes POST policies";

    HEAD: Broken, "object_head", "object: HEAD tells size and type",
        "confirm cannot see what was uploaded",
        "give the credentials s3:GetObject, and use a store that keeps Content-Type";
    HEAD_CHECKSUM: Weaker, "object_head_checksum", "object: HEAD tells the checksum",
        "confirm has to read and hash each image here",
        "use a store that keeps x-amz-checksum-sha256; expect each image's bytes to pass through this server once";
    LIST: Broken, "object_missing", "object: missing key is 404",
        "an upload that has not come looks like a failure: confirm answers 503 instead of 409, and the sweeper does not end it",
        "give the credentials s3:ListBucket on the bucket";
    RANGE: Broken, "object_range", "object: range GET",
        "confirm cannot read an image's head, and players cannot seek",
        "use a store, and proxies, that honour Range";
    OVERRIDES: Broken, "object_overrides", "object: response-* overrides",
        "images are served without a pinned type and caching, and downloads without their file name",
        "use a store that honours response-content-type, response-cache-control and response-content-disposition";
    ANONYMOUS: Broken, "object_anonymous", "object: anonymous access refused",
        "whoever learns or guesses a key reads, or writes, without a URL of ours",
        "remove public policies and ACLs (valet check --fix sets the public access block); LocalStack community cannot, and is for development only";
    COPY: Weaker, "object_copy", "object: conditional copy",
        "an upload that has to be copied at confirm could be replaced between check and copy",
        "use a store that honours x-amz-copy-source-if-match; give the credentials s3:GetObject and s3:PutObject";
    VERSIONS: Weaker, "object_versions", "object: versions listed",
        "in a bucket with versioning, deleted images stay as old versions",
        "give the credentials s3:ListBucketVersions and s3:DeleteObjectVersion, or leave versioning off";
    DELETE: Broken, "object_delete", "object: delete",
        "deleted images stay in the bucket",
        "give the credentials s3:DeleteObject";
    RETAINED: Broken, "object_retained", "object: versions deleted",
        "a delete only hides: the bytes of deleted images and accounts stay, and are paid for",
        "take the default retention of Object Lock off the bucket, or use one without Object Lock; versions that are retained can be deleted when their retention ends. Without Object Lock: give the credentials s3:DeleteObjectVersion";

    MULTIPART: Broken, "multipart_upload", "multipart: create, part, list, complete",
        "big files cannot be uploaded",
        "give the credentials s3:PutObject and s3:ListMultipartUploadParts; check S3_PUBLIC_ENDPOINT";
    PART_CHECKSUM: Weaker, "multipart_part_checksum", "multipart: part checksum enforced",
        "a part that broke on its way is noticed by nobody but the client",
        "use a store that verifies x-amz-checksum-sha256";
    PARTS_SUMMED: Weaker, "multipart_checksums_listed", "multipart: part checksums listed",
        "an upload that was opened with them may not be completed without them (SeaweedFS); with S3_FINALIZE=auto or copy Valet does not announce them, and the store verifies the parts that carry them all the same",
        "nothing, unless S3_FINALIZE=in-place is set: then have clients leave partChecksums at none";
    COMPLETE_ONCE: Weaker, "multipart_complete_once", "multipart: If-None-Match on complete",
        "two completions of one key can replace each other; Valet begins one upload for a key",
        "nothing, as long as only Valet writes to the bucket";
    ABORT: Weaker, "multipart_abort", "multipart: abort",
        "parts of abandoned uploads stay, and are paid for",
        "give the credentials s3:AbortMultipartUpload";
    PART_CAP: Broken, "multipart_part_cap", "multipart: part of 5 MiB accepted",
        "big files cannot be uploaded: no part but the last may be smaller",
        "raise the limit of the proxy before the store to the size of parts (nginx: client_max_body_size)";

    CORS: Broken, "cors_origins", "CORS: every origin may upload",
        "browsers refuse to upload from pages of CORS_ORIGINS",
        "valet check --fix, with credentials that may s3:PutBucketCORS; else set the store's own CORS";
    EXPOSED: Weaker, "cors_etag", "CORS: ETag exposed",
        "Uppy's multipart uploads do not finish in browsers",
        "valet check --fix";
    LIFECYCLE: Advice, "bucket_abandoned_multiparts", "bucket: abandoned multiparts aborted",
        "parts that Valet has lost track of stay, and are paid for",
        "valet check --fix, with credentials that may s3:PutLifecycleConfiguration";
    LIFECYCLE_EARLY: Weaker, "bucket_live_multiparts", "bucket: live multiparts left alone",
        "the store aborts uploads that may still be resumed",
        "raise the days of the lifecycle rule that aborts incomplete multiparts above MULTIPART_TTL";
    EXPIRING: Broken, "bucket_expiry_rules", "bucket: no rule deletes images",
        "the store deletes images, uploads that wait for their confirm, or the deployment's id",
        "keep the prefixes u/, in/ and valet/ out of the lifecycle rule's Expiration; noncurrent versions may expire";
    ARCHIVING: Broken, "bucket_transition_rules", "bucket: no rule archives images",
        "archived images cannot be read before they are restored",
        "keep the prefixes u/, in/ and valet/ out of transitions to GLACIER and DEEP_ARCHIVE; the other classes are read at once";
    RETENTION: Broken, "bucket_default_retention", "bucket: no default retention",
        "nothing can be deleted before its retention ends: images and accounts are only hidden, and paid for; this check writes nothing there",
        "take the default retention of Object Lock off the bucket, or use one without it";
    ACCESS_BLOCK: Advice, "bucket_access_block", "bucket: public access block",
        "a policy or an ACL can make the bucket public by mistake",
        "valet check --fix, with credentials that may s3:PutBucketPublicAccessBlock";
    CLEAN: Advice, "check_cleanup", "check: nothing left behind",
        "objects of this check are still under check/",
        "run it again: it removes what is older than a quarter of an hour; or delete what lies under check/ by hand";
}
