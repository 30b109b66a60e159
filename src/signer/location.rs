//! Where a bucket is: the origin, the host that is signed, and the path in front of a key.

use url::{Host, Url};

/// A bucket's address as clients see it in URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    origin: String,
    host: String,
    path: String,
    bucket: String,
    bucket_url: String,
}

/// The endpoint cannot be signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be http:// or https:// and a host, maybe with a port, and nothing else: no path, no user name, no query")]
pub struct InvalidLocation;

/// Which of AWS' endpoints is used ("Amazon S3 endpoints and quotas" in the AWS General Reference).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AwsEndpoint {
    /// Cryptography validated after FIPS 140: `s3-fips.…`.
    pub fips: bool,
    /// IPv6 beside IPv4: `s3.dualstack.…`.
    pub dualstack: bool,
}

impl Location {
    /// The bucket at an S3-compatible endpoint. Path style (`host/bucket/key`) when asked for, when the host is an
    /// IP address, and when the bucket's name cannot be a host label under TLS.
    ///
    /// # Errors
    /// [`InvalidLocation`] when the endpoint is not the plain http(s) URL of a host, or when the bucket's name holds anything
    /// that could end the host or the path's segment.
    pub fn endpoint(endpoint: &str, bucket: &str, force_path_style: bool) -> Result<Self, InvalidLocation> {
        let url = Url::parse(endpoint).map_err(|_| InvalidLocation)?;
        let host = url.host().ok_or(InvalidLocation)?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let is_root = matches!(url.path(), "" | "/");
        let is_name = !bucket.is_empty() && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        // URLs are written into JSON as they are: a host has no quotes, which `Url` lets through.
        let named = match &host {
            Host::Domain(name) => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
            Host::Ipv4(_) | Host::Ipv6(_) => true,
        };
        if !matches!(url.scheme(), "http" | "https") || !plain || !is_root || !named || !is_name {
            return Err(InvalidLocation);
        }
        let is_label = matches!(host, Host::Domain(_)) && !bucket.contains('.');
        // `Url` leaves the port out where it is the scheme's own, as HTTP clients do in `host`.
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let (host, path) = if is_label && !force_path_style {
            (format!("{bucket}.{authority}"), "/".to_owned())
        } else {
            (authority, format!("/{bucket}/"))
        };
        let origin = format!("{}://{host}", url.scheme());
        let bucket_url = format!("{origin}{path}").trim_end_matches('/').to_owned();
        Ok(Self { origin, host, path, bucket: bucket.to_owned(), bucket_url })
    }

    /// The bucket at AWS, by an endpoint of its region.
    ///
    /// # Errors
    /// [`InvalidLocation`] when the region's name cannot be part of a host.
    pub fn aws(region: &str, bucket: &str, force_path_style: bool, which: AwsEndpoint) -> Result<Self, InvalidLocation> {
        let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_region {
            return Err(InvalidLocation);
        }
        let service = if which.fips { "s3-fips" } else { "s3" };
        let stack = if which.dualstack { "dualstack." } else { "" };
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Self::endpoint(&format!("https://{service}.{stack}{region}.{suffix}"), bucket, force_path_style)
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The bucket's own URL, without a slash at the end: where forms are posted to.
    #[must_use]
    pub fn bucket_url(&self) -> &str {
        &self.bucket_url
    }

    /// Scheme and host, without a slash at the end.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The value of the `host` header: with the port unless it is the scheme's own.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path before an encoded key: begins and ends with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}
