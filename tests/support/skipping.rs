//! Reports tests that cannot run in this environment. Shared by the test binaries.
//!
//! libtest cannot skip a test at run time and counts it as passed. The line goes to the process's standard error directly, because
//! libtest hides everything that a passing test prints.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{LazyLock, Mutex},
    thread,
};

/// Reports, once, that the calling test is skipped, or that the rest of it is.
pub fn skip(reason: &str) {
    static REPORTED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);
    let line = format!("skipped: {}: {reason}\n", thread::current().name().unwrap_or("a test"));
    if REPORTED.lock().unwrap().insert(line.clone()) {
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}
