//! The cause of a missing response, found in the error chain of the HTTP client.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
};

use rustls::CertificateError;

/// The cause of a call without a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResponseCause {
    /// The host name does not resolve.
    UnknownHost,
    /// The port is closed.
    Refused,
    /// No route, or a connection that was cut.
    Broken(String),
    /// No response in time.
    Silent,
    /// The certificate's authority is not trusted.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    CertificateNotValidNow,
    /// The certificate is for another host.
    CertificateOfAnotherName,
    /// TLS failed for another reason.
    Tls(String),
    /// The port does not speak TLS.
    NotTls,
    /// The port does not speak HTTP.
    NotHttp,
    /// Another cause, in the HTTP client's text.
    Other(String),
}

impl NoResponseCause {
    /// Finds the cause in an error's chain.
    pub(super) fn find(error: &(dyn Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(found) = Self::find_in(cause) {
                return found;
            }
            text = cause.to_string();
            next = cause.source();
        }
        // A presigned query must not reach a log, even if the HTTP client quotes it.
        Self::Other(text.split('?').next().unwrap_or_default().to_owned())
    }

    /// Finds the cause in one error, without its sources.
    fn find_in(cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::from_tls(error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // `source()` of an `io::Error` skips the wrapped error, so that error is examined first.
            if let Some(found) = error.get_ref().and_then(|inner| Self::find_in(inner)) {
                return Some(found);
            }
            return match error.kind() {
                ErrorKind::ConnectionRefused => Some(Self::Refused),
                ErrorKind::TimedOut => Some(Self::Silent),
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable => Some(Self::Broken(error.to_string())),
                _ if error.to_string().contains("lookup address") => Some(Self::UnknownHost),
                _ => None,
            };
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return Some(Self::NotHttp);
            }
            if error.is_incomplete_message() {
                return Some(Self::Broken("the connection was closed before there was an answer".to_owned()));
            }
        }
        // hyper-util's error for DNS failures has no public type.
        cause.to_string().starts_with("dns error").then_some(Self::UnknownHost)
    }

    /// Returns the cause for an error of TLS.
    fn from_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownAuthority,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::CertificateNotValidNow,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::CertificateOfAnotherName,
            // The first bytes are not a TLS record, such as an HTTP/1.1 response.
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            error => Self::Tls(error.to_string()),
        }
    }

    /// Returns the remedy for an operator.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownHost => "check the host in S3_ENDPOINT, S3_PUBLIC_ENDPOINT or AWS_REGION, S3_FORCE_PATH_STYLE, and DNS",
            Self::Refused => "check the host and port in S3_ENDPOINT or S3_PUBLIC_ENDPOINT, and that the store runs",
            Self::Broken(_) | Self::Silent | Self::Other(_) => {
                "check the host and port in S3_ENDPOINT or S3_PUBLIC_ENDPOINT, firewalls and proxies on the way, and that the \
                 store runs"
            }
            Self::UnknownAuthority => {
                "name a file with the authority's certificate (PEM) in AWS_CA_BUNDLE, or in SSL_CERT_FILE for every outgoing \
                 connection"
            }
            Self::CertificateNotValidNow => "renew the certificate, and check the clocks of both machines",
            Self::CertificateOfAnotherName => "use the host that the certificate is for, or a certificate for this one",
            Self::Tls(_) => "check the TLS settings of the store or of the proxy before it",
            Self::NotTls => "change the endpoint to http:// or to the port that speaks TLS",
            Self::NotHttp => "change the endpoint to the port on which the store speaks S3, and to https:// if that speaks TLS",
        }
    }
}

impl fmt::Display for NoResponseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "the host name does not resolve",
            Self::Refused => "the connection was refused",
            Self::Silent => "no response in time",
            Self::UnknownAuthority => "the certificate's authority is not trusted",
            Self::CertificateNotValidNow => "the certificate has expired, or is not valid yet",
            Self::CertificateOfAnotherName => "the certificate is for another name",
            Self::NotTls => "the port does not speak TLS",
            Self::NotHttp => "the port does not speak HTTP",
            Self::Broken(text) | Self::Tls(text) | Self::Other(text) => text,
        })
    }
}
