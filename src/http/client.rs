//! The client of a request, by its connection and headers: for rate limits and the list of sessions.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use poem::{Addr, FromRequest, Request, RequestBody, http::header};

use crate::{config::TrustedProxies, domain::throttle, state::AppState};

/// The client of a request: its address, and the device that it names in `User-Agent`.
pub struct Client(pub throttle::ClientInfo);

impl std::ops::Deref for Client {
    type Target = throttle::ClientInfo;

    fn deref(&self) -> &throttle::ClientInfo {
        &self.0
    }
}

impl<'a> FromRequest<'a> for Client {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let trusted = TrustedProxies::default();
        let address = address(request, request.data::<AppState>().map_or(&trusted, |app| &app.proxies));
        let agent = request.headers().get(header::USER_AGENT);
        let device = agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self(throttle::ClientInfo { address, device }))
    }
}

/// Returns the address of the client, or of the last proxy that is not trusted.
pub fn address(request: &Request, proxies: &TrustedProxies) -> IpAddr {
    let fields: Vec<_> = fields(request, "x-forwarded-for").collect();
    proxies.client(peer(request), fields.into_iter())
}

/// Time between two warnings of an untrusted proxy.
const WARNING_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Warns of a proxy that is missing in `TRUSTED_PROXIES`: a peer in a private network that sends `X-Forwarded-For`. Warns once an
/// hour at most, because the proxy sends the header with every request.
pub fn warn_of_untrusted_proxy(request: &Request, proxies: &TrustedProxies) {
    static LAST_WARNING: Mutex<Option<Instant>> = Mutex::new(None);
    let peer = peer(request);
    if !request.headers().contains_key("x-forwarded-for") || proxies.is_trusted(peer) || !is_private(peer) {
        return;
    }
    let mut last = LAST_WARNING.lock();
    if last.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
        *last = Some(Instant::now());
        tracing::warn!(
            %peer,
            "X-Forwarded-For from a private address that is not in TRUSTED_PROXIES: all clients behind it share its rate limits"
        );
    }
}

/// Returns whether an address is private (RFC 1918, RFC 4193, RFC 6598), loopback or link-local.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // The last condition is 100.64.0.0/10 of RFC 6598.
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || (first == 100 && second & 0xC0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Returns whether the request came over TLS on every hop, according to a trusted proxy.
pub fn is_tls(request: &Request, proxies: &TrustedProxies) -> bool {
    let mut hops = fields(request, "x-forwarded-proto").flat_map(|field| field.split(',')).peekable();
    hops.peek().is_some() && proxies.is_trusted(peer(request)) && hops.all(|hop| hop.trim().eq_ignore_ascii_case("https"))
}

/// Returns the address of the connection's other end.
fn peer(request: &Request) -> IpAddr {
    match &request.remote_addr().0 {
        Addr::SocketAddr(address) => address.ip(),
        // The server listens only on TCP.
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Returns the values of a header; empty text for a value that is not ASCII.
fn fields<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request.headers().get_all(name).iter().map(|field| field.to_str().unwrap_or_default())
}
