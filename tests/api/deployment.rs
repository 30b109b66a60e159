//! The files of deploy/ against the program: settings, ports and probes of the manifests, what the policies allow and what the
//! program asks for. That they are valid for Kubernetes and AWS is for `.ci/deploy` to say.

mod manifests;
mod privileges;
mod s3_recorder;
mod settings;

use std::path::Path;

/// A file of deploy/.
fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}
