//! Maps the errors of exceeded limits to problems, which state when to repeat the request.

use poem::http::{HeaderName, HeaderValue, header};

use super::{Code, Problem};
use crate::domain::{hash_pool::Overloaded, throttle::Throttled};

impl From<Overloaded> for Problem {
    fn from(_: Overloaded) -> Self {
        Problem::too_many("Too many passwords from your network are being checked at once.")
    }
}

impl From<Throttled> for Problem {
    /// Adds the headers of draft-ietf-httpapi-ratelimit-headers-11.
    fn from(Throttled { limit, rate, retry_after }: Throttled) -> Self {
        // Seconds, rounded up.
        let wait = (retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1);
        let fields = [
            (header::RETRY_AFTER, wait.to_string()),
            (HeaderName::from_static("ratelimit-policy"), format!("\"{limit}\";q={};w={}", rate.count, rate.window.as_secs())),
            (HeaderName::from_static("ratelimit"), format!("\"{limit}\";r=0;t={wait}")),
        ];
        let problem = Self::new(Code::RateLimited, format!("Wait {wait} s, then repeat the request."));
        fields.into_iter().fold(problem, |problem, (name, value)| match HeaderValue::from_str(&value) {
            Ok(value) => problem.header(name, value),
            Err(_) => problem,
        })
    }
}
