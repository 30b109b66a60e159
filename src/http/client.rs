//! Who asks, as far as the connection and the headers tell: for throttling, and for the owner of a session to know it by.

use std::net::{IpAddr, Ipv4Addr};

use poem::{Addr, FromRequest, Request, RequestBody, http::header};

use crate::{app::App, config::TrustedProxies, domain::throttle};

/// The client of a request. Proves nothing.
pub struct Client(pub throttle::Client);

impl<'a> FromRequest<'a> for Client {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let trusted = TrustedProxies::default();
        let address = address(request, request.data::<App>().map_or(&trusted, |app| &app.proxies));
        let agent = request.headers().get(header::USER_AGENT);
        let device = agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self(throttle::Client { address, device }))
    }
}

/// The address of the client, or of the last proxy that is not ours.
pub fn address(request: &Request, proxies: &TrustedProxies) -> IpAddr {
    let fields: Vec<_> = fields(request, "x-forwarded-for").collect();
    proxies.client(peer(request), fields.into_iter())
}

/// Whether the request came over TLS, by the word of a proxy of ours; of several hops, on every one.
pub fn is_tls(request: &Request, proxies: &TrustedProxies) -> bool {
    let mut hops = fields(request, "x-forwarded-proto").flat_map(|field| field.split(',')).peekable();
    hops.peek().is_some() && proxies.trust(peer(request)) && hops.all(|hop| hop.trim().eq_ignore_ascii_case("https"))
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
