//! Compares the files of deploy/ with the program: settings, ports and probes of the manifests, and permissions of the policies
//! with the requests that the program makes. `.ci/deploy` checks that the files are valid for Kubernetes and AWS.

mod manifests;
mod privileges;
mod s3_recorder;
mod settings;

use std::path::Path;

/// Reads a file of deploy/.
fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}
