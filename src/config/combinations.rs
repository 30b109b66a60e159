//! Checks of combinations: settings that are valid by themselves, but conflict with others, or have no effect beside them.

use std::net::SocketAddr;

use secrecy::ExposeSecret;
use url::Host;

use super::{Config, MAX_BATCH_ITEMS, MAX_SIGNED_PARTS, reader::Reader};
use crate::signer::Endpoint;

/// Settings that have an effect only with local accounts.
const LOCAL_ACCOUNT_SETTINGS: [&str; 8] = [
    "RATE_LIMIT_ACCOUNT_FAILURES",
    "RATE_LIMIT_PASSWORD",
    "PASSWORD_MIN_LENGTH",
    "REFRESH_TOKEN_TTL",
    "RATE_LIMIT_SIGNUP",
    "RATE_LIMIT_LOGIN",
    "RATE_LIMIT_LOGIN_FAILURES",
    "RATE_LIMIT_REFRESH",
];

impl Reader<'_> {
    /// Checks all combinations.
    pub(super) fn check_combinations(&mut self, config: &Config) {
        self.check_switched_off(config);
        self.check_token_lifetimes(config);
        self.check_database(config);
        self.check_aws_flags();
        self.check_lifetimes_and_sizes(config);
        self.check_batches(config);
        self.check_s3(config);
        self.check_secrets(config);
        self.check_traces();
        self.check_addresses(config);
    }

    /// Checks that each listener has an address of its own.
    fn check_addresses(&mut self, config: &Config) {
        let mut others = vec![("BIND", config.bind)];
        let hooks = config.store_events.hook.as_ref().map(|hook| hook.bind);
        for (name, address) in [("ADMIN_BIND", config.admin_bind), ("HOOKS_BIND", hooks)] {
            let Some(address) = address else { continue };
            // Port 0 means any free port, which is never the other listener's.
            let is_same =
                |other: SocketAddr| address.port() == other.port() && other.port() != 0 && conflict(address.ip(), other.ip());
            if let Some((other, _)) = others.iter().find(|(_, other)| is_same(*other)) {
                self.report_invalid(name, format_args!("another address and port than {other}"));
            }
            others.push((name, address));
        }
    }

    /// Checks that no setting of a feature is set while the feature is off.
    fn check_switched_off(&mut self, config: &Config) {
        if !config.limits.on {
            let limits: Vec<_> = self.names.borrow().iter().filter(|name| name.starts_with("RATE_LIMIT_")).cloned().collect();
            for limit in limits {
                self.no_effect_if(true, &limit, "while RATE_LIMIT is off");
            }
        }
        for name in LOCAL_ACCOUNT_SETTINGS {
            let is_already_reported = !config.limits.on && name.starts_with("RATE_LIMIT_");
            self.no_effect_if(!config.accounts.local && !is_already_reported, name, "while LOCAL_ACCOUNTS is off");
        }
        let is_signup_off = config.limits.on && config.accounts.local && !config.switches.signup;
        self.no_effect_if(is_signup_off, "RATE_LIMIT_SIGNUP", "while SIGNUP is off");
    }

    /// Checks that access tokens do not outlive their sessions.
    fn check_token_lifetimes(&mut self, config: &Config) {
        let tokens = &config.tokens;
        let outlives = config.accounts.local && tokens.access_ttl > tokens.refresh_ttl;
        self.no_effect_if(outlives, "ACCESS_TOKEN_TTL", "beyond REFRESH_TOKEN_TTL, when the session ends");
    }

    /// Checks the options and the database of the connection string. By the Connection String specification, credentials are
    /// looked up in this database, unless `authSource` is set; here it has no other effect.
    fn check_database(&mut self, config: &Config) {
        let uri = self.text("MONGODB_URI").unwrap_or_default();
        let Some((_, rest)) = uri.split_once("://") else { return };
        let (authority, options) = rest.split_once('?').unwrap_or((rest, ""));
        self.check_connection_options(options);
        let Some((hosts, database)) = authority.rsplit_once('/') else { return };
        let has_source = options.split(['&', ';']).any(|option| option.to_ascii_lowercase().starts_with("authsource="));
        let is_auth_database = hosts.contains('@') && !has_source;
        if !database.is_empty() && database != config.mongo.database && !is_auth_database {
            self.report_invalid(
                "MONGODB_URI",
                "a connection string without a database: MONGODB_DATABASE names the one that is used",
            );
        }
    }

    /// Checks flags that the AWS SDK reads itself and ignores when they are invalid.
    fn check_aws_flags(&mut self) {
        for name in ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"] {
            let is_flag = |text: &str| ["true", "false"].iter().any(|flag| text.eq_ignore_ascii_case(flag));
            self.read_valid(name, (), "true or false", |text| is_flag(text).then_some(()));
        }
    }

    /// Checks that each limit permits one full batch: a request that costs more than the whole limit would pass, so
    /// the limit would not bound it.
    fn check_batches(&mut self, config: &Config) {
        let limits = &config.limits;
        for (name, rate, max_cost) in [
            ("RATE_LIMIT_UPLOAD", limits.upload, MAX_BATCH_ITEMS),
            ("RATE_LIMIT_S3", limits.s3, MAX_BATCH_ITEMS),
            ("RATE_LIMIT_URLS", limits.urls, MAX_SIGNED_PARTS),
        ] {
            if limits.on && self.is_set(name) && rate.count < max_cost {
                self.report_invalid(
                    name,
                    format_args!("a count of at least {max_cost}, which one request may cost, and a time such as 6000/1m"),
                );
            }
        }
    }

    /// Checks lifetimes, sizes and limits of load against the limits that bound them.
    fn check_lifetimes_and_sizes(&mut self, config: &Config) {
        let (uploads, load) = (&config.uploads, &config.load);
        let shortest = uploads.ttl.min(uploads.multipart_ttl);
        self.no_effect_if(
            uploads.url_ttl > shortest,
            "UPLOAD_URL_TTL",
            "beyond the shorter of UPLOAD_TTL and MULTIPART_TTL: shorten it",
        );
        let is_below = uploads.multipart_max_bytes < uploads.max_bytes;
        self.no_effect_if(is_below, "MULTIPART_MAX_BYTES", "below UPLOAD_MAX_BYTES, the limit of a single PUT");
        let is_quota_set = self.is_set("USER_QUOTA_BYTES");
        let does_not_fit = is_quota_set && uploads.max_bytes > uploads.quota_bytes;
        self.no_effect_if(does_not_fit, "UPLOAD_MAX_BYTES", "beyond USER_QUOTA_BYTES: no such file would fit");
        let never_fits = is_quota_set && uploads.multipart_max_bytes > uploads.quota_bytes;
        self.no_effect_if(never_fits, "MULTIPART_MAX_BYTES", "beyond USER_QUOTA_BYTES: no such file would fit");
        let too_many = self.is_set("MAX_CONNECTIONS") && load.max_requests > load.max_connections;
        self.no_effect_if(too_many, "MAX_REQUESTS", "beyond MAX_CONNECTIONS: each connection has one request at a time");
        let too_many = self.is_set("MAX_EVENT_STREAMS") && load.max_event_streams >= load.max_connections;
        self.no_effect_if(
            too_many,
            "MAX_EVENT_STREAMS",
            "unless it is less than MAX_CONNECTIONS: each stream occupies a connection, and requests need others",
        );
    }

    /// Reports a setting that is set but has no effect. An omitted one is not reported.
    pub(super) fn no_effect_if(&mut self, is_without_effect: bool, name: &str, why: &str) {
        if is_without_effect && self.is_set(name) {
            self.problems.push(format!("{name} has no effect {why}"));
        }
    }

    /// Checks the endpoints against the bucket and the style of its URLs.
    fn check_s3(&mut self, config: &Config) {
        let s3 = &config.s3;
        let public = s3.public_endpoint.as_ref().filter(|_| self.is_set("S3_PUBLIC_ENDPOINT"));
        for (name, endpoint) in [("S3_ENDPOINT", s3.endpoint.as_ref()), ("S3_PUBLIC_ENDPOINT", public)] {
            let Some(Host::Domain(host)) = endpoint.map(Endpoint::host) else { continue };
            let rest = host.strip_prefix(&*s3.bucket).and_then(|rest| rest.strip_prefix('.'));
            let is_of_s3 = |rest: &str| rest.starts_with("s3.") || rest.starts_with("s3-") || rest.contains(".amazonaws.com");
            if rest.is_some_and(|rest| !s3.force_path_style || is_of_s3(rest)) {
                self.report_invalid(name, "the endpoint without the bucket's name, which is added to it");
            }
            let is_accelerated = host.starts_with("s3-accelerate.") && host.ends_with(".amazonaws.com");
            if is_accelerated && (s3.force_path_style || s3.bucket.contains('.')) {
                self.report_invalid(
                    name,
                    "another endpoint: transfer acceleration supports neither path style nor a bucket with a dot in its name",
                );
            }
        }
        for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
            let is_endpoint_unset = !self.is_set("S3_ENDPOINT");
            self.no_effect_if(is_endpoint_unset, name, "here: set S3_ENDPOINT instead, which also applies to presigned URLs");
        }
    }

    /// Checks that all secrets differ.
    fn check_secrets(&mut self, config: &Config) {
        let tokens = &config.tokens;
        let current = tokens.secret.expose_secret();
        let previous: Vec<_> = tokens.previous.iter().map(ExposeSecret::expose_secret).collect();
        let is_repeated = |index: usize| previous[..index].contains(&previous[index]);
        let has_useless_secret = (0..previous.len()).any(|index| previous[index] == current || is_repeated(index));
        if has_useless_secret {
            self.report_invalid("JWT_PREVIOUS_SECRETS", "secrets other than JWT_SECRET, each once");
        }
        let webhook_secret = config.webhooks.as_ref().map(|webhooks| webhooks.secret.expose_secret());
        if webhook_secret.is_some_and(|secret| secret == current || previous.contains(&secret)) {
            self.report_invalid("WEBHOOK_SECRET", "another secret than JWT_SECRET and JWT_PREVIOUS_SECRETS");
        }
        let hook_token = config.store_events.hook.as_ref().map(|hook| hook.token.expose_secret());
        if hook_token.is_some_and(|token| token == current || previous.contains(&token) || webhook_secret == Some(token)) {
            self.report_invalid("S3_HOOK_TOKEN", "another secret than JWT_SECRET, JWT_PREVIOUS_SECRETS and WEBHOOK_SECRET");
        }
    }
}

/// Returns whether two listeners cannot listen on the same port of these addresses.
fn conflict(a: std::net::IpAddr, b: std::net::IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}
