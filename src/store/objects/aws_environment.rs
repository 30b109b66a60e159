//! Region, credentials and endpoint flags, as the AWS SDK finds them in the environment, its files and the instance metadata;
//! nothing else is taken from there.

use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::{super::StoreError, credentials, tls_trust::TlsTrust};
use crate::{config, signer::AwsEndpoint};

/// Properties that client and signer need besides the settings.
pub(super) struct AwsEnvironment {
    /// The signing region.
    pub(super) region: String,
    /// The source of credentials, for repeated refreshes.
    pub(super) provider: SharedCredentialsProvider,
    /// The variant of AWS' endpoint; the default for an endpoint of the operator.
    pub(super) aws: AwsEndpoint,
}

impl AwsEnvironment {
    /// Reads from the SDK's configuration whatever the settings omit; nothing for the local stack.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is no region, or when the environment redirects AWS' endpoint: URLs would name
    /// another host than calls.
    pub(super) async fn find(config: &config::S3, trust: &TlsTrust) -> Result<Self, StoreError> {
        if let (Some(keys), Some(region)) = (&config.credentials, &config.region) {
            return Ok(Self { region: region.clone(), provider: credentials::fixed_provider(keys), aws: AwsEndpoint::default() });
        }
        let missing = |reason: &str| StoreError::Credentials { reason: reason.to_owned() };
        // The SDK panics at an invalid `AWS_RETRY_MODE`, `AWS_MAX_ATTEMPTS` or equivalent in a profile; with a given retry
        // configuration, it reads none.
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::standard());
        if let TlsTrust::Bundle(_) = trust {
            loader = loader.http_client(trust.sdk_client());
        }
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(keys) = &config.credentials {
            loader = loader.credentials_provider(credentials::fixed_provider(keys));
        }
        let sdk = loader.load().await;
        let region = sdk.region().map(ToString::to_string);
        let region =
            region.ok_or_else(|| missing("AWS_REGION is not set, and neither a profile nor the instance has a region"))?;
        let provider = sdk.credentials_provider().ok_or_else(|| missing("no provider"))?;
        if config.endpoint.is_some() {
            return Ok(Self { region, provider, aws: AwsEndpoint::default() });
        }
        if sdk.endpoint_url().is_some() {
            return Err(missing("a profile sets an endpoint_url: set S3_ENDPOINT instead, which also applies to presigned URLs"));
        }
        let aws = AwsEndpoint { fips: sdk.use_fips() == Some(true), dualstack: sdk.use_dual_stack() == Some(true) };
        Ok(Self { region, provider, aws })
    }
}
