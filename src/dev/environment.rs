//! The file `environment` in the data folder: the settings of the running `valet dev`, for the operator's commands.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::config::Lookup;

/// Name of the file.
pub(super) const FILE: &str = "environment";
/// Settings that the operator's commands need.
const NAMES: [&str; 20] = [
    "MONGODB_URI",
    "MONGODB_DATABASE",
    "S3_BUCKET",
    "S3_ENDPOINT",
    "S3_PUBLIC_ENDPOINT",
    "S3_FORCE_PATH_STYLE",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "JWT_SECRET",
    "JWT_PREVIOUS_SECRETS",
    "WEBHOOK_SECRET",
    "WEBHOOK_ALLOW",
    "PREVIEWS",
    "PREVIEW_HEIF_COMMAND",
    "IMGPROXY_URL",
    "IMGPROXY_KEY",
    "IMGPROXY_SALT",
    "IMGPROXY_PREVIEW",
    "LOG_FORMAT",
];

/// Writes the file, as commands of a shell.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, settings: Lookup<'_>) -> io::Result<()> {
    let export = |name: &str| settings(name).map(|value| format!("export {name}='{}'\n", value.replace('\'', r"'\''")));
    write_private(path, &NAMES.into_iter().filter_map(export).collect::<String>())
}

/// Writes a file. If it is new, only its owner can read it, where the operating system is Unix.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
