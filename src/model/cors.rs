//! Header lists for CORS (Fetch standard, section 3.2), one set for the API and one for the bucket. The API, `valet check
//! --fix` and the local S3 share them, so that a page that works with one works with the others.

/// Request headers that pages may send to the API: those of its contract, and those that tracing libraries add to every call
/// (W3C Trace Context, W3C Baggage, Sentry).
pub const API_REQUEST_HEADERS: [&str; 9] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
];
/// Response headers of the API that pages may read.
pub const API_RESPONSE_HEADERS: [&str; 7] =
    ["retry-after", "ratelimit", "ratelimit-policy", "www-authenticate", "etag", "x-request-id", "date"];
/// Seconds for which browsers may cache a preflight response of the API; browsers cap it at two hours.
pub const API_MAX_AGE: u32 = 7200;

/// Methods of presigned requests.
pub const BUCKET_METHODS: [&str; 5] = ["GET", "PUT", "POST", "HEAD", "DELETE"];
/// Request headers that presigned requests can carry. Listed one by one, because LocalStack compares `x-amz-*` literally.
pub const BUCKET_REQUEST_HEADERS: [&str; 6] =
    ["content-type", "if-none-match", "x-amz-checksum-sha256", "content-md5", "content-disposition", "range"];
/// Response headers of the bucket that pages may read.
pub const BUCKET_RESPONSE_HEADERS: [&str; 6] =
    ["ETag", "Location", "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme", "x-amz-request-id", "x-amz-version-id"];
/// Seconds for which browsers may cache a preflight response of the bucket.
pub const BUCKET_MAX_AGE: i32 = 3000;
