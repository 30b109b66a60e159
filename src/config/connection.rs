//! Options of `MONGODB_URI`: those that this program sets itself, or that can have no effect, stop the start.

use super::reader::Reader;

/// Options that have one good value, which holds where they are left out as well: acknowledged writes survive the loss of a
/// minority, reads return acknowledged writes, and the driver's retries bridge an election.
const FIXED: [(&str, &str); 6] = [
    ("w", "majority"),
    ("journal", "true"),
    ("readConcernLevel", "majority"),
    ("readPreference", "primary"),
    ("retryWrites", "true"),
    ("retryReads", "true"),
];

/// Options that change nothing here: writes have a deadline of their own, only the primary is read, and no UUIDs are stored.
const IN_VAIN: [&str; 7] = [
    "wTimeoutMS",
    "readPreferenceTags",
    "maxStalenessSeconds",
    "uuidRepresentation",
    "compressors",
    "zlibCompressionLevel",
    "waitQueueTimeoutMS",
];

/// Connections to each server where `maxPoolSize` is left out.
pub const POOL: u32 = 64;

impl Reader<'_> {
    /// Connection String specification, "Connection Options": names are known in any case.
    pub(super) fn check_connection_options(&mut self, options: &str) {
        let pairs: Vec<_> = options.split(['&', ';']).filter_map(|option| option.split_once('=')).collect();
        let values = |name: &str| -> Vec<&str> {
            pairs.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
        };
        for (name, good) in FIXED {
            if values(name).iter().any(|value| !value.eq_ignore_ascii_case(good)) {
                self.wrong(
                    "MONGODB_URI",
                    format_args!("a connection string without {name}, or with {name}={good}, which holds here"),
                );
            }
        }
        for name in IN_VAIN {
            if !values(name).is_empty() {
                self.wrong("MONGODB_URI", format_args!("a connection string without {name}, which has no effect here"));
            }
        }
        let number = |name: &str, default| values(name).first().map_or(Some(default), |value| value.parse::<u32>().ok());
        let (least, most) = (number("minPoolSize", 0), number("maxPoolSize", POOL));
        if most.is_none_or(|most| most == 0) {
            self.wrong("MONGODB_URI", "a connection string with a maxPoolSize from 1 on");
        } else if least.is_none() || least > most {
            self.wrong(
                "MONGODB_URI",
                format_args!("a connection string with a minPoolSize up to maxPoolSize ({POOL} where that is left out)"),
            );
        }
    }
}
