//! Credentials from the SDK's provider chain, asked for ahead of their end and never on a request's path: for what is signed
//! here, and for the client's own calls.

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

/// Gives the client what is known, without asking anybody. Ended credentials too: whether S3 takes them is for S3 to say.
#[derive(Debug)]
pub(super) struct Known(pub watch::Receiver<Arc<Signer>>);

impl ProvideCredentials for Known {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(sdk(self.0.borrow().credentials())))
    }
}

/// Asked again this long before the credentials end; every URL signed until then lives at least as long.
const AHEAD: Duration = Duration::from_secs(15 * 60);
/// Credentials without an end may still be rotated underneath.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);
/// After a refusal, and the least pause between two questions.
const RETRY: Duration = Duration::from_secs(10);

/// Returns a provider of credentials that are known already.
pub(super) fn fixed(keys: &Credentials) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(sdk(keys))
}

fn sdk(keys: &Credentials) -> aws_credential_types::Credentials {
    let token = keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    aws_credential_types::Credentials::new(
        keys.access_key_id.as_str(),
        keys.secret_access_key.expose_secret(),
        token,
        None,
        "valet",
    )
}

/// Asks once, now, so that a server without credentials does not start; then goes on in the background until the
/// receivers are gone. An outage of the provider leaves the last credentials in use for as long as they live.
pub(super) async fn keep_fresh(
    provider: SharedCredentialsProvider,
    clock: Clock,
    make: impl Fn(Credentials) -> Signer + Send + Sync + 'static,
) -> Result<watch::Receiver<Arc<Signer>>, StoreError> {
    let first = ask(&provider).await.map_err(|reason| StoreError::Credentials { reason })?;
    let (sender, receiver) = watch::channel(Arc::new(make(first.clone())));
    tell(&first);
    tokio::spawn(async move {
        let mut current = first;
        let mut pause = until_next(&current, &clock);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sender.closed() => return,
            }
            match ask(&provider).await {
                Ok(fresh) => {
                    tell(&fresh);
                    if !same(&fresh, &current) {
                        // The same credentials keep their signer: its key of the day, and the URLs it repeats.
                        let _ = sender.send(Arc::new(make(fresh.clone())));
                        tracing::info!(expires_at = ?fresh.expires_at, "credentials for S3 renewed");
                    }
                    current = fresh;
                    pause = until_next(&current, &clock);
                }
                Err(reason) => {
                    METRICS.s3_credential_failures.inc();
                    tracing::warn!(reason, expires_at = ?current.expires_at, "credentials for S3 could not be renewed");
                    pause = RETRY;
                }
            }
        }
    });
    Ok(receiver)
}

/// To the metrics: until when these are good.
fn tell(keys: &Credentials) {
    METRICS.s3_credentials_expiry.set(keys.expires_at.map_or(0.0, |end| end.unix_timestamp() as f64));
}

async fn ask(provider: &SharedCredentialsProvider) -> Result<Credentials, String> {
    let answer = tokio::time::timeout(RETRY, provider.provide_credentials()).await;
    // The provider's own words may name files and hosts but hold no secret; its source chain is left out all the same.
    let keys = answer.map_err(|_| "the provider did not answer".to_owned())?.map_err(|error| error.to_string())?;
    Ok(Credentials {
        access_key_id: keys.access_key_id().to_owned(),
        secret_access_key: SecretString::from(keys.secret_access_key()),
        session_token: keys.session_token().map(SecretString::from),
        expires_at: keys.expiry().map(OffsetDateTime::from),
    })
}

fn same(a: &Credentials, b: &Credentials) -> bool {
    let token = |keys: &Credentials| keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    a.access_key_id == b.access_key_id
        && a.expires_at == b.expires_at
        && token(a) == token(b)
        && a.secret_access_key.expose_secret() == b.secret_access_key.expose_secret()
}

fn until_next(keys: &Credentials, clock: &Clock) -> Duration {
    let Some(end) = keys.expires_at else { return LOOK_AGAIN };
    let left = Duration::try_from(end - (OffsetDateTime::now_utc() + clock.ahead())).unwrap_or_default();
    left.saturating_sub(AHEAD).clamp(RETRY, Duration::from_secs(60 * 60))
}
