//! S3's checksums: reads the ones that a client sent, computes those of the bytes, and compares them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// Returns the [`Checksums`] in the five checksum fields of an input or output of `s3s`.
macro_rules! read_checksums {
    ($from:expr) => {{
        use $crate::dev::s3::checksum::{Algorithm, Checksums};
        let from = &$from;
        let all = [
            (Algorithm::Crc32, &from.checksum_crc32),
            (Algorithm::Crc32c, &from.checksum_crc32c),
            (Algorithm::Crc64nvme, &from.checksum_crc64nvme),
            (Algorithm::Sha1, &from.checksum_sha1),
            (Algorithm::Sha256, &from.checksum_sha256),
        ];
        all.into_iter().filter_map(|(a, v)| Some((a, v.clone()?))).collect::<Checksums>()
    }};
}

/// Sets the five checksum fields of an input or output of `s3s`.
macro_rules! write_checksums {
    ($to:expr, $sums:expr) => {{
        use $crate::dev::s3::checksum::Algorithm;
        let sums = &$sums;
        $to.checksum_crc32 = sums.get(&Algorithm::Crc32).cloned();
        $to.checksum_crc32c = sums.get(&Algorithm::Crc32c).cloned();
        $to.checksum_crc64nvme = sums.get(&Algorithm::Crc64nvme).cloned();
        $to.checksum_sha1 = sums.get(&Algorithm::Sha1).cloned();
        $to.checksum_sha256 = sums.get(&Algorithm::Sha256).cloned();
    }};
}

pub(super) use {read_checksums, write_checksums};

/// An algorithm of `x-amz-checksum-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

/// Checksums in base64, as in headers.
pub(super) type Checksums = BTreeMap<Algorithm, String>;

/// Input of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChecksumCoverage {
    /// The object's bytes.
    Full,
    /// The concatenated checksums of its parts.
    Composite,
}

impl ChecksumCoverage {
    /// Converts to the type of `s3s`.
    pub(super) fn to_dto(self) -> ChecksumType {
        ChecksumType::from_static(match self {
            Self::Full => ChecksumType::FULL_OBJECT,
            Self::Composite => ChecksumType::COMPOSITE,
        })
    }
}

impl Algorithm {
    /// All algorithms.
    pub(super) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64nvme, Self::Sha1, Self::Sha256];

    /// Returns the name of the checksum's header.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Returns the checksum's length in bytes, before base64.
    const fn length(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Converts to the type of `s3s`.
    pub(super) fn to_dto(self) -> ChecksumAlgorithm {
        ChecksumAlgorithm::from_static(match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        })
    }

    /// Converts from the type of `s3s`.
    pub(super) fn from_dto(name: &ChecksumAlgorithm) -> S3Result<Self> {
        let found = Self::ALL.into_iter().find(|a| a.to_dto() == *name);
        found.ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    /// Returns the checksum of these bytes, in base64.
    fn checksum(self, bytes: &[u8]) -> String {
        match self {
            Self::Crc32 => BASE64.encode(Crc32::checksum(bytes)),
            Self::Crc32c => BASE64.encode(Crc32c::checksum(bytes)),
            Self::Crc64nvme => BASE64.encode(Crc64Nvme::checksum(bytes)),
            Self::Sha1 => BASE64.encode(Sha1::checksum(bytes)),
            Self::Sha256 => BASE64.encode(Sha256::checksum(bytes)),
        }
    }

    /// Returns the checksum of the parts' checksums, followed by `-` and the number of parts, as S3 writes it.
    ///
    /// # Errors
    ///
    /// If a part has no checksum of this algorithm.
    pub(super) fn composite<'a>(self, parts: impl Iterator<Item = Option<&'a String>>) -> S3Result<String> {
        let mut all = Vec::new();
        let mut count = 0_usize;
        for part in parts {
            count += 1;
            let digest = part.and_then(|p| BASE64.decode(p).ok());
            all.extend(digest.ok_or_else(|| s3_error!(InvalidPart, "A part lacks the upload's checksum."))?);
        }
        Ok(format!("{}-{count}", self.checksum(&all)))
    }
}

/// Returns a hasher for these algorithms.
pub(super) fn hasher(algorithms: impl IntoIterator<Item = Algorithm>) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    for algorithm in algorithms {
        match algorithm {
            Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Algorithm::Crc64nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Algorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
    }
    hasher
}

/// Returns the checksums of a hasher.
pub(super) fn finish(hasher: ChecksumHasher) -> Checksums {
    read_checksums!(hasher.finalize())
}

/// Digests that a request declares for its body.
#[derive(Debug, Default)]
pub(super) struct DeclaredDigests {
    /// Algorithm of the checksum in a header, or announced for a trailer.
    pub(super) algorithm: Option<Algorithm>,
    /// Checksums in headers and trailers.
    sums: Checksums,
    /// The 16 bytes of `Content-MD5`.
    md5: Option<Vec<u8>>,
}

impl DeclaredDigests {
    /// Reads the checksum headers, Content-MD5 and the announced algorithm.
    ///
    /// # Errors
    ///
    /// If a digest is malformed, or if more than one checksum header is sent.
    pub(super) fn new(sums: Checksums, md5: Option<&str>, announced: Option<&ChecksumAlgorithm>) -> S3Result<Self> {
        let announced = announced.map(Algorithm::from_dto).transpose()?;
        if sums.len() > 1 {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        for (algorithm, value) in &sums {
            check_form(*algorithm, value)?;
        }
        let md5 = match md5 {
            None => None,
            Some(text) => match BASE64.decode(text) {
                Ok(digest) if digest.len() == 16 => Some(digest),
                _ => {
                    return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."));
                }
            },
        };
        Ok(Self { algorithm: sums.keys().next().copied().or(announced), sums, md5 })
    }

    /// Compares the declared digests, including those in trailers, with the computed ones.
    ///
    /// # Errors
    ///
    /// `BadDigest` if a digest differs.
    pub(super) fn verify(mut self, computed: &Checksums, md5: &[u8], trailers: Option<&TrailingHeaders>) -> S3Result<()> {
        if let Some(trailing) = trailers.and_then(|t| t.read(from_headers)) {
            for (algorithm, value) in trailing {
                check_form(algorithm, &value)?;
                self.sums.insert(algorithm, value);
            }
        }
        // A streamed body with an announced checksum must contain it.
        if trailers.is_some() && self.algorithm.is_some() && self.sums.is_empty() {
            return Err(s3_error!(InvalidRequest, "The announced checksum trailer is missing."));
        }
        for (algorithm, value) in &self.sums {
            if computed.get(algorithm) != Some(value) {
                let name = algorithm.to_dto();
                return Err(s3_error!(BadDigest, "The {} you specified did not match the calculated checksum.", name.as_str()));
            }
        }
        if self.md5.is_some_and(|declared| declared != md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        Ok(())
    }
}

/// Checks that a checksum is base64 of the algorithm's length.
fn check_form(algorithm: Algorithm, value: &str) -> S3Result<()> {
    match BASE64.decode(value) {
        Ok(digest) if digest.len() == algorithm.length() => Ok(()),
        _ => Err(s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())),
    }
}

/// Returns the checksums in the headers.
pub(super) fn from_headers(headers: &HeaderMap) -> Checksums {
    let value = |a: Algorithm| Some((a, headers.get(a.header())?.to_str().ok()?.trim().to_owned()));
    Algorithm::ALL.into_iter().filter_map(value).collect()
}
