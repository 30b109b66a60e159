//! CORS as on AWS: by the bucket's own rules or, if it has none, by the rule that `valet check --fix` sets for the origins in
//! `LocalS3Options`. It runs before `s3s`, which would require a signature on OPTIONS.

use std::sync::Arc;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::authentication::text_of;
use super::bucket_setting::BucketSetting;
use super::errors::ErrorAnswer;
use super::folder::Folder;
use super::lifecycle::malformed;
use crate::config::CorsOrigins;
use crate::model::cors::{BUCKET_MAX_AGE, BUCKET_METHODS, BUCKET_REQUEST_HEADERS, BUCKET_RESPONSE_HEADERS};

/// Maximum number of rules of a bucket.
const MAX_RULES: usize = 100;
/// Maximum characters of a rule's ID.
const MAX_ID_CHARS: usize = 255;
/// Methods that rules may allow.
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

/// Message of AWS, with its misspelling, for a preflight that matches no rule.
pub(super) const NO_RULE: &str = "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, \
    request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.";

/// Checks a configuration as AWS does when it is set (`PutBucketCors` in the S3 API reference).
///
/// # Errors
///
/// 400 with the code and message of AWS for the first fault.
pub(super) fn check(configuration: &CORSConfiguration) -> S3Result<()> {
    if configuration.cors_rules.is_empty() || configuration.cors_rules.len() > MAX_RULES {
        return Err(malformed());
    }
    configuration.cors_rules.iter().try_for_each(check_rule)
}

/// Checks one rule.
fn check_rule(rule: &CORSRule) -> S3Result<()> {
    let reject = |message: String| Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
    let wildcards = |text: &str| text.matches('*').count();
    if let Some(method) = rule.allowed_methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
        return reject(format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}"));
    }
    let headers = rule.allowed_headers.as_deref().unwrap_or_default();
    for (name, patterns) in [("AllowedOrigin", rule.allowed_origins.as_slice()), ("AllowedHeader", headers)] {
        if let Some(pattern) = patterns.iter().find(|pattern| wildcards(pattern) > 1) {
            return reject(format!("{name} \"{pattern}\" can not have more than one wildcard."));
        }
    }
    if let Some(header) = rule.expose_headers.iter().flatten().find(|header| wildcards(header) > 0) {
        return reject(format!(
            "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
        ));
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID_CHARS) {
        return reject(format!("ID length should not exceed allowed limit of {MAX_ID_CHARS}"));
    }
    if rule.max_age_seconds.is_some_and(|seconds| seconds < 0) { Err(malformed()) } else { Ok(()) }
}

/// The parts of a request that CORS rules concern (Fetch standard, section 3.2.2).
pub(super) struct CorsRequest {
    /// Origin of the page.
    origin: String,
    /// The request's own method, or the one that a preflight announces.
    method: String,
    /// Names of the headers that a preflight announces, in lower case.
    headers: Vec<String>,
}

impl CorsRequest {
    /// Returns the request that a preflight announces.
    ///
    /// # Errors
    ///
    /// 400 without an origin or a method.
    pub(super) fn from_preflight(headers: &HeaderMap) -> S3Result<Self> {
        let bad = |message: &'static str| {
            let mut error = S3Error::with_message(S3ErrorCode::Custom("BadRequest".into()), message);
            error.set_status_code(hyper::StatusCode::BAD_REQUEST);
            error
        };
        let Some(origin) = text_of(headers, ORIGIN) else {
            return Err(bad("Insufficient information. Origin request header needed."));
        };
        let Some(method) = text_of(headers, ACCESS_CONTROL_REQUEST_METHOD) else {
            return Err(bad("Invalid Access-Control-Request-Method: null"));
        };
        Ok(Self::new(origin, method, headers))
    }

    /// Returns the request itself, if it has an origin. As on AWS, headers of a preflight are read in other requests, too.
    pub(super) fn from_request(method: &str, headers: &HeaderMap) -> Option<Self> {
        let method = text_of(headers, ACCESS_CONTROL_REQUEST_METHOD).unwrap_or(method);
        Some(Self::new(text_of(headers, ORIGIN)?, method, headers))
    }

    /// Creates a request with the header names that it announces.
    fn new(origin: &str, method: &str, headers: &HeaderMap) -> Self {
        let names = text_of(headers, ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
        let names = names.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        Self { origin: origin.to_owned(), method: method.to_owned(), headers: names.collect() }
    }

    /// Returns whether a rule allows origin, method and headers.
    fn is_allowed_by(&self, rule: &CORSRule) -> bool {
        let matches_any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
        let names = rule.allowed_headers.as_deref().unwrap_or_default();
        matches_any(&rule.allowed_origins, &self.origin)
            && rule.allowed_methods.contains(&self.method)
            && self.headers.iter().all(|name| names.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), name)))
    }
}

/// Returns whether the text matches the pattern, in which one `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| rest.ends_with(tail)),
    }
}

/// Returns the headers that the first matching rule adds to an answer; `None` if no rule matches.
///
/// # Errors
///
/// An unreadable configuration.
pub(super) async fn response_headers(
    folder: &Arc<Folder>,
    origins: &CorsOrigins,
    path: &str,
    request: &CorsRequest,
) -> S3Result<Option<HeaderMap>> {
    let own_rules = match path.trim_start_matches('/').split('/').next().and_then(|name| folder.bucket(name).ok()) {
        None => None,
        Some(bucket) => {
            let read = tokio::task::spawn_blocking(move || BucketSetting::Cors.get::<CORSConfiguration>(&bucket)).await;
            match read.map_err(|_| s3_error!(InternalError, "The bucket's CORS rules could not be read"))? {
                Ok(stored) => Some(stored.cors_rules),
                Err(error) if *error.code() == S3ErrorCode::NoSuchCORSConfiguration => None,
                Err(error) => return Err(error),
            }
        }
    };
    let rules = own_rules.unwrap_or_else(|| default_rule(origins, &request.origin).into_iter().collect());
    Ok(rules.iter().find(|rule| request.is_allowed_by(rule)).and_then(|rule| grant(rule, request)))
}

/// Returns the rule that `valet check --fix` would set for this origin.
fn default_rule(origins: &CorsOrigins, origin: &str) -> Option<CORSRule> {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    origins.allows(origin).then(|| CORSRule {
        allowed_headers: Some(strings(&BUCKET_REQUEST_HEADERS)),
        allowed_methods: strings(&BUCKET_METHODS),
        allowed_origins: vec![origin.to_owned()],
        expose_headers: Some(strings(&BUCKET_RESPONSE_HEADERS)),
        id: None,
        max_age_seconds: Some(BUCKET_MAX_AGE),
    })
}

/// Returns the headers that a matching rule adds to the answer.
fn grant(rule: &CORSRule, request: &CorsRequest) -> Option<HeaderMap> {
    let allows_all = rule.allowed_origins.iter().any(|origin| origin == "*");
    let exposed = rule.expose_headers.clone().unwrap_or_default();
    let mut texts = vec![
        (ACCESS_CONTROL_ALLOW_ORIGIN, if allows_all { "*".to_owned() } else { request.origin.clone() }),
        (ACCESS_CONTROL_ALLOW_METHODS, rule.allowed_methods.join(", ")),
        (VARY, "Origin, Access-Control-Request-Headers, Access-Control-Request-Method".to_owned()),
    ];
    if !allows_all {
        texts.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".to_owned()));
    }
    let lists = [(ACCESS_CONTROL_ALLOW_HEADERS, &request.headers), (ACCESS_CONTROL_EXPOSE_HEADERS, &exposed)];
    texts.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, list.join(", "))));
    texts.extend(rule.max_age_seconds.map(|seconds| (ACCESS_CONTROL_MAX_AGE, seconds.to_string())));
    texts.into_iter().map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect()
}

/// Returns the 403 for a preflight, with the XML elements that AWS adds.
pub(super) fn forbidden(message: &'static str, announced: &CorsRequest, path: &str) -> ErrorAnswer {
    let mut error = S3Error::with_message(S3ErrorCode::Custom("AccessForbidden".into()), message);
    error.set_status_code(hyper::StatusCode::FORBIDDEN);
    let is_object = path.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let resource = if is_object { "OBJECT" } else { "BUCKET" };
    ErrorAnswer { error, elements: vec![("Method", announced.method.clone()), ("ResourceType", resource.to_owned())] }
}
