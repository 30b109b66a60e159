//! Options of `MONGODB_URI`: rejects those that this program sets itself or that have no effect, and invalid pool sizes.

use super::reader::Reader;

/// Options with a required value, which also applies when they are omitted: acknowledged writes survive the loss of a minority,
/// reads return acknowledged writes, and the driver's retries bridge an election.
const FIXED: [(&str, &str); 6] = [
    ("w", "majority"),
    ("journal", "true"),
    ("readConcernLevel", "majority"),
    ("readPreference", "primary"),
    ("retryWrites", "true"),
    ("retryReads", "true"),
];

/// Options without effect: writes have a deadline of their own, only the primary is read, no UUIDs are stored, the driver is built
/// without compression, and it does not apply a timeout of the wait queue.
const WITHOUT_EFFECT: [&str; 7] = [
    "wTimeoutMS",
    "readPreferenceTags",
    "maxStalenessSeconds",
    "uuidRepresentation",
    "compressors",
    "zlibCompressionLevel",
    "waitQueueTimeoutMS",
];

/// Maximum number of connections to each MongoDB server when `maxPoolSize` is omitted.
pub const DEFAULT_POOL_SIZE: u32 = 64;

impl Reader<'_> {
    /// Checks the options. Names are case-insensitive (Connection String specification, "Connection Options").
    pub(super) fn check_connection_options(&mut self, options: &str) {
        let pairs: Vec<_> = options.split(['&', ';']).filter_map(|option| option.split_once('=')).collect();
        let values = |name: &str| -> Vec<&str> {
            pairs.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
        };
        for (name, required) in FIXED {
            if values(name).iter().any(|value| !value.eq_ignore_ascii_case(required)) {
                self.report_invalid(
                    "MONGODB_URI",
                    format_args!("a connection string without {name}, or with {name}={required}, the value this service sets"),
                );
            }
        }
        for name in WITHOUT_EFFECT {
            if !values(name).is_empty() {
                self.report_invalid(
                    "MONGODB_URI",
                    format_args!("a connection string without {name}, which has no effect in this service"),
                );
            }
        }
        let number = |name: &str, default| values(name).first().map_or(Some(default), |value| value.parse::<u32>().ok());
        let (least, most) = (number("minPoolSize", 0), number("maxPoolSize", DEFAULT_POOL_SIZE));
        if most.is_none_or(|most| most == 0) {
            self.report_invalid("MONGODB_URI", "a connection string with a maxPoolSize of at least 1");
        } else if least.is_none() || least > most {
            self.report_invalid(
                "MONGODB_URI",
                format_args!("a connection string with a minPoolSize up to maxPoolSize ({DEFAULT_POOL_SIZE} by default)"),
            );
        }
    }
}
