//! Names of things elsewhere: bucket, endpoint, region, database, files of certificates.

use std::{
    fs::File,
    io::{self, Read},
};

use super::reader::Reader;
use crate::signer;

/// Beginnings and ends that AWS keeps for itself: access points, S3 Express, tables.
const RESERVED: ([&str; 3], [&str; 5]) =
    (["xn--", "sthree-", "amzn-s3-demo-"], ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]);

/// The longest file of certificates that is read, in bytes: the system's own have a quarter of a mebibyte.
const LONGEST_FILE: u64 = 8 << 20;

/// "General purpose bucket naming rules" in the Amazon S3 user guide; other stores take no more.
fn is_bucket(name: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| is_alphanumeric(*byte));
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| is_alphanumeric(*byte) || b"-.".contains(byte))
        && ends(bytes.first())
        && ends(bytes.last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !RESERVED.0.iter().any(|reserved| name.starts_with(reserved))
        && !RESERVED.1.iter().any(|reserved| name.ends_with(reserved))
}

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
    pub(super) fn bucket(&mut self, name: &str) -> String {
        let bucket = self.required(name, "the name of the bucket");
        if !bucket.is_empty() && !is_bucket(&bucket) {
            self.wrong(
                name,
                "the name of a bucket after AWS' rules: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending \
                 with a letter or digit; no ARN, access point or directory bucket",
            );
        }
        bucket
    }

    pub(super) fn database(&mut self, name: &str) -> String {
        let wanted = "a database's name: at most 63 bytes without / \\ . space \" $ * < > : | ?, and not admin, local or config";
        self.checked(name, "valet".to_owned(), wanted, |text| is_database(text).then(|| text.to_owned()))
    }

    pub(super) fn endpoint(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if let Err(error) = signer::Location::endpoint(&text, "bucket", true) {
            self.problems.push(format!("{name} {error}"));
        }
        Some(text.trim_end_matches('/').to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_names_after_aws_rules() {
        let longest = "a".repeat(63);
        for good in ["valet", "my-bucket.example", "123", "a1b", &longest] {
            assert!(is_bucket(good), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            &too_long,
            "a/b",
            "My_Bucket",
            "my_bucket",
            "a..b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "192.168.5.4",
            "xn--bucket",
            "sthree-bucket",
            "amzn-s3-demo-bucket",
            "bucket-s3alias",
            "bucket--ol-s3",
            "bucket.mrap",
            "bucket--use1-az5--x-s3",
            "bucket--table-s3",
            "arn:aws:s3:us-east-1:123456789012:accesspoint/x",
            "a b",
            "a@b",
            "bücket",
        ] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }
}
