//! Trusted certificates: those of the system (or of `SSL_CERT_FILE`, which the libraries read), or of `AWS_CA_BUNDLE` alone
//! (the AWS SDKs and Tools reference guide, "General configuration").

use std::sync::Arc;

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{
    http_client::{self, Connector},
    store::StoreError,
};

/// The certificate authorities that connections to S3 trust.
#[derive(Debug, Clone)]
pub(super) enum TlsTrust {
    /// The authorities of the system, or of `SSL_CERT_FILE`.
    System,
    /// The authorities in `AWS_CA_BUNDLE`, as PEM; all of them were parsed.
    Bundle(Arc<[u8]>),
}

impl TlsTrust {
    /// Parses the bundle, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when one of its certificates cannot be read, or when it is empty.
    pub(super) fn new(bundle: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(pem) = bundle else { return Ok(Self::System) };
        roots(pem)?;
        Ok(Self::Bundle(pem.into()))
    }

    /// Creates the AWS SDK's HTTP client.
    pub(super) fn sdk_client(&self) -> SharedHttpClient {
        let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        let Self::Bundle(pem) = self else { return builder.build_https() };
        let store = TrustStore::empty().with_pem_certificate(pem.to_vec());
        match TlsContext::builder().with_trust_store(store).build() {
            Ok(context) => builder.tls_context(context).build_https(),
            // `build` cannot fail in this version of the SDK.
            Err(_) => builder.build_https(),
        }
    }

    /// Creates the connector for plain HTTP clients.
    ///
    /// # Errors
    /// [`StoreError::Objects`] when the system has no certificates.
    pub(super) fn connector(&self) -> Result<Connector, StoreError> {
        match self {
            Self::System => http_client::system_connector().map_err(|_| StoreError::Objects {
                operation: "TLS",
                reason: "the system's certificates (or those of SSL_CERT_FILE) cannot be read".to_owned(),
            }),
            Self::Bundle(pem) => Ok(http_client::connector(roots(pem)?)),
        }
    }
}

/// Parses certificates in PEM.
fn roots(pem: &[u8]) -> Result<RootCertStore, StoreError> {
    let unreadable = || StoreError::Credentials { reason: "a certificate in AWS_CA_BUNDLE cannot be read".to_owned() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
    }
    if roots.is_empty() { Err(unreadable()) } else { Ok(roots) }
}
