//! Table test of rejected settings: each setting with values that are malformed, weak or without effect must stop the start
//! with a line that begins with its name. A setting without a row fails the test.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::{Config, misspelled::setting_names};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A second secret.
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// A setting, values that are rejected, and other settings that are set beside them.
type Row<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);

/// Reads a setting beside others and the required ones. Returns the message about the problems, or an empty text if there are none.
fn problems(name: &str, value: &str, beside: &[(&str, &str)]) -> String {
    let required = [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)];
    let pairs = [required.as_slice(), beside, &[(name, value)]].concat();
    let given = |wanted: &str| pairs.iter().rev().find(|(known, _)| *known == wanted).map(|(_, value)| (*value).to_owned());
    Config::read(&given).err().map(|problems| problems.to_string()).unwrap_or_default()
}

/// Invalid values of each kind of setting.
const DURATIONS: &[&str] = &["12", "0s", "-1s", "500ms", "soon", "400days", "1e3s"];
const SIZES: &[&str] = &["0", "0B", "-1", "much", "1.5.2MiB", "99EiB"];
const COUNTS: &[&str] = &["0", "-1", "1.5", "many", "99999999999"];
const RATES: &[&str] = &["0/1m", "300", "300/0s", "300/2days", "/1m"];
const FLAGS: &[&str] = &["maybe", "2", "offf"];
const LISTS: &[&str] = &[",", "a,,b", "a,"];
/// Lists with an item that the exporter would leave out.
const HEADERS: &[&str] = &["a", "=b", "a=", "a b=c", "a=b,c", "a=b,,c=d", "a=b,", "a=\u{e9}"];
/// A missing file, irregular files, and one without a certificate: the package's manifest, in the directory where tests run.
const NO_CERTIFICATES: &[&str] = &["/no/such/file.pem", "/dev/null", ".", "Cargo.toml"];
/// No values: every value is valid and has an effect.
const ANY: &[&str] = &[];

/// Settings with which an imgproxy server makes the previews.
const IMGPROXY: &[(&str, &str)] =
    &[("IMGPROXY_URL", "https://img.example.com"), ("IMGPROXY_KEY", SECRET), ("IMGPROXY_SALT", OTHER)];

/// Settings with which traces are exported.
const COLLECTOR: &[(&str, &str)] = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
/// Settings with which a fraction of the traces is sampled and exported.
const SAMPLED: &[(&str, &str)] =
    &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/v1/traces"), ("OTEL_TRACES_SAMPLER", "traceidratio")];

/// The table.
const ROWS: &[Row<'_>] = &[
    ("ACCESS_TOKEN_TTL", DURATIONS, &[]),
    ("ACCESS_TOKEN_TTL", &["7days", "61m"], &[("REFRESH_TOKEN_TTL", "1h")]),
    ("ADMIN_BIND", &["9464", "localhost", "127.0.0.1", "127.0.0.1:99999"], &[]),
    ("ADMIN_BIND", &["127.0.0.1:3000", "0.0.0.0:3000"], &[("BIND", "0.0.0.0:3000")]),
    ("AWS_CA_BUNDLE", NO_CERTIFICATES, &[]),
    ("AWS_ENDPOINT_URL", &["http://localhost:4566"], &[]),
    ("AWS_ENDPOINT_URL_S3", &["http://localhost:4566"], &[]),
    ("AWS_USE_DUALSTACK_ENDPOINT", &["maybe", "1", "on"], &[]),
    ("AWS_USE_FIPS_ENDPOINT", &["maybe", "1", "yes"], &[]),
    ("AWS_REGION", &["us east", "us/east", "US-EAST-1", "eu-central-1.evil"], &[]),
    ("AWS_REGION", &["us east", "us/east"], &[("S3_ENDPOINT", "http://localhost:9000")]),
    ("BIND", &["3000", "localhost:3000", "0.0.0.0"], &[]),
    ("CORS_ORIGINS", LISTS, &[]),
    ("CORS_ORIGINS", &["https://a.example, https://a.example"], &[]),
    ("CORS_ORIGINS", &["*", "null", "https://*.example.com", "https://app.example.com:443", "HTTPS://App.Example.com"], &[]),
    ("CORS_ORIGINS", &["https://münchen.example", "https://app.example.com/", "https://u@app.example.com", "ws://x"], &[]),
    ("DOCS", FLAGS, &[]),
    ("IMGPROXY_KEY", &["0123456789abcdef"], &[]),
    (
        "IMGPROXY_KEY",
        &["", "secret", "0123456789abcdef", "0123456789abcdef0123456789abcdeg", "0123456789abcdef0123456789abcdef0"],
        IMGPROXY,
    ),
    ("IMGPROXY_PREVIEW", &["q:80"], &[]),
    (
        "IMGPROXY_PREVIEW",
        &["/", "q", "q:80/", "q:80//sm:1", "rs:fit:1:1", "exp:1", "q:8 0", "q:80?x", "plain/s3:", "q:80/w:4000"],
        IMGPROXY,
    ),
    ("IMGPROXY_SALT", &["0123456789abcdef"], &[]),
    ("IMGPROXY_SALT", &["", "salt", "0123456789abcdef"], IMGPROXY),
    (
        "IMGPROXY_URL",
        &["img.example.com", "http://img.example.com", "https://img.example.com?x", "https://u@img.example.com"],
        IMGPROXY,
    ),
    ("HOOKS_BIND", &["3001", "localhost:3001", "127.0.0.1"], &[("S3_HOOK_TOKEN", OTHER)]),
    ("HOOKS_BIND", &["127.0.0.1:3000"], &[("BIND", "0.0.0.0:3000"), ("S3_HOOK_TOKEN", OTHER)]),
    ("HOOKS_BIND", &["0.0.0.0:9464"], &[("ADMIN_BIND", "127.0.0.1:9464"), ("S3_HOOK_TOKEN", OTHER)]),
    ("JWT_AUDIENCE", ANY, &[]),
    ("JWT_ISSUER", ANY, &[]),
    ("JWT_PREVIOUS_SECRETS", LISTS, &[]),
    ("JWT_PREVIOUS_SECRETS", &["short", "[", "[1]", "[\"\"]", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", SECRET], &[]),
    ("JWT_SECRET", &["", "short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], &[]),
    ("KEEP_LOCATION", FLAGS, &[]),
    ("LOCAL_ACCOUNTS", FLAGS, &[]),
    ("LOG_FORMAT", &["xml", "JSON"], &[]),
    ("MAX_CONNECTIONS", COUNTS, &[]),
    ("MAX_EVENT_STREAMS", COUNTS, &[]),
    ("MAX_EVENT_STREAMS", &["10", "11"], &[("MAX_CONNECTIONS", "10")]),
    ("MAX_REQUESTS", COUNTS, &[]),
    ("MAX_REQUESTS", &["11"], &[("MAX_CONNECTIONS", "10")]),
    ("MONGODB_DATABASE", &["a/b", "a.b", "$x", "a b", "admin", "local", "config"], &[]),
    ("MONGODB_URI", &["", "db:27017", "http://db", "postgres://db"], &[]),
    ("MONGODB_URI", &["mongodb://db/production", "mongodb+srv://u:p@db/production?tls=true&authSource=admin"], &[]),
    ("MONGODB_URI", &["mongodb://a,b/valet?w=1"], &[("MONGODB_DATABASE", "photos")]),
    ("MONGODB_URI", &["mongodb://db?w=1", "mongodb://db/?journal=false", "mongodb://db/?x=1&W=2"], &[]),
    ("MONGODB_URI", &["mongodb://db/?readPreference=secondary", "mongodb://db/?readpreference=nearest"], &[]),
    ("MONGODB_URI", &["mongodb://db/?readConcernLevel=local", "mongodb://db/?retryWrites=false;retryReads=true"], &[]),
    (
        "MONGODB_URI",
        &["mongodb://db/?wtimeoutMS=100", "mongodb://db/?readPreferenceTags=dc:a", "mongodb://db/?retryReads=false"],
        &[],
    ),
    ("MONGODB_URI", &["mongodb://db/?maxStalenessSeconds=100", "mongodb://db/?uuidRepresentation=javaLegacy"], &[]),
    ("MONGODB_URI", &["mongodb://db/?compressors=zlib", "mongodb://db/?zlibCompressionLevel=3"], &[]),
    (
        "MONGODB_URI",
        &["mongodb://db/?waitQueueTimeoutMS=100", "mongodb://db/?maxPoolSize=0", "mongodb://db/?maxPoolSize=-1"],
        &[],
    ),
    ("MONGODB_URI", &["mongodb://db/?minPoolSize=65", "mongodb://db/?minPoolSize=9&maxPoolSize=8"], &[]),
    ("MULTIPART_MAX_BYTES", SIZES, &[]),
    ("MULTIPART_MAX_BYTES", &["49MiB"], &[]),
    ("MULTIPART_MAX_BYTES", &["2GiB"], &[("USER_QUOTA_BYTES", "1GiB")]),
    ("MULTIPART_TTL", DURATIONS, &[]),
    ("MULTIPART_TTL", &["1s"], &[]),
    ("OIDC_AUDIENCE", LISTS, &[("OIDC_ISSUER", "https://id.example")]),
    ("OIDC_AUDIENCE", &["web,web"], &[("OIDC_ISSUER", "https://id.example")]),
    ("OIDC_ISSUER", &["id.example", "http://id.example", "https://id.example?x", "https://u@id.example"], &[]),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", COUNTS, COLLECTOR),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &["512"], &[]),
    ("OTEL_BSP_MAX_QUEUE_SIZE", COUNTS, COLLECTOR),
    ("OTEL_BSP_MAX_QUEUE_SIZE", &["2048"], &[]),
    ("OTEL_BSP_SCHEDULE_DELAY", COUNTS, COLLECTOR),
    ("OTEL_BSP_SCHEDULE_DELAY", &["5000"], &[]),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", &["gzip", "zstd", "NONE"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", &["none"], &[]),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", &["nonsense", "collector:4318", "grpc://collector:4317", "http://"], &[]),
    ("OTEL_EXPORTER_OTLP_HEADERS", &["a=b"], &[]),
    ("OTEL_EXPORTER_OTLP_HEADERS", HEADERS, COLLECTOR),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["grpc", "http/json"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["http/protobuf"], &[]),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", &["soon", "10s", "0", "-1"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", &["10000"], &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", &["gzip"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", &["none"], &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &["nonsense", "/v1/traces"], &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &["a=b"], &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", HEADERS, COLLECTOR),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["grpc"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["http/protobuf"], &[]),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", &["soon"], COLLECTOR),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", &["10000"], &[]),
    ("OTEL_SDK_DISABLED", &["maybe", "1", "on"], &[]),
    ("OTEL_TRACES_EXPORTER", &["console", "zipkin", "OTLP"], &[]),
    ("OTEL_TRACES_SAMPLER", &["bogus", "always", "jaeger_remote"], COLLECTOR),
    ("OTEL_TRACES_SAMPLER", &["always_off"], &[]),
    ("OTEL_TRACES_SAMPLER_ARG", &["0.5"], COLLECTOR),
    ("OTEL_TRACES_SAMPLER_ARG", &["2", "-0.1", "half", "NaN"], SAMPLED),
    ("PASSWORD_MIN_LENGTH", &["11", "65", "0", "x"], &[]),
    ("PREVIEWS", &["on", "workers", "Imgproxy", "imgproxy"], &[]),
    ("PREVIEWS", &["worker", "off"], IMGPROXY),
    ("PREVIEW_HEIF_COMMAND", &["heif-dec", "./heif-dec"], &[("PREVIEWS", "worker")]),
    ("PREVIEW_HEIF_COMMAND", &["/usr/bin/heif-dec"], &[]),
    ("PREVIEW_HEIF_COMMAND", &["/usr/bin/heif-dec"], &[("PREVIEWS", "off")]),
    ("PREVIEW_HEIF_COMMAND", &["/usr/bin/heif-dec"], IMGPROXY),
    ("RATE_LIMIT", FLAGS, &[]),
    ("RATE_LIMIT_LOGIN", RATES, &[]),
    ("RATE_LIMIT_LOGIN", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_LOGIN_FAILURES", RATES, &[]),
    ("RATE_LIMIT_LOGIN_FAILURES", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_REFRESH", RATES, &[]),
    ("RATE_LIMIT_REFRESH", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_SIGNUP", RATES, &[]),
    ("RATE_LIMIT_SIGNUP", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_SIGNUP", &["1/1m"], &[("SIGNUP", "off")]),
    ("RATE_LIMIT_UPLOAD", RATES, &[]),
    ("RATE_LIMIT_UPLOAD", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_UPLOAD", &["1/1m", "99/1s"], &[]),
    ("RATE_LIMIT_ACCOUNT_FAILURES", RATES, &[]),
    ("RATE_LIMIT_ACCOUNT_FAILURES", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_CALLS", RATES, &[]),
    ("RATE_LIMIT_CALLS", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_PASSWORD", RATES, &[]),
    ("RATE_LIMIT_PASSWORD", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_S3", RATES, &[]),
    ("RATE_LIMIT_SERVICE_KEY", RATES, &[]),
    ("RATE_LIMIT_S3", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_S3", &["1/1m", "99/1s"], &[]),
    ("RATE_LIMIT_URLS", RATES, &[]),
    ("RATE_LIMIT_URLS", &["1/1m"], &[("RATE_LIMIT", "off")]),
    ("RATE_LIMIT_URLS", &["1/1m", "999/1m"], &[]),
    ("READ_URL_TTL", DURATIONS, &[]),
    ("READ_URL_TTL", &["1s", "9s", "8days"], &[]),
    ("REFRESH_TOKEN_TTL", DURATIONS, &[]),
    ("RUST_LOG", &["valet=loud", "=", "a=b=c"], &[]),
    ("S3_BUCKET", &["", "a/b", "ab", "My_Bucket", "a..b", "192.168.5.4", "x--use1-az5--x-s3"], &[]),
    ("S3_BUCKET", &["arn:aws:s3:us-east-1:123456789012:accesspoint/x", "xn--bucket", "bucket-s3alias", "a b"], &[]),
    ("S3_ENDPOINT", &["localhost:9000", "ftp://h", "http://h/s3", "http://u:p@h", "http://h?x", "http://h#x", "http://"], &[]),
    ("S3_ENDPOINT", &["https://bucket.s3.eu-central-1.amazonaws.com", "https://bucket.minio.example"], &[]),
    ("S3_EVENTS_QUEUE", &["valet-events", "arn:aws:sqs:eu-central-1:123456789012:valet", "https://queue.example.com"], &[]),
    (
        "S3_EVENTS_QUEUE",
        &["http://queue.example.com/1/q", "https://u:p@queue.example.com/1/q", "https://q.example.com/1/q/"],
        &[],
    ),
    ("S3_EVENTS_QUEUE", &["https://queue.example.com/q", "https://queue.example.com/1/q?x", "ftp://queue.example.com/1/q"], &[]),
    ("S3_FINALIZE", &["always", "inplace"], &[]),
    ("S3_FORCE_PATH_STYLE", FLAGS, &[]),
    ("S3_HOOK_TOKEN", &["", "short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", SECRET], &[("HOOKS_BIND", "127.0.0.1:3001")]),
    (
        "S3_HOOK_TOKEN",
        &["fedcba9876543210fedcba987654321/", "fedcba9876543210 fedcba9876543210"],
        &[("HOOKS_BIND", "127.0.0.1:3001")],
    ),
    ("S3_HOOK_TOKEN", &[OTHER], &[("WEBHOOK_SECRET", OTHER), ("HOOKS_BIND", "127.0.0.1:3001")]),
    ("S3_HOOK_TOKEN", &[OTHER], &[]),
    ("S3_PUBLIC_ENDPOINT", &["h:9000", "http://h/s3", "http://u@h", "http://h?x"], &[]),
    ("S3_PUBLIC_ENDPOINT", &["https://bucket.s3.eu-central-1.amazonaws.com"], &[("S3_FORCE_PATH_STYLE", "true")]),
    ("S3_PUBLIC_ENDPOINT", &["https://s3-accelerate.amazonaws.com"], &[("S3_BUCKET", "my.bucket")]),
    ("S3_PUBLIC_ENDPOINT", &["https://s3-accelerate.amazonaws.com"], &[("S3_FORCE_PATH_STYLE", "true")]),
    ("SIGNUP", FLAGS, &[]),
    ("SIGNUP", &["off"], &[("LOCAL_ACCOUNTS", "off"), ("OIDC_ISSUER", "https://id.example"), ("OIDC_AUDIENCE", "valet")]),
    ("SSL_CERT_FILE", NO_CERTIFICATES, &[]),
    ("STOP_DELAY", DURATIONS, &[]),
    ("STOP_DELAY", &["61s"], &[]),
    ("SWEEP_GRACE", DURATIONS, &[]),
    ("SWEEP_INTERVAL", DURATIONS, &[]),
    ("TRUSTED_PROXIES", LISTS, &[]),
    ("TRUSTED_PROXIES", &["proxy.example", "10.0.0.0/33", "10.0.0.1/8", "fd00::1/8", "0.0.0.0/0", "::/0"], &[]),
    ("TRUSTED_PROXIES", &["0.0.0.0/1,128.0.0.0/1", "10.0.0.0/7", "2000::/3", "fc00::/6"], &[]),
    ("TRUSTED_PROXIES", &["10.0.0.0/8,10.1.0.0/16", "10.0.0.1, 10.0.0.1/32", "fd00::/8,fd00::1"], &[]),
    ("UPLOAD_MAX_BYTES", SIZES, &[]),
    ("UPLOAD_MAX_BYTES", &["6GiB"], &[]),
    ("UPLOAD_MAX_BYTES", &["40MiB"], &[("USER_QUOTA_BYTES", "30MiB")]),
    ("UPLOAD_MAX_PENDING", COUNTS, &[]),
    ("UPLOAD_MAX_PENDING", &["10001"], &[]),
    ("UPLOAD_TTL", DURATIONS, &[]),
    ("UPLOAD_TTL", &["1s"], &[]),
    ("UPLOAD_TYPES", LISTS, &[]),
    ("UPLOAD_TYPES", &["image/png, image/png"], &[]),
    ("UPLOAD_TYPES", &["image/svg+xml", "image", "text/html, image/png"], &[]),
    ("UPLOAD_URL_TTL", DURATIONS, &[]),
    ("UPLOAD_URL_TTL", &["1s", "8days"], &[]),
    ("UPLOAD_URL_TTL", &["2m"], &[("UPLOAD_TTL", "1m")]),
    ("UPLOAD_URL_TTL", &["2m"], &[("MULTIPART_TTL", "1m")]),
    ("UPPY", FLAGS, &[]),
    ("USER_QUOTA_BYTES", SIZES, &[]),
    ("WEBHOOK_ALLOW", &["10.0.0.1/8", "10.0.0.0", "example.com", ",", "10.0.0.0/8,10.0.0.0/8"], &[("WEBHOOK_SECRET", OTHER)]),
    ("WEBHOOK_ALLOW", &["10.0.0.0/8"], &[]),
    ("WEBHOOK_SECRET", &["short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", SECRET], &[]),
    ("WEBHOOK_SECRET", &[OTHER], &[("JWT_PREVIOUS_SECRETS", OTHER)]),
];

#[test]
fn rejected_values_are_reported_by_name() {
    for (name, values, beside) in ROWS {
        for value in *values {
            let text = problems(name, value, beside);
            assert!(text.lines().any(|line| line.starts_with(&format!("  - {name} "))), "{name}={value} {beside:?}: {text:?}");
        }
    }
}

/// Variables of the environment are bytes: a value that is not UTF-8 must not count as absent.
#[test]
fn values_that_are_not_utf_8_are_rejected_by_name() {
    for name in setting_names() {
        let text = problems(&name, "canary\u{fffd}", &[]);
        assert!(text.contains(&format!("- {name} must be UTF-8")) && !text.contains("canary"), "{name}: {text:?}");
    }
}

#[test]
fn every_setting_has_a_row() {
    let rows: BTreeSet<_> = ROWS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(setting_names(), rows);
}

#[test]
fn a_provider_alone_leaves_the_settings_of_passwords_without_effect() {
    let provider = [("LOCAL_ACCOUNTS", "off"), ("OIDC_ISSUER", "https://id.example"), ("OIDC_AUDIENCE", "web")];
    for (name, value) in [("PASSWORD_MIN_LENGTH", "14"), ("REFRESH_TOKEN_TTL", "1day"), ("RATE_LIMIT_SIGNUP", "1/1m")] {
        assert!(problems(name, value, &provider).contains(&format!("{name} has no effect")), "{name}");
    }
}

#[test]
fn valid_settings_pass() {
    for (name, value) in [
        ("UPLOAD_TTL", "4s"),
        ("UPLOAD_URL_TTL", "3s"),
        ("MULTIPART_TTL", "2s"),
        ("READ_URL_TTL", "10s"),
        ("SWEEP_INTERVAL", "1s"),
        ("USER_QUOTA_BYTES", "60000B"),
        ("MAX_REQUESTS", "4"),
        ("MAX_CONNECTIONS", "2000"),
        ("S3_PUBLIC_ENDPOINT", "https://s3-accelerate.amazonaws.com"),
        ("S3_ENDPOINT", "http://[::1]:9000/"),
        ("S3_ENDPOINT", "https://S3.Example:443"),
        ("RUST_LOG", "info,valet=debug"),
        ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8, fc00::/7"),
        ("MONGODB_URI", "mongodb://db/valet"),
        ("MONGODB_URI", "mongodb://u:p@db/admin"),
        ("MONGODB_URI", "mongodb://u:p@db/?authSource=admin"),
        ("MONGODB_URI", "mongodb+srv://u:p@db/?retryWrites=true&w=majority&appName=Cluster0"),
        ("MONGODB_URI", "mongodb://a,b/?replicaSet=rs0;journal=true&readPreference=primary&minPoolSize=8&maxPoolSize=8"),
        ("RATE_LIMIT_UPLOAD", "100/1m"),
        ("RATE_LIMIT_S3", "100/1day"),
        ("RATE_LIMIT_URLS", "1000/1m"),
        ("AWS_USE_FIPS_ENDPOINT", "TRUE"),
        ("REFRESH_TOKEN_TTL", "1h"),
        ("ACCESS_TOKEN_TTL", "7days"),
        ("CORS_ORIGINS", "https://app.example, capacitor://localhost"),
        ("ADMIN_BIND", "127.0.0.1:0"),
    ] {
        assert_eq!(problems(name, value, &[]), "", "{name}={value}");
    }
    assert_eq!(problems("OTEL_TRACES_SAMPLER_ARG", "0.01", SAMPLED), "");
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a=b, x-scope = 1 2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "120000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
    ] {
        assert_eq!(problems(name, value, COLLECTOR), "", "{name}={value}");
    }
    let beside = [("S3_ENDPOINT", "http://bucket.example"), ("S3_FORCE_PATH_STYLE", "true"), ("AWS_REGION", "Default_1")];
    assert_eq!(problems("AWS_ENDPOINT_URL", "http://localhost", &beside), "", "not read beside S3_ENDPOINT");
}

/// Streams last for minutes: by default they leave half of the connections to other requests.
#[test]
fn event_streams_leave_connections_to_requests() {
    let streams = |settings: &[(&str, &str)]| {
        let required = [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET)];
        let pairs = [required.as_slice(), settings].concat();
        let config = Config::read(&|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        config.unwrap().load.max_event_streams
    };
    assert_eq!(streams(&[]), 2000);
    for (connections, expected) in [("100000", 2000), ("4000", 2000), ("2000", 1000), ("10", 5)] {
        assert_eq!(streams(&[("MAX_CONNECTIONS", connections)]), expected, "{connections}");
    }
    assert_eq!(streams(&[("MAX_CONNECTIONS", "2000"), ("MAX_EVENT_STREAMS", "1999")]), 1999);
}

/// A base64 secret has no comma; one that a person chose may have.
#[test]
fn previous_secrets_may_hold_commas() {
    use secrecy::ExposeSecret;
    let comma = "a,comma,in,a,secret,of,more,than,32,letters";
    let read = |text: &str| {
        let pairs =
            [("MONGODB_URI", "mongodb://db"), ("S3_BUCKET", "bucket"), ("JWT_SECRET", SECRET), ("JWT_PREVIOUS_SECRETS", text)];
        let config = Config::read(&|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        config.unwrap().tokens.previous.iter().map(|secret| secret.expose_secret().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read(&format!("{OTHER}, {}", OTHER.to_uppercase())), [OTHER.to_owned(), OTHER.to_uppercase()]);
    assert_eq!(read(&format!("{comma}\n{OTHER}\n")), [comma, OTHER]);
    assert_eq!(read(&serde_json::json!([comma, OTHER]).to_string()), [comma, OTHER]);
}
