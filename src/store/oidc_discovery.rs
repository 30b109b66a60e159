//! Fetches the signing keys of an identity provider (OpenID Connect Discovery 1.0): its configuration, and the key set to which
//! the configuration refers.
//!
//! Each fetch is bounded in time and size, follows no redirect, and uses TLS unless the host is this machine.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri, header};
use serde::Deserialize;
use url::Url;

use crate::{
    config::is_trustworthy_url,
    http_client::{self, Connections, HttpClient},
};

/// Deadline of both fetches together.
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum length of a document in bytes. Key sets with certificates have 30 KiB.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Failure to fetch the keys. The texts are constants, because responses of a provider must not reach our logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{document}: {reason}")]
pub struct ProviderError {
    document: &'static str,
    reason: &'static str,
}

/// The issuer and the address of the keys in the configuration.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Name of the configuration in errors.
const CONFIGURATION_DOCUMENT: &str = "its openid-configuration";
/// Name of the key set in errors.
const KEYS_DOCUMENT: &str = "its keys (jwks_uri)";

/// Fetches the key set (RFC 7517) of an issuer.
///
/// # Errors
/// [`ProviderError`] names the document that failed, and the reason.
pub async fn fetch_keys(issuer: &str) -> Result<Bytes, ProviderError> {
    let late = |_| ProviderError { document: CONFIGURATION_DOCUMENT, reason: "the provider did not respond within 5 s" };
    tokio::time::timeout(DEADLINE, discover(issuer)).await.map_err(late)?
}

/// Fetches the OpenID configuration of an issuer, and then its keys.
async fn discover(issuer: &str) -> Result<Bytes, ProviderError> {
    let wrong = |reason| ProviderError { document: CONFIGURATION_DOCUMENT, reason };
    // Section 4: a trailing slash of the issuer is removed before the path is added.
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let document = fetch(CONFIGURATION_DOCUMENT, &address).await?;
    let configuration: Configuration =
        serde_json::from_slice(&document).map_err(|_| wrong("it has no `issuer` and `jwks_uri`"))?;
    // Section 4.3: otherwise one tenant of a provider could impersonate another.
    if configuration.issuer != issuer {
        return Err(wrong("its `issuer` is not OIDC_ISSUER, byte for byte"));
    }
    fetch(KEYS_DOCUMENT, &configuration.jwks_uri).await
}

/// Fetches a document of the provider.
async fn fetch(document: &'static str, address: &str) -> Result<Bytes, ProviderError> {
    let failed = |reason| ProviderError { document, reason };
    let url =
        Url::parse(address).ok().filter(is_trustworthy_url).ok_or(failed("its address is neither https nor this machine's"))?;
    let uri: Uri = url.as_str().parse().map_err(|_| failed("its address is not a URL"))?;
    // Created for each fetch, which is rare, so that renewed certificates of the system are used.
    let connector = http_client::system_connector().map_err(|_| failed("the system's certificates cannot be read"))?;
    let client = HttpClient::new(connector, Connections::Single, MAX_DOCUMENT_BYTES);
    let request = Request::get(uri).header(header::ACCEPT, "application/json").header(header::USER_AGENT, "valet");
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| failed("its address is not a URL"))?;
    let response = client.send(request).await.map_err(|error| {
        failed(if error.is_connect() { "the provider cannot be reached" } else { "the connection broke off" })
    })?;
    if response.status() != StatusCode::OK {
        let moved = response.status().is_redirection();
        return Err(failed(if moved { "a redirect, which is not followed" } else { "the status is not 200" }));
    }
    response.into_body().map_err(|_| failed("it broke off, or is longer than 256 KiB"))
}
