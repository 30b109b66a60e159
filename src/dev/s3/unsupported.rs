//! Headers that change how AWS stores an object and that this server does not implement. They are rejected: otherwise a developer
//! would notice only in production that they had no effect here. ACLs and grants are rejected as on AWS, where new buckets do not
//! support them ("Controlling ownership of objects and disabling ACLs" in the S3 user guide).

use hyper::header::HeaderMap;
use s3s::{S3Error, S3ErrorCode, s3_error};

/// Headers of requests that store objects, each with the accepted values: those that describe the behaviour of this server.
const HEADERS: [(&str, &[&str]); 19] = [
    ("x-amz-acl", &["private", "bucket-owner-full-control"]),
    ("x-amz-bucket-object-lock-enabled", &["false"]),
    ("x-amz-grant-full-control", &[]),
    ("x-amz-grant-read", &[]),
    ("x-amz-grant-read-acp", &[]),
    ("x-amz-grant-write", &[]),
    ("x-amz-grant-write-acp", &[]),
    ("x-amz-object-lock-legal-hold", &["OFF"]),
    ("x-amz-object-lock-mode", &[]),
    ("x-amz-object-lock-retain-until-date", &[]),
    ("x-amz-rename-source", &[]),
    ("x-amz-server-side-encryption", &["AES256"]),
    ("x-amz-server-side-encryption-aws-kms-key-id", &[]),
    ("x-amz-server-side-encryption-context", &[]),
    ("x-amz-server-side-encryption-customer-algorithm", &[]),
    ("x-amz-storage-class", &["STANDARD"]),
    ("x-amz-tagging", &[]),
    ("x-amz-website-redirect-location", &[]),
    ("x-amz-write-offset-bytes", &[]),
];

/// Checks the headers of a request, and those that a presigner moved into its query, as the JavaScript SDK does.
///
/// # Errors
///
/// `AccessControlListNotSupported` (400) for an ACL or a grant; `NotImplemented` (501), which names the header, for any other.
pub(super) fn check(headers: &HeaderMap, query: Option<&str>) -> Result<(), S3Error> {
    let sent = headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()));
    let moved = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned()));
    sent.chain(moved).try_for_each(|(name, value)| check_one(&name, &value))
}

/// Checks the headers of a request that creates a bucket.
///
/// # Errors
///
/// `InvalidBucketAclWithObjectOwnership` (400) for an ACL or a grant, or else those of [`check`].
pub(super) fn check_bucket(headers: &HeaderMap) -> Result<(), S3Error> {
    check(headers, None).map_err(|error| match error.code() {
        S3ErrorCode::AccessControlListNotSupported => s3_error!(
            InvalidBucketAclWithObjectOwnership,
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        ),
        _ => error,
    })
}

/// Checks a field of a form; `acl` and `tagging` have no prefix there.
///
/// # Errors
///
/// The errors of [`check`].
pub(super) fn check_field(name: &str, value: &str) -> Result<(), S3Error> {
    match name {
        "acl" | "tagging" => check_one(&format!("x-amz-{name}"), value),
        name => check_one(name, value),
    }
}

/// Checks one header.
fn check_one(name: &str, value: &str) -> Result<(), S3Error> {
    match HEADERS.iter().find(|(header, _)| *header == name) {
        Some((header, accepted)) if !value.is_empty() && !accepted.contains(&value) => {
            if *header == "x-amz-acl" || header.starts_with("x-amz-grant-") {
                return Err(s3_error!(AccessControlListNotSupported, "The bucket does not allow ACLs"));
            }
            Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented: {header}"))
        }
        _ => Ok(()),
    }
}
