//! The rules: what Valet needs of its database and its bucket, and what follows when it is not so.

use super::report::{
    Rule,
    Severity::{Advice, Broken, Weaker},
};

macro_rules! rules {
    ($($id:ident: $severity:expr, $name:literal, $consequence:literal, $remedy:literal;)*) => {
        $(pub(super) static $id: Rule =
            Rule { name: $name, severity: $severity, consequence: $consequence, remedy: $remedy };)*
        /// All of them; the names are the table's first column.
        pub static ALL: &[&Rule] = &[$(&$id),*];
    };
}

rules! {
    PAIR: Broken, "bucket and database belong together",
        "every object looks abandoned, and every image without an object: `serve`, `sweep` and `recount` refuse to start",
        "check S3_BUCKET, MONGODB_URI and MONGODB_DATABASE; after a deliberate restore or move, run `valet join`";
    DATABASE: Broken, "MongoDB: reachable",
        "nothing works",
        "check MONGODB_URI, the network and the user's rights";
    REPLICA_SET: Broken, "MongoDB: replica set",
        "there are no transactions: `recount` cannot read a user and their images as of one moment",
        "make it a replica set (one member is enough: --replSet and replSetInitiate)";
    PRIMARY: Broken, "MongoDB: writable primary",
        "nothing can be written: uploads and confirms answer 503",
        "connect to the whole set (replicaSet=… in MONGODB_URI), and see that it has a primary";
    MAJORITY: Broken, "MongoDB: majority write",
        "no confirm can be acknowledged for good",
        "see that most data-bearing members are up, and that the user may write (readWrite on the database)";
    TRANSACTION: Broken, "MongoDB: transaction",
        "`recount` fails",
        "use a replica set or a sharded cluster of MongoDB 4.4 or newer";
    DATABASE_CLOCK: Weaker, "MongoDB: clock agrees with ours",
        "URLs, sweeps and leases go by different clocks: uploads expire early or late",
        "run an NTP client on both machines";
    DATABASE_VERSION: Advice, "MongoDB: without known holes",
        "versions before 7.0.32 and 8.0.21 can be attacked over the network (CVE-2025-14847, CVE-2026-6914)",
        "update to 7.0.32, 8.0.21 or newer, and let nobody but this server reach it";

    PROVIDER: Broken, "sign-in: provider's keys",
        "the identity provider's users get 503",
        "check OIDC_ISSUER (byte for byte the `issuer` of its /.well-known/openid-configuration) and the way to it";

    CREDENTIALS: Broken, "S3: credentials found",
        "nothing can be signed",
        "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, and AWS_REGION";
    BUCKET: Broken, "S3: bucket reachable",
        "nothing works",
        "check S3_BUCKET, S3_ENDPOINT, S3_FORCE_PATH_STYLE, AWS_REGION and the rights of the credentials";
    TRANSPORT: Weaker, "S3: public endpoint over TLS",
        "URLs and images can be read on their way, and pages served over https may not use them",
        "give S3_PUBLIC_ENDPOINT an https address";
    STORE_CLOCK: Weaker, "S3: clock agrees with ours",
        "URLs begin or end at the wrong time; from 15 minutes on S3 refuses them",
        "run an NTP client on both machines";
    PUT: Broken, "upload: presigned PUT accepted",
        "no client can upload",
        "check S3_PUBLIC_ENDPOINT (the very host clients use, reachable from here), s3:PutObject, and proxies that change Host or headers";
    SIGNATURE: Broken, "upload: signature verified",
        "anyone can write what and where they like",
        "turn signature checking on (LocalStack: S3_SKIP_SIGNATURE_VALIDATION=0), or use another store";
    LENGTH: Weaker, "upload: signed length enforced",
        "a URL can bring up to 5 GiB, whatever was declared; confirm rejects it, after it was stored",
        "use a store that verifies signed headers, or a proxy before it that limits bodies";
    TYPE: Weaker, "upload: signed type enforced",
        "a URL can bring any type; confirm rejects it, after it was stored",
        "use a store that verifies signed headers";
    UNSIGNED: Weaker, "upload: unsigned x-amz-* refused",
        "a client can add metadata, tags or a redirect to its own object, or make it unreadable; confirm refuses what would be served",
        "use a store that refuses unsigned x-amz-* headers";
    COPY_SOURCE: Broken, "upload: unsigned copy source refused",
        "a URL can bring any object that these credentials can read: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store; confirm copies and checks all others",
        "use a store that refuses unsigned x-amz-* headers, or have every request to this one pass a proxy that refuses x-amz-copy-source in presigned requests; let the credentials read this bucket only; never set S3_FINALIZE=in-place";
    ACL: Broken, "upload: unsigned ACL without effect",
        "a URL can publish what it writes: uploads without a declared digest (multipart, Uppy) are refused with 409 not_supported_by_store, and all others where a PUT cannot be sealed (the next line)",
        "valet check --fix sets the public access block, which ignores ACLs; servers notice within two minutes, or an hour where PUTs are sealed";
    SEALED: Weaker, "upload: sealed PUT refuses unsigned headers",
        "a PUT can be made a copy, which confirm hashes and refuses; with S3_FINALIZE=in-place, or where an unsigned ACL has an effect, every upload is refused with 409 not_supported_by_store",
        "leave S3_FINALIZE at auto; against ACLs run valet check --fix, which has the bucket ignore them; against copies nothing helps but a store that refuses unsigned x-amz-* headers, or a proxy that does";
    CHECKSUM: Weaker, "upload: checksum enforced",
        "other bytes than promised can be stored; with S3_FINALIZE=auto or copy, confirm copies each upload and hashes the copy",
        "nothing, unless S3_FINALIZE=in-place is set; expect each image's bytes to pass through this server once";
    ONCE: Weaker, "upload: If-None-Match enforced",
        "a URL can write again while it lives; with S3_FINALIZE=auto or copy, confirm copies each upload to a key that no URL writes",
        "nothing, unless S3_FINALIZE=in-place is set: then images can be replaced after confirm";
    OVERLAP: Weaker, "upload: one winner of overlapping PUTs",
        "two transfers of one URL can both succeed; with S3_FINALIZE=auto or copy, confirm copies each upload",
        "nothing, unless S3_FINALIZE=in-place is set";
    EXPIRY: Broken, "upload: expired URL refused",
        "URLs live for ever: deleted images can come back",
        "use a store that checks X-Amz-Expires, and see to its clock";

    FORM: Weaker, "upload: signed form accepted",
        "Uppy's plain uploads, which are forms, do not arrive; its multipart uploads and all other clients do not use them",
        "have Uppy send files in parts (shouldUseMultipart: true), or use a store that takes POST policies";

    HEAD: Broken, "object: HEAD tells size and type",
        "confirm cannot see what was uploaded",
        "give the credentials s3:GetObject, and use a store that keeps Content-Type";
    HEAD_CHECKSUM: Weaker, "object: HEAD tells the checksum",
        "confirm has to read and hash each image here",
        "use a store that keeps x-amz-checksum-sha256; expect each image's bytes to pass through this server once";
    LIST: Broken, "object: missing key is 404",
        "an upload that has not come looks like a failure: confirm answers 503 instead of 409, and the sweeper does not end it",
        "give the credentials s3:ListBucket on the bucket";
    RANGE: Broken, "object: range GET",
        "confirm cannot read an image's head, and players cannot seek",
        "use a store, and proxies, that honour Range";
    OVERRIDES: Broken, "object: response-* overrides",
        "images are served without a pinned type and caching, and downloads without their file name",
        "use a store that honours response-content-type, response-cache-control and response-content-disposition";
    ANONYMOUS: Broken, "object: anonymous access refused",
        "whoever learns or guesses a key reads, or writes, without a URL of ours",
        "remove public policies and ACLs (valet check --fix sets the public access block); LocalStack community cannot, and is for development only";
    COPY: Weaker, "object: conditional copy",
        "an upload that has to be copied at confirm could be replaced between check and copy",
        "use a store that honours x-amz-copy-source-if-match; give the credentials s3:GetObject and s3:PutObject";
    VERSIONS: Weaker, "object: versions listed",
        "in a bucket with versioning, deleted images stay as old versions",
        "give the credentials s3:ListBucketVersions and s3:DeleteObjectVersion, or leave versioning off";
    DELETE: Broken, "object: delete",
        "deleted images stay in the bucket",
        "give the credentials s3:DeleteObject";
    RETAINED: Broken, "object: versions deleted",
        "a delete only hides: the bytes of deleted images and accounts stay, and are paid for",
        "take the default retention of Object Lock off the bucket, or use one without Object Lock; versions that are retained can be deleted when their retention ends. Without Object Lock: give the credentials s3:DeleteObjectVersion";

    MULTIPART: Broken, "multipart: create, part, list, complete",
        "big files cannot be uploaded",
        "give the credentials s3:PutObject and s3:ListMultipartUploadParts; check S3_PUBLIC_ENDPOINT";
    PART_CHECKSUM: Weaker, "multipart: part checksum enforced",
        "a part that broke on its way is noticed by nobody but the client",
        "use a store that verifies x-amz-checksum-sha256";
    PARTS_SUMMED: Weaker, "multipart: part checksums listed",
        "an upload that was opened with them may not be completed without them (SeaweedFS); with S3_FINALIZE=auto or copy Valet does not announce them, and the store verifies the parts that carry them all the same",
        "nothing, unless S3_FINALIZE=in-place is set: then have clients leave partChecksums at none";
    COMPLETE_ONCE: Weaker, "multipart: If-None-Match on complete",
        "two completions of one key can replace each other; Valet begins one upload for a key",
        "nothing, as long as only Valet writes to the bucket";
    ABORT: Weaker, "multipart: abort",
        "parts of abandoned uploads stay, and are paid for",
        "give the credentials s3:AbortMultipartUpload";

    CORS: Broken, "CORS: every origin may upload",
        "browsers refuse to upload from pages of CORS_ORIGINS",
        "valet check --fix, with credentials that may s3:PutBucketCORS; else set the store's own CORS";
    EXPOSED: Weaker, "CORS: ETag exposed",
        "Uppy's multipart uploads do not finish in browsers",
        "valet check --fix";
    LIFECYCLE: Advice, "bucket: abandoned multiparts aborted",
        "parts that Valet has lost track of stay, and are paid for",
        "valet check --fix, with credentials that may s3:PutLifecycleConfiguration";
    LIFECYCLE_EARLY: Weaker, "bucket: live multiparts left alone",
        "the store aborts uploads that may still be resumed",
        "raise the days of the lifecycle rule that aborts incomplete multiparts above MULTIPART_TTL";
    ACCESS_BLOCK: Advice, "bucket: public access block",
        "a policy or an ACL can make the bucket public by mistake",
        "valet check --fix, with credentials that may s3:PutBucketPublicAccessBlock";
    CLEAN: Advice, "check: nothing left behind",
        "objects of this check are still under check/",
        "run it again: it removes what is older than an hour";
}
