//! Finds the mongod binary with the script `localstack/mongod`, which is embedded so that the program works outside of its
//! repository.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::MongodError;

/// The script that finds or downloads mongod, and prints its path.
const SCRIPT: &str = include_str!("../../../localstack/mongod");

/// Returns the path of a mongod that can run here, downloaded if necessary; the download's progress is shown on stderr.
pub(super) async fn find() -> Result<PathBuf, MongodError> {
    let failed = |source| MongodError::Spawn { program: Path::new("sh").to_owned(), source };
    let mut shell = Command::new("sh")
        .arg("-s")
        .env("VALET_MONGOD_EMBEDDED", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = shell.stdin.take() {
        stdin.write_all(SCRIPT.as_bytes()).await.map_err(failed)?;
    }
    let output = shell.wait_with_output().await.map_err(failed)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    // The last line is the path, or the message of a failure.
    match printed.lines().last() {
        Some(path) if output.status.success() => Ok(PathBuf::from(path)),
        Some(message) => Err(MongodError::NoBinary(message.to_owned())),
        None => Err(MongodError::NoBinary(format!("the search for a mongod ended without an answer ({})", output.status))),
    }
}
