//! Fuzzes the client address from `X-Forwarded-For`, the settings for trusted proxies, and rates. The input is one rate, or lines:
//! the networks of TRUSTED_PROXIES, the peer's address, then the header's fields.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use valet::config::{Network, Rate, TrustedProxies};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(rate) = text.parse::<Rate>() {
        assert!(rate.count >= 1 && rate.window.as_secs() >= 1);
        assert_eq!(rate.to_string().parse(), Ok(rate), "a written rate is parsed as itself");
    }
    let mut lines = text.split('\n');
    let networks: Vec<Network> =
        lines.next().unwrap_or_default().split(',').filter_map(|item| item.trim().parse().ok()).collect();
    let Some(peer) = lines.next().and_then(|line| line.parse::<IpAddr>().ok()).map(|peer| peer.to_canonical()) else { return };
    let fields: Vec<&str> = lines.collect();
    let proxies = TrustedProxies(networks);
    let client = proxies.client(peer, fields.iter().copied());
    assert_eq!(client, client.to_canonical(), "the address is canonical");
    assert_eq!(TrustedProxies::default().client(peer, fields.iter().copied()), peer, "without trusted proxies no field is used");

    // A peer is trusted if the address in its field is used.
    let trusts = |address: IpAddr| {
        let other = if address == IpAddr::from([192, 0, 2, 1]) { "192.0.2.2" } else { "192.0.2.1" };
        proxies.client(address, [other].into_iter()) != address
    };
    if !trusts(peer) {
        assert_eq!(client, peer, "the fields of an untrusted peer are not used");
        return;
    }
    // The expected address is the first untrusted hop from the end of the list, else the last one before a hop that is not an
    // address.
    let hops: Vec<&str> = fields.iter().flat_map(|field| field.split(',')).map(str::trim).collect();
    let read = |hop: &str| {
        let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
        bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip())).map(|address| address.to_canonical())
    };
    let known = hops.iter().rev().map_while(|hop| read(hop)).collect::<Vec<_>>();
    let trusted_hops = known.iter().take_while(|address| trusts(**address)).count();
    let expected = known.get(trusted_hops).or(known.last()).copied().unwrap_or(peer);
    assert_eq!(client, expected);
});
