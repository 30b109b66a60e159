//! Typed settings, read once from the environment; one message lists every problem.
//!
//! Names, defaults and meanings are in [`SETTINGS`]. A value without effect is a problem like a malformed one. The rest of the
//! program does not read the environment, with three exceptions: the AWS SDK (credential chain and endpoint flags),
//! OpenTelemetry (`OTEL_…`) and logging (`RUST_LOG`).

use std::{fmt, net::SocketAddr, time::Duration};

use secrecy::SecretString;

mod accounts;
mod combinations;
mod imgproxy;
mod limits;
mod misspelled;
mod mongodb_uri;
mod origins;
mod previews;
mod reader;
#[cfg(test)]
mod rejected_values_tests;
mod resources;
mod settings;
mod store_events;
mod switches;
mod traces;
mod uploads;
mod webhooks;

pub use accounts::{Accounts, OidcProvider, is_trustworthy_url};
pub use limits::{
    InvalidNetwork, InvalidRate, LoadLimits, MAX_BATCH_ITEMS, MAX_SIGNED_PARTS, Network, Rate, RateLimits, TrustedProxies,
};
pub use misspelled::{misspelled_settings, setting_names};
pub use mongodb_uri::DEFAULT_POOL_SIZE;
pub use origins::CorsOrigins;
pub use previews::{PreviewWorker, Previews};
pub use settings::{SETTINGS, Setting};
pub use store_events::{QueueUrl, StoreEvents, StoreHook};
pub use switches::{Events, Switches};
pub use uploads::Uploads;
pub use webhooks::Webhooks;

use self::reader::Reader;
use crate::signer::{self, BucketName, Endpoint};

/// Function that returns the value of a setting by its name; an empty value counts as absent. U+FFFD replaces bytes that are not
/// UTF-8.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address on which the API listens.
    pub bind: SocketAddr,
    /// The address on which metrics are served; `None`: they are not served.
    pub admin_bind: Option<SocketAddr>,
    /// Time for which a server continues to serve after a stop signal, reporting itself not ready, before it stops listening.
    pub stop_delay: Duration,
    /// The database.
    pub mongo: Mongo,
    /// The bucket.
    pub s3: S3,
    /// Access tokens.
    pub tokens: Tokens,
    /// Sign-in: local accounts and the identity provider.
    pub accounts: Accounts,
    /// Optional features.
    pub switches: Switches,
    /// Whether changes write events.
    pub events: Events,
    /// Settings of webhooks; `None`: no events are sent.
    pub webhooks: Option<Webhooks>,
    /// Sources of the store's own events.
    pub store_events: StoreEvents,
    /// Limits and lifetimes of uploads.
    pub uploads: Uploads,
    /// The program that makes previews.
    pub previews: Previews,
    /// The sweeper's intervals.
    pub sweep: Sweep,
    /// Rate limits.
    pub limits: RateLimits,
    /// Limits of concurrent work.
    pub load: LoadLimits,
    /// Proxies whose `X-Forwarded-*` headers are trusted.
    pub proxies: TrustedProxies,
    /// Origins of pages that may call the API.
    pub cors: CorsOrigins,
    /// The format of log lines.
    pub log: LogFormat,
}

/// The database's settings.
#[derive(Debug, Clone)]
pub struct Mongo {
    /// The connection string; may contain a password.
    pub uri: SecretString,
    /// The database's name.
    pub database: String,
}

/// The bucket's settings.
#[derive(Debug, Clone)]
pub struct S3 {
    /// The bucket's name.
    pub bucket: BucketName,
    /// The endpoint for this server's own calls; `None` is AWS.
    pub endpoint: Option<Endpoint>,
    /// The endpoint for clients: the host in presigned URLs.
    pub public_endpoint: Option<Endpoint>,
    /// Whether URLs have the form `host/bucket/key` instead of `bucket.host/key`.
    pub force_path_style: bool,
    /// Whether an upload is copied to become final.
    pub finalize: Finalize,
    /// The region; `None`: the one that the AWS SDK finds.
    pub region: Option<String>,
    /// Trusted certificates in PEM, instead of the system's.
    pub ca_bundle: Option<Vec<u8>>,
    /// The credentials; `None`: the AWS SDK's own chain. Set by the local stack only.
    pub credentials: Option<signer::Credentials>,
}

/// Settings of access tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The secret that signs; at least 32 bytes.
    pub secret: SecretString,
    /// Earlier secrets, which only verify, until the last token that they signed has expired.
    pub previous: Vec<SecretString>,
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim.
    pub audience: String,
    /// Lifetime of an access token.
    pub access_ttl: Duration,
    /// Lifetime of a session without a refresh.
    pub refresh_ttl: Duration,
}

impl Tokens {
    /// The longest permitted lifetime of an access token.
    pub const MAX_ACCESS_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
}

/// Whether an upload is copied to become final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalize {
    /// Decided by probing the store.
    Auto,
    /// Never: the store enforces the signed digest, and accepts one PUT for each URL.
    InPlace,
    /// Always: copied to a new key at confirm.
    Copy,
}

/// The sweeper's intervals.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Interval between two sweeps.
    pub interval: Duration,
    /// Time after the expiry of a URL during which its object may still be in transfer.
    pub grace: Duration,
    /// When a server sweeps by itself. Not configurable.
    pub schedule: SweepSchedule,
}

/// When a server sweeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepSchedule {
    /// When it starts, after each interval, and soon after an upload is expected that no client confirms, or after more uploads
    /// were notified than can wait.
    Prompt,
    /// After each interval only: for tests that run each sweep themselves.
    IntervalsOnly,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// All problems of the settings.
#[derive(Debug)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Returns a sentence for each problem; it begins with the setting's name.
    #[must_use]
    pub fn list(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem{}:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// [`Problems`] lists every missing, malformed or weak setting by name, without its value.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, Problems> {
        let mut env = Reader::new(lookup);
        env.log_filter("RUST_LOG");
        // The TLS libraries read this file themselves, and trust no certificate when they cannot read it.
        let _ = env.certificates("SSL_CERT_FILE");
        let endpoint = env.endpoint("S3_ENDPOINT");
        let region = env.region("AWS_REGION", env.is_set("S3_ENDPOINT"));
        // A shorter lifetime of sessions shortens the default of their access tokens.
        let refresh_ttl = env.duration("REFRESH_TOKEN_TTL", hours(24 * 30), hours(24 * 365));
        let (accounts, webhooks) = (env.accounts(), env.webhooks());
        let config = Self {
            bind: env.parsed("BIND", SocketAddr::from(([0, 0, 0, 0], 3000)), "an address and port such as 0.0.0.0:3000"),
            admin_bind: env.optional("ADMIN_BIND", "an address and port such as 127.0.0.1:9464"),
            stop_delay: env.duration("STOP_DELAY", Duration::ZERO, Duration::from_secs(60)),
            mongo: Mongo { uri: env.mongodb_uri().into(), database: env.database("MONGODB_DATABASE") },
            s3: S3 {
                bucket: env.bucket("S3_BUCKET"),
                public_endpoint: env.endpoint("S3_PUBLIC_ENDPOINT").or_else(|| endpoint.clone()),
                endpoint,
                force_path_style: env.flag("S3_FORCE_PATH_STYLE", false),
                finalize: env.finalize("S3_FINALIZE"),
                region,
                ca_bundle: env.certificates("AWS_CA_BUNDLE"),
                credentials: None,
            },
            tokens: Tokens {
                secret: env.secret("JWT_SECRET"),
                previous: env.secrets("JWT_PREVIOUS_SECRETS"),
                issuer: env.text("JWT_ISSUER").unwrap_or_else(|| "valet".to_owned()),
                audience: env.text("JWT_AUDIENCE").unwrap_or_else(|| "valet".to_owned()),
                access_ttl: env.duration("ACCESS_TOKEN_TTL", hours(2).min(refresh_ttl), Tokens::MAX_ACCESS_TTL),
                refresh_ttl,
            },
            switches: env.switches(accounts.local),
            accounts,
            events: if webhooks.is_some() { Events::On } else { Events::Off },
            webhooks,
            store_events: env.store_events(),
            uploads: env.uploads(),
            previews: env.previews(),
            sweep: Sweep {
                interval: env.duration("SWEEP_INTERVAL", Duration::from_secs(30), hours(24)),
                grace: env.duration("SWEEP_GRACE", Duration::from_secs(15 * 60), hours(24 * 7)),
                schedule: SweepSchedule::Prompt,
            },
            limits: env.limits(),
            load: env.load(),
            proxies: env.proxies("TRUSTED_PROXIES"),
            cors: CorsOrigins { exact: env.origins("CORS_ORIGINS"), loopback: false },
            log: env.log_format(),
        };
        env.check_combinations(&config);
        env.check_encoding();
        if env.problems.is_empty() { Ok(config) } else { Err(Problems(env.problems)) }
    }
}

/// Returns a duration of `n` hours.
fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 60 * 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Reads these settings; of several with the same name, the last one counts.
    fn read(pairs: &[(&str, &str)]) -> Result<Config, Problems> {
        Config::read(&|name| pairs.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn required_settings_suffice() {
        let config = read(&[("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)]).unwrap();
        assert_eq!(config.uploads.max_bytes, 50 * 1024 * 1024);
        assert_eq!(config.uploads.types.len(), 7);
        assert_eq!(config.tokens.access_ttl, Duration::from_secs(7200));
        assert_eq!(config.s3.region, None, "left to the AWS SDK");
    }

    #[test]
    fn an_identity_provider_needs_an_issuer_and_an_audience() {
        let required = [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)];
        let read_with = |more: &[(&str, &str)]| read(&[&required, more].concat());
        let (issuer, audience) = (("OIDC_ISSUER", "https://id.example/"), ("OIDC_AUDIENCE", "web, ios"));
        let accounts = read_with(&[issuer, audience, ("LOCAL_ACCOUNTS", "off")]).unwrap().accounts;
        let provider = accounts.provider.unwrap();
        assert_eq!((accounts.local, provider.issuer.as_str()), (false, "https://id.example/"), "with its slash");
        assert_eq!(provider.audiences, ["web", "ios"]);
        assert!(read_with(&[]).unwrap().accounts.local);
        for (more, named) in [
            (vec![issuer], "OIDC_AUDIENCE"),
            (vec![audience], "OIDC_ISSUER"),
            (vec![("OIDC_ISSUER", "http://id.example"), audience], "OIDC_ISSUER"),
            (vec![("LOCAL_ACCOUNTS", "maybe")], "LOCAL_ACCOUNTS"),
            (vec![issuer, audience, ("LOCAL_ACCOUNTS", "off"), ("SIGNUP", "on")], "SIGNUP"),
        ] {
            assert!(read_with(&more).unwrap_err().to_string().contains(named), "{more:?}");
        }
    }

    #[test]
    fn o2_every_problem_is_listed_and_no_value_repeated() {
        let problems = read(&[
            ("JWT_SECRET", "canary-short"),
            ("S3_ENDPOINT", "canary:9000"),
            ("BIND", "canary"),
            ("UPLOAD_TTL", "12"),
            ("UPLOAD_MAX_BYTES", "6GiB"),
            ("MULTIPART_MAX_BYTES", "6TiB"),
            ("MULTIPART_TTL", "31d"),
            ("UPLOAD_TYPES", "image/svg+xml"),
            ("CORS_ORIGINS", "https://a.example/"),
            ("LOG_FORMAT", "canary"),
            ("S3_FORCE_PATH_STYLE", "canary"),
            ("UPLOAD_MAX_PENDING", "0"),
            ("JWT_PREVIOUS_SECRETS", &"x".repeat(40)),
            ("RATE_LIMIT_LOGIN", "canary"),
            ("TRUSTED_PROXIES", "10.0.0.0/8, canary"),
            ("PASSWORD_MIN_LENGTH", "11"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "JWT_SECRET",
            "S3_ENDPOINT",
            "BIND",
            "UPLOAD_TTL",
            "UPLOAD_MAX_BYTES",
            "MULTIPART_MAX_BYTES",
            "MULTIPART_TTL",
            "UPLOAD_TYPES",
            "CORS_ORIGINS",
            "LOG_FORMAT",
            "S3_FORCE_PATH_STYLE",
            "UPLOAD_MAX_PENDING",
            "MONGODB_URI",
            "S3_BUCKET",
            "JWT_PREVIOUS_SECRETS",
            "RATE_LIMIT_LOGIN",
            "TRUSTED_PROXIES",
            "PASSWORD_MIN_LENGTH",
        ] {
            assert!(problems.contains(&format!("- {name} ")), "{name} in {problems}");
        }
        assert!(!problems.contains("canary"), "{problems}");
    }

    #[test]
    fn o2_debug_holds_no_secret() {
        let config = read(&[("MONGODB_URI", "mongodb://u:canary@db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)]).unwrap();
        let text = format!("{config:?}");
        assert!(!text.contains("canary") && !text.contains(SECRET), "{text}");
    }
}
