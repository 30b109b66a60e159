//! Cache of the values that the signatures of all URLs of one day share.

use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::RwLock;
use secrecy::ExposeSecret;
use time::Date;

use super::{Credentials, encoding};

/// The signing key and the strings of one day. Caching them saves four HMACs for each URL.
pub(super) struct SigningDay {
    date: Date,
    /// The signing key of the day.
    pub(super) key: hmac::Key,
    /// The date, `YYYYMMDD`.
    pub(super) stamp: String,
    /// The credential, `<key id>/<day>/<region>/s3/aws4_request`.
    pub(super) credential: String,
    /// The query up to the time of day in X-Amz-Date, with its question mark.
    pub(super) query: Vec<u8>,
    /// The string to sign before the time of day.
    pub(super) to_sign: String,
    /// The string to sign after the time of day, up to the digest.
    pub(super) scope: String,
}

impl SigningDay {
    /// Derives the signing key and the strings of a day.
    fn new(date: Date, credentials: &Credentials, region: &str) -> Self {
        let stamp = format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day());
        let secret = format!("AWS4{}", credentials.secret_access_key.expose_secret());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for part in [stamp.as_str(), region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let scope = format!("{stamp}/{region}/s3/aws4_request");
        let credential = format!("{}/{scope}", credentials.access_key_id);
        let mut query = b"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=".to_vec();
        encoding::push_component(&mut query, &credential);
        query.extend_from_slice(format!("&X-Amz-Date={stamp}T").as_bytes());
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}T");
        Self { date, key, stamp, credential, query, to_sign, scope: format!("Z\n{scope}\n") }
    }
}

/// Cache of two days: around midnight, some URLs are signed with a time of the day before.
#[derive(Default)]
pub(super) struct SigningDays(RwLock<[Option<Arc<SigningDay>>; 2]>);

impl SigningDays {
    /// Returns the values of a day, from the cache or newly computed.
    pub(super) fn get(&self, date: Date, credentials: &Credentials, region: &str) -> Arc<SigningDay> {
        let cached = self.0.read().iter().flatten().find(|day| day.date == date).cloned();
        cached.unwrap_or_else(|| {
            let day = Arc::new(SigningDay::new(date, credentials, region));
            let mut days = self.0.write();
            days.rotate_right(1);
            days[0] = Some(day.clone());
            day
        })
    }
}
