//! The client of a request, by its connection and headers: for rate limits, and for the list of sessions.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use poem::{Addr, FromRequest, Request, RequestBody, http::header};

use crate::{config::TrustedProxies, domain::throttle, state::AppState};

/// The client of a request. Proves nothing.
pub struct Client(pub throttle::ClientInfo);

impl<'a> FromRequest<'a> for Client {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let trusted = TrustedProxies::default();
        let address = address(request, request.data::<AppState>().map_or(&trusted, |app| &app.proxies));
        let agent = request.headers().get(header::USER_AGENT);
        let device = agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self(throttle::ClientInfo { address, device }))
    }
}

/// The address of the client, or of the last proxy that is not ours.
pub fn address(request: &Request, proxies: &TrustedProxies) -> IpAddr {
    let fields: Vec<_> = fields(request, "x-forwarded-for").collect();
    proxies.client(peer(request), fields.into_iter())
}

/// Pause between warnings of an untrusted proxy.
const WARNED: Duration = Duration::from_secs(60 * 60);

/// Warns of a proxy that is missing in `TRUSTED_PROXIES`: a peer in a private network that names the client it asks for. Once an hour,
/// since it does so with every request.
pub fn warn_of_strange_proxy(request: &Request, proxies: &TrustedProxies) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let peer = peer(request);
    if !request.headers().contains_key("x-forwarded-for") || proxies.is_trusted(peer) || !is_private(peer) {
        return;
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|at| at.elapsed() >= WARNED) {
        *last = Some(Instant::now());
        tracing::warn!(
            %peer,
            "X-Forwarded-For from a private address that TRUSTED_PROXIES does not name: all clients behind it count as one, and share its limits"
        );
    }
}

/// Not from the internet: RFC 1918, RFC 4193, RFC 6598 and this machine or link.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || (first == 100 && second & 0xC0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether the request came over TLS, by the word of a proxy of ours; of several hops, on every one.
pub fn is_tls(request: &Request, proxies: &TrustedProxies) -> bool {
    let mut hops = fields(request, "x-forwarded-proto").flat_map(|field| field.split(',')).peekable();
    hops.peek().is_some() && proxies.is_trusted(peer(request)) && hops.all(|hop| hop.trim().eq_ignore_ascii_case("https"))
}

fn peer(request: &Request) -> IpAddr {
    match &request.remote_addr().0 {
        Addr::SocketAddr(address) => address.ip(),
        // The server listens on TCP alone.
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// A field that is no text reads as one that says nothing.
fn fields<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request.headers().get_all(name).iter().map(|field| field.to_str().unwrap_or_default())
}
