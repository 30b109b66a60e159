//! Credentials from the SDK's provider chain, for presigned URLs and for the S3 client's own calls. They are refreshed in the
//! background before they expire, so that no request waits for them.

use std::{sync::Arc, time::Duration};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{super::StoreError, clock::Clock};
use crate::{
    metrics::METRICS,
    signer::{Credentials, Signer},
};

/// Provides the S3 client with the cached credentials, also after their expiry: S3 decides whether to accept them.
#[derive(Debug)]
pub(super) struct CachedCredentials(pub watch::Receiver<Arc<Signer>>);

impl ProvideCredentials for CachedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(to_sdk(self.0.borrow().credentials())))
    }
}

/// Time before their expiry at which credentials are refreshed; every URL that was signed before is valid at least as long.
const REFRESH_AHEAD: Duration = Duration::from_secs(15 * 60);
/// Interval of refreshing credentials without an expiry, because they may be rotated.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Pause after a failure; also the minimum pause between two refreshes, and the deadline of a refresh.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// Maximum pause between two refreshes of credentials with an expiry.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Returns a provider of fixed credentials.
pub(super) fn fixed_provider(keys: &Credentials) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(to_sdk(keys))
}

/// Converts credentials to those of the SDK.
fn to_sdk(keys: &Credentials) -> aws_credential_types::Credentials {
    let token = keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    aws_credential_types::Credentials::new(
        keys.access_key_id.as_str(),
        keys.secret_access_key.expose_secret(),
        token,
        None,
        "valet",
    )
}

/// Fetches credentials once, so that a server without credentials does not start; then refreshes them in the background until
/// the receivers are dropped. During an outage of the provider the last credentials stay in use until they expire.
pub(super) async fn keep_fresh(
    provider: SharedCredentialsProvider,
    clock: Clock,
    make_signer: impl Fn(Credentials) -> Signer + Send + Sync + 'static,
) -> Result<watch::Receiver<Arc<Signer>>, StoreError> {
    let first = fetch(&provider).await.map_err(|reason| StoreError::Credentials { reason })?;
    let (sender, receiver) = watch::channel(Arc::new(make_signer(first.clone())));
    record_expiry(&first);
    tokio::spawn(async move {
        let mut current = first;
        let mut pause = until_refresh(&current, &clock);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sender.closed() => return,
            }
            match fetch(&provider).await {
                Ok(fresh) => {
                    record_expiry(&fresh);
                    if !are_equal(&fresh, &current) {
                        // Unchanged credentials keep their signer, with its cached signing key and identical URLs.
                        let _ = sender.send(Arc::new(make_signer(fresh.clone())));
                        tracing::info!(expires_at = ?fresh.expires_at, "renewed the credentials for S3");
                    }
                    current = fresh;
                    pause = until_refresh(&current, &clock);
                }
                Err(reason) => {
                    METRICS.s3_credential_failures.inc();
                    tracing::warn!(reason, expires_at = ?current.expires_at, "failed to renew the credentials for S3");
                    pause = RETRY_PAUSE;
                }
            }
        }
    });
    Ok(receiver)
}

/// Sets the metric of the expiry.
fn record_expiry(keys: &Credentials) {
    METRICS.s3_credentials_expiry.set(keys.expires_at.map_or(0.0, |end| end.unix_timestamp() as f64));
}

/// Requests credentials from the provider.
async fn fetch(provider: &SharedCredentialsProvider) -> Result<Credentials, String> {
    let response = tokio::time::timeout(RETRY_PAUSE, provider.provide_credentials()).await;
    // The error text may name files and hosts but contains no secret; its sources are omitted nevertheless.
    let keys = response.map_err(|_| "the provider did not respond".to_owned())?.map_err(|error| error.to_string())?;
    Ok(Credentials {
        access_key_id: keys.access_key_id().to_owned(),
        secret_access_key: SecretString::from(keys.secret_access_key()),
        session_token: keys.session_token().map(SecretString::from),
        expires_at: keys.expiry().map(OffsetDateTime::from),
    })
}

/// Returns whether two credentials are equal.
fn are_equal(a: &Credentials, b: &Credentials) -> bool {
    let token = |keys: &Credentials| keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    a.access_key_id == b.access_key_id
        && a.expires_at == b.expires_at
        && token(a) == token(b)
        && a.secret_access_key.expose_secret() == b.secret_access_key.expose_secret()
}

/// Returns the pause until the next refresh; the expiry is a time of S3's clock.
fn until_refresh(keys: &Credentials, clock: &Clock) -> Duration {
    let Some(end) = keys.expires_at else { return REFRESH_INTERVAL };
    let remaining = Duration::try_from(end - (OffsetDateTime::now_utc() + clock.ahead())).unwrap_or_default();
    remaining.saturating_sub(REFRESH_AHEAD).clamp(RETRY_PAUSE, MAX_PAUSE)
}
