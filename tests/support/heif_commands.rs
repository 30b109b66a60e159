//! Commands that make a JPEG of HEIC and AVIF. Shared by the test binaries.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

/// Returns the command of libheif, if it is installed (Debian's libheif-examples).
pub fn libheif() -> Option<PathBuf> {
    ["/usr/bin/heif-dec", "/usr/bin/heif-convert"].map(PathBuf::from).into_iter().find(|command| command.exists())
}

/// Returns the path of a new script, which is called with an image and the JPEG to make.
pub fn script(text: &str) -> PathBuf {
    let script = std::env::temp_dir().join(format!("valet-command-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    script
}
