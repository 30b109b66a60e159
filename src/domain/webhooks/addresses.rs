//! Addresses that an attempt at delivering a webhook may connect to: global ones, and the networks that the operator allows.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

/// Networks that are not global (IANA's special-purpose registries), or that embed IPv4 addresses.
const NOT_GLOBAL: [&str; 31] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "fe80::/10",
    "fec0::/10",
    "fc00::/7",
    "ff00::/8",
    "2001:db8::/32",
    "3fff::/20",
    "100::/64",
    "100:0:0:1::/64",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2002::/16",
    "2001::/23",
    "5f00::/16",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
];
/// Networks of the metadata services of clouds, which no setting allows.
const NEVER_ALLOWED: [&str; 2] = ["169.254.0.0/16", "fd00:ec2::/32"];

static NOT_GLOBAL_NETWORKS: LazyLock<Vec<IpNet>> = LazyLock::new(|| parse(&NOT_GLOBAL));
static NEVER_ALLOWED_NETWORKS: LazyLock<Vec<IpNet>> = LazyLock::new(|| parse(&NEVER_ALLOWED));

/// Parses one of the lists above; a test checks that every entry is valid.
fn parse(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

/// Returns whether an attempt may connect to this address. IPv4-mapped addresses count as the IPv4 address. For other addresses
/// that embed an IPv4 address, both must be permitted: a translator or a tunnel passes the connection on to the embedded one.
#[must_use]
pub fn is_permitted(address: IpAddr, allowed: &[IpNet]) -> bool {
    let is_alone_permitted = |address: IpAddr| {
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&NEVER_ALLOWED_NETWORKS) && (is_in(allowed) || !is_in(&NOT_GLOBAL_NETWORKS))
    };
    let address = address.to_canonical();
    is_alone_permitted(address) && embedded_address(address).is_none_or(|embedded| is_alone_permitted(embedded.into()))
}

/// Returns the IPv4 address that an IPv6 address of a well-known form embeds.
fn embedded_address(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let (segments, bytes) = (address.segments(), address.octets());
    let ipv4_at = |positions: [usize; 4]| Ipv4Addr::from(positions.map(|position| bytes[position]));
    let last = [12, 13, 14, 15];
    match segments {
        // Teredo (RFC 4380), which inverts the bits.
        [0x2001, 0, ..] => Some(Ipv4Addr::from(!u32::from(ipv4_at(last)))),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(ipv4_at([2, 3, 4, 5])),
        // A translator's own network (RFC 8215), with a prefix of 48 bits (RFC 6052 section 2.2).
        [0x64, 0xff9b, 1, .., 0, 0] => Some(ipv4_at([6, 7, 9, 10])),
        // NAT64 (RFC 6052), and an IPv4-translated address (RFC 2765).
        [0x64, 0xff9b, 1, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(ipv4_at(last)),
        // An IPv4-compatible address (RFC 4291 section 2.5.5.1), but not `::1`.
        [0, 0, 0, 0, 0, 0, high, _] if high > 0 => Some(ipv4_at(last)),
        _ => None,
    }
}

/// Returns whether an attempt may connect to a host with these addresses: there is at least one, and each is permitted.
#[must_use]
pub fn are_permitted(addresses: &[IpAddr], allowed: &[IpNet]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_permitted(*address, allowed))
}

/// Returns whether an attempt may connect without TLS to a host with these addresses: there is at least one, and the operator
/// allows each.
#[must_use]
pub fn are_allowed(addresses: &[IpAddr], allowed: &[IpNet]) -> bool {
    let is_allowed = |address: &IpAddr| allowed.iter().any(|network| network.contains(&address.to_canonical()));
    are_permitted(addresses, allowed) && addresses.iter().all(is_allowed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Parses an address.
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_network_of_the_lists_is_parsed_and_refused_to_its_last_address() {
        assert_eq!((NOT_GLOBAL_NETWORKS.len(), NEVER_ALLOWED_NETWORKS.len()), (NOT_GLOBAL.len(), NEVER_ALLOWED.len()));
        for network in
            NOT_GLOBAL_NETWORKS.iter().chain(NEVER_ALLOWED_NETWORKS.iter()).filter(|network| network.prefix_len() < 128)
        {
            let edges = [network.network(), network.broadcast()];
            // The whole IPv4-mapped network also has global addresses.
            if network.to_string() != "::ffff:0.0.0.0/96" && network.to_string() != "::ffff:0:0/96" {
                edges.iter().for_each(|edge| assert!(!is_permitted(*edge, &[]), "{edge} of {network}"));
            }
        }
    }

    #[test]
    fn addresses_that_embed_private_ones_are_refused_and_global_ones_are_permitted() {
        for refused in [
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:a9fe:a9fe",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::ffff:0:7f00:1",
            "2001::1",
            "2001:10::1",
            "100:0:0:1::1",
        ] {
            assert!(!is_permitted(ip(refused), &[]), "{refused}");
        }
        for global in [
            "1.1.1.1",
            "11.0.0.0",
            "100.128.0.0",
            "172.32.0.0",
            "223.255.255.255",
            "2606:4700::1",
            "::ffff:1.1.1.1",
            "2001:200::1",
        ] {
            assert!(is_permitted(ip(global), &[]), "{global}");
        }
    }

    #[test]
    fn metadata_services_are_refused_even_if_allowed() {
        let allowed = ["10.0.0.0/8", "0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap());
        assert!(is_permitted(ip("10.1.2.3"), &allowed[..1]) && !is_permitted(ip("192.168.0.1"), &allowed[..1]));
        for refused in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"] {
            assert!(!is_permitted(ip(refused), &allowed), "{refused}");
        }
    }

    /// A network with NAT64 alone reaches IPv4 endpoints only if its prefix is allowed.
    #[test]
    fn embedded_address_must_be_permitted_beside_the_network_that_is_allowed() {
        let allowed = ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96", "192.168.0.0/16"];
        let allowed = allowed.map(|network| network.parse().unwrap());
        for (public, local, metadata, allowed_too) in [
            ("64:ff9b::808:808", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:1"),
            ("64:ff9b:1::808:808", "64:ff9b:1::a00:1", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::c0a8:1"),
            ("64:ff9b:1:808:8:800::", "64:ff9b:1:a00:0:100::", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:c0a8:0:100::"),
            ("2002:808:808::1", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:1::1"),
            ("2001:0:1:2::f7f7:f7f7", "2001:0:1:2::f5ff:fffe", "2001:0:1:2::5601:5601", "2001:0:1:2::3f57:fffe"),
            ("::808:808", "::a00:1", "::a9fe:a9fe", "::c0a8:1"),
            ("::ffff:0:808:808", "::ffff:0:a00:1", "::ffff:0:a9fe:a9fe", "::ffff:0:c0a8:1"),
        ] {
            assert!(is_permitted(ip(public), &allowed) && is_permitted(ip(allowed_too), &allowed), "{public} {allowed_too}");
            assert!(!is_permitted(ip(local), &allowed) && !is_permitted(ip(metadata), &allowed), "{local} {metadata}");
            assert!(!is_permitted(ip(metadata), &["::/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]), "{metadata}");
        }
        assert!(is_permitted(ip("::1"), &["::1/128".parse().unwrap()]), "the loopback address embeds no other");
    }

    #[test]
    fn one_refused_address_refuses_the_host() {
        assert!(are_permitted(&[ip("1.1.1.1"), ip("2606:4700::1")], &[]));
        assert!(!are_permitted(&[ip("1.1.1.1"), ip("127.0.0.1")], &[]));
        assert!(!are_permitted(&[], &[]));
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        assert!(are_allowed(&[ip("10.1.2.3"), ip("::ffff:10.1.2.3")], &allowed));
        assert!(!are_allowed(&[ip("10.1.2.3"), ip("1.1.1.1")], &allowed) && !are_allowed(&[], &allowed));
    }
}
