//! Webhook endpoints: the addresses of the operator that receive messages about events.

use time::OffsetDateTime;
use url::Url;

/// The largest number of endpoints.
pub const MAX_WEBHOOK_ENDPOINTS: i64 = 16;
/// The longest address of an endpoint, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Whether an endpoint receives messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// The endpoint receives messages.
    On,
    /// The operator turned it off.
    Off,
    /// A server turned it off.
    Disabled,
}

impl EndpointState {
    /// Returns the name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Disabled => "disabled",
        }
    }

    /// Parses the name in the database. An unknown one counts as [`EndpointState::Off`], so that the endpoint receives nothing.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        [Self::On, Self::Disabled].into_iter().find(|state| state.as_str() == name).unwrap_or(Self::Off)
    }
}

/// Reason why a server disabled an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledReason {
    /// The endpoint answered 410.
    Gone,
    /// All attempts of five days failed.
    Failing,
}

impl DisabledReason {
    /// Returns the name in the database and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// A webhook endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// Id of the endpoint.
    pub id: String,
    /// Address to which messages are sent.
    pub url: String,
    /// Names of the event types that the endpoint receives; an empty list means all types.
    pub types: Vec<String>,
    /// The generation of its secret.
    pub secret_generation: u32,
    /// When its secret was last rotated.
    pub rotated_at: Option<OffsetDateTime>,
    /// Whether the endpoint receives messages.
    pub state: EndpointState,
    /// Reason why a server disabled the endpoint, as stored.
    pub disabled_reason: Option<String>,
    /// When the first attempt failed after the last successful one; `None` if none has failed since.
    pub first_failure_at: Option<OffsetDateTime>,
    /// When it was added.
    pub created_at: OffsetDateTime,
}

impl WebhookEndpoint {
    /// Returns whether it receives events of this type.
    #[must_use]
    pub fn receives(&self, type_name: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|known| known == type_name)
    }
}

/// Parses the address of an endpoint: HTTPS or HTTP with a host, without credentials and fragment. `None` for other text.
#[must_use]
pub fn parse_endpoint_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= MAX_URL_BYTES)?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "https" | "http") && url.host().is_some() && is_bare).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_bare_http_or_https() {
        for good in ["https://a.example/hook?x=1", "http://127.0.0.1:9/", "https://[::1]/"] {
            assert!(parse_endpoint_url(good).is_some(), "{good}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL_BYTES));
        for bad in ["", "a.example", "ftp://a.example", "https://u@a.example", "https://u:p@a.example/", "https://a/#x", &long] {
            assert!(parse_endpoint_url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn unknown_state_receives_nothing() {
        for state in [EndpointState::On, EndpointState::Off, EndpointState::Disabled] {
            assert_eq!(EndpointState::parse(state.as_str()), state);
        }
        assert_eq!(EndpointState::parse("paused"), EndpointState::Off);
    }
}
