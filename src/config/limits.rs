//! Settings of rate limits and load: permitted rates, concurrent connections and requests, and trusted proxies.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;

/// Maximum number of items in a batch of uploads, renewals, confirms, reads or deletes.
pub const MAX_BATCH_ITEMS: u32 = 100;
/// Maximum number of parts whose URLs one request signs.
pub const MAX_SIGNED_PARTS: u32 = 1000;

/// A rate limit: a burst and its refill time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Burst: number of requests, or of uploads, URLs or calls to S3, that are permitted at once.
    pub count: u32,
    /// Time in which an empty burst is refilled.
    pub window: Duration,
}

/// Error for a text that is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRate;

impl Rate {
    /// The format, as error messages describe it.
    pub const FORMAT: &'static str = "a count and a time such as 300/1m, the time from 1s to 1day";

    /// Returns a rate of `count` in so many seconds.
    #[must_use]
    pub const fn new(count: u32, seconds: u64) -> Self {
        Self { count, window: Duration::from_secs(seconds) }
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, window) = text.split_once('/').ok_or(InvalidRate)?;
        let count = count.trim().parse().ok().filter(|count| (1..=1_000_000_000).contains(count)).ok_or(InvalidRate)?;
        let window = humantime::parse_duration(window.trim()).map_err(|_| InvalidRate)?;
        let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
        if bounds.contains(&window) { Ok(Self { count, window }) } else { Err(InvalidRate) }
    }
}

/// `RATE_LIMIT` and the setting of each limit. A limit by address applies to an IPv4 address or an IPv6 /64. The limit of a whole
/// IPv6 /56 is twice as high, that of an IPv6 /48 or an IPv4 /24 four times as high.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// `RATE_LIMIT`: whether limits are enabled.
    pub on: bool,
    /// `RATE_LIMIT_SIGNUP`: sign-ups from one address.
    pub signup: Rate,
    /// `RATE_LIMIT_LOGIN`: password verifications from one address, successful or not.
    pub login: Rate,
    /// `RATE_LIMIT_LOGIN_FAILURES`: wrong passwords for one account from one address.
    pub login_failures: Rate,
    /// `RATE_LIMIT_ACCOUNT_FAILURES`: wrong passwords for one account from all networks without an earlier sign-in to it.
    pub account_failures: Rate,
    /// `RATE_LIMIT_PASSWORD`: one session's attempts to change the password or delete the account.
    pub password: Rate,
    /// `RATE_LIMIT_REFRESH`: refreshes from one address, and as many logouts.
    pub refresh: Rate,
    /// `RATE_LIMIT_CALLS`: calls by one user, of any kind.
    pub calls: Rate,
    /// `RATE_LIMIT_UPLOAD`: uploads opened by one user.
    pub upload: Rate,
    /// `RATE_LIMIT_URLS`: presigned URLs of uploads, parts and images requested by one user, each item of a batch counted.
    pub urls: Rate,
    /// `RATE_LIMIT_S3`: S3 lookups for one user, each item of a batch counted.
    pub s3: Rate,
    /// `RATE_LIMIT_SERVICE_KEY`: calls with one service key.
    pub service_key: Rate,
}

impl Default for RateLimits {
    /// Returns limits that are wide enough for an office behind one address and for whole photo libraries, and stop programs
    /// that guess or flood.
    ///
    /// NIST SP 800-63B section 5.2.2 (in revision 4, 3.2.2) allows at most 100 consecutive wrong passwords on one account.
    /// After 100 from networks without an earlier sign-in to the account, these networks together have one attempt in 14
    /// minutes. Networks with an earlier sign-in are exempt, which that section names as a way to keep attackers from locking
    /// the owner out.
    fn default() -> Self {
        Self {
            on: true,
            signup: Rate::new(300, 60),
            login: Rate::new(1200, 60),
            login_failures: Rate::new(25, 60 * 60),
            account_failures: Rate::new(100, 24 * 60 * 60),
            password: Rate::new(10, 60),
            refresh: Rate::new(1200, 60),
            calls: Rate::new(6000, 60),
            upload: Rate::new(6000, 60),
            urls: Rate::new(60_000, 60),
            s3: Rate::new(6000, 60),
            service_key: Rate::new(6000, 60),
        }
    }
}

/// Limits of concurrent work; requests beyond them are rejected, not queued.
#[derive(Debug, Clone, Copy)]
pub struct LoadLimits {
    /// `MAX_CONNECTIONS`: number of open client connections.
    pub max_connections: usize,
    /// `MAX_REQUESTS`: number of requests being handled, from the arrival of the body until the response is ready.
    pub max_requests: usize,
    /// `MAX_EVENT_STREAMS`: number of open event streams.
    pub max_event_streams: usize,
}

/// An address, or all addresses with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// Error for a text that is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetwork;

impl Network {
    /// Returns whether it is wider than any private network (`10.0.0.0/8`, `fc00::/7`): trusting it would let many clients
    /// forge their address.
    pub(super) fn is_too_wide(&self) -> bool {
        self.0.prefix_len() < if self.0.addr().is_ipv4() { 8 } else { 7 }
    }

    /// Returns whether all addresses of `other` are in this network.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(|_| InvalidNetwork)?.to_canonical();
        let bits = bits.map(str::parse).transpose().map_err(|_| InvalidNetwork)?;
        let network = bits.map_or(Ok(address.into()), |bits| IpNet::new(address, bits)).map_err(|_| InvalidNetwork)?;
        // Bits behind the prefix show a mistake: 10.0.0.1/8 is either an address or a network.
        if network == network.trunc() { Ok(Self(network)) } else { Err(InvalidNetwork) }
    }
}

/// `TRUSTED_PROXIES`: the proxies whose `X-Forwarded-For` is trusted. Empty by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    /// The format, as error messages describe it.
    pub const FORMAT: &'static str = "a list of addresses and networks such as 10.0.0.0/8, fd00::/8, without bits behind the prefix, and no wider than \
         an IPv4 /8 or an IPv6 /7";

    /// Returns the client: the last hop that is not a trusted proxy. Hops to the left of it may be forged.
    ///
    /// `forwarded` are the fields of `X-Forwarded-For` from left to right, each a list.
    #[must_use]
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in forwarded.flat_map(|field| field.split(',')).rev() {
            if !self.is_trusted(client) {
                break;
            }
            // A trusted proxy writes valid addresses, so an unreadable hop was written by the client.
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address;
        }
        client
    }

    /// Returns whether this address is a trusted proxy.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.0.contains(&address.to_canonical()))
    }
}

/// Parses a hop: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let parsed = bare.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    parsed.ok().map(|address| address.to_canonical())
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, humantime::format_duration(self.window))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_parsed_from_a_count_and_a_time() {
        assert_eq!("300/1m".parse(), Ok(Rate::new(300, 60)));
        assert_eq!("1 / 1day".parse(), Ok(Rate::new(1, 86_400)));
        assert_eq!("300/1m".parse::<Rate>().unwrap().to_string(), "300/1m");
        for bad in ["", "300", "300/", "/1m", "0/1m", "-1/1m", "1/0s", "1/500ms", "1/2days", "300/60", "1/1m/1m"] {
            assert_eq!(bad.parse::<Rate>(), Err(InvalidRate), "{bad}");
        }
    }

    #[test]
    fn client_address_is_the_last_hop_that_is_no_trusted_proxy() {
        let trusted = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec());
        let client =
            |peer: &str, forwarded: &[&str]| trusted.client(peer.parse().unwrap(), forwarded.iter().copied()).to_string();
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "an untrusted peer");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            client("10.1.2.3", &["1.1.1.1, 198.51.100.1"]),
            "198.51.100.1",
            "entries to the left are forged by the client"
        );
        assert_eq!(
            client("10.1.2.3", &["1.1.1.1", "198.51.100.1, 192.0.2.7"]),
            "198.51.100.1",
            "over several fields and proxies"
        );
        assert_eq!(client("10.1.2.3", &["10.9.9.9, 192.0.2.7"]), "10.9.9.9");
        assert_eq!(client("10.1.2.3", &["198.51.100.1, nonsense"]), "10.1.2.3");
        assert_eq!(client("192.0.2.8", &["198.51.100.1"]), "192.0.2.8", "one address is not its neighbour");
        assert_eq!(client("fd12::1", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(client("fe80::1", &["2001:db8::5"]), "fe80::1");
        assert_eq!(client("::ffff:10.1.2.3", &["198.51.100.1:1234"]), "198.51.100.1", "an IPv4 peer of an IPv6 socket");
        assert_eq!(
            TrustedProxies::default().client("127.0.0.1".parse().unwrap(), ["1.1.1.1"].into_iter()).to_string(),
            "127.0.0.1"
        );
    }

    #[test]
    fn invalid_networks_are_rejected() {
        let all = TrustedProxies(vec!["0.0.0.0/0".parse().unwrap()]);
        assert!(all.is_trusted("203.0.113.9".parse().unwrap()) && !all.is_trusted("2001:db8::1".parse().unwrap()));
        assert!(all.is_trusted("::ffff:203.0.113.9".parse().unwrap()));
        assert_eq!("::ffff:10.0.0.0/8".parse::<Network>(), "10.0.0.0/8".parse(), "IPv4 addresses of IPv6 sockets");
        for bad in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "proxy.example",
            "10.0.0.1/8",
            "fd00::1/8",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(InvalidNetwork), "{bad}");
        }
    }
}
