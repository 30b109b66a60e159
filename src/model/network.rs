//! Network prefixes of clients, of the sizes that providers allocate to one customer, so that a client does not escape a limit by
//! changing its address; and the origin of a request.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::UserId;

/// The network and the user that a request comes from: the key of limits and of fair queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The network of the client's address.
    pub site: NetworkPrefix,
    /// The user of the access token, once it is verified.
    pub user: Option<UserId>,
}

/// All addresses with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkPrefix(IpNet);

impl NetworkPrefix {
    /// Returns the smallest network that a customer has: one IPv4 address, or an IPv6 /64.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::truncate(address, 32, 64)
    }

    /// Returns the largest network that one customer cheaply gets: an IPv4 /24, or an IPv6 /48 (RFC 6177).
    #[must_use]
    pub fn site(address: IpAddr) -> Self {
        Self::truncate(address, 24, 48)
    }

    /// Returns the prefixes from the host to the site, each inside the next: /32 and /24, or /64, /56 and /48.
    #[must_use]
    pub fn nested(address: IpAddr) -> [Option<Self>; 3] {
        let middle = address.to_canonical().is_ipv6().then(|| Self::truncate(address, 24, 56));
        [Some(Self::host(address)), middle, Some(Self::site(address))]
    }

    /// Returns the network of an address with so many leading bits.
    fn truncate(address: IpAddr, v4_bits: u8, v6_bits: u8) -> Self {
        let address = address.to_canonical();
        Self(IpNet::new_assert(address, if address.is_ipv4() { v4_bits } else { v6_bits }).trunc())
    }
}

impl fmt::Display for NetworkPrefix {
    /// Writes CIDR notation (RFC 4632, RFC 4291): `198.51.100.0/24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Returns the nested prefixes of an address as text.
    fn nested(text: &str) -> Vec<String> {
        NetworkPrefix::nested(text.parse().unwrap()).into_iter().flatten().map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn addresses_of_one_customer_have_one_prefix() {
        assert_eq!(nested("198.51.100.7"), ["198.51.100.7/32", "198.51.100.0/24"]);
        assert_eq!(nested("::ffff:198.51.100.7"), ["198.51.100.7/32", "198.51.100.0/24"]);
        let v6 = ["2001:db8:1:2a2::/64", "2001:db8:1:200::/56", "2001:db8:1::/48"];
        assert_eq!(nested("2001:db8:1:2a2::1"), v6);
        assert_eq!(nested("2001:db8:1:2a2:ffff::9"), v6);
        assert_ne!(NetworkPrefix::site("2001:db8:1::".parse().unwrap()), NetworkPrefix::site("2001:db8:2::".parse().unwrap()));
    }
}
