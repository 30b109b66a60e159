//! Settings of the store's own events: the queue from which they are read, and the address to which they are pushed.

use std::{fmt, net::SocketAddr};

use secrecy::SecretString;
use url::{Host, Url};

use super::reader::Reader;

/// Sources of the store's events.
#[derive(Debug, Clone, Default)]
pub struct StoreEvents {
    /// `S3_EVENTS_QUEUE`: the SQS queue; `None`: no queue is read.
    pub queue: Option<QueueUrl>,
    /// `HOOKS_BIND` and `S3_HOOK_TOKEN`; `None`: nothing is received.
    pub hook: Option<StoreHook>,
}

/// Address to which the store pushes its events.
#[derive(Debug, Clone)]
pub struct StoreHook {
    /// The address on which hooks are served.
    pub bind: SocketAddr,
    /// The last segment of the hook's path.
    pub token: SecretString,
}

/// The URL of an SQS queue, as `aws sqs get-queue-url` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueUrl(Url);

impl QueueUrl {
    /// Parses `https://<host>/<account>/<name>`. Plain HTTP is permitted for queues on this machine.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_local = match url.host()? {
            Host::Domain(host) => {
                host == "localhost" || host.ends_with(".localhost") || host.ends_with(".localhost.localstack.cloud")
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let has_only_path =
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        let names = url.path_segments()?.filter(|segment| !segment.is_empty()).count();
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_local);
        (is_safe && has_only_path && names >= 2 && !text.ends_with('/')).then_some(Self(url))
    }

    /// Returns scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Returns the region, if the host is one of AWS that contains it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let mut labels = self.0.host_str()?.strip_suffix(".amazonaws.com")?.split('.');
        let is_sqs = |label: &str| matches!(label, "sqs" | "sqs-fips");
        labels.next().filter(|label| is_sqs(label))?;
        labels.next()
    }

    /// Returns the queue's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.path().rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Reader<'_> {
    /// Reads the settings of the store's events.
    pub(super) fn store_events(&mut self) -> StoreEvents {
        let wanted = "the URL of an SQS queue such as https://sqs.eu-central-1.amazonaws.com/123456789012/valet-events";
        let queue = self.read_valid("S3_EVENTS_QUEUE", None, wanted, |text| QueueUrl::parse(text).map(Some));
        let bind: Option<SocketAddr> = self.optional("HOOKS_BIND", "an address and port such as 0.0.0.0:3001");
        let token = self.text("S3_HOOK_TOKEN");
        if let Some(token) = &token {
            self.check_strength("S3_HOOK_TOKEN", token, "requests that make the server look at objects");
            if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                self.report_invalid("S3_HOOK_TOKEN", "letters, digits, and - . _ ~ alone, for a path: openssl rand -hex 32");
            }
        }
        if token.is_none() && self.is_set("HOOKS_BIND") {
            self.report_invalid("S3_HOOK_TOKEN", "set beside HOOKS_BIND: without a token no hook is served");
        }
        self.no_effect_if(!self.is_set("HOOKS_BIND"), "S3_HOOK_TOKEN", "without HOOKS_BIND");
        let hook = bind.zip(token).map(|(bind, token)| StoreHook { bind, token: token.into() });
        StoreEvents { queue, hook }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_queues_are_recognized() {
        for (text, region) in [
            ("https://sqs.eu-central-1.amazonaws.com/123456789012/valet", Some("eu-central-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/valet", Some("us-gov-west-1")),
            ("https://vpce-0a.sqs.eu-central-1.vpce.amazonaws.com/123456789012/valet", None),
            ("https://queue.example.com/a/valet", None),
            ("http://127.0.0.1:4566/000000000000/valet", None),
            ("http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/valet", None),
        ] {
            let url = QueueUrl::parse(text).unwrap();
            assert_eq!((url.region(), url.to_string().as_str(), url.name()), (region, text, "valet"), "{text}");
        }
        assert_eq!(QueueUrl::parse("http://[::1]:4566/0/q").unwrap().origin(), "http://[::1]:4566");
    }
}
