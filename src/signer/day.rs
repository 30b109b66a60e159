//! The parts that all signatures of one day share.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hmac;
use secrecy::ExposeSecret;
use time::Date;

use super::{Credentials, text};

/// Four HMACs and a few strings that need not be made again for each URL.
pub(super) struct Day {
    date: Date,
    pub(super) key: hmac::Key,
    /// `YYYYMMDD`
    pub(super) stamp: String,
    /// `<key id>/<day>/<region>/s3/aws4_request`
    pub(super) credential: String,
    /// The query up to the time of day in X-Amz-Date, with its question mark.
    pub(super) query: Vec<u8>,
    /// The string to sign before the time of day.
    pub(super) to_sign: String,
    /// And behind it, up to the digest.
    pub(super) scope: String,
}

impl Day {
    fn new(date: Date, credentials: &Credentials, region: &str) -> Self {
        let stamp = format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day());
        let secret = format!("AWS4{}", credentials.secret_access_key.expose_secret());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for step in [stamp.as_str(), region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref());
        }
        let scope = format!("{stamp}/{region}/s3/aws4_request");
        let credential = format!("{}/{scope}", credentials.access_key_id);
        let mut query = b"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=".to_vec();
        text::encode(&mut query, &credential, false);
        query.extend_from_slice(format!("&X-Amz-Date={stamp}T").as_bytes());
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}T");
        Self { date, key, stamp, credential, query, to_sign, scope: format!("Z\n{scope}\n") }
    }
}

/// The two days that were signed for last: around midnight the windows of some users began yesterday.
#[derive(Default)]
pub(super) struct Days(RwLock<[Option<Arc<Day>>; 2]>);

impl Days {
    pub(super) fn get(&self, date: Date, credentials: &Credentials, region: &str) -> Arc<Day> {
        // A poisoned lock holds whole days or none: both are safe to go on with.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().find(|day| day.date == date).cloned();
        known.unwrap_or_else(|| {
            let day = Arc::new(Day::new(date, credentials, region));
            let mut days = self.0.write().unwrap_or_else(PoisonError::into_inner);
            days.rotate_right(1);
            days[0] = Some(day.clone());
            day
        })
    }
}
