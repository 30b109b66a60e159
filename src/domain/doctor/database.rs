//! Checks the rules about MongoDB.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Answer, Report, answer_if, compare_clocks, rules};
use crate::{
    config,
    store::{StoreError, database_probe::DatabaseProbe},
};

/// For each maintained series, its first release without known vulnerabilities over the network.
const PATCHED: [[u32; 3]; 2] = [[7, 0, 32], [8, 0, 21]];
/// First release after the series 8.0 that is fixed for CVE-2025-14847, the older of the known vulnerabilities.
const LATER_PATCHED: [u32; 3] = [8, 2, 3];

/// Checks the database, and returns a report with these rules alone.
pub(super) async fn examine(config: &config::Mongo) -> Report {
    let mut report = Report::default();
    let opened = async {
        let database = DatabaseProbe::open(config).await?;
        let hello = database.hello().await?;
        Ok::<_, StoreError>((database, hello, OffsetDateTime::now_utc()))
    };
    let (database, hello, ours) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            report.add(&rules::DATABASE, Answer::No(error.to_string()));
            return report;
        }
    };
    report.add(&rules::DATABASE, Answer::Yes(format!("answers in {:.1} ms", hello.round_trip.as_secs_f64() * 1000.0)));
    report.add(&rules::REPLICA_SET, answer_if(hello.replicated, ""));
    report.add(&rules::PRIMARY, answer_if(hello.writable, ""));
    if let Some(theirs) = hello.now {
        report.add(&rules::DATABASE_CLOCK, compare_clocks(theirs, ours, hello.round_trip));
    }
    report.add(
        &rules::DATABASE_VERSION,
        match database.version().await {
            Ok(version) => answer_if(is_patched(&version), version),
            Err(error) => Answer::Skipped(error.to_string()),
        },
    );
    let scratch = format!("check-{}", Uuid::new_v4());
    let answer = |probed: Result<(), StoreError>| match probed {
        Ok(()) => Answer::Yes(String::new()),
        Err(error) => Answer::No(error.to_string()),
    };
    report.add(&rules::MAJORITY, answer(database.probe_write(&scratch).await));
    report.add(&rules::TRANSACTION, answer(database.probe_transaction(&scratch).await));
    if let Err(error) = database.remove_scratch(&scratch).await {
        tracing::warn!(collection = scratch, %error, "failed to drop a collection of this check");
    }
    report
}

/// Returns whether a version has no known vulnerabilities. An unknown version counts as new.
fn is_patched(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    let series = |version: [u32; 3]| [version[0], version[1]];
    match PATCHED.iter().find(|fixed| series(**fixed) == series(version)) {
        Some(fixed) => version >= *fixed,
        None => version == [0; 3] || version >= LATER_PATCHED,
    }
}

#[cfg(test)]
mod tests {
    use super::is_patched;

    #[test]
    fn versions_with_known_vulnerabilities_are_not_patched() {
        for old in ["6.0.5", "6.0.27", "7.0.31", "8.0.20", "8.0.0-rc1", "8.1.2", "8.2.2", "4.4.30"] {
            assert!(!is_patched(old), "{old}");
        }
        for new in ["7.0.32", "8.0.21", "8.0.100", "8.2.3", "9.0.0", "unknown"] {
            assert!(is_patched(new), "{new}");
        }
    }
}
