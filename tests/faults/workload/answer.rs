//! Answers of the API: how they are read from the wire and recorded in the journal.

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::journal::{AnswerLine, Item, now};

/// An answer of the API.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status; 0 without an answer.
    pub status: u16,
    pub json: Value,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns whether the status is 2xx.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the results of a batch, or an empty slice.
    pub fn results(&self) -> &[Value] {
        self.json["results"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// Reads a whole response. The error is a text without the URL.
pub(super) async fn receive(sent: Result<reqwest::Response, reqwest::Error>) -> Result<Answer, String> {
    // The text has the error's causes, and lacks the URL, which may contain a secret.
    let text_of = |error: reqwest::Error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        text
    };
    let response = sent.map_err(text_of)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.map_err(text_of)?.to_vec();
    Ok(Answer { status, headers, json: serde_json::from_slice(&body).unwrap_or_default(), body })
}

/// Returns status and body of an answer, without the id of the requested image and without the ids of requests.
pub(super) fn comparable_text(answer: &Answer, id: &str) -> String {
    let mut json = answer.json.clone();
    let results = json.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten();
    results.filter_map(|result| result.get_mut("problem")?.as_object_mut()).for_each(|problem| drop(problem.remove("requestId")));
    if let Some(members) = json.as_object_mut() {
        members.remove("requestId");
    }
    format!("{} {}", answer.status, json).replace(id, "ID")
}

/// Returns the journal's line for an answer.
pub(super) fn answer_line(op: u64, requested: &[Item], received: &Result<Answer, String>) -> AnswerLine {
    let mut line = AnswerLine { op, t1: now(), ..AnswerLine::default() };
    let answer = match received {
        Ok(answer) => answer,
        Err(lost) => {
            line.lost = Some(lost.clone());
            return line;
        }
    };
    line.status = Some(answer.status);
    line.code = answer.json["code"].as_str().map(str::to_owned);
    if answer.status >= 500 {
        line.body = Some(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let mut add_member = |name: &str, value: &Value| {
        let text = value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|n| n.to_string()));
        line.members.extend(text.map(|text| (name.to_owned(), text)));
    };
    add_member("userId", &answer.json["user"]["id"]);
    add_member("bytes", &answer.json["usage"]["bytes"]);
    add_member("quotaBytes", &answer.json["usage"]["quotaBytes"]);
    if let Some(session) = answer.json["token"].as_str().and_then(session_of) {
        add_member("session", &Value::String(session));
    }
    let json = &answer.json;
    line.items = if !answer.results().is_empty() {
        answer.results().iter().map(image_item).collect()
    } else if let Some(images) = json["images"].as_array() {
        images.iter().map(image_item).collect()
    } else if let Some(uploads) = json["uploads"].as_array() {
        uploads.iter().map(|upload| Item { state: Some("pending".to_owned()), ..image_item(upload) }).collect()
    } else if json["id"].is_string() {
        vec![Item { status: Some(answer.status), ..image_item(json) }]
    } else {
        // A call for one image is answered for that image.
        let one =
            |item: &Item| Item { id: item.id.clone(), status: Some(answer.status), code: line.code.clone(), ..Item::default() };
        requested.iter().map(one).collect()
    };
    line
}

/// Returns the journal's item for an image, a ticket, or a batch item's result that contains one of them.
fn image_item(json: &Value) -> Item {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let inner = ["ticket", "image"].iter().map(|name| &json[*name]).find(|inner| inner.is_object());
    let image = inner.unwrap_or(json);
    // The ticket of a ready upload contains the image.
    let image = if image["image"].is_object() { &image["image"] } else { image };
    let is_image = image["uploadedAt"].is_string();
    Item {
        id: text(&image["id"]).or_else(|| text(&json["id"])),
        status: json["status"].as_u64().and_then(|status| status.try_into().ok()),
        code: text(&json["problem"]["code"]),
        state: if is_image { Some("ready".to_owned()) } else { text(&image["state"]) },
        sha256: text(&image["sha256"]),
        size: image["size"].as_u64(),
        content_type: text(&image["contentType"]),
        idem_key: None,
    }
}

/// Returns the session id in a token.
pub fn session_of(token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["sid"].as_str().map(str::to_owned)
}
