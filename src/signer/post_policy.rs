//! POST policies: browser form uploads, by the AWS document "Browser-Based Uploads Using POST (AWS Signature Version 4)".
//!
//! A policy cannot bind a form to a digest, to an exact length or to a single use; the uploaded bytes are verified afterwards.

use std::{fmt, ops::RangeInclusive, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset};

use super::{CredentialsExpired, Signer, encoding};

/// The policy of a form. S3 rejects a form with any other field.
#[derive(Debug, Clone)]
pub struct PostPolicy<'a> {
    /// Fields that must be sent with exactly these values. `key` belongs here or among the prefixes.
    pub fields: &'a [(&'a str, &'a str)],
    /// Fields whose values the client chooses, and the prefix each must have; an empty prefix allows any value.
    pub prefixes: &'a [(&'a str, &'a str)],
    /// The permitted size of the file in bytes.
    pub length: RangeInclusive<u64>,
}

/// A signed form. It grants access, so Debug omits its fields.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedForm {
    /// URL to which the form is posted.
    pub url: String,
    /// Fields that are sent before the field `file`, as multipart/form-data.
    pub fields: Vec<(String, String)>,
    /// Time at which S3 stops accepting it.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for SignedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedForm").field("url", &self.url).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs a form that S3 accepts from `signed_at` on for `ttl`, or until the credentials expire, if that is sooner.
    ///
    /// # Errors
    /// [`CredentialsExpired`] when less than a second would be left.
    pub fn sign_form(
        &self,
        form: &PostPolicy<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<SignedForm, CredentialsExpired> {
        let (signed_at, ttl) = self.lifetime(signed_at, ttl)?;
        let expires_at = signed_at + Duration::from_secs(ttl);
        let day = self.day(signed_at);
        let mut date_time = format!("{}T", day.stamp).into_bytes();
        encoding::push_clock(&mut date_time, signed_at);
        date_time.push(b'Z');
        let date_time = String::from_utf8_lossy(&date_time).into_owned();

        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut fields: Vec<_> = form.fields.iter().map(owned).collect();
        fields.push(("x-amz-algorithm".to_owned(), "AWS4-HMAC-SHA256".to_owned()));
        fields.push(("x-amz-credential".to_owned(), day.credential.clone()));
        fields.push(("x-amz-date".to_owned(), date_time));
        if let Some(token) = &self.credentials.session_token {
            fields.push(("x-amz-security-token".to_owned(), token.expose_secret().to_owned()));
        }
        let mut conditions = vec![json!({ "bucket": self.location.bucket() })];
        conditions.extend(fields.iter().map(|(name, value)| Value::Object([(name.clone(), json!(value))].into_iter().collect())));
        conditions.extend(form.prefixes.iter().map(|(name, prefix)| json!(["starts-with", format!("${name}"), prefix])));
        conditions.push(json!(["content-length-range", form.length.start(), form.length.end()]));
        let policy = json!({ "expiration": rfc3339(expires_at), "conditions": conditions });

        let policy = STANDARD.encode(policy.to_string());
        let signature = sign_policy(&day.key, &policy);
        fields.extend([("policy".to_owned(), policy), ("x-amz-signature".to_owned(), signature)]);
        Ok(SignedForm { url: self.location.bucket_url().to_owned(), fields, expires_at })
    }
}

/// Returns the signature of a base64-encoded policy, in hexadecimal.
pub(super) fn sign_policy(key: &hmac::Key, policy: &str) -> String {
    let mut signature = Vec::with_capacity(64);
    encoding::push_hex(&mut signature, hmac::sign(key, policy.as_bytes()).as_ref());
    String::from_utf8_lossy(&signature).into_owned()
}

/// Formats a time in UTC with whole seconds (RFC 3339).
fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
