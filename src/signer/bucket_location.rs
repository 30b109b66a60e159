//! The address of a bucket: the origin, the signed host, and the path before a key.

use url::Host;

use super::bucket_and_endpoint::{BucketName, Endpoint};

/// A bucket's address as clients see it in URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketLocation {
    origin: String,
    host: String,
    path: String,
    bucket: BucketName,
    bucket_url: String,
}

/// Form of the bucket's address in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressingStyle {
    /// `bucket.host/key`, if the bucket's name can be a host label.
    VirtualHost,
    /// `host/bucket/key`.
    Path,
}

/// The region has no endpoint, because its name cannot be part of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the region's name cannot be part of a host: it has other characters than a-z, 0-9 and '-'")]
pub struct InvalidRegion;

/// The variant of AWS' endpoint ("Amazon S3 endpoints and quotas" in the AWS General Reference).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AwsEndpoint {
    /// Uses cryptography validated after FIPS 140: `s3-fips.…`.
    pub fips: bool,
    /// Adds IPv6 to IPv4: `s3.dualstack.…`.
    pub dualstack: bool,
}

/// Domains of AWS' partitions, by the beginning of their regions' names; every other region is in `amazonaws.com`
/// (partitions.json of the AWS SDKs).
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
];

/// Returns the domain of the region's partition.
fn dns_suffix(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("amazonaws.com", |(_, suffix)| suffix)
}

impl BucketLocation {
    /// Returns the bucket at an S3-compatible endpoint. Uses path style (`host/bucket/key`) when it is requested, when the host
    /// is an IP address, and when the bucket's name cannot be a host label under TLS.
    #[must_use]
    pub fn endpoint(endpoint: &Endpoint, bucket: &BucketName, style: AddressingStyle) -> Self {
        let is_label = matches!(endpoint.host(), Host::Domain(_)) && !bucket.contains('.');
        let authority = endpoint.authority();
        let (host, path) = if is_label && style == AddressingStyle::VirtualHost {
            (format!("{bucket}.{authority}"), "/".to_owned())
        } else {
            (authority.to_owned(), format!("/{bucket}/"))
        };
        let origin = format!("{}://{host}", endpoint.scheme());
        let bucket_url = format!("{origin}{path}").trim_end_matches('/').to_owned();
        Self { origin, host, path, bucket: bucket.clone(), bucket_url }
    }

    /// Returns the bucket at the AWS endpoint of its region.
    ///
    /// # Errors
    /// [`InvalidRegion`] when the region's name cannot be part of a host.
    pub fn aws(region: &str, bucket: &BucketName, style: AddressingStyle, variant: AwsEndpoint) -> Result<Self, InvalidRegion> {
        let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_region {
            return Err(InvalidRegion);
        }
        let service = if variant.fips { "s3-fips" } else { "s3" };
        let stack = if variant.dualstack { "dualstack." } else { "" };
        let suffix = dns_suffix(region);
        let endpoint = format!("https://{service}.{stack}{region}.{suffix}").parse().map_err(|_| InvalidRegion)?;
        Ok(Self::endpoint(&endpoint, bucket, style))
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the bucket's own URL without a slash at the end; forms are posted to it.
    #[must_use]
    pub fn bucket_url(&self) -> &str {
        &self.bucket_url
    }

    /// Returns scheme and host, without a slash at the end.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the value of the `host` header: with the port unless it is the scheme's default.
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
