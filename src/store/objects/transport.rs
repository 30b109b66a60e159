//! Why a connection gave no answer, found in the chain of causes that connectors give.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
};

use rustls::CertificateError;

/// The cause of a call without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// The host's name has no address.
    UnknownHost,
    /// The port is closed.
    Refused,
    /// No route, or a connection that was cut.
    Broken(String),
    /// No answer in time.
    Silent,
    /// The certificate is of an authority that is not trusted here.
    UnknownAuthority,
    /// The certificate is not valid now.
    CertificateExpired,
    /// The certificate is of another host.
    CertificateOfAnotherName,
    /// TLS failed otherwise.
    Tls(String),
    /// The port speaks no TLS.
    NotTls,
    /// The port speaks no HTTP.
    NotHttp,
    /// Anything else, in the connector's words.
    Other(String),
}

impl Transport {
    /// Finds the cause in an error's chain.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(found) = Self::of_one(cause) {
                return found;
            }
            text = cause.to_string();
            next = cause.source();
        }
        // A presigned query never reaches a log, whatever a connector quotes.
        Self::Other(text.split('?').next().unwrap_or_default().to_owned())
    }

    fn of_one(cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // An `io::Error` passes its own cause over: its source is the source of that.
            if let Some(found) = error.get_ref().and_then(|inner| Self::of_one(inner)) {
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
        // hyper-util's own error for names has no public type.
        cause.to_string().starts_with("dns error").then_some(Self::UnknownHost)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownAuthority,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::CertificateExpired,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::CertificateOfAnotherName,
            // What is no TLS record at all, such as an HTTP/1.1 answer.
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            error => Self::Tls(error.to_string()),
        }
    }

    /// Returns what an operator does about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownHost => "check the host in S3_ENDPOINT, S3_PUBLIC_ENDPOINT or AWS_REGION, S3_FORCE_PATH_STYLE, and DNS",
            Self::Refused => "check the host and port in S3_ENDPOINT or S3_PUBLIC_ENDPOINT, and that the store runs",
            Self::Broken(_) | Self::Silent | Self::Other(_) => {
                "check the host and port in S3_ENDPOINT or S3_PUBLIC_ENDPOINT, firewalls and proxies on the way, and that the store runs"
            }
            Self::UnknownAuthority => {
                "name a file with the authority's certificate (PEM) in AWS_CA_BUNDLE, or in SSL_CERT_FILE for every outgoing connection"
            }
            Self::CertificateExpired => "renew the certificate, and see to the clocks of both machines",
            Self::CertificateOfAnotherName => "use the host that the certificate is for, or a certificate for this one",
            Self::Tls(_) => "see to the TLS settings of the store or of the proxy before it",
            Self::NotTls => "give the endpoint http:// or the port that speaks TLS",
            Self::NotHttp => "give the port on which the store speaks S3; where it speaks TLS, the endpoint begins with https://",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "the host's name is not known",
            Self::Refused => "the connection was refused",
            Self::Silent => "no answer came in time",
            Self::UnknownAuthority => "its certificate is of an authority that is not trusted here",
            Self::CertificateExpired => "its certificate has expired, or is not valid yet",
            Self::CertificateOfAnotherName => "its certificate is for another name",
            Self::NotTls => "the port does not speak TLS",
            Self::NotHttp => "the port does not speak HTTP",
            Self::Broken(text) | Self::Tls(text) | Self::Other(text) => text,
        })
    }
}
