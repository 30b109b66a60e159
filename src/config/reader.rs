//! Reads and validates single settings and collects the problems, so that one message can list them all.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use secrecy::SecretString;

use super::{Finalize, LoadLimits, LogFormat, Lookup, Network, Rate, RateLimits, TrustedProxies, origins::is_origin_header};
use crate::model::ContentType;

/// Abuse that a guessed secret of access tokens permits.
const SIGN_IN: &str = "signing in as any user";

/// Reads settings and collects their problems.
pub(super) struct Reader<'a> {
    lookup: Lookup<'a>,
    pub(super) problems: Vec<String>,
    /// The names of the settings that were read.
    pub(super) names: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, problems: Vec::new(), names: RefCell::default() }
    }

    /// Returns whether a setting is set to a value that is not empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Returns the trimmed value of a setting, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.names.borrow_mut().insert(name.to_owned());
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Reports each setting that was read and whose value had bytes that are not UTF-8.
    pub(super) fn check_encoding(&mut self) {
        let is_broken = |name: &&String| (self.lookup)(name).is_some_and(|value| value.contains(char::REPLACEMENT_CHARACTER));
        let broken: Vec<_> = self.names.borrow().iter().filter(is_broken).cloned().collect();
        broken.iter().for_each(|name| self.report_invalid(name, "UTF-8"));
    }

    /// Reports an invalid value, once. Reading continues with the setting's default.
    pub(super) fn report_invalid(&mut self, name: &str, wanted: impl fmt::Display) {
        let problem = format!("{name} must be {wanted}");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Returns the value of a setting that must be set.
    pub(super) fn required(&mut self, name: &str, wanted: &str) -> String {
        let value = self.text(name);
        if value.is_none() {
            self.problems.push(format!("{name} is not set: set it to {wanted}"));
        }
        value.unwrap_or_default()
    }

    /// Reads the connection string.
    pub(super) fn mongodb_uri(&mut self) -> String {
        let wanted = "a MongoDB connection string: mongodb://… or mongodb+srv://…";
        let uri = self.required("MONGODB_URI", wanted);
        if !uri.is_empty() && !uri.starts_with("mongodb://") && !uri.starts_with("mongodb+srv://") {
            self.report_invalid("MONGODB_URI", wanted);
        }
        uri
    }

    /// Reads a setting by `read`. Returns the default for an omitted value and, after reporting that the value must be `wanted`,
    /// for an invalid one.
    pub(super) fn read_valid<T>(
        &mut self,
        name: &str,
        default: T,
        wanted: impl fmt::Display,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        read(&text).unwrap_or_else(|| {
            self.report_invalid(name, wanted);
            default
        })
    }

    /// Reads a setting by its type's parser.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, wanted: &str) -> T {
        self.read_valid(name, default, wanted, |text| text.parse().ok())
    }

    /// Reads a setting without a default by its type's parser.
    pub(super) fn optional<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        self.read_valid(name, None, wanted, |text| text.parse().ok().map(Some))
    }

    /// Reads a boolean: `true`, `on`, `1` or `yes`, or their opposites, in any letter case.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.read_valid(name, default, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" | "yes" => Some(true),
            "false" | "off" | "0" | "no" => Some(false),
            _ => None,
        })
    }

    /// Reads a duration from one second to `most`.
    pub(super) fn duration(&mut self, name: &str, default: Duration, most: Duration) -> Duration {
        self.duration_within(name, default, Duration::from_secs(1)..=most)
    }

    /// Reads a duration within `bounds`.
    pub(super) fn duration_within(&mut self, name: &str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
        let (from, to) = (humantime::format_duration(*bounds.start()), humantime::format_duration(*bounds.end()));
        let wanted = format!("a duration with a unit, such as 30s, 15m or 2h, from {from} to {to}");
        self.read_valid(name, default, wanted, |text| humantime::parse_duration(text).ok().filter(|value| bounds.contains(value)))
    }

    /// Reads a size from one byte to `most`.
    pub(super) fn bytes(&mut self, name: &str, default: u64, most: u64) -> u64 {
        let wanted = format!("a size such as 50MiB or 10 GiB, from 1 byte to {}", bytesize::ByteSize(most));
        self.read_valid(name, default, wanted, |text| {
            text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()).filter(|size| (1..=most).contains(size))
        })
    }

    /// Reads a number from 1 to `most`.
    pub(super) fn number(&mut self, name: &str, default: u64, most: u64) -> u64 {
        self.read_valid(name, default, format!("a whole number from 1 to {most}"), |text| {
            text.parse().ok().filter(|value| (1..=most).contains(value))
        })
    }

    /// Reads a list of items with commas between them. Empty items are a mistake: an empty list is set by omitting the setting.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.text(name) else { return Vec::new() };
        let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
        if items.iter().any(String::is_empty) {
            self.report_invalid(name, "a list without empty items");
        }
        self.check_different(name, &items);
        items.into_iter().filter(|item| !item.is_empty()).collect()
    }

    /// Checks that no item of a list appears twice.
    fn check_different<T: PartialEq>(&mut self, name: &str, items: &[T]) {
        if (1..items.len()).any(|index| items[..index].contains(&items[index])) {
            self.report_invalid(name, "a list without duplicates");
        }
    }

    /// Reads a secret that must be set.
    pub(super) fn secret(&mut self, name: &str) -> SecretString {
        let value = self.required(name, "at least 32 random bytes, for example from: openssl rand -base64 48");
        if !value.is_empty() {
            self.check_strength(name, &value, SIGN_IN);
        }
        value.into()
    }

    /// Reads secrets, with commas between them, one per line, or as a JSON list. In the last two forms, they may contain commas.
    pub(super) fn secrets(&mut self, name: &str) -> Vec<SecretString> {
        let text = self.text(name).unwrap_or_default();
        let values: Vec<String> = if text.starts_with('[') {
            serde_json::from_str(&text).unwrap_or_else(|_| {
                self.report_invalid(name, "a JSON list of strings, if it begins with a bracket");
                Vec::new()
            })
        } else if text.contains('\n') {
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        } else {
            self.list(name)
        };
        values.iter().for_each(|value| self.check_strength(name, value, SIGN_IN));
        values.into_iter().map(SecretString::from).collect()
    }

    /// Checks the strength of a secret: at least 32 bytes, because an HS256 key has at least the hash's 256 bits (RFC 7518 section
    /// 3.2), and at least 8 different ones, because a repeated letter is easy to guess. `danger`: the abuse that a guess permits.
    pub(super) fn check_strength(&mut self, name: &str, value: &str, danger: &str) {
        let distinct = value.bytes().collect::<std::collections::BTreeSet<_>>().len();
        if value.len() < 32 || distinct < 8 {
            self.report_invalid(name, format_args!("at least 32 random bytes: a guessed secret permits {danger}"));
        }
    }

    /// Reads a list of media types; all types by default.
    pub(super) fn types(&mut self, name: &str) -> Vec<ContentType> {
        let listed = self.list(name);
        let known: Vec<_> = listed.iter().filter_map(|item| ContentType::parse(item)).collect();
        if known.len() < listed.len() {
            self.report_invalid(name, format_args!("a list of: {}", ContentType::ALL.map(ContentType::as_str).join(", ")));
        }
        // Two aliases of one type are duplicates, too.
        self.check_different(name, &known);
        if known.is_empty() { ContentType::ALL.to_vec() } else { known }
    }

    /// Reads a list of origins.
    pub(super) fn origins(&mut self, name: &str) -> Vec<String> {
        let origins = self.list(name);
        if !origins.iter().all(|origin| is_origin_header(origin)) {
            self.report_invalid(
                name,
                "a list of origins exactly as browsers send them, such as https://app.example.com: in lower case, hosts in \
                 punycode, without a wildcard, a default port, a user name, a path or a slash at the end",
            );
        }
        origins
    }

    /// Reads the rate limits.
    pub(super) fn limits(&mut self) -> RateLimits {
        let default = RateLimits::default();
        RateLimits {
            on: self.flag("RATE_LIMIT", default.on),
            signup: self.parsed("RATE_LIMIT_SIGNUP", default.signup, Rate::FORMAT),
            login: self.parsed("RATE_LIMIT_LOGIN", default.login, Rate::FORMAT),
            login_failures: self.parsed("RATE_LIMIT_LOGIN_FAILURES", default.login_failures, Rate::FORMAT),
            account_failures: self.parsed("RATE_LIMIT_ACCOUNT_FAILURES", default.account_failures, Rate::FORMAT),
            password: self.parsed("RATE_LIMIT_PASSWORD", default.password, Rate::FORMAT),
            refresh: self.parsed("RATE_LIMIT_REFRESH", default.refresh, Rate::FORMAT),
            calls: self.parsed("RATE_LIMIT_CALLS", default.calls, Rate::FORMAT),
            upload: self.parsed("RATE_LIMIT_UPLOAD", default.upload, Rate::FORMAT),
            urls: self.parsed("RATE_LIMIT_URLS", default.urls, Rate::FORMAT),
            s3: self.parsed("RATE_LIMIT_S3", default.s3, Rate::FORMAT),
            service_key: self.parsed("RATE_LIMIT_SERVICE_KEY", default.service_key, Rate::FORMAT),
        }
    }

    /// Reads the limits of concurrent work.
    pub(super) fn load(&mut self) -> LoadLimits {
        let mut count = |name, default, most| usize::try_from(self.number(name, default, most)).unwrap_or(usize::MAX);
        let max_connections = count("MAX_CONNECTIONS", 10_000, 1_000_000);
        let max_requests = count("MAX_REQUESTS", 1024, 100_000);
        let mut max_event_streams = count("MAX_EVENT_STREAMS", 2000, 100_000);
        if !self.is_set("MAX_EVENT_STREAMS") {
            // Streams last for minutes, and other requests need connections, too.
            max_event_streams = max_event_streams.min(max_connections / 2);
        }
        LoadLimits { max_connections, max_requests, max_event_streams }
    }

    /// Reads a list of networks that do not overlap.
    pub(super) fn proxies(&mut self, name: &str) -> TrustedProxies {
        let listed = self.list(name);
        let known: Vec<Network> =
            listed.iter().filter_map(|item| item.parse().ok()).filter(|network: &Network| !network.is_too_wide()).collect();
        if known.len() < listed.len() {
            self.report_invalid(name, TrustedProxies::FORMAT);
        }
        let is_inside = |index: usize| (0..known.len()).any(|other| other != index && known[other].contains(&known[index]));
        if (0..known.len()).any(is_inside) {
            self.report_invalid(name, "a list of networks that do not overlap");
        }
        TrustedProxies(known)
    }

    /// Reads the format of log lines.
    pub(super) fn log_format(&mut self) -> LogFormat {
        self.read_valid("LOG_FORMAT", LogFormat::Json, "json or text", |text| match text {
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            _ => None,
        })
    }

    /// Reads whether uploads are copied to become final.
    pub(super) fn finalize(&mut self, name: &str) -> Finalize {
        self.read_valid(name, Finalize::Auto, "auto, in-place or copy", |text| match text {
            "auto" => Some(Finalize::Auto),
            "in-place" => Some(Finalize::InPlace),
            "copy" => Some(Finalize::Copy),
            _ => None,
        })
    }
}
