//! The HTTP/1.1 client of OpenID Connect, `valet check` and the export of traces: TLS by rustls, no redirects, and responses of
//! bounded length. The AWS SDK and the sender of webhooks have clients of their own.

use std::{error::Error, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::{Request, Response, body::Body};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};

/// Connector with TLS or, to `http` addresses, without TLS.
pub type Connector = HttpsConnector<HttpConnector>;

/// Returns a connector that trusts the certificates of the system, or of `SSL_CERT_FILE`.
///
/// # Errors
/// When no certificate can be read.
pub fn system_connector() -> io::Result<Connector> {
    Ok(HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build())
}

/// Returns a connector that trusts these certificates alone.
#[must_use]
pub fn connector(roots: RootCertStore) -> Connector {
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build()
}

/// Reuse of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// A connection is kept for the next request, which is sent again if the connection was closed meanwhile.
    Kept,
    /// Each request has a connection of its own, and is sent once.
    Single,
}

/// An HTTP client for requests with bodies of type `B`.
#[derive(Debug)]
pub struct HttpClient<B> {
    client: Client<Connector, B>,
    max_response_bytes: usize,
}

// A derived implementation would require `B: Clone`.
impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), max_response_bytes: self.max_response_bytes }
    }
}

impl<B> HttpClient<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Creates a client, without connecting.
    #[must_use]
    pub fn new(connector: Connector, connections: Connections, max_response_bytes: usize) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        if connections == Connections::Single {
            builder.pool_max_idle_per_host(0).retry_canceled_requests(false);
        }
        Self { client: builder.build(connector), max_response_bytes }
    }

    /// Sends a request, and reads the response. The response's body is an `Err` if it ends early or exceeds `max_response_bytes`.
    ///
    /// # Errors
    /// When no response arrived.
    pub async fn send(
        &self,
        request: Request<B>,
    ) -> Result<Response<Result<Bytes, Box<dyn Error + Send + Sync>>>, legacy::Error> {
        let (parts, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, self.max_response_bytes).collect().await.map(Collected::to_bytes);
        Ok(Response::from_parts(parts, body))
    }
}
