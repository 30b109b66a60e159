//! Defects in limits, root elements and settings of other stores, and of proxies in front of them.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{StatusCode, header::HeaderValue, http::request::Parts};

use super::{Defect, ProxyState, status};
use crate::relay::Answer;

/// Object Lock configuration that retains every new version.
const LOCKED: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                      <Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>";

impl ProxyState {
    /// Returns whether a body is rejected by its announced length, before any of it is read.
    pub(super) fn exceeds_limit(&self, parts: &Parts) -> bool {
        let length = parts.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let is_part = parts.uri.query().unwrap_or_default().contains("partNumber");
        let caps = self.defect == Defect::CapsBodies || (self.defect == Defect::CapsParts && is_part);
        caps && length.is_some_and(|length| length > 1 << 20)
    }

    /// Returns the answer to a query about the bucket; `None` if the store answers it.
    pub(super) fn bucket_answer(&self, query: &str) -> Option<Answer> {
        let (code, text) = match self.defect {
            Defect::LocksByDefault if query.contains("object-lock") => (StatusCode::OK, LOCKED),
            Defect::ListsNothing if query.contains("list-type=2") || query.contains("versions") => {
                (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>")
            }
            _ => return None,
        };
        let mut answer = status(code);
        *answer.body_mut() = Bytes::from_static(text.as_bytes()).into();
        Some(answer)
    }

    /// Rewrites the store's answer in another store's form.
    pub(super) async fn rewrite_answer(&self, answer: &mut Answer) {
        if self.defect == Defect::IsElsewhere {
            answer.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static("eu-west-1"));
            return;
        }
        if answer.headers().get("content-type").is_none_or(|kind| kind != "application/xml") {
            return;
        }
        let body = std::mem::take(answer.body_mut()).collect().await.unwrap().to_bytes();
        let mut text = String::from_utf8(body.to_vec()).unwrap();
        for (name, replacement) in [
            ("InitiateMultipartUploadResult", "InitiateMultipartUpload"),
            ("ListPartsResult", "ListPartsResponse"),
            ("<Error>", "<ErrorResponse><Error>"),
            ("</Error>", "</Error></ErrorResponse>"),
        ] {
            text = text.replace(name, replacement);
        }
        answer.headers_mut().remove("content-length");
        *answer.body_mut() = Bytes::from(text).into();
    }
}
