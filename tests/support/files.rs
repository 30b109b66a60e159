//! Files to upload. Shared by the test binaries.

use std::path::Path;

use serde_json::{Value, json};

/// Returns the body that declares these bytes.
pub fn declaration(file_name: &str, content_type: &str, bytes: &[u8]) -> Value {
    json!({ "fileName": file_name, "contentType": content_type, "size": bytes.len(), "sha256": sha256(bytes) })
}

/// Returns the SHA-256 in base64.
pub fn sha256(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// Reads a file of tests/fixtures.
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}
