//! Names of things elsewhere: bucket, endpoint, region, database, files of certificates.

use std::{
    fs::File,
    io::{self, Read},
};

use super::reader::Reader;
use crate::signer::{BucketName, Endpoint, InvalidBucketName, InvalidEndpoint};

/// The longest file of certificates that is read, in bytes: the system's own have a quarter of a mebibyte.
const LONGEST_FILE: u64 = 8 << 20;

/// "Naming restrictions" in the MongoDB manual, for every platform; the last three are the server's own.
fn is_database(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.bytes().any(|byte| b"/\\. \"$*<>:|?\0".contains(&byte))
        && !["admin", "local", "config"].contains(&name)
}

/// How a certificate begins.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Reads a regular file: a device or a pipe may have no end.
fn read_file(path: &str) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Reader<'_> {
    pub(super) fn bucket(&mut self, name: &str) -> BucketName {
        let text = self.required(name, "the name of the bucket");
        text.parse().unwrap_or_else(|error: InvalidBucketName| {
            if !text.is_empty() {
                self.wrong(name, error);
            }
            BucketName::stand_in()
        })
    }

    pub(super) fn database(&mut self, name: &str) -> String {
        let wanted = "a database's name: at most 63 bytes without / \\ . space \" $ * < > : | ?, and not admin, local or config";
        self.checked(name, "valet".to_owned(), wanted, |text| is_database(text).then(|| text.to_owned()))
    }

    pub(super) fn endpoint(&mut self, name: &str) -> Option<Endpoint> {
        let read = self.text(name)?.parse();
        read.map_err(|error: InvalidEndpoint| self.problems.push(format!("{name} {error}"))).ok()
    }

    /// Stores of the operator's own name regions as they like, and most need none.
    pub(super) fn region(&mut self, name: &str, has_endpoint: bool) -> Option<String> {
        let is_region = |text: &str| {
            let aws = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let other = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            (1..=63).contains(&text.len()) && text.bytes().all(|byte| aws(byte) || (has_endpoint && other(byte)))
        };
        let default = has_endpoint.then(|| "us-east-1".to_owned());
        self.checked(name, default, "a region's name such as eu-central-1", |text| is_region(text).then(|| Some(text.to_owned())))
    }

    /// A file with certificates in PEM (RFC 7468).
    pub(super) fn certificates(&mut self, name: &str) -> Option<Vec<u8>> {
        let wanted = "the path of a file, readable here, with certificates in PEM (-----BEGIN CERTIFICATE-----)";
        self.checked(name, None, wanted, |path| {
            let pem = read_file(path).ok()?;
            let begins = pem.windows(BEGIN.len()).any(|window| window == BEGIN);
            begins.then_some(Some(pem))
        })
    }

    /// `RUST_LOG` is read where logging starts, which takes its default for what cannot be read.
    pub(super) fn log_filter(&mut self, name: &str) {
        let wanted = "what is to be logged, such as info or info,valet=debug";
        self.checked(name, (), wanted, |text| tracing_subscriber::EnvFilter::try_new(text).ok().map(drop));
    }
}
