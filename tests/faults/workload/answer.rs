//! What came back: read from the wire, and told to the journal.

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::journal::{Answered, Item, now};

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// 0 when nothing did.
    pub status: u16,
    pub json: Value,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn results(&self) -> &[Value] {
        self.json["results"].as_array().map_or(&[], Vec::as_slice)
    }
}

pub(super) async fn receive(sent: Result<reqwest::Response, reqwest::Error>) -> Result<Answer, String> {
    // What was the cause is said by the innermost error; the URL may be a secret.
    let told = |error: reqwest::Error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        text
    };
    let response = sent.map_err(told)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.map_err(told)?.to_vec();
    Ok(Answer { status, headers, json: serde_json::from_slice(&body).unwrap_or_default(), body })
}

/// All that an answer says, but for the id that was asked for and the request's own.
pub(super) fn essence(answer: &Answer, id: &str) -> String {
    let mut json = answer.json.clone();
    let results = json.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten();
    results.filter_map(|result| result.get_mut("problem")?.as_object_mut()).for_each(|problem| drop(problem.remove("requestId")));
    if let Some(members) = json.as_object_mut() {
        members.remove("requestId");
    }
    format!("{} {}", answer.status, json).replace(id, "ID")
}

/// What the journal says of an answer.
pub(super) fn answered(op: u64, asked: &[Item], received: &Result<Answer, String>) -> Answered {
    let mut answered = Answered { op, t1: now(), ..Answered::default() };
    let answer = match received {
        Ok(answer) => answer,
        Err(lost) => {
            answered.lost = Some(lost.clone());
            return answered;
        }
    };
    answered.status = Some(answer.status);
    answered.code = answer.json["code"].as_str().map(str::to_owned);
    if answer.status >= 500 {
        answered.body = Some(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let mut tell = |name: &str, value: &Value| {
        let text = value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|n| n.to_string()));
        answered.told.extend(text.map(|text| (name.to_owned(), text)));
    };
    tell("userId", &answer.json["user"]["id"]);
    tell("bytes", &answer.json["usage"]["bytes"]);
    tell("quotaBytes", &answer.json["usage"]["quotaBytes"]);
    if let Some(session) = answer.json["token"].as_str().and_then(session_of) {
        tell("session", &Value::String(session));
    }
    let json = &answer.json;
    answered.items = if !answer.results().is_empty() {
        answer.results().iter().map(shown).collect()
    } else if let Some(images) = json["images"].as_array() {
        images.iter().map(shown).collect()
    } else if let Some(uploads) = json["uploads"].as_array() {
        uploads.iter().map(|upload| Item { state: Some("pending".to_owned()), ..shown(upload) }).collect()
    } else if json["id"].is_string() {
        vec![Item { status: Some(answer.status), ..shown(json) }]
    } else {
        // What was asked of one image is answered for it.
        let one = |item: &Item| Item {
            id: item.id.clone(),
            status: Some(answer.status),
            code: answered.code.clone(),
            ..Item::default()
        };
        asked.iter().map(one).collect()
    };
    answered
}

/// An image, a ticket, or an item's result with either.
fn shown(json: &Value) -> Item {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let inner = ["ticket", "image"].iter().map(|name| &json[*name]).find(|inner| inner.is_object());
    let image = inner.unwrap_or(json);
    // A ticket of something ready shows the image.
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

/// The session that a token names.
pub fn session_of(token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["sid"].as_str().map(str::to_owned)
}
