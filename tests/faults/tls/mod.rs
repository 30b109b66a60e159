//! TLS in front of a server, with a certificate that is expired or valid. leaf.key is the key of both certificates.
//! ca.pem signed them and nothing else; its private key was discarded.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::task::AbortOnDropHandle;

/// A TLS endpoint, which ends when it is dropped.
pub struct TlsFront {
    address: SocketAddr,
    /// Whether new connections get the expired certificate.
    expired: Arc<AtomicBool>,
    _running: AbortOnDropHandle<()>,
}

impl TlsFront {
    /// Starts an endpoint in front of `upstream`, on a free port of `localhost`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, expired) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (valid, outdated) = (acceptor("valid.pem"), acceptor("expired.pem"));
        let is_expired = expired.clone();
        let running = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = if is_expired.load(SeqCst) { outdated.clone() } else { valid.clone() };
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, expired, _running: AbortOnDropHandle::new(running) }
    }

    /// Returns the address that the endpoint listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets whether new connections get the expired certificate.
    pub fn set_expired(&self, expired: bool) {
        self.expired.store(expired, SeqCst);
    }
}

/// Returns the path of the authority to trust, for `SSL_CERT_FILE`.
pub fn authority() -> PathBuf {
    file("ca.pem")
}

/// Returns the path of a file beside this one.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/tls").join(name)
}

/// Returns a TLS acceptor with this certificate.
fn acceptor(certificate: &str) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(file(certificate)).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("leaf.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}
