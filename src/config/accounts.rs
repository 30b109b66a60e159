//! Settings of who may sign in, and how: accounts of this service's own, and those of an identity provider.

use std::time::Duration;

use url::{Host, Url};

use super::reader::Reader;

/// Settings of sign-in: local accounts and the identity provider.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// `LOCAL_ACCOUNTS`: sign-up, login, and the tokens they give.
    pub local: bool,
    /// `PASSWORD_MIN_LENGTH`: code points of the shortest new password.
    pub password_min_chars: usize,
    /// `OIDC_ISSUER` and `OIDC_AUDIENCE`: another party's tokens.
    pub provider: Option<Provider>,
}

/// An OpenID provider whose tokens are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// One of these must be among the `aud` of a token.
    pub audiences: Vec<String>,
    /// Between two fetches of its keys when nothing calls for one. No setting of the environment.
    pub refresh_every: Duration,
    /// Between two fetches that tokens of unknown keys cause. No setting of the environment.
    pub refresh_pause: Duration,
}

impl Provider {
    /// A provider at the usual pace.
    #[must_use]
    pub fn new(issuer: String, audiences: Vec<String>) -> Self {
        Self { issuer, audiences, refresh_every: Duration::from_secs(10 * 60), refresh_pause: Duration::from_secs(10) }
    }
}

/// Whether what comes from this address is its owner's word: over TLS, or without leaving the machine.
#[must_use]
pub fn is_authentic(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none();
    bare && (url.scheme() == "https" && url.host().is_some() || url.scheme() == "http" && is_loopback)
}

impl Reader<'_> {
    pub(super) fn accounts(&mut self) -> Accounts {
        let local = self.flag("LOCAL_ACCOUNTS", true);
        let issuer = self.text("OIDC_ISSUER");
        let audiences = self.list("OIDC_AUDIENCE");
        if issuer.as_deref().is_some_and(|issuer| !is_issuer(issuer)) {
            self.wrong("OIDC_ISSUER", "the provider's https address exactly as its tokens' `iss` says it, without a query");
        }
        if issuer.is_some() && audiences.is_empty() {
            self.problems
                .push("OIDC_AUDIENCE is not set: give the `aud` of the tokens that are meant for this service".to_owned());
        }
        if issuer.is_none() && !audiences.is_empty() {
            self.problems.push("OIDC_ISSUER is not set, but OIDC_AUDIENCE is: give both or neither".to_owned());
        }
        if issuer.is_none() && !local {
            self.problems.push("LOCAL_ACCOUNTS is off and OIDC_ISSUER is not set: nobody could sign in".to_owned());
        }
        let password_min_chars = self.checked("PASSWORD_MIN_LENGTH", 12, "a whole number from 12 to 64", |text| {
            text.parse().ok().filter(|value| (12..=64).contains(value))
        });
        Accounts { local, password_min_chars, provider: issuer.map(|issuer| Provider::new(issuer, audiences)) }
    }
}

/// OpenID Connect Core section 2: an `https` URL with host and maybe port and path, no query and no fragment.
fn is_issuer(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| is_authentic(&url) && url.query().is_none() && url.fragment().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_an_authentic_address() {
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
