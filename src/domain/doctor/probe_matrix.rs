//! The table of what is asked about signed requests: each guarantee, of every kind of request that Valet signs.
//!
//! `valet check` asks all of it; the server asks at start what decides which uploads the store can stand
//! ([`Deviation::is_critical`]). A guarantee that holds for one kind says nothing of another: Ceph RGW refuses an unsigned copy source
//! on a part of signed length and obeys it on one of any length.

use super::{report::Rule, rules};

/// A kind of signed request, as a client gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// The PUT of an image, which signs type, length, digest and `if-none-match`.
    Put,
    /// The PUT of its preview, signed in the same way.
    Preview,
    /// A part whose length is signed.
    Part,
    /// A part of any length: Uppy does not tell it.
    AnyPart,
    /// The call by which Uppy's own client opens a multipart upload.
    Create,
    /// The call by which it completes one.
    Complete,
    /// A form with a POST policy.
    Form,
    /// The GET of an image.
    Get,
}

impl RequestKind {
    /// The name in the table.
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

    /// Whether it is a call of a multipart upload, which not every store has.
    pub fn is_multipart(self) -> bool {
        matches!(self, Self::Part | Self::AnyPart | Self::Create | Self::Complete)
    }

    /// Whether it brings bytes whose digest was declared.
    pub fn has_digest(self) -> bool {
        matches!(self, Self::Put | Self::Preview)
    }
}

/// A change of a request after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deviation {
    /// Nothing: a store that refuses the request as it was signed proves nothing by refusing others.
    Nothing,
    /// A digit of the signature.
    Signature,
    /// A query parameter more.
    Query,
    /// The time: the URL has expired.
    Expired,
    /// A longer body.
    Length,
    /// Another media type.
    Type,
    /// A header that makes it a copy of another object.
    CopySource,
    /// A header that publishes the object, by a canned ACL.
    Acl,
    /// The same, by a grant.
    Grant,
    /// A header that adds user metadata.
    Metadata,
    /// A header that tags the object.
    Tagging,
    /// A header that makes S3 website hosting redirect readers of the object.
    Redirect,
    /// Headers that encrypt it with a key of the client's.
    CustomerKey,
    /// A header that archives it.
    StorageClass,
}

use Deviation as D;
use RequestKind as K;

/// Each deviation with the kinds for which it can mean something.
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

/// `AES256` with a key of 32 times the letter k: what [`Deviation::CustomerKey`] encrypts with, its base64 and that of its MD5.
const CUSTOMER_KEY: [&str; 2] = ["a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", "mT2HRsMGJ5IX5C+0rreZ8Q=="];

impl Deviation {
    /// The line of the doctor's table that it belongs to. `None` where nothing deviates.
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

    /// Whether it reads or publishes what is another's or private: the server does not sign what cannot stand it.
    pub fn is_critical(self) -> bool {
        matches!(self, Self::CopySource | Self::Acl | Self::Grant)
    }

    /// Describes the change in a few words.
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

    /// The headers that it adds; `source` names an object to copy.
    pub fn headers(self, source: &str) -> Vec<(&'static str, String)> {
        let one = |name, value: &str| vec![(name, value.to_owned())];
        match self {
            Self::Nothing | Self::Signature | Self::Query | Self::Expired | Self::Length => Vec::new(),
            Self::Type => one("content-type", "text/html"),
            Self::CopySource => one("x-amz-copy-source", source),
            Self::Acl => one("x-amz-acl", "public-read"),
            Self::Grant => one("x-amz-grant-read", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\""),
            Self::Metadata => one("x-amz-meta-valet-check", "unsigned"),
            Self::Tagging => one("x-amz-tagging", "valet-check=unsigned"),
            Self::Redirect => one("x-amz-website-redirect-location", "https://example.com/"),
            Self::CustomerKey => vec![
                ("x-amz-server-side-encryption-customer-algorithm", "AES256".to_owned()),
                ("x-amz-server-side-encryption-customer-key", CUSTOMER_KEY[0].to_owned()),
                ("x-amz-server-side-encryption-customer-key-md5", CUSTOMER_KEY[1].to_owned()),
            ],
            Self::StorageClass => one("x-amz-storage-class", "GLACIER"),
        }
    }
}
