//! Detects misspelled settings: environment variables that resemble a setting but are not read.

use std::{cell::RefCell, collections::BTreeSet};

use super::Config;

/// Prefixes of settings that no other program's variables have.
const SETTING_PREFIXES: [&str; 9] =
    ["S3_", "UPLOAD_", "MULTIPART_", "JWT_", "OIDC_", "SWEEP_", "RATE_LIMIT_", "CORS_", "USER_QUOTA_"];
/// Infixes of variables that Kubernetes derives from a service's name, such as `S3_SERVICE_HOST` and `S3_PORT_9000_TCP`.
const KUBERNETES_INFIXES: [&str; 2] = ["_SERVICE_", "_PORT"];
/// Maximum edit distance of a misspelling.
const MAX_DISTANCE: usize = 2;
/// Minimum bytes of a name that can be a misspelling: shorter ones resemble too many others.
const MIN_NAME_BYTES: usize = 8;

/// Returns the names of all settings.
#[must_use]
pub fn setting_names() -> BTreeSet<String> {
    let names = RefCell::new(BTreeSet::new());
    let _ = Config::read(&|name| {
        names.borrow_mut().insert(name.to_owned());
        None
    });
    names.into_inner()
}

/// Returns the names that resemble a setting without being one, each with the most similar setting. The setting is `None` for a
/// name that only begins like settings.
pub fn misspelled_settings(names_given: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let known = setting_names();
    let misspelling = |given: String| {
        if known.contains(&given) || KUBERNETES_INFIXES.iter().any(|part| given.contains(part)) {
            return None;
        }
        let near = known.iter().map(|name| (distance(&given, name), name)).filter(|(edits, _)| *edits <= MAX_DISTANCE).min();
        let meant = near.filter(|_| given.len() >= MIN_NAME_BYTES).map(|(_, name)| name.clone());
        (meant.is_some() || SETTING_PREFIXES.iter().any(|prefix| given.starts_with(prefix))).then_some((given, meant))
    };
    // The AWS SDK reads its own variables, whose names resemble ours.
    names_given.filter(|given| !given.starts_with("AWS_")).filter_map(misspelling).collect()
}

/// Returns the number of bytes to insert, delete, change or swap with their neighbour (optimal string alignment). Names whose
/// lengths differ by more than [`MAX_DISTANCE`] have the largest distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > MAX_DISTANCE {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let is_swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if is_swapped { least.min(rows[i - 2][j - 2] + 1) } else { least }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_settings_are_named_and_other_programs_variables_are_not() {
        let given = |name: &str| misspelled_settings([name.to_owned()].into_iter());
        for (slip, meant) in [
            ("UPLOAD_MAX_BYTE", Some("UPLOAD_MAX_BYTES")),
            ("S3_ENDPIONT", Some("S3_ENDPOINT")),
            ("MONGODB_URL", Some("MONGODB_URI")),
            ("READ_URL_TLL", Some("READ_URL_TTL")),
            ("CORS_ORIGIN", Some("CORS_ORIGINS")),
            ("S3_KEY", None),
            ("JWT_KEY", None),
        ] {
            assert_eq!(given(slip), [(slip.to_owned(), meant.map(str::to_owned))], "{slip}");
        }
        for other in
            ["PATH", "HOME", "BIND9", "LOGNAME", "S3_SERVICE_HOST", "S3_PORT_9000_TCP", "AWS_REGION", "AWS_REGIONS", "S3_BUCKET"]
        {
            assert_eq!(given(other), [], "{other}");
        }
        assert_eq!(given("TRUSTED_PROXY"), [], "three edits from TRUSTED_PROXIES");
    }
}
