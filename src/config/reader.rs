//! Reads settings one by one and gathers what is wrong, so that one message can list it all.

use std::{cell::RefCell, collections::BTreeSet, fmt, str::FromStr, time::Duration};

use secrecy::SecretString;

use super::{Finalize, Limits, Load, LogFormat, Lookup, Network, Rate, TrustedProxies, origins::is_sent};
use crate::model::ContentType;

/// Reads settings one by one and gathers what is wrong.
pub(super) struct Reader<'a> {
    lookup: Lookup<'a>,
    pub(super) problems: Vec<String>,
    /// The settings that were read.
    pub(super) names: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: Lookup<'a>) -> Self {
        Self { lookup, problems: Vec::new(), names: RefCell::default() }
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.names.borrow_mut().insert(name.to_owned());
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Reports each setting that was read and whose value held bytes that are not UTF-8.
    pub(super) fn check_encoding(&mut self) {
        let is_broken = |name: &&String| (self.lookup)(name).is_some_and(|value| value.contains(char::REPLACEMENT_CHARACTER));
        let broken: Vec<_> = self.names.borrow().iter().filter(is_broken).cloned().collect();
        broken.iter().for_each(|name| self.wrong(name, "UTF-8"));
    }

    /// A wrong value is reported and replaced by the default, so that reading goes on.
    pub(super) fn wrong(&mut self, name: &str, wanted: impl fmt::Display) {
        let problem = format!("{name} must be {wanted}");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn required(&mut self, name: &str, wanted: &str) -> String {
        let value = self.text(name);
        if value.is_none() {
            self.problems.push(format!("{name} is not set: give {wanted}"));
        }
        value.unwrap_or_default()
    }

    pub(super) fn mongodb_uri(&mut self) -> String {
        let wanted = "a MongoDB connection string: mongodb://… or mongodb+srv://…";
        let uri = self.required("MONGODB_URI", wanted);
        if !uri.is_empty() && !uri.starts_with("mongodb://") && !uri.starts_with("mongodb+srv://") {
            self.wrong("MONGODB_URI", wanted);
        }
        uri
    }

    pub(super) fn checked<T>(
        &mut self,
        name: &str,
        default: T,
        wanted: impl fmt::Display,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(name) else { return default };
        read(&text).unwrap_or_else(|| {
            self.wrong(name, wanted);
            default
        })
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, wanted: &str) -> T {
        self.checked(name, default, wanted, |text| text.parse().ok())
    }

    pub(super) fn optional<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        self.checked(name, None, wanted, |text| text.parse().ok().map(Some))
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.checked(name, default, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" | "yes" => Some(true),
            "false" | "off" | "0" | "no" => Some(false),
            _ => None,
        })
    }

    pub(super) fn duration(&mut self, name: &str, default: Duration, most: Duration) -> Duration {
        self.lifetime(name, default, (Duration::from_secs(1), most))
    }

    pub(super) fn lifetime(&mut self, name: &str, default: Duration, (least, most): (Duration, Duration)) -> Duration {
        let (from, to) = (humantime::format_duration(least), humantime::format_duration(most));
        let wanted = format!("a duration with a unit, such as 30s, 15m or 2h, from {from} to {to}");
        self.checked(name, default, wanted, |text| {
            humantime::parse_duration(text).ok().filter(|value| (least..=most).contains(value))
        })
    }

    pub(super) fn bytes(&mut self, name: &str, default: u64, most: u64) -> u64 {
        let wanted = format!("a size such as 50MiB or 10 GiB, from 1 byte to {}", bytesize::ByteSize(most));
        self.checked(name, default, wanted, |text| {
            text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()).filter(|size| (1..=most).contains(size))
        })
    }

    pub(super) fn number(&mut self, name: &str, default: u64, most: u64) -> u64 {
        self.checked(name, default, format!("a whole number from 1 to {most}"), |text| {
            text.parse().ok().filter(|value| (1..=most).contains(value))
        })
    }

    /// A list without an item, or with an empty one, is a mistake: leaving the setting out says "none".
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.text(name) else { return Vec::new() };
        let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
        if items.iter().any(String::is_empty) {
            self.wrong(name, "a list with something between, before and after its commas");
        }
        self.check_different(name, &items);
        items.into_iter().filter(|item| !item.is_empty()).collect()
    }

    fn check_different<T: PartialEq>(&mut self, name: &str, items: &[T]) {
        if (1..items.len()).any(|at| items[..at].contains(&items[at])) {
            self.wrong(name, "a list of different values, each given once");
        }
    }

    pub(super) fn secret(&mut self, name: &str) -> SecretString {
        let value = self.required(name, "at least 32 random bytes, for example from: openssl rand -base64 48");
        self.strong(name, &value);
        value.into()
    }

    /// Secrets may hold commas: then they are given as a JSON list, or one a line.
    pub(super) fn secrets(&mut self, name: &str) -> Vec<SecretString> {
        let text = self.text(name).unwrap_or_default();
        let values: Vec<String> = if text.starts_with('[') {
            serde_json::from_str(&text).unwrap_or_else(|_| {
                self.wrong(name, "a JSON list of texts, where it begins with a bracket");
                Vec::new()
            })
        } else if text.contains('\n') {
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        } else {
            self.list(name)
        };
        values.iter().for_each(|value| self.strong(name, value));
        values.into_iter().map(SecretString::from).collect()
    }

    /// RFC 7518 section 3.2: an HS256 key has at least the hash's 256 bits. A repeated letter has that many and no strength.
    pub(super) fn strong(&mut self, name: &str, value: &str) {
        let distinct = value.bytes().collect::<std::collections::BTreeSet<_>>().len();
        if (!value.is_empty() || name == "JWT_PREVIOUS_SECRETS") && (value.len() < 32 || distinct < 8) {
            self.wrong(name, "at least 32 random bytes: whoever guesses it can sign in as anyone");
        }
    }

    pub(super) fn types(&mut self, name: &str) -> Vec<ContentType> {
        let listed = self.list(name);
        let known: Vec<_> = listed.iter().filter_map(|item| ContentType::parse(item)).collect();
        if known.len() < listed.len() {
            self.wrong(name, format_args!("a list of: {}", ContentType::ALL.map(ContentType::as_str).join(", ")));
        }
        // Two names of one type, too.
        self.check_different(name, &known);
        if known.is_empty() { ContentType::ALL.to_vec() } else { known }
    }

    pub(super) fn origins(&mut self, name: &str) -> Vec<String> {
        let origins = self.list(name);
        if !origins.iter().all(|origin| is_sent(origin)) {
            self.wrong(
                name,
                "a list of origins exactly as browsers send them, such as https://app.example.com: in lower case, hosts in \
                 punycode, without a wildcard, a default port, a user name, a path or a slash at the end",
            );
        }
        origins
    }

    pub(super) fn limits(&mut self) -> Limits {
        let default = Limits::default();
        Limits {
            on: self.flag("RATE_LIMIT", default.on),
            signup: self.parsed("RATE_LIMIT_SIGNUP", default.signup, Rate::FORM),
            login: self.parsed("RATE_LIMIT_LOGIN", default.login, Rate::FORM),
            login_failures: self.parsed("RATE_LIMIT_LOGIN_FAILURES", default.login_failures, Rate::FORM),
            account_failures: self.parsed("RATE_LIMIT_ACCOUNT_FAILURES", default.account_failures, Rate::FORM),
            password: self.parsed("RATE_LIMIT_PASSWORD", default.password, Rate::FORM),
            refresh: self.parsed("RATE_LIMIT_REFRESH", default.refresh, Rate::FORM),
            calls: self.parsed("RATE_LIMIT_CALLS", default.calls, Rate::FORM),
            upload: self.parsed("RATE_LIMIT_UPLOAD", default.upload, Rate::FORM),
            urls: self.parsed("RATE_LIMIT_URLS", default.urls, Rate::FORM),
            s3: self.parsed("RATE_LIMIT_S3", default.s3, Rate::FORM),
        }
    }

    pub(super) fn load(&mut self) -> Load {
        let mut count = |name, default, most| usize::try_from(self.number(name, default, most)).unwrap_or(usize::MAX);
        Load { max_connections: count("MAX_CONNECTIONS", 10_000, 1_000_000), max_requests: count("MAX_REQUESTS", 1024, 100_000) }
    }

    pub(super) fn proxies(&mut self, name: &str) -> TrustedProxies {
        let listed = self.list(name);
        let known: Vec<Network> =
            listed.iter().filter_map(|item| item.parse().ok()).filter(|one: &Network| !one.is_too_wide()).collect();
        if known.len() < listed.len() {
            self.wrong(name, TrustedProxies::FORM);
        }
        let is_inside = |at: usize| (0..known.len()).any(|other| other != at && known[other].contains(&known[at]));
        if (0..known.len()).any(is_inside) {
            self.wrong(name, "a list of networks of which none lies in another");
        }
        TrustedProxies(known)
    }

    pub(super) fn log_format(&mut self) -> LogFormat {
        self.checked("LOG_FORMAT", LogFormat::Json, "json or text", |text| match text {
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            _ => None,
        })
    }

    pub(super) fn finalize(&mut self, name: &str) -> Finalize {
        self.checked(name, Finalize::Auto, "auto, in-place or copy", |text| match text {
            "auto" => Some(Finalize::Auto),
            "in-place" => Some(Finalize::InPlace),
            "copy" => Some(Finalize::Copy),
            _ => None,
        })
    }
}
