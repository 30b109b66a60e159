//! Repairs XML responses with another root element than AWS': those of gofakes3 and rclone to `CreateMultipartUpload`, of moto to
//! `ListParts`, of Ceph RGW with the public access block, and errors, which some stores wrap. The SDK cannot parse them.
//!
//! A root is renamed only if a required member is present, so that a proxy's response never becomes an empty S3 response.

use aws_smithy_runtime_api::client::{orchestrator::HttpRequest, orchestrator::HttpResponse, result::ConnectorError};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

/// An operation of the S3 API, and the XML of its response ("Actions" in the S3 API reference).
#[derive(Debug, PartialEq, Eq)]
struct Operation {
    method: &'static str,
    /// A query parameter that no other operation with this method has.
    parameter: &'static str,
    /// Name of the root element.
    root: &'static str,
    /// A member that every response has.
    member: &'static str,
}

/// Operations to which some stores respond with another root.
const OPERATIONS: [Operation; 5] = [
    Operation { method: "POST", parameter: "uploads", root: "InitiateMultipartUploadResult", member: "UploadId" },
    Operation { method: "POST", parameter: "uploadId", root: "CompleteMultipartUploadResult", member: "ETag" },
    Operation { method: "GET", parameter: "uploadId", root: "ListPartsResult", member: "UploadId" },
    Operation { method: "GET", parameter: "uploads", root: "ListMultipartUploadsResult", member: "MaxUploads" },
    Operation {
        method: "GET",
        parameter: "publicAccessBlock",
        root: "PublicAccessBlockConfiguration",
        member: "BlockPublicAcls",
    },
];

/// The expected response of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedResponse(Option<&'static Operation>);

impl ExpectedResponse {
    /// Recognizes the operation by its method and query.
    pub(super) fn for_request(request: &HttpRequest) -> Self {
        Self::find(request.method(), request.uri().split_once('?').map_or("", |(_, query)| query))
    }

    /// Finds the operation of a request with this method and query.
    fn find(method: &str, query: &str) -> Self {
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        Self(OPERATIONS.iter().find(|operation| operation.method == method && has(operation.parameter)))
    }

    /// Gives the response the root that the SDK expects. Successful responses of other operations, which may be long, are not
    /// buffered.
    ///
    /// # Errors
    /// [`ConnectorError`] when the body breaks off.
    pub(super) async fn repair(self, mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
        let is_success = answer.status().is_success();
        if is_success && self.0.is_none() {
            return Ok(answer);
        }
        let body = ByteStream::new(answer.take_body()).collect().await;
        let bytes = body.map_err(|error| ConnectorError::io(error.into()))?.into_bytes();
        let renamed = std::str::from_utf8(&bytes).ok().and_then(|text| match self.0 {
            Some(operation) if is_success => under_expected_root(text, operation),
            _ => unwrap_error(text),
        });
        if renamed.is_some() {
            // The SDK would compare the body's length with it.
            answer.headers_mut().remove("content-length");
        }
        *answer.body_mut() = renamed.map_or_else(|| SdkBody::from(bytes), SdkBody::from);
        Ok(answer)
    }
}

/// Returns the document under the operation's root. `None` if it has that root, or is an error, a listing of objects, or
/// anything else.
fn under_expected_root(text: &str, operation: &Operation) -> Option<String> {
    let (at, name) = root(text)?;
    let local = name.rsplit(':').next().unwrap_or(name);
    if [operation.root, "Error", "ListBucketResult"].contains(&local) || !text.contains(&format!("<{}>", operation.member)) {
        return None;
    }
    let inside = text.get(at + name.len()..)?.trim_end().strip_suffix(&format!("</{name}>"))?;
    Some(format!("<{}{inside}</{}>", operation.root, operation.root))
}

/// Returns an error that another element wraps (`ErrorResponse`) without its wrapper.
fn unwrap_error(text: &str) -> Option<String> {
    let (_, name) = root(text)?;
    if name == "Error" {
        return None;
    }
    let inside = text.split_once("<Error>")?.1.split_once("</Error>")?.0;
    inside.contains("<Code>").then(|| format!("<Error>{inside}</Error>"))
}

/// Returns the name of the root element, and its offset.
fn root(text: &str) -> Option<(usize, &str)> {
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        let begin = rest.find('<')?;
        let tag = rest.get(begin + 1..)?;
        if tag.starts_with(['?', '!']) {
            at += begin + 1 + tag.find('>')? + 1;
            continue;
        }
        let end = tag.find(|letter: char| letter.is_whitespace() || letter == '>' || letter == '/')?;
        return Some((at + begin + 1, tag.get(..end)?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the repaired response to a request, if it had to be repaired.
    fn read(method: &str, query: &str, text: &str) -> Option<String> {
        under_expected_root(text, ExpectedResponse::find(method, query).0?)
    }

    #[test]
    fn responses_with_another_root_are_repaired() {
        for (method, query, given, wanted) in [
            (
                "POST",
                "uploads&x-id=CreateMultipartUpload",
                "<?xml version=\"1.0\"?>\n<InitiateMultipartUpload xmlns=\"x\"><UploadId>7</UploadId></InitiateMultipartUpload>\n",
                "<InitiateMultipartUploadResult xmlns=\"x\"><UploadId>7</UploadId></InitiateMultipartUploadResult>",
            ),
            (
                "GET",
                "uploadId=7&x-id=ListParts",
                "<ListPartsResponse><UploadId>7</UploadId></ListPartsResponse>",
                "<ListPartsResult><UploadId>7</UploadId></ListPartsResult>",
            ),
            (
                "GET",
                "publicAccessBlock",
                "<Block><BlockPublicAcls>true</BlockPublicAcls></Block>",
                "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
            ),
        ] {
            assert_eq!(read(method, query, given).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn other_responses_are_unchanged() {
        for text in [
            "<ListPartsResult><UploadId>7</UploadId></ListPartsResult>",
            "<a:ListPartsResult><UploadId>7</UploadId></a:ListPartsResult>",
            "<Error><Code>InternalError</Code><UploadId>7</UploadId></Error>",
            "<ListBucketResult><UploadId>7</UploadId></ListBucketResult>",
            "<html><body>sign in</body></html>",
            "<ListPartsResponse><UploadId>7</UploadId>",
            "<",
            "",
        ] {
            assert_eq!(read("GET", "uploadId=7", text), None, "{text}");
        }
        assert!(
            ExpectedResponse::find("GET", "x-id=GetObject").0.is_none()
                && ExpectedResponse::find("PUT", "uploadId=7&partNumber=1").0.is_none()
        );
    }

    #[test]
    fn wrapped_errors_are_unwrapped() {
        let nested =
            "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchKey</Code></Error><RequestId>1</RequestId></ErrorResponse>";
        assert_eq!(unwrap_error(nested).as_deref(), Some("<Error><Type>Sender</Type><Code>NoSuchKey</Code></Error>"));
        for text in ["<Error><Code>NoSuchKey</Code></Error>", "<html><Error>no code</Error></html>", "not found", ""] {
            assert_eq!(unwrap_error(text), None, "{text}");
        }
    }
}
