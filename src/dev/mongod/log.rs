//! mongod's log: one file of limited size, and the search for the line that explains a failure.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

/// Size above which the next start truncates the file: a few runs stay readable, and the disk does not fill up.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// Bytes at the end that are searched for an error.
const TAIL_BYTES: u64 = 64 << 10;
/// Maximum length of a message in characters; driver and storage errors are nested.
const MAX_MESSAGE_CHARS: usize = 300;

/// The log of one run. It receives mongod's stdout and stderr instead of `--logpath`, so that it contains the output from before
/// mongod opens its log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Offset at which this run begins.
    start: u64,
}

impl Log {
    /// Opens the file for appending: an earlier mongod that is just ending may still write to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() > MAX_LOG_BYTES {
            file.set_len(0)?;
        }
        let start = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, start })
    }

    /// Returns the file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file as the output of a process.
    pub(super) fn writer(&self) -> io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    /// Returns this run's last error message.
    pub(super) fn last_error(&self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let end = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(TAIL_BYTES)))).ok()?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
        last_error(&String::from_utf8_lossy(&tail))
    }
}

/// Returns the last error: mongod logs a JSON object per line with severities F, E, W, I and D1 to D5, except for failures before
/// its logging works. Prefers an error with its cause, then any error, then the last line.
fn last_error(log: &str) -> Option<String> {
    let mut error = None;
    let mut last = None;
    for line in log.lines().rev().map(str::trim).filter(|line| !line.is_empty()) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            last = last.or(Some(line.to_owned()));
            continue;
        };
        let message = entry["msg"].as_str().unwrap_or_default();
        if matches!(entry["s"].as_str(), Some("F" | "E")) {
            let cause = match &entry["attr"]["error"] {
                Value::String(cause) => Some(cause.as_str()),
                cause => cause["errmsg"].as_str(),
            };
            if let Some(cause) = cause {
                return Some(one_line(&format!("{message}: {cause}")));
            }
            error = error.or(Some(message.to_owned()));
        }
        last = last.or(Some(message.to_owned()));
    }
    error.or(last).map(|message| one_line(&message))
}

/// Returns the message without line breaks and cut to a readable length.
pub(super) fn one_line(message: &str) -> String {
    let words: Vec<_> = message.split_whitespace().collect();
    words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_with_its_cause_is_preferred_to_later_lines() {
        let log = r#"
            {"s":"E","msg":"DBException in initAndListen, terminating","attr":{"error":"DBPathInUse: Unable to lock"}}
            {"s":"E","msg":"later, without a cause","attr":{}}
            {"s":"I","msg":"Now exiting","attr":{"exitCode":100}}"#;
        let expected = "DBException in initAndListen, terminating: DBPathInUse: Unable to lock";
        assert_eq!(last_error(log).as_deref(), Some(expected));
    }

    #[test]
    fn lines_that_are_not_json_are_reported_if_there_is_no_error() {
        let log = "{\"s\":\"I\",\"msg\":\"Automatically disabling TLS\"}\nError parsing command line: unrecognised option\n";
        assert_eq!(last_error(log).as_deref(), Some("Error parsing command line: unrecognised option"));
        assert_eq!(last_error("\n\n"), None);
    }
}
