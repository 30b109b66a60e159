//! A store with Object Lock as on AWS: a deleted object stays under a delete marker.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode, http::request::Parts};

use super::{ProxyState, status};
use crate::relay::Answer;

impl ProxyState {
    /// Rejects the deletion of a version, and adds a delete marker for a DELETE without a version.
    pub(super) fn retain(&self, parts: &Parts, key: String, query: &str) -> Option<Answer> {
        let mut marked = self.marked.lock().unwrap();
        match parts.method {
            _ if key.is_empty() => None,
            Method::DELETE if query.contains("versionId=marker") => {
                marked.remove(&key);
                Some(status(StatusCode::NO_CONTENT))
            }
            Method::DELETE if query.contains("versionId") => Some(error(StatusCode::FORBIDDEN, "AccessDenied")),
            Method::DELETE if !query.contains("uploadId") => {
                marked.insert(key);
                Some(status(StatusCode::NO_CONTENT))
            }
            Method::GET | Method::HEAD if marked.contains(&key) => Some(error(StatusCode::NOT_FOUND, "NoSuchKey")),
            _ => None,
        }
    }

    /// Changes a listing to that of a store whose versions are kept under delete markers.
    pub(super) async fn list_marked(&self, answer: &mut Answer) {
        let body = std::mem::take(answer.body_mut()).collect().await.unwrap().to_bytes();
        let mut text = String::from_utf8(body.to_vec()).unwrap().replace("<VersionId>null<", "<VersionId>kept<");
        // A listing of objects omits those under a delete marker.
        let marked = self.marked.lock().unwrap().clone();
        let is_hidden = |item: &&str| marked.iter().any(|key| item.contains(&format!("<Key>{key}</Key>")));
        let hidden: Vec<_> = text.split("<Contents>").skip(1).filter(is_hidden).map(str::to_owned).collect();
        for item in hidden {
            let end = item.find("</Contents>").unwrap() + "</Contents>".len();
            text = text.replace(&format!("<Contents>{}", &item[..end]), "");
        }
        for key in self.marked.lock().unwrap().iter().filter(|key| text.contains(key.as_str())).cloned().collect::<Vec<_>>() {
            let marker = format!(
                "<DeleteMarker><Key>{key}</Key><VersionId>marker</VersionId><IsLatest>true</IsLatest></DeleteMarker></ListVersionsResult>"
            );
            text = text.replace("</ListVersionsResult>", &marker);
        }
        answer.headers_mut().remove("content-length");
        *answer.body_mut() = Bytes::from(text).into();
    }
}

/// Returns an error of S3 with this code.
fn error(status_code: StatusCode, code: &str) -> Answer {
    let mut response = status(status_code);
    *response.body_mut() = Bytes::from(format!("<Error><Code>{code}</Code></Error>")).into();
    response
}
