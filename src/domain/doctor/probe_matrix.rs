//! The matrix of probes of signed requests: each deviation from the signature with the kinds of request that Valet signs.
//!
//! `valet check` runs all of them; the server runs those that decide which uploads it opens ([`Deviation::is_critical`]). A
//! guarantee for one kind of request does not imply it for another: Ceph RGW refuses an unsigned copy source on a part of signed
//! length, and obeys it on one of any length.

use super::{report::Rule, rules};

/// A kind of signed request that clients get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// The PUT of an image, which signs type, length, digest and `if-none-match`.
    Put,
    /// The PUT of its preview, signed in the same way.
    Preview,
    /// A part whose length is signed.
    Part,
    /// A part of any length, because Uppy does not declare it.
    AnyPart,
    /// The request by which Uppy's own client opens a multipart upload.
    Create,
    /// The request by which it completes one.
    Complete,
    /// A form with a POST policy.
    Form,
    /// The GET of an image.
    Get,
}

impl RequestKind {
    /// Returns the name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Preview => "preview PUT",
            Self::Part => "part",
            Self::AnyPart => "part of any length",
            Self::Create => "create",
            Self::Complete => "complete",
            Self::Form => "form",
            Self::Get => "GET",
        }
    }

    /// Returns whether the request belongs to a multipart upload, which not every store supports.
    pub fn is_multipart(self) -> bool {
        matches!(self, Self::Part | Self::AnyPart | Self::Create | Self::Complete)
    }

    /// Returns whether the request uploads bytes with a declared digest.
    pub fn has_digest(self) -> bool {
        matches!(self, Self::Put | Self::Preview)
    }
}

/// A change of a request after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deviation {
    /// No change. A store that refuses this request proves nothing by refusing others.
    Nothing,
    /// A changed digit of the signature.
    Signature,
    /// An additional query parameter.
    Query,
    /// An expired URL.
    Expired,
    /// A longer body.
    Length,
    /// Another media type.
    Type,
    /// A header that makes it a copy of another object.
    CopySource,
    /// A header that publishes the object, by a canned ACL.
    Acl,
    /// A header that publishes the object, by a grant.
    Grant,
    /// A header that adds user metadata.
    Metadata,
    /// A header that tags the object.
    Tagging,
    /// A header that makes S3 website hosting redirect readers of the object.
    Redirect,
    /// Headers that encrypt the object with a key of the client's.
    CustomerKey,
    /// A header that archives the object.
    StorageClass,
}

use Deviation as D;
use RequestKind as K;

/// Each deviation with the kinds of request that it can affect.
pub(super) const PROBES: &[(Deviation, &[RequestKind])] = &[
    (D::Nothing, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Form, K::Get]),
    (D::Signature, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Form, K::Get]),
    (D::Query, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Get]),
    (D::Expired, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Form, K::Get]),
    (D::Length, &[K::Put, K::Preview, K::Part]),
    (D::Type, &[K::Put, K::Preview, K::Form]),
    (D::CopySource, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Form]),
    (D::Acl, &[K::Put, K::Preview, K::Part, K::AnyPart, K::Create, K::Complete, K::Form]),
    (D::Grant, &[K::Put, K::Preview, K::Create, K::Form]),
    (D::Metadata, &[K::Put, K::Create, K::Form]),
    (D::Tagging, &[K::Put, K::Create, K::Form]),
    (D::Redirect, &[K::Put, K::Create, K::Form]),
    (D::CustomerKey, &[K::Put, K::AnyPart, K::Create, K::Form]),
    (D::StorageClass, &[K::Put, K::Create, K::Form]),
];

/// Key of [`Deviation::CustomerKey`] for `AES256`, 32 times the letter k: its base64, and that of its MD5.
const CUSTOMER_KEY: [&str; 2] = ["a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", "mT2HRsMGJ5IX5C+0rreZ8Q=="];

impl Deviation {
    /// Returns the rule that the deviation tests. `None` for no deviation.
    pub fn rule(self) -> Option<&'static Rule> {
        Some(match self {
            Self::Nothing => return None,
            Self::Signature | Self::Query => &rules::SIGNATURE,
            Self::Expired => &rules::EXPIRY,
            Self::Length => &rules::LENGTH,
            Self::Type => &rules::TYPE,
            Self::CopySource => &rules::COPY_SOURCE,
            Self::Acl | Self::Grant => &rules::ACL,
            Self::Metadata | Self::Tagging | Self::Redirect | Self::CustomerKey | Self::StorageClass => &rules::UNSIGNED,
        })
    }

    /// Returns whether the deviation reads or publishes objects. The server opens no uploads that are vulnerable to it.
    pub fn is_critical(self) -> bool {
        matches!(self, Self::CopySource | Self::Acl | Self::Grant)
    }

    /// Returns the name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Signature => "signature",
            Self::Query => "query",
            Self::Expired => "expired",
            Self::Length => "length",
            Self::Type => "type",
            Self::CopySource => "copy source",
            Self::Acl => "ACL",
            Self::Grant => "grant",
            Self::Metadata => "metadata",
            Self::Tagging => "tags",
            Self::Redirect => "redirect",
            Self::CustomerKey => "SSE-C",
            Self::StorageClass => "storage class",
        }
    }

    /// Returns the headers that it adds; `source` names an object to copy.
    pub fn headers(self, source: &str) -> Vec<(&'static str, String)> {
        let header = |name, value: &str| vec![(name, value.to_owned())];
        match self {
            Self::Nothing | Self::Signature | Self::Query | Self::Expired | Self::Length => Vec::new(),
            Self::Type => header("content-type", "text/html"),
            Self::CopySource => header("x-amz-copy-source", source),
            Self::Acl => header("x-amz-acl", "public-read"),
            Self::Grant => header("x-amz-grant-read", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\""),
            Self::Metadata => header("x-amz-meta-valet-check", "unsigned"),
            Self::Tagging => header("x-amz-tagging", "valet-check=unsigned"),
            Self::Redirect => header("x-amz-website-redirect-location", "https://example.com/"),
            Self::CustomerKey => vec![
                ("x-amz-server-side-encryption-customer-algorithm", "AES256".to_owned()),
                ("x-amz-server-side-encryption-customer-key", CUSTOMER_KEY[0].to_owned()),
                ("x-amz-server-side-encryption-customer-key-md5", CUSTOMER_KEY[1].to_owned()),
            ],
            Self::StorageClass => header("x-amz-storage-class", "GLACIER"),
        }
    }
}
