//! The load's own record of what it asked and what it was told: append-only, one JSON line before each request and one after
//! its answer. The checker reads it back from the file, and nothing else of the load.
//!
//! No secret is in it. What must never be seen anywhere is in it by its SHA-256, so that it can be recognised.

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

/// One image in a call: what was asked of it, or what was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of this item; in a single call that of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The problem's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `pending` or `ready`, where a ticket or an image was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Base64 of the SHA-256 of the bytes that are meant, or that were fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idem_key: Option<String>,
}

/// What a call was for; the name of the HTTP operation, but for PUT and GET to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Signup,
    Login,
    Refresh,
    /// A spent refresh token after its child was used: the session must end.
    RefreshReuse,
    Logout,
    Me,
    DeleteAccount,
    /// Upload, batch of uploads or multipart.
    Issue,
    Renew,
    /// To S3, under a presigned URL.
    Put,
    Parts,
    Confirm,
    Gallery,
    Pending,
    Read,
    Image,
    Download,
    /// From S3, under a presigned URL.
    Get,
    Caption,
    Delete,
    /// Another's id, then an unknown one, with the same call: items in that order.
    Probe,
}

/// Before a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub op: u64,
    pub t0: i64,
    pub client: usize,
    /// The account's email.
    pub user: String,
    pub call: Call,
    /// Which server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<usize>,
    /// The call that this one repeats, since it was not answered for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// After it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answered {
    pub op: u64,
    pub t1: i64,
    /// Absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why there was none: the connection was refused, reset, or the time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The whole body of a 5xx, which may tell nothing of the inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Members by name: `userId`, `session`, `bytes`, `quotaBytes`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

/// A line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Asked(Asked),
    Answered(Answered),
    /// A secret that came to be: what it is, and the SHA-256 of its text.
    Secret {
        kind: String,
        sha256: String,
    },
}

/// A call as a whole.
#[derive(Debug, Clone)]
pub struct Op {
    pub asked: Asked,
    /// `None` when the client itself ended before.
    pub answered: Option<Answered>,
}

/// The file that is written.
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    ops: AtomicU64,
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

impl Journal {
    pub fn create(path: &Path) -> Self {
        let file = File::create_new(path).unwrap();
        Self { path: path.to_owned(), file: Mutex::new(file), ops: AtomicU64::new(0) }
    }

    /// The number of the next op.
    pub fn next(&self) -> u64 {
        self.ops.fetch_add(1, Ordering::Relaxed)
    }

    /// Ops so far.
    pub fn count(&self) -> u64 {
        self.ops.load(Ordering::Relaxed)
    }

    /// One `write` of one line: whole, and with the kernel, whatever becomes of this process.
    pub fn write(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        self.file.lock().unwrap().write_all(&text).unwrap();
    }

    pub fn asked(&self, asked: Asked) {
        self.write(&Line::Asked(asked));
    }

    pub fn answered(&self, answered: Answered) {
        self.write(&Line::Answered(answered));
    }

    /// What must be found nowhere.
    pub fn secret(&self, kind: &str, text: &str) {
        self.write(&Line::Secret { kind: kind.to_owned(), sha256: sha256(text.as_bytes()) });
    }

    /// Everything that was written, read back from the file.
    pub fn read(&self) -> Record {
        self.file.lock().unwrap().sync_data().unwrap();
        Record::read(&self.path)
    }
}

/// A journal that was read.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// In the order in which they were asked.
    pub ops: Vec<Op>,
    /// SHA-256 to kind.
    pub secrets: BTreeMap<String, String>,
}

impl Record {
    pub fn read(path: &Path) -> Self {
        let mut record = Self::default();
        let mut at = BTreeMap::new();
        for line in BufReader::new(File::open(path).unwrap()).lines() {
            match serde_json::from_str(&line.unwrap()).expect("a line of the journal") {
                Line::Asked(asked) => {
                    at.insert(asked.op, record.ops.len());
                    record.ops.push(Op { asked, answered: None });
                }
                Line::Answered(answered) => {
                    let op = at[&answered.op];
                    record.ops[op].answered = Some(answered);
                }
                Line::Secret { kind, sha256 } => {
                    record.secrets.insert(sha256, kind);
                }
            }
        }
        record
    }
}
