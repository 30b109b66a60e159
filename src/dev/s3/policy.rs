//! The policy of a form ("Creating a POST Policy" in the S3 API reference): permitted fields, permitted length, and expiry.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::{S3Error, S3Result, s3_error};
use serde_json::{Value, json};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::FormatItem, macros::format_description};

use super::ingest::MAX_BYTES;

/// Format of a policy's expiration.
const TIME: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]]Z");

/// Fields that need no condition, besides those that begin with `x-ignore-`. The last two belong to version 2 signatures.
const EXEMPT: [&str; 4] = ["policy", "x-amz-signature", "awsaccesskeyid", "signature"];

/// The fields of a form, by their names in lower case.
pub(super) type Fields = BTreeMap<String, String>;

/// A parsed policy.
pub(super) struct Policy {
    expiration: OffsetDateTime,
    conditions: Vec<Condition>,
    /// Permitted length of the file in bytes.
    pub(super) length: RangeInclusive<u64>,
}

/// A condition on one field, whose name is in lower case.
struct Condition {
    field: String,
    test: Test,
    text: String,
}

/// Comparison of a field with the text of its condition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    StartsWith,
}

/// Returns the error for a text that is not a policy.
fn invalid(problem: &str) -> S3Error {
    s3_error!(InvalidPolicyDocument, "Invalid Policy: {problem}")
}

/// Returns the error for a form that its policy does not permit.
fn unmet(problem: &str) -> S3Error {
    s3_error!(AccessDenied, "Invalid according to Policy: {problem}")
}

impl Policy {
    /// Parses a policy from base64.
    ///
    /// # Errors
    ///
    /// `InvalidPolicyDocument` (400) for everything that is not a policy.
    pub(super) fn parse(encoded: &str) -> S3Result<Self> {
        let json = BASE64.decode(encoded).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let json = json.ok_or_else(|| invalid("Invalid JSON."))?;
        let expiration = json.get("expiration").and_then(Value::as_str).ok_or_else(|| invalid("Policy missing expiration."))?;
        let expiration = PrimitiveDateTime::parse(expiration, TIME)
            .map_err(|_| invalid("Invalid 'expiration' value: it must be a UTC time such as 2030-01-01T12:00:00.000Z."))?;
        let listed = json.get("conditions").and_then(Value::as_array).ok_or_else(|| invalid("Policy missing conditions."))?;
        let mut policy =
            Self { expiration: expiration.assume_utc(), conditions: Vec::with_capacity(listed.len()), length: 0..=MAX_BYTES };
        for condition in listed {
            policy.add(condition)?;
        }
        Ok(policy)
    }

    /// Parses a condition and adds it.
    fn add(&mut self, condition: &Value) -> S3Result<()> {
        let (field, test, text) = match condition {
            Value::Object(simple) => {
                let mut pairs = simple.iter();
                let (Some((field, text)), None) = (pairs.next(), pairs.next()) else {
                    let problem = "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.";
                    return Err(invalid(problem));
                };
                let text = text.as_str().ok_or_else(|| invalid("Invalid Simple-Condition: value must be a string."))?;
                (field.as_str(), Test::Equals, text)
            }
            Value::Array(members) => {
                let [operator, first, second] = members.as_slice() else {
                    return Err(invalid("Invalid Condition: wrong number of arguments."));
                };
                let operator = operator.as_str().unwrap_or_default();
                if operator.eq_ignore_ascii_case("content-length-range") {
                    return self.narrow(first, second);
                }
                let test = match operator.to_ascii_lowercase().as_str() {
                    "eq" => Test::Equals,
                    "starts-with" => Test::StartsWith,
                    _ => return Err(invalid("Invalid Condition: unknown operation.")),
                };
                let (Some(field), Some(text)) = (first.as_str(), second.as_str()) else {
                    return Err(invalid("Invalid Condition: both arguments must be strings."));
                };
                (field.strip_prefix('$').unwrap_or(field), test, text)
            }
            _ => return Err(invalid("Invalid Condition: neither an array nor an object.")),
        };
        self.conditions.push(Condition { field: field.to_ascii_lowercase(), test, text: text.to_owned() });
        Ok(())
    }

    /// Applies a length condition. AWS accepts a bound as a number and as the same number in a string.
    fn narrow(&mut self, least: &Value, most: &Value) -> S3Result<()> {
        let bound = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse::<u64>().ok());
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) if least <= most => {
                self.length = least.max(*self.length.start())..=most.min(*self.length.end());
                Ok(())
            }
            _ => Err(invalid("Invalid content-length-range: it must have a least and a greatest number of bytes.")),
        }
    }

    /// Checks the fields, `bucket` among them; the file's length is not known yet.
    ///
    /// # Errors
    ///
    /// `AccessDenied` (403) if the policy has expired, a condition is not met or a field has no condition.
    pub(super) fn check(&self, fields: &Fields, now: OffsetDateTime) -> S3Result<()> {
        if self.expiration <= now {
            return Err(unmet("Policy expired."));
        }
        if let Some(failed) = self.conditions.iter().find(|condition| !condition.is_met(fields)) {
            return Err(unmet(&format!("Policy Condition failed: {}", failed.to_json())));
        }
        let is_permitted = |name: &str| {
            EXEMPT.contains(&name) || name.starts_with("x-ignore-") || self.conditions.iter().any(|c| c.field == name)
        };
        match fields.keys().find(|name| !is_permitted(name)) {
            Some(extra) => Err(unmet(&format!("Extra input fields: {extra}"))),
            None => Ok(()),
        }
    }
}

impl Condition {
    /// Returns whether the fields meet the condition.
    fn is_met(&self, fields: &Fields) -> bool {
        // A condition on a missing field is not met, not even by an empty prefix.
        let Some(value) = fields.get(&self.field) else { return false };
        match self.test {
            Test::Equals => *value == self.text,
            // "Content-Type values for a starts-with condition that include commas are interpreted as lists."
            Test::StartsWith if self.field == "content-type" => {
                value.split(',').all(|item| item.trim_start().starts_with(&self.text))
            }
            Test::StartsWith => value.starts_with(&self.text),
        }
    }

    /// Returns the condition as a JSON array, for messages.
    fn to_json(&self) -> String {
        let operator = if self.test == Test::Equals { "eq" } else { "starts-with" };
        let members = [operator, &format!("${}", self.field), &self.text].map(|text| json!(text).to_string());
        format!("[{}]", members.join(", "))
    }
}
