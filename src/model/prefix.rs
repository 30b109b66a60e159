//! Networks that clients come from: what one customer of a provider may have, so that hopping between its addresses gains nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::UserId;

/// The caller that something scarce is given to: a network, and the user that the request proved to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The network that the request comes from.
    pub site: Prefix,
    /// The user of its access token.
    pub user: Option<UserId>,
}

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The smallest network that a customer has: one IPv4 address, or an IPv6 /64.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::of(address, 32, 64)
    }

    /// The largest network that one customer gets for little or nothing: an IPv4 /24, or an IPv6 /48 (RFC 6177).
    #[must_use]
    pub fn site(address: IpAddr) -> Self {
        Self::of(address, 24, 48)
    }

    /// From the host to the site, each inside the next: /32 and /24, or /64, /56 and /48.
    #[must_use]
    pub fn widening(address: IpAddr) -> [Option<Self>; 3] {
        let middle = address.to_canonical().is_ipv6().then(|| Self::of(address, 24, 56));
        [Some(Self::host(address)), middle, Some(Self::site(address))]
    }

    fn of(address: IpAddr, v4_bits: u8, v6_bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(v4_bits)).unwrap_or(0);
                Self { address: Ipv4Addr::from(u32::from(address) & mask).into(), bits: v4_bits }
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(v6_bits)).unwrap_or(0);
                Self { address: Ipv6Addr::from(u128::from(address) & mask).into(), bits: v6_bits }
            }
        }
    }
}

impl fmt::Display for Prefix {
    /// As RFC 4632 and RFC 4291 write it: `198.51.100.0/24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn widening(text: &str) -> Vec<String> {
        Prefix::widening(text.parse().unwrap()).into_iter().flatten().map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        assert_eq!(widening("198.51.100.7"), ["198.51.100.7/32", "198.51.100.0/24"]);
        assert_eq!(widening("::ffff:198.51.100.7"), ["198.51.100.7/32", "198.51.100.0/24"]);
        let v6 = ["2001:db8:1:2a2::/64", "2001:db8:1:200::/56", "2001:db8:1::/48"];
        assert_eq!(widening("2001:db8:1:2a2::1"), v6);
        assert_eq!(widening("2001:db8:1:2a2:ffff::9"), v6);
        assert_ne!(Prefix::site("2001:db8:1::".parse().unwrap()), Prefix::site("2001:db8:2::".parse().unwrap()));
    }
}
