//! Name, default and meaning of every setting. The tables of `docs/configuration.md` and `docs/observability.md` are generated
//! from these.

/// A setting as the documents describe it. `tests/docs` checks that each setting that is read is listed, with its true default.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// A value with the same effect as omitting the setting; empty if there is none.
    pub default: &'static str,
    /// Effect of the setting; the reader words its bounds.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// All settings, in the order of the documents.
pub const SETTINGS: &[Setting] = &[
    setting("MONGODB_URI", "", "connection string of a replica set"),
    setting("MONGODB_DATABASE", "valet", "the database"),
    setting("S3_BUCKET", "", "a private bucket that only Valet uses"),
    setting("S3_ENDPOINT", "", "an S3 server other than AWS: `http(s)://host[:port]`, without the bucket's name"),
    setting(
        "S3_PUBLIC_ENDPOINT",
        "",
        "the host in presigned URLs, if clients reach the store by another name than `S3_ENDPOINT`",
    ),
    setting("S3_FORCE_PATH_STYLE", "false", "`host/bucket/key` instead of `bucket.host/key`"),
    setting("S3_FINALIZE", "auto", "where an upload becomes final: `in-place`, or `copy` to a key that no URL was signed for"),
    setting("AWS_REGION", "", "the bucket's region; else as the AWS SDK finds it, and `us-east-1` with `S3_ENDPOINT`"),
    setting("AWS_USE_FIPS_ENDPOINT", "", "FIPS endpoints of AWS, for calls and URLs"),
    setting("AWS_USE_DUALSTACK_ENDPOINT", "", "dual-stack endpoints of AWS, for calls and URLs"),
    setting("AWS_ENDPOINT_URL", "", "refused: set `S3_ENDPOINT`"),
    setting("AWS_ENDPOINT_URL_S3", "", "refused: set `S3_ENDPOINT`"),
    setting("AWS_CA_BUNDLE", "", "certificates (PEM) to trust for S3 and AWS instead of the system's"),
    setting("SSL_CERT_FILE", "", "the same for every outgoing TLS connection except MongoDB's (`tlsCAFile` in `MONGODB_URI`)"),
    setting("JWT_SECRET", "", "signs access tokens: `openssl rand -base64 48`"),
    setting("JWT_PREVIOUS_SECRETS", "", "secrets whose tokens stay valid: comma-separated, one a line, or a JSON list"),
    setting("JWT_ISSUER", "valet", "the claim `iss`, written and required"),
    setting("JWT_AUDIENCE", "valet", "the claim `aud`, written and required"),
    setting("ACCESS_TOKEN_TTL", "2h", "lifetime of an access token; `REFRESH_TOKEN_TTL` if that is shorter"),
    setting("REFRESH_TOKEN_TTL", "30d", "lifetime of a session without a refresh; a session ends after a year in any case"),
    setting("LOCAL_ACCOUNTS", "on", "accounts with a password; `off`: users sign in by the provider or the backend of the app"),
    setting("PASSWORD_MIN_LENGTH", "12", "Unicode code points of new passwords; NIST SP 800-63B: 15 where it is the only factor"),
    setting("SIGNUP", "on", "sign-up; existing accounts sign in either way"),
    setting("OIDC_ISSUER", "", "an OpenID provider whose tokens are accepted: its `issuer`, byte for byte"),
    setting("OIDC_AUDIENCE", "", "required with `OIDC_ISSUER`: comma-separated; a token's `aud` must contain one"),
    setting(
        "WEBHOOK_SECRET",
        "",
        "turns events and webhooks on; the secrets of the endpoints are derived from it: `openssl rand -base64 48`",
    ),
    setting(
        "WEBHOOK_ALLOW",
        "",
        "comma-separated networks of endpoints that are not on the internet; only they may use plain HTTP",
    ),
    setting("UPPY", "on", "Uppy's operations; `off`: they answer 404 and are not in the document"),
    setting("DOCS", "on", "Swagger UI and the OpenAPI document; `off`: they answer 404"),
    setting("UPLOAD_MAX_BYTES", "50MiB", "the largest file of one PUT"),
    setting(
        "UPLOAD_TYPES",
        "image/jpeg, image/png, image/webp, image/gif, image/avif, image/heic, image/heif",
        "comma-separated media types that are accepted",
    ),
    setting("UPLOAD_URL_TTL", "1h", "lifetime of a PUT URL, no longer than `UPLOAD_TTL` and `MULTIPART_TTL`"),
    setting("UPLOAD_TTL", "24h", "lifetime of an upload, during which its URL can be renewed"),
    setting("UPLOAD_MAX_PENDING", "1000", "open uploads per user"),
    setting("MULTIPART_MAX_BYTES", "5GiB", "the largest multipart upload"),
    setting("MULTIPART_TTL", "7d", "lifetime of a multipart upload"),
    setting("READ_URL_TTL", "5m", "lifetime of a GET URL; a URL in an answer has at least half of it left"),
    setting(
        "USER_QUOTA_BYTES",
        "10GiB",
        "bytes per user, open uploads included, and deleted images until their URLs have expired",
    ),
    setting(
        "KEEP_LOCATION",
        "off",
        "`on`: the position in an image's metadata is recorded and shown to its owner; the file has it in any case",
    ),
    setting("SWEEP_INTERVAL", "30s", "time between two sweeps"),
    setting("SWEEP_GRACE", "15m", "how long after a URL's expiry its object may still be in transfer (longer for large files)"),
    setting("BIND", "0.0.0.0:3000", "where the API listens"),
    setting("ADMIN_BIND", "", "where `/metrics`, `/livez` and `/readyz` are for operators; clients must not reach it"),
    setting("STOP_DELAY", "", "how long a server continues to serve after SIGTERM while `/readyz` answers 503"),
    setting("TRUSTED_PROXIES", "", "comma-separated networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted"),
    setting("CORS_ORIGINS", "", "comma-separated origins of pages that may call the API"),
    setting("MAX_CONNECTIONS", "10000", "connections of clients; one more is answered 503 and closed"),
    setting("MAX_REQUESTS", "1024", "requests under way; one more is answered 503 with `Retry-After`"),
    setting("MAX_EVENT_STREAMS", "2000", "open event streams; one more is answered 503 with `Retry-After`"),
    setting("RATE_LIMIT", "on", "`off` disables all limits below"),
    setting("RATE_LIMIT_SIGNUP", "300/1m", "sign-ups from one address"),
    setting("RATE_LIMIT_LOGIN", "1200/1m", "sign-ins, changes of the password and deletions of the account from one address"),
    setting("RATE_LIMIT_LOGIN_FAILURES", "25/1h", "wrong passwords for one account from one address"),
    setting("RATE_LIMIT_ACCOUNT_FAILURES", "100/1day", "wrong passwords for one account from all networks that are new to it"),
    setting("RATE_LIMIT_PASSWORD", "10/1m", "one session's changes of the password and deletions of the account"),
    setting("RATE_LIMIT_REFRESH", "1200/1m", "refreshes from one address, and as many sign-outs"),
    setting("RATE_LIMIT_CALLS", "6000/1m", "calls by one user, of any kind"),
    setting("RATE_LIMIT_UPLOAD", "6000/1m", "uploads opened by one user"),
    setting(
        "RATE_LIMIT_URLS",
        "60000/1m",
        "URLs signed for one user by `renew`, `read` and `parts`; each item of a batch counts",
    ),
    setting("RATE_LIMIT_S3", "6000/1m", "objects that `confirm`, `delete` and `parts` ask S3 about for one user"),
    setting("RATE_LIMIT_SERVICE_KEY", "6000/1m", "calls with one service key"),
    setting("LOG_FORMAT", "json", "format of log lines, which go to standard error"),
    setting("RUST_LOG", "info", "filter of log lines, as tracing's `EnvFilter`"),
    setting("OTEL_EXPORTER_OTLP_ENDPOINT", "", "the collector; `/v1/traces` is added. Without it or the next, nothing is sent"),
    setting("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "the whole address for traces"),
    setting("OTEL_EXPORTER_OTLP_PROTOCOL", "", "the protocol"),
    setting("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "", "the same, for traces alone"),
    setting("OTEL_EXPORTER_OTLP_HEADERS", "", "`name=value,…`: headers for the collector"),
    setting("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "", "the same, for traces alone"),
    setting("OTEL_EXPORTER_OTLP_COMPRESSION", "", "the compression"),
    setting("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "", "the same, for traces alone"),
    setting("OTEL_EXPORTER_OTLP_TIMEOUT", "", "milliseconds for one export (10000)"),
    setting("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "", "the same, for traces alone"),
    setting("OTEL_TRACES_SAMPLER", "", "which traces are kept (`parentbased_always_on`)"),
    setting("OTEL_TRACES_SAMPLER_ARG", "", "`0.01` keeps a hundredth, with a sampler whose name ends in `traceidratio`"),
    setting("OTEL_BSP_MAX_QUEUE_SIZE", "", "spans that may wait (2048)"),
    setting("OTEL_BSP_SCHEDULE_DELAY", "", "milliseconds between two exports (5000)"),
    setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "", "spans in one export (512)"),
    setting("OTEL_TRACES_EXPORTER", "", "`none`: no traces"),
    setting("OTEL_SDK_DISABLED", "", "`true`: no traces"),
];
