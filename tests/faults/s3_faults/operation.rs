//! Identifies the operation of a request by its method, path, query and headers.

use hyper::{Method, Request};

/// S3 operations that Valet and its clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    HeadObject,
    GetObject,
    PutObject,
    CopyObject,
    DeleteObject,
    HeadBucket,
    ListObjects,
    ListVersions,
    ListUploads,
    CreateMultipart,
    UploadPart,
    ListParts,
    CompleteMultipart,
    AbortMultipart,
    Other,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 15] = [
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::CopyObject,
        Self::DeleteObject,
        Self::HeadBucket,
        Self::ListObjects,
        Self::ListVersions,
        Self::ListUploads,
        Self::CreateMultipart,
        Self::UploadPart,
        Self::ListParts,
        Self::CompleteMultipart,
        Self::AbortMultipart,
        Self::Other,
    ];

    /// Returns the operation of a request whose bucket is in the path.
    pub fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let on_object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
        let query = request.uri().query().unwrap_or_default();
        let has_parameter = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let method = request.method();
        if !on_object {
            return match *method {
                Method::HEAD => Self::HeadBucket,
                Method::GET if has_parameter("versions") => Self::ListVersions,
                Method::GET if has_parameter("uploads") => Self::ListUploads,
                Method::GET if has_parameter("list-type") => Self::ListObjects,
                _ => Self::Other,
            };
        }
        match *method {
            Method::HEAD => Self::HeadObject,
            Method::GET if has_parameter("uploadId") => Self::ListParts,
            Method::GET => Self::GetObject,
            Method::PUT if has_parameter("uploadId") => Self::UploadPart,
            Method::PUT if request.headers().contains_key("x-amz-copy-source") => Self::CopyObject,
            Method::PUT => Self::PutObject,
            Method::POST if has_parameter("uploads") => Self::CreateMultipart,
            Method::POST if has_parameter("uploadId") => Self::CompleteMultipart,
            Method::DELETE if has_parameter("uploadId") => Self::AbortMultipart,
            Method::DELETE => Self::DeleteObject,
            _ => Self::Other,
        }
    }
}
