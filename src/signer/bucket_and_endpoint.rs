//! Bucket names and S3 endpoints. Parsing validates them, so that other code need not.

use std::{fmt, ops::Deref, str::FromStr};

use url::{Host, Url};

/// Prefixes of names that AWS reserves.
const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
/// Suffixes of names that AWS reserves: access points, S3 Express, tables.
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// The name of a general purpose bucket, as it appears in URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketName(String);

/// The text is not the name of a general purpose bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a bucket after AWS' rules: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a \
     letter or digit; no ARN, access point or directory bucket"
)]
pub struct InvalidBucketName;

impl FromStr for BucketName {
    type Err = InvalidBucketName;

    /// Applies "General purpose bucket naming rules" of the Amazon S3 user guide; other stores accept no more.
    fn from_str(name: &str) -> Result<Self, InvalidBucketName> {
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_valid_end = |byte: Option<&u8>| byte.is_some_and(|byte| is_alphanumeric(*byte));
        let bytes = name.as_bytes();
        let is_name = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| is_alphanumeric(*byte) || b"-.".contains(byte))
            && is_valid_end(bytes.first())
            && is_valid_end(bytes.last())
            && !name.contains("..")
            && name.parse::<std::net::Ipv4Addr>().is_err()
            && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        if is_name { Ok(Self(name.to_owned())) } else { Err(InvalidBucketName) }
    }
}

impl BucketName {
    /// Returns a placeholder for a name that was rejected, so that the settings beside it can be checked.
    pub(crate) fn stand_in() -> Self {
        Self("unknown".to_owned())
    }
}

/// The address of an S3 service, without a bucket: scheme, host and, unless it is the scheme's default, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    text: String,
}

/// The text is not the address of an S3 service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be http:// or https:// and a host, maybe with a port, and nothing else: no path, no user name, no query")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let url = Url::parse(text).map_err(|_| InvalidEndpoint)?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        // URLs are written into JSON without escaping, so a host must have no quotes, which `Url` permits.
        let has_valid_host = match url.host() {
            Some(Host::Domain(name)) => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
            None => false,
        };
        if !matches!(url.scheme(), "http" | "https") || !is_plain || !matches!(url.path(), "" | "/") || !has_valid_host {
            return Err(InvalidEndpoint);
        }
        let text = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, text })
    }
}

impl Endpoint {
    /// Returns the host in lower case; a name is in punycode.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        self.url.host().unwrap_or(Host::Domain(""))
    }

    /// Returns `http` or `https`.
    pub(super) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Returns host and port as in a `Host` header.
    pub(super) fn authority(&self) -> &str {
        self.text.split_once("://").map_or("", |(_, authority)| authority)
    }
}

/// Implements access to the text as it is written in settings and requests.
macro_rules! text {
    ($name:ident, $field:tt) => {
        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.$field
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self)
            }
        }

        impl From<&$name> for String {
            fn from(name: &$name) -> Self {
                name.$field.clone()
            }
        }
    };
}

text!(BucketName, 0);
text!(Endpoint, text);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules_of_aws() {
        let longest = "a".repeat(63);
        for good in ["valet", "my-bucket.example", "123", "a1b", &longest] {
            assert_eq!(good.parse::<BucketName>().as_deref(), Ok(good));
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            &too_long,
            "a/b",
            "a/../b",
            "a\\b",
            "a?b",
            "a#b",
            "a:b",
            "a%2fb",
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
            "abc\n",
            "abc\0",
        ] {
            assert_eq!(bad.parse::<BucketName>(), Err(InvalidBucketName), "{bad}");
        }
    }

    #[test]
    fn endpoint_is_a_scheme_a_host_and_a_port() {
        for (good, text) in [
            ("http://localhost:9000", "http://localhost:9000"),
            ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("https://S3.Example:443", "https://s3.example"),
            ("http://s3.example:80/", "http://s3.example"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://s3_store.example", "https://s3_store.example"),
        ] {
            assert_eq!(good.parse::<Endpoint>().as_deref(), Ok(text), "{good}");
        }
        for bad in [
            "",
            "localhost:9000",
            "ftp://host",
            "http://",
            "http://host:0x50",
            "http://host:65536",
            "http://user:secret@host",
            "http://user@host",
            "http://host/?x=1",
            "http://host?x",
            "http://host/s3",
            "http://host//",
            "http://host#x",
            "http://a\"b",
            "http://a}b",
            "http://a b",
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint), "{bad}");
        }
    }
}
