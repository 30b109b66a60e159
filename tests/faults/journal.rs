//! The load's record of each request and its answer: append-only, one JSON line before each request and one after its answer. It
//! is the only part of the load that the checker reads, and the checker reads it back from the file.
//!
//! It contains no secrets. A secret that must not appear anywhere is recorded by its SHA-256, by which the checker recognises
//! the secret.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::files::sha256;

/// One image in a call: the part of the request or of the answer that concerns it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Status of this item; in a single call the status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Problem code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `pending` or `ready`, if the answer contained a ticket or an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// SHA-256, in base64, of the declared or fetched bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idem_key: Option<String>,
}

/// Purpose of a call: the name of the HTTP operation, or `Put` and `Get` for requests to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Signup,
    Login,
    Refresh,
    /// A spent refresh token, sent within the grace period after its child was used: it is rejected, and the session continues.
    RefreshReuse,
    Logout,
    Me,
    DeleteAccount,
    /// Opening of uploads: a single one, a batch, or a multipart upload.
    Issue,
    Renew,
    /// PUT to S3 with a presigned URL.
    Put,
    Parts,
    Confirm,
    Gallery,
    Pending,
    Read,
    Image,
    Download,
    /// GET from S3 with a presigned URL.
    Get,
    Caption,
    Delete,
    /// A call of the app's backend about a user, which concerns no image.
    Administer,
    /// One call that is made twice: with the id of another user's image, and with an unknown id; the items are in that order.
    Probe,
}

/// Line written before a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestLine {
    /// Number of the call.
    pub op: u64,
    /// Time before the request was sent, in milliseconds since 1970.
    pub t0: i64,
    /// Number of the client.
    pub client: usize,
    /// Email of the account.
    pub user: String,
    pub call: Call,
    /// Number of the server that the request was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<usize>,
    /// Number of the call that this one repeats because it had no final answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// Line written after an answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnswerLine {
    /// Number of the call.
    pub op: u64,
    /// Time after the answer was received, in milliseconds since 1970.
    pub t1: i64,
    /// HTTP status; absent without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Reason for a missing answer: the connection was refused or reset, or the request timed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Whole body of a 5xx, which must not reveal internals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Members of the answer by name: `userId`, `session`, `bytes`, `quotaBytes`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    RequestLine(RequestLine),
    AnswerLine(AnswerLine),
    /// A new secret: its kind, and the SHA-256 of its text.
    Secret {
        kind: String,
        sha256: String,
    },
}

/// A request with its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub request: RequestLine,
    /// `None` if the client ended before the answer.
    pub answer: Option<AnswerLine>,
}

/// The journal file, open for writing.
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// Number of calls so far.
    ops: AtomicU64,
}

/// Returns the time in milliseconds since 1970.
pub fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

impl Journal {
    /// Creates the file; it must not exist.
    pub fn create(path: &Path) -> Self {
        let file = File::create_new(path).unwrap();
        Self { path: path.to_owned(), file: Mutex::new(file), ops: AtomicU64::new(0) }
    }

    /// Returns the number of the next call.
    pub fn next_number(&self) -> u64 {
        self.ops.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the number of calls so far.
    pub fn count(&self) -> u64 {
        self.ops.load(Ordering::Relaxed)
    }

    /// Writes a line with a single `write`, so that it is complete and in the kernel even if this process is killed.
    pub fn write(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        self.file.lock().unwrap().write_all(&text).unwrap();
    }

    /// Writes the line of a request, before it is sent.
    pub fn record_request(&self, request: RequestLine) {
        self.write(&Line::RequestLine(request));
    }

    /// Writes the line of an answer.
    pub fn record_answer(&self, answer: AnswerLine) {
        self.write(&Line::AnswerLine(answer));
    }

    /// Records a secret that must not appear anywhere.
    pub fn record_secret(&self, kind: &str, text: &str) {
        self.write(&Line::Secret { kind: kind.to_owned(), sha256: sha256(text.as_bytes()) });
    }

    /// Reads the whole journal back from the file.
    pub fn read(&self) -> Record {
        self.file.lock().unwrap().sync_data().unwrap();
        Record::read(&self.path)
    }
}

/// A journal that was read back.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Calls in the order of their requests.
    pub ops: Vec<Exchange>,
    /// Kinds of secrets by SHA-256.
    pub secrets: BTreeMap<String, String>,
}

impl Record {
    /// Reads a journal, and adds each answer to its request.
    pub fn read(path: &Path) -> Self {
        let mut record = Self::default();
        let mut index_of_call = BTreeMap::new();
        for line in BufReader::new(File::open(path).unwrap()).lines() {
            match serde_json::from_str(&line.unwrap()).expect("a line of the journal") {
                Line::RequestLine(request) => {
                    index_of_call.insert(request.op, record.ops.len());
                    record.ops.push(Exchange { request, answer: None });
                }
                Line::AnswerLine(answer) => {
                    let index = index_of_call[&answer.op];
                    record.ops[index].answer = Some(answer);
                }
                Line::Secret { kind, sha256 } => {
                    record.secrets.insert(sha256, kind);
                }
            }
        }
        record
    }
}
