//! Sends the attempts of webhooks by HTTP: each on a connection of its own, to addresses that were checked, without redirects.
//!
//! Names are resolved once for each attempt, and the connection is made to an address that was checked, so that a different later
//! answer of a DNS server has no effect.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, header};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::ServerName};
use time::{
    OffsetDateTime, PrimitiveDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc2822},
    macros::format_description,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::model::parse_endpoint_url;

/// Deadline of an attempt: resolving, connecting, sending, and reading the answer.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(15);
/// Maximum number of bytes of an answer's body that are read before the connection is closed.
const MAX_BODY_BYTES: usize = 4 * 1024;
/// Time for which the system's certificates are used before they are read again.
const CERTIFICATES_TTL: Duration = Duration::from_secs(10 * 60);

/// One attempt.
#[derive(Debug, Clone)]
pub struct WebhookRequest<'a> {
    /// The endpoint's address.
    pub url: &'a str,
    /// The header `webhook-id`.
    pub id: &'a str,
    /// The header `webhook-timestamp`.
    pub timestamp: i64,
    /// The header `webhook-signature`.
    pub signature: String,
    /// The body.
    pub body: &'a str,
}

/// The protocol of an endpoint's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Encrypted by TLS.
    Https,
    /// Not encrypted.
    Http,
}

/// Decides whether an attempt may connect to a host with these addresses.
pub type AddressFilter<'a> = &'a (dyn Fn(Transport, &[IpAddr]) -> bool + Send + Sync);

/// The answer of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// The status.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// Reason why there is no answer, in fixed terms, because text of an endpoint must not reach our logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The address is not one that an endpoint may have.
    #[error("its address is not a URL of HTTP")]
    Url,
    /// The name has no address.
    #[error("its name cannot be resolved")]
    Resolve,
    /// An address is private, or unencrypted and not allowed.
    #[error("its address is not permitted")]
    NotPermitted,
    /// No address accepts connections.
    #[error("it cannot be connected to")]
    Connect,
    /// The certificate is not trusted, or TLS failed otherwise.
    #[error("TLS failed")]
    Tls,
    /// The answer is not one of HTTP, or broke off.
    #[error("the connection broke off")]
    Broken,
    /// There was no answer in time.
    #[error("it did not answer within 15 s")]
    Late,
}

impl SendError {
    /// Returns the reason as it is stored.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Resolve => "unresolved",
            Self::NotPermitted => "not permitted",
            Self::Connect => "unreachable",
            Self::Tls => "tls",
            Self::Broken => "broken off",
            Self::Late => "late",
        }
    }
}

/// Sends attempts.
#[derive(Debug, Default)]
pub struct WebhookSender {
    /// The TLS settings, and the time at which their certificates were read.
    tls: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl WebhookSender {
    /// Makes an attempt. Any status is an answer, also that of a redirect, which is not followed.
    ///
    /// # Errors
    /// [`SendError`] if there is no answer.
    pub async fn send(&self, request: &WebhookRequest<'_>, is_allowed: AddressFilter<'_>) -> Result<WebhookAnswer, SendError> {
        let deadline = tokio::time::Instant::now() + ATTEMPT_DEADLINE;
        let exchanged = tokio::time::timeout_at(deadline, self.exchange(request, is_allowed)).await;
        let response = exchanged.map_err(|_| SendError::Late)??;
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let answer = WebhookAnswer {
            status: response.status().as_u16(),
            retry_after: retry_after.and_then(|text| retry_after_in(text, OffsetDateTime::now_utc())),
        };
        // The status decides. The body is read so that an ordinary receiver can finish writing it.
        let _ = tokio::time::timeout_at(deadline, discard(response.into_body())).await;
        Ok(answer)
    }

    /// Sends a message and returns the head of the response.
    async fn exchange(
        &self,
        request: &WebhookRequest<'_>,
        is_allowed: AddressFilter<'_>,
    ) -> Result<Response<Incoming>, SendError> {
        let url = parse_endpoint_url(request.url).ok_or(SendError::Url)?;
        let transport = if url.scheme() == "https" { Transport::Https } else { Transport::Http };
        let addresses = resolve(&url).await?;
        let ips: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        if !is_allowed(transport, &ips) {
            return Err(SendError::NotPermitted);
        }
        let stream = connect(&addresses).await?;
        let message = http_request(&url, request)?;
        match transport {
            Transport::Http => send_on(stream, message).await,
            Transport::Https => {
                let name = ServerName::try_from(bare_host(&url)).map_err(|_| SendError::Url)?;
                let connector = TlsConnector::from(self.tls_config()?);
                send_on(connector.connect(name, stream).await.map_err(|_| SendError::Tls)?, message).await
            }
        }
    }

    /// Returns the TLS settings with the trusted certificates, which are read again after [`CERTIFICATES_TTL`].
    fn tls_config(&self) -> Result<Arc<ClientConfig>, SendError> {
        let mut cached = self.tls.lock();
        if let Some((_, config)) = cached.as_ref().filter(|(read_at, _)| read_at.elapsed() < CERTIFICATES_TTL) {
            return Ok(config.clone());
        }
        let config = ClientConfig::builder().with_native_roots().map_err(|_| SendError::Tls)?.with_no_client_auth();
        Ok(cached.insert((Instant::now(), Arc::new(config))).1.clone())
    }
}

/// Returns the addresses of the host. The URL's parser has converted an address literal in any notation.
async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, SendError> {
    let port = url.port_or_known_default().ok_or(SendError::Url)?;
    match url.host().ok_or(SendError::Url)? {
        Host::Ipv4(address) => Ok(vec![(address, port).into()]),
        Host::Ipv6(address) => Ok(vec![(address, port).into()]),
        Host::Domain(name) => Ok(tokio::net::lookup_host((name, port)).await.map_err(|_| SendError::Resolve)?.collect()),
    }
}

/// Connects to the first address that accepts, within a share of the deadline for each.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
    // One more share than addresses, for sending the message.
    let share = ATTEMPT_DEADLINE / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX).saturating_add(1);
    for address in addresses {
        if let Ok(Ok(stream)) = tokio::time::timeout(share, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    Err(SendError::Connect)
}

/// Returns the host as TLS names it: an IPv6 address without brackets.
fn bare_host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

/// Returns the HTTP request of a message.
fn http_request(url: &Url, request: &WebhookRequest<'_>) -> Result<Request<Full<Bytes>>, SendError> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Request::post(target)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "valet")
        .header(header::CONNECTION, "close")
        .header("webhook-id", request.id)
        .header("webhook-timestamp", request.timestamp)
        .header("webhook-signature", &request.signature)
        .body(Full::from(request.body.to_owned()))
        .map_err(|_| SendError::Url)
}

/// Sends a message over a connection; returns the head of the response.
async fn send_on<S>(stream: S, message: Request<Full<Bytes>>) -> Result<Response<Incoming>, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| SendError::Broken)?;
    // The task ends when the sender and the body are dropped, and at the latest after the deadline of reading the body.
    tokio::spawn(async move { tokio::time::timeout(2 * ATTEMPT_DEADLINE, connection).await });
    sender.send_request(message).await.map_err(|_| SendError::Broken)
}

/// Reads a body until it has [`MAX_BODY_BYTES`], and drops its bytes.
async fn discard(mut body: Incoming) {
    let mut read = 0;
    while read < MAX_BODY_BYTES {
        let Some(Ok(frame)) = body.frame().await else { return };
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Returns the pause in the header `Retry-After`, which has seconds or a date.
fn retry_after_in(text: &str, now: OffsetDateTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large means a long pause.
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    (http_date(text)? - now).try_into().ok()
}

/// Parses a date in any of the three forms that a receiver of HTTP must accept (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<OffsetDateTime> {
    const ASCTIME: &[BorrowedFormatItem<'_>] =
        format_description!("[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]");
    let current = || OffsetDateTime::parse(text, &Rfc2822).ok();
    // RFC 850, with a year of two digits: `Sunday, 06-Nov-94 08:49:37 GMT`.
    let with_dashes = || OffsetDateTime::parse(&text.split_once(", ")?.1.replace('-', " "), &Rfc2822).ok();
    let parse_asctime = || Some(PrimitiveDateTime::parse(text, ASCTIME).ok()?.assume_utc());
    current().or_else(with_dashes).or_else(parse_asctime)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT.
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(retry_after_in("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after_in("99999999999999999999", now), Some(Duration::MAX));
        for date in ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"] {
            assert_eq!(retry_after_in(date, now), Some(Duration::from_secs(30)), "{date}");
        }
        for bad in ["", "-1", "+1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:07 GMT", "Sunday, 06-Nov-94 08:49:07 GMT"] {
            assert_eq!(retry_after_in(bad, now), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn address_literals_are_checked_in_every_notation() {
        for text in ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::ffff:7f00:1]/", "http://localhost/"]
        {
            let loopback = |_: Transport, ips: &[IpAddr]| {
                assert!(!ips.is_empty() && ips.iter().all(|ip| ip.to_canonical().is_loopback()), "{text}: {ips:?}");
                false
            };
            let request = WebhookRequest { url: text, id: "a", timestamp: 0, signature: String::new(), body: "{}" };
            assert_eq!(WebhookSender::default().send(&request, &loopback).await, Err(SendError::NotPermitted), "{text}");
        }
    }
}
