//! Fuzzes settings from the environment. The input is lines `NAME=VALUE`; required settings have defaults here.
#![no_main]

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use valet::config::{Config, Problems, SETTINGS, Tokens};

/// Valid values of the required settings.
const REQUIRED: [(&str, &str); 3] =
    [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", "0123456789abcdef0123456789abcdef")];
/// Names of all settings.
static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| SETTINGS.iter().map(|setting| setting.name).collect());

/// Reads a configuration from these settings and the required ones.
fn read(pairs: &[(&str, &str)]) -> Result<Config, Problems> {
    let given = |name: &str| pairs.iter().rev().find(|(known, _)| *known == name);
    Config::read(&|name| {
        given(name).or_else(|| REQUIRED.iter().find(|(known, _)| *known == name)).map(|(_, value)| (*value).to_owned())
    })
}

/// Settings whose values are lists.
const LISTS: [&str; 5] = ["CORS_ORIGINS", "JWT_PREVIOUS_SECRETS", "OIDC_AUDIENCE", "TRUSTED_PROXIES", "UPLOAD_TYPES"];

/// Returns combinations of values that the reader rejects, because one of them has no effect or contradicts another.
fn values_without_effect() -> Vec<Vec<(&'static str, &'static str)>> {
    let limits = NAMES.iter().copied().filter(|name| name.starts_with("RATE_LIMIT_"));
    let local_accounts_off = [("LOCAL_ACCOUNTS", "off"), ("OIDC_ISSUER", "https://id.example"), ("OIDC_AUDIENCE", "web")];
    let password_settings = [("PASSWORD_MIN_LENGTH", "12"), ("REFRESH_TOKEN_TTL", "1day"), ("SIGNUP", "on")];
    let mut all: Vec<_> = limits.clone().map(|name| vec![("RATE_LIMIT", "off"), (name, "1/1m")]).collect();
    all.extend(limits.map(|name| [local_accounts_off.as_slice(), &[(name, "1/1m")]].concat()));
    all.extend(password_settings.map(|pair| [local_accounts_off.as_slice(), &[pair]].concat()));
    for name in ["S3_ENDPOINT", "S3_PUBLIC_ENDPOINT"] {
        all.push(vec![(name, "https://bucket.s3.example")]);
        all.push(vec![(name, "https://s3-accelerate.amazonaws.com"), ("S3_FORCE_PATH_STYLE", "true")]);
    }
    all.extend(["RATE_LIMIT_S3", "RATE_LIMIT_UPLOAD", "RATE_LIMIT_URLS"].map(|name| vec![(name, "1/1m")]));
    let options =
        ["w", "journal", "readConcernLevel", "readPreference", "retryWrites", "retryReads", "maxPoolSize", "minPoolSize"];
    let options_without_effect = ["wTimeoutMS", "readPreferenceTags", "maxStalenessSeconds", "uuidRepresentation", "compressors"];
    for option in options.iter().chain(&options_without_effect).chain(&["zlibCompressionLevel", "waitQueueTimeoutMS"]) {
        // `x` is invalid for every option. Few texts are leaked, because the options are constants.
        let uri: &'static str = Box::leak(format!("mongodb://db/?{option}=x").into_boxed_str());
        all.push(vec![("MONGODB_URI", uri)]);
    }
    all.extend([
        vec![("UPLOAD_TTL", "2s"), ("UPLOAD_URL_TTL", "3s")],
        vec![("SIGNUP", "off"), ("RATE_LIMIT_SIGNUP", "1/1m")],
        vec![("REFRESH_TOKEN_TTL", "1h"), ("ACCESS_TOKEN_TTL", "2h")],
        vec![("MONGODB_URI", "mongodb://db/another")],
        vec![("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/16")],
        vec![("UPLOAD_TYPES", "image/png,image/png")],
        vec![("MULTIPART_MAX_BYTES", "1B")],
        vec![("USER_QUOTA_BYTES", "1B"), ("UPLOAD_MAX_BYTES", "2B"), ("MULTIPART_MAX_BYTES", "2B")],
        vec![("MAX_CONNECTIONS", "1"), ("MAX_REQUESTS", "2")],
        vec![("JWT_PREVIOUS_SECRETS", REQUIRED[2].1)],
        vec![("JWT_PREVIOUS_SECRETS", "[")],
        vec![("BIND", "0.0.0.0:1"), ("ADMIN_BIND", "0.0.0.0:1")],
        vec![("AWS_ENDPOINT_URL", "x"), ("AWS_ENDPOINT_URL_S3", "x")],
    ]);
    all
}

/// The texts of all problems, collected by reading wrong values of each setting. A problem with another text contains a value of
/// the input, which might be secret.
static PROBLEMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let with_each_other = |name| NAMES.iter().map(move |other| [(name, "\u{1}"), (*other, "")]);
    // An issuer without an audience, and an audience without an issuer, are rejected.
    let provider_alone = [("LOCAL_ACCOUNTS", "off"), ("OIDC_ISSUER", "https://id.example"), ("OIDC_AUDIENCE", "web")];
    let parts_of_provider = provider_alone.map(|pair| vec![pair]).into_iter().chain([
        vec![provider_alone[0], provider_alone[1]],
        vec![provider_alone[0], provider_alone[2]],
        vec![provider_alone[0], ("SIGNUP", "on")],
    ]);
    let wrong = NAMES.iter().flat_map(|name| with_each_other(*name)).map(|pairs| pairs.to_vec()).chain(parts_of_provider);
    let wrong = wrong
        .chain(LISTS.map(|name| vec![(name, ",")]))
        .chain(LISTS.map(|name| vec![(name, "a,a")]))
        .chain(values_without_effect());
    let wrong = wrong
        .chain(["\u{fffd}", "a b", "0", "http://a/b?c"].iter().flat_map(|value| NAMES.iter().map(|name| vec![(*name, *value)])));
    let token_settings = ["ACCESS_TOKEN_TTL", "JWT_ISSUER", "JWT_AUDIENCE", "JWT_PREVIOUS_SECRETS"];
    let wrong = wrong.chain(token_settings.map(|name| [provider_alone.as_slice(), &[("UPPY", "off"), (name, "1m")]].concat()));
    let missing = Config::read(&|_| None).err().map(|problems| problems.to_string());
    let texts = wrong.filter_map(|pairs| read(&pairs).err().map(|problems| problems.to_string())).chain(missing);
    texts.flat_map(|text| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let config = match read(&pairs) {
        Ok(config) => config,
        Err(problems) => {
            let text = problems.to_string();
            let mut lines = text.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with("the configuration has ")));
            assert_eq!(lines.find(|line| !PROBLEMS.contains(*line)), None, "a problem repeats a value of the input");
            return;
        }
    };
    let second = Duration::from_secs(1);
    let ages = [
        config.tokens.refresh_ttl,
        config.uploads.url_ttl,
        config.uploads.ttl,
        config.uploads.read_url_ttl,
        config.uploads.multipart_ttl,
    ];
    assert!(ages.into_iter().chain([config.sweep.interval, config.sweep.grace]).all(|age| age >= second));
    assert!((second..=Tokens::MAX_ACCESS_TTL).contains(&config.tokens.access_ttl));
    assert!((1..=5 << 30).contains(&config.uploads.max_bytes) && (1..=10_000).contains(&config.uploads.max_pending));
    assert!(!config.uploads.types.is_empty() && (12..=64).contains(&config.accounts.password_min_chars));
    assert!(config.accounts.provider.is_none_or(|provider| !provider.audiences.is_empty()));
    for endpoint in [&config.s3.endpoint, &config.s3.public_endpoint].into_iter().flatten() {
        assert_eq!(endpoint.parse().as_ref(), Ok(endpoint), "a parsed endpoint is parsed as itself");
        let location = valet::signer::BucketLocation::endpoint(endpoint, &config.s3.bucket, valet::signer::AddressingStyle::Path);
        assert!(endpoint.starts_with(location.origin()), "{endpoint}");
    }
    assert!(!config.cors.allows("null") && !config.cors.allows(""));
});
