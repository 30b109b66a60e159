//! The rules of the doctor: requirements for the database and the bucket, with the consequence and the remedy of each. The
//! header of `mod.rs` says which file has the probe of a rule.

use super::report::{
    Rule,
    Severity::{Advice, Broken, Weaker},
};

macro_rules! rules {
    ($($rule:ident: $severity:expr, $id:literal, $name:literal, $consequence:literal, $remedy:literal;)*) => {
        $(pub(super) static $rule: Rule =
            Rule { id: $id, name: $name, severity: $severity, consequence: $consequence, remedy: $remedy };)*
        /// All rules, in the order of the table. `docs/check.md` lists their ids.
        pub static ALL: &[&Rule] = &[$(&$rule),*];
    };
}

rules! {
    SETTINGS: Broken, "settings", "settings: well-formed",
        "nothing starts",
        "correct the named settings; docs/configuration.md describes them";
    PAIR: Broken, "deployment_pair", "bucket and database belong together",
        "every object looks orphaned, and every image looks as if it had no object: `serve`, `sweep` and `recount` refuse to start",
        "check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; after a deliberate restore or move, run `valet join`";
    STAMPS: Weaker, "deployment_stamps", "bucket and database are from the same time",
        "objects of uploads after the database's backup have no record, or records of uploads after the bucket's have no object; \
         `sweep --orphans --delete` refuses in the former case",
        "see that this restore is the intended one (\"Backups\" in docs/deployment.md), then run `valet join`";
    DATABASE: Broken, "mongodb_reachable", "MongoDB: reachable",
        "nothing works",
        "check MONGODB_URI, the network and the user's permissions";
    REPLICA_SET: Broken, "mongodb_replica_set", "MongoDB: replica set",
        "there are no transactions: `recount` cannot read a consistent state of a user and their images",
        "make it a replica set (one member is enough: --replSet and replSetInitiate)";
    PRIMARY: Broken, "mongodb_primary", "MongoDB: writable primary",
        "nothing can be written: uploads and confirms answer 503",
        "connect to the whole set (replicaSet=… in MONGODB_URI), and check that it has a primary";
    MAJORITY: Broken, "mongodb_majority_write", "MongoDB: majority write",
        "no confirm is acknowledged durably",
        "check that a majority of data-bearing members is up, and that the user may write (readWrite on the database)";
    TRANSACTION: Broken, "mongodb_transaction", "MongoDB: transaction",
        "`recount` fails",
        "use a replica set or a sharded cluster of MongoDB 4.4 or newer";
    DATABASE_CLOCK: Weaker, "mongodb_clock", "MongoDB: clock agrees with ours",
        "URLs, sweeps and leases use different clocks: uploads expire early or late",
        "run an NTP client on both machines";
    DATABASE_VERSION: Advice, "mongodb_version", "MongoDB: without known holes",
        "versions before 7.0.32 and 8.0.21 can be attacked over the network (CVE-2025-14847, CVE-2026-6914)",
        "update to 7.0.32, 8.0.21 or newer, and make it reachable from this server only";

    PROVIDER: Broken, "provider_keys", "sign-in: provider's keys",
        "the identity provider's users get 503",
        "check OIDC_ISSUER (byte for byte the `issuer` of its /.well-known/openid-configuration) and the network route to it";

    CREDENTIALS: Broken, "s3_credentials", "S3: credentials found",
        "nothing can be signed",
        "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, and AWS_REGION";
    BUCKET: Broken, "s3_bucket", "S3: bucket reachable",
        "nothing works",
        "check S3_BUCKET, S3_ENDPOINT, S3_FORCE_PATH_STYLE, AWS_REGION and the permissions of the credentials";
    REGION: Weaker, "s3_region", "S3: region is the bucket's",
        "a store that verifies the region refuses every call and every URL",
        "set AWS_REGION to the bucket's region";
    TRANSPORT: Weaker, "s3_public_tls", "S3: public endpoint over TLS",
        "URLs and images can be intercepted, and pages served over https may not use them",
        "give S3_PUBLIC_ENDPOINT an https address";
    STORE_CLOCK: Weaker, "s3_clock", "S3: clock agrees with ours",
        "URLs become valid or expire at the wrong time; S3 refuses a difference of 15 minutes or more",
        "run an NTP client on both machines";
    PUT: Broken, "upload_put", "upload: presigned PUT accepted",
        "no client can upload",
        "check S3_PUBLIC_ENDPOINT (the host that clients use, which must be reachable from here), s3:PutObject, and proxies that change Host or headers; set AWS_CA_BUNDLE or SSL_CERT_FILE for a private certificate authority";
    SIGNATURE: Broken, "upload_signature", "upload: signature verified",
        "anyone can write any object",
        "turn signature checking on (LocalStack: S3_SKIP_SIGNATURE_VALIDATION=0), or use another store";
    LENGTH: Weaker, "upload_length", "upload: signed length enforced",
        "a URL can upload up to 5 GiB regardless of the declared size; confirm rejects the object after it was stored",
        "use a store that verifies signed headers, or a proxy in front of it that limits bodies";
    TYPE: Weaker, "upload_type", "upload: signed type enforced",
        "a URL can upload any type; confirm rejects the object after it was stored",
        "use a store that verifies signed headers";
    UNSIGNED: Weaker, "upload_unsigned_headers", "upload: unsigned x-amz-* refused",
        "a client can add metadata, tags or a redirect to its own object, or make it unreadable; confirm rejects objects with headers that would be served",
        "use a store that refuses unsigned x-amz-* headers";
    COPY_SOURCE: Broken, "upload_copy_source", "upload: unsigned copy source refused",
        "a URL can copy any object that these credentials can read: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store; confirm copies and checks all others",
        "use a store that refuses unsigned x-amz-* headers, or put a proxy in front of it that refuses x-amz-copy-source in presigned requests; let the credentials read this bucket only; never set S3_FINALIZE=in-place";
    ACL: Broken, "upload_acl", "upload: unsigned ACL without effect",
        "a URL can publish the object that it writes: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store, and all others if a PUT cannot be sealed (the next line)",
        "valet check --fix sets the public access block, which ignores ACLs; servers notice within two minutes, or within an hour if PUTs are sealed";
    SEALED: Weaker, "upload_sealed_put", "upload: sealed PUT refuses unsigned headers",
        "a PUT can be turned into a copy, which confirm hashes and rejects; with S3_FINALIZE=in-place, or if an unsigned ACL has an effect, every upload is refused with 409 not_supported_by_store",
        "leave S3_FINALIZE at auto; against ACLs run valet check --fix, which makes the bucket ignore them; against copies use a store, or a proxy in front of it, that refuses unsigned x-amz-* headers";
    CHECKSUM: Weaker, "upload_checksum", "upload: checksum enforced",
        "bytes other than the declared ones can be stored; with S3_FINALIZE=auto or copy, confirm copies each upload and hashes the copy",
        "nothing, unless S3_FINALIZE=in-place is set; expect this server to read each image once";
    ONCE: Weaker, "upload_once", "upload: If-None-Match enforced",
        "a URL can write repeatedly while it is valid; with S3_FINALIZE=auto or copy, confirm copies each upload to a key that no URL writes",
        "nothing, unless S3_FINALIZE=in-place is set: then images can be replaced after confirm";
    OVERLAP: Weaker, "upload_overlap", "upload: one winner of overlapping PUTs",
        "two transfers of one URL can both succeed; with S3_FINALIZE=auto or copy, confirm copies each upload",
        "nothing, unless S3_FINALIZE=in-place is set";
    EXPIRY: Broken, "upload_expiry", "upload: expired URL refused",
        "URLs never expire: deleted images can be uploaded again",
        "use a store that checks X-Amz-Expires, and set its clock";
    BODY_CAP: Broken, "upload_body_cap", "upload: body of UPLOAD_MAX_BYTES accepted",
        "the store, or a proxy in front of it, refuses files that Valet accepts",
        "raise the limit of the proxy (nginx: client_max_body_size) or of the store, or lower UPLOAD_MAX_BYTES";

    FORM: Weaker, "upload_form", "upload: signed form accepted",
        "Uppy's plain uploads, which are forms, do not arrive; its multipart uploads and all other clients do not use them",
        "configure Uppy to upload in parts (shouldUseMultipart: true), or use a store that supports POST policies";

    HEAD: Broken, "object_head", "object: HEAD returns size and type",
        "confirm cannot see what was uploaded",
        "give the credentials s3:GetObject, and use a store that keeps Content-Type and sends an ETag (JuiceFS: --object-meta --keep-etag)";
    HEAD_CHECKSUM: Weaker, "object_head_checksum", "object: HEAD returns the checksum",
        "confirm has to read and hash each image here",
        "use a store that keeps x-amz-checksum-sha256; expect this server to read each image once";
    LIST: Broken, "object_missing", "object: missing key is 404",
        "an upload that has not arrived looks like an outage: confirm answers 503 instead of 409, and the sweeper does not expire it",
        "give the credentials s3:ListBucket on the bucket";
    RANGE: Broken, "object_range", "object: range GET",
        "confirm cannot read an image's header, and players cannot seek",
        "use a store, and proxies, that honour Range";
    OVERRIDES: Broken, "object_overrides", "object: response-* overrides",
        "images are served without a fixed type and caching, and downloads without their file name",
        "use a store that honours response-content-type, response-cache-control and response-content-disposition";
    ANONYMOUS: Broken, "object_anonymous", "object: anonymous access refused",
        "anyone who learns or guesses an object key can read or write it without a presigned URL",
        "remove public policies and ACLs (valet check --fix sets the public access block); LocalStack Community cannot refuse it, and is for development only";
    COPY: Weaker, "object_copy", "object: conditional copy",
        "an upload that is copied at confirm can be replaced between inspection and copy",
        "use a store that honours x-amz-copy-source-if-match; give the credentials s3:GetObject and s3:PutObject";
    VERSIONS: Weaker, "object_versions", "object: versions listed",
        "in a bucket with versioning, deleted images stay as old versions",
        "give the credentials s3:ListBucketVersions and s3:DeleteObjectVersion, or leave versioning off";
    DELETE: Broken, "object_delete", "object: delete",
        "deleted images stay in the bucket",
        "give the credentials s3:DeleteObject";
    RETAINED: Broken, "object_retained", "object: versions deleted",
        "a delete only hides objects: the bytes of deleted images and accounts stay, and cost money",
        "remove the default retention of Object Lock from the bucket, or use a bucket without Object Lock; retained versions can be deleted when their retention ends. Without Object Lock: give the credentials s3:DeleteObjectVersion";

    MULTIPART: Broken, "multipart_upload", "multipart: create, part, list, complete",
        "big files cannot be uploaded",
        "give the credentials s3:PutObject and s3:ListMultipartUploadParts; check S3_PUBLIC_ENDPOINT";
    PART_CHECKSUM: Weaker, "multipart_part_checksum", "multipart: part checksum enforced",
        "only the client can detect a part that was corrupted in transit",
        "use a store that verifies x-amz-checksum-sha256";
    PARTS_SUMMED: Weaker, "multipart_checksums_listed", "multipart: part checksums listed",
        "an upload that was opened with checksums cannot be completed without them (SeaweedFS); with S3_FINALIZE=auto or copy Valet opens uploads without them, and the store still verifies parts that carry them",
        "nothing, unless S3_FINALIZE=in-place is set: then clients must leave partChecksums at none";
    COMPLETE_ONCE: Weaker, "multipart_complete_once", "multipart: If-None-Match on complete",
        "two completions of one key can replace each other; Valet opens one upload per key",
        "nothing, as long as only Valet writes to the bucket";
    ABORT: Weaker, "multipart_abort", "multipart: abort",
        "parts of abandoned uploads stay, and cost money",
        "give the credentials s3:AbortMultipartUpload";
    PART_CAP: Broken, "multipart_part_cap", "multipart: part of 5 MiB accepted",
        "big files cannot be uploaded: only the last part may be smaller",
        "raise the limit of the proxy in front of the store to the size of parts (nginx: client_max_body_size)";

    CORS: Broken, "cors_origins", "CORS: every origin may upload",
        "browsers refuse to upload from pages of CORS_ORIGINS",
        "run valet check --fix with the permission s3:PutBucketCORS; otherwise set CORS with the store's own tools";
    EXPOSED: Weaker, "cors_etag", "CORS: ETag exposed",
        "Uppy's multipart uploads do not finish in browsers",
        "run valet check --fix";
    LIFECYCLE: Advice, "bucket_abandoned_multiparts", "bucket: abandoned multiparts aborted",
        "parts without a record in Valet stay, and cost money",
        "run valet check --fix with the permission s3:PutLifecycleConfiguration";
    LIFECYCLE_EARLY: Weaker, "bucket_live_multiparts", "bucket: live multiparts left alone",
        "the store aborts uploads that may still be resumed",
        "raise the days of the lifecycle rule that aborts incomplete multipart uploads above MULTIPART_TTL";
    EXPIRING: Broken, "bucket_expiry_rules", "bucket: no rule deletes images",
        "the store deletes images, uploads that are not confirmed yet, or the deployment's id",
        "keep the prefixes u/, in/ and valet/ out of the lifecycle rule's Expiration; noncurrent versions may expire";
    ARCHIVING: Broken, "bucket_transition_rules", "bucket: no rule archives images",
        "archived images cannot be read before they are restored",
        "keep the prefixes u/, in/ and valet/ out of transitions to GLACIER and DEEP_ARCHIVE; other classes are readable at once";
    RETENTION: Broken, "bucket_default_retention", "bucket: no default retention",
        "nothing can be deleted before its retention ends: images and accounts are only hidden, and cost money; this check writes nothing to the bucket",
        "remove the default retention of Object Lock from the bucket, or use a bucket without it";
    ACCESS_BLOCK: Advice, "bucket_access_block", "bucket: public access block",
        "a policy or an ACL can make the bucket public by mistake",
        "run valet check --fix with the permission s3:PutBucketPublicAccessBlock";
    IMGPROXY: Weaker, "imgproxy_picture", "imgproxy: makes a picture",
        "images without a preview of their client show none",
        "check IMGPROXY_URL, IMGPROXY_KEY and IMGPROXY_SALT; let imgproxy read the bucket (IMGPROXY_USE_S3, IMGPROXY_ALLOWED_SOURCES, s3:GetObject on u/* and check/*)";
    IMGPROXY_SIGNATURE: Broken, "imgproxy_signature", "imgproxy: only signed URLs",
        "anyone who learns or guesses an object key can read the image",
        "give imgproxy the same IMGPROXY_KEY and IMGPROXY_SALT: without them it accepts every URL";
    WORKERS: Weaker, "preview_workers", "previews: workers keep up",
        "images that became ready have no previews, and load in full",
        "run valet worker with the settings of the servers; if one runs, its log and valet_preview_attempts_total say why it does not keep up: add workers if most images are made";
    NOTIFICATIONS: Weaker, "bucket_notifications", "bucket: uploads are announced",
        "an upload whose client died is confirmed only after its URL has expired",
        "run valet check --fix, or set the bucket's notifications as docs/notifications.md says; the queue must permit the bucket to send";
    CLEAN: Advice, "check_cleanup", "check: nothing left behind",
        "objects of this check are still under check/",
        "run it again after 15 minutes: it removes older objects; or delete the objects under check/ by hand";
}
