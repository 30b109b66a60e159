//! Settings of sign-in: local accounts, and tokens of an identity provider.

use std::time::Duration;

use url::{Host, Url};

use super::reader::Reader;

/// Settings of sign-in: local accounts and the identity provider.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// `LOCAL_ACCOUNTS`: whether sign-up and login of local accounts are enabled.
    pub local: bool,
    /// `PASSWORD_MIN_LENGTH`: the minimum number of code points in a new password.
    pub password_min_chars: usize,
    /// `OIDC_ISSUER` and `OIDC_AUDIENCE`: the identity provider whose tokens are accepted.
    pub provider: Option<OidcProvider>,
}

/// An OpenID provider whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcProvider {
    /// The `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// Accepted audiences: a token's `aud` must contain one of them.
    pub audiences: Vec<String>,
    /// Interval between two routine fetches of its keys. Not configurable.
    pub refresh_every: Duration,
    /// Minimum interval between two fetches that tokens with unknown keys cause. Not configurable.
    pub refresh_pause: Duration,
}

impl OidcProvider {
    /// Returns a provider with the default intervals.
    #[must_use]
    pub fn new(issuer: String, audiences: Vec<String>) -> Self {
        Self { issuer, audiences, refresh_every: Duration::from_secs(10 * 60), refresh_pause: Duration::from_secs(10) }
    }
}

/// Returns whether responses from this URL cannot be forged on the way: it is https, or http on the loopback interface, and has
/// no credentials.
#[must_use]
pub fn is_trustworthy_url(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let has_no_credentials = url.username().is_empty() && url.password().is_none();
    has_no_credentials && (url.scheme() == "https" && url.host().is_some() || url.scheme() == "http" && is_loopback)
}

impl Reader<'_> {
    /// Reads the settings of sign-in.
    pub(super) fn accounts(&mut self) -> Accounts {
        let local = self.flag("LOCAL_ACCOUNTS", true);
        let issuer = self.text("OIDC_ISSUER");
        let audiences = self.list("OIDC_AUDIENCE");
        if issuer.as_deref().is_some_and(|issuer| !is_issuer(issuer)) {
            self.report_invalid(
                "OIDC_ISSUER",
                "the provider's https address exactly as in the `iss` of its tokens, without a query",
            );
        }
        if issuer.is_some() && audiences.is_empty() {
            self.problems.push("OIDC_AUDIENCE is not set: set it to the `aud` of the tokens for this service".to_owned());
        }
        if issuer.is_none() && !audiences.is_empty() {
            self.problems.push("OIDC_ISSUER is not set, but OIDC_AUDIENCE is: set both or neither".to_owned());
        }
        let password_min_chars = self.read_valid("PASSWORD_MIN_LENGTH", 12, "a whole number from 12 to 64", |text| {
            text.parse().ok().filter(|value| (12..=64).contains(value))
        });
        Accounts { local, password_min_chars, provider: issuer.map(|issuer| OidcProvider::new(issuer, audiences)) }
    }
}

/// Returns whether the text is an issuer by OpenID Connect Core section 2: a trustworthy URL with a host and an optional port and
/// path, without query and fragment.
fn is_issuer(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| is_trustworthy_url(&url) && url.query().is_none() && url.fragment().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trustworthy_urls_without_a_query_are_issuers() {
        for good in [
            "https://accounts.example",
            "https://tenant.eu.auth0.com/",
            "https://id.example:8443/realms/main",
            "http://localhost:8080/realms/main",
            "http://127.0.0.1:9",
            "http://[::1]:9/x",
        ] {
            assert!(is_issuer(good), "{good}");
        }
        for bad in [
            "",
            "accounts.example",
            "http://accounts.example",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "https://user@accounts.example",
            "https://:secret@accounts.example",
            "https://accounts.example/?tenant=1",
            "https://accounts.example/#x",
            "ftp://localhost",
            "file:///etc/passwd",
        ] {
            assert!(!is_issuer(bad), "{bad}");
        }
    }
}
