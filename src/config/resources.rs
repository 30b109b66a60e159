//! Settings that name external resources: bucket, endpoint, region, database, certificate files; and the log filter.

use std::{
    fs::File,
    io::{self, Read},
};

use super::reader::Reader;
use crate::signer::{BucketName, Endpoint, InvalidBucketName, InvalidEndpoint};

/// Maximum bytes that are read of a certificate file; a system's own file has about 256 KiB.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Returns whether the name is valid by "Naming restrictions" in the MongoDB manual, on every platform; the last three names
/// are reserved by the server.
fn is_database_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.bytes().any(|byte| b"/\\. \"$*<>:|?\0".contains(&byte))
        && !["admin", "local", "config"].contains(&name)
}

/// The first line of a certificate in PEM.
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Reads at most [`MAX_FILE_BYTES`] of a regular file. Other files, such as devices and pipes, may be endless, and are an error.
fn read_file(path: &str) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Reader<'_> {
    /// Reads the bucket's name.
    pub(super) fn bucket(&mut self, name: &str) -> BucketName {
        let text = self.required(name, "the name of the bucket");
        text.parse().unwrap_or_else(|error: InvalidBucketName| {
            if !text.is_empty() {
                self.report_invalid(name, error);
            }
            BucketName::stand_in()
        })
    }

    /// Reads the database's name.
    pub(super) fn database(&mut self, name: &str) -> String {
        let wanted = "a database's name: at most 63 bytes without / \\ . space \" $ * < > : | ?, and not admin, local or config";
        self.read_valid(name, "valet".to_owned(), wanted, |text| is_database_name(text).then(|| text.to_owned()))
    }

    /// Reads the endpoint of a store.
    pub(super) fn endpoint(&mut self, name: &str) -> Option<Endpoint> {
        let endpoint = self.text(name)?.parse();
        endpoint.map_err(|error: InvalidEndpoint| self.problems.push(format!("{name} {error}"))).ok()
    }

    /// Reads the region. Stores behind an endpoint have free-form regions, and most need none.
    pub(super) fn region(&mut self, name: &str, has_endpoint: bool) -> Option<String> {
        let is_region = |text: &str| {
            let is_of_aws = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let is_of_other_stores = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            let is_permitted = |byte: u8| is_of_aws(byte) || (has_endpoint && is_of_other_stores(byte));
            (1..=63).contains(&text.len()) && text.bytes().all(is_permitted)
        };
        let default = has_endpoint.then(|| "us-east-1".to_owned());
        self.read_valid(name, default, "a region's name such as eu-central-1", |text| {
            is_region(text).then(|| Some(text.to_owned()))
        })
    }

    /// Reads a file with certificates in PEM (RFC 7468).
    pub(super) fn certificates(&mut self, name: &str) -> Option<Vec<u8>> {
        let wanted = "the path of a readable file with certificates in PEM (-----BEGIN CERTIFICATE-----)";
        self.read_valid(name, None, wanted, |path| {
            let pem = read_file(path).ok()?;
            let has_certificate = pem.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN);
            has_certificate.then_some(Some(pem))
        })
    }

    /// Checks `RUST_LOG`; the logger itself would replace an unreadable value by its default.
    pub(super) fn log_filter(&mut self, name: &str) {
        let wanted = "a log filter, such as info or info,valet=debug";
        self.read_valid(name, (), wanted, |text| tracing_subscriber::EnvFilter::try_new(text).ok().map(drop));
    }
}
