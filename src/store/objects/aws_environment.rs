//! Region, credentials and endpoint flags, as the AWS SDK finds them in the environment, its files and the instance metadata;
//! no other setting is read from there.

use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::{super::StoreError, credentials, tls_trust::TlsTrust};
use crate::{config, signer::AwsEndpoint};

/// Properties that the S3 client and the signer of URLs need besides the settings.
pub(super) struct AwsEnvironment {
    /// The signing region.
    pub(super) region: String,
    /// The source of credentials, for repeated refreshes.
    pub(super) provider: SharedCredentialsProvider,
    /// The variant of AWS' endpoint; the default if `S3_ENDPOINT` is set.
    pub(super) endpoint_variant: AwsEndpoint,
}

impl AwsEnvironment {
    /// Reads from the SDK's configuration the properties that Valet's settings omit. If the settings have credentials and a region,
    /// as those of the local stack, the SDK's configuration is not read.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when there is no region or no source of credentials, or when the SDK's configuration sets an
    /// `endpoint_url` and `S3_ENDPOINT` is not set: presigned URLs would name another host than the server's calls.
    pub(super) async fn find(config: &config::S3, trust: &TlsTrust) -> Result<Self, StoreError> {
        if let (Some(keys), Some(region)) = (&config.credentials, &config.region) {
            return Ok(Self {
                region: region.clone(),
                provider: credentials::fixed_provider(keys),
                endpoint_variant: AwsEndpoint::default(),
            });
        }
        let invalid = |reason: &str| StoreError::Credentials { reason: reason.to_owned() };
        // The SDK panics at an invalid `AWS_RETRY_MODE`, `AWS_MAX_ATTEMPTS` or equivalent in a profile; with a given retry
        // configuration, the SDK does not read them.
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
            region.ok_or_else(|| invalid("AWS_REGION is not set, and neither a profile nor the instance has a region"))?;
        let provider = sdk.credentials_provider().ok_or_else(|| {
            invalid("no source of credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role")
        })?;
        if config.endpoint.is_some() {
            return Ok(Self { region, provider, endpoint_variant: AwsEndpoint::default() });
        }
        if sdk.endpoint_url().is_some() {
            return Err(invalid("a profile sets an endpoint_url: set S3_ENDPOINT instead, which also applies to presigned URLs"));
        }
        let endpoint_variant = AwsEndpoint { fips: sdk.use_fips() == Some(true), dualstack: sdk.use_dual_stack() == Some(true) };
        Ok(Self { region, provider, endpoint_variant })
    }
}
