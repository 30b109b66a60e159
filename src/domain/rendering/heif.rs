//! HEIC and AVIF, by a command of the operator.
//!
//! The JPEG that the command makes is decoded in the sandbox like any other JPEG. The command itself runs in a weaker sandbox:
//! `valet decode --command` gives it an empty environment, limits of memory, time and file sizes, no new rights and, on Linux, no
//! network, no other process and no namespace. It can access the files of the worker's user, except for this process's memory and
//! environment in `/proc`.

use std::{
    io::{self, Read},
    path::Path,
    process::Stdio,
};

use bytes::Bytes;
use tokio::{fs, process::Command};

use super::{CrashCause, RenderFailure, Renderer, child::cause, folder::Folder, inspect};
use crate::model::{
    Format,
    decoding::{DecodeRequest, MAX_FILE_BYTES, Undecodable},
};

/// Longest report of a command that was not started, in bytes.
const MAX_REPORT_BYTES: u64 = 256;

/// Hides this process's environment and memory, which contain credentials, from processes of the same user, which could read them
/// in `/proc`.
fn become_untraceable() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Returns the JPEG that the command makes of an image.
pub(super) async fn convert(
    renderer: &Renderer,
    command: &Path,
    request: DecodeRequest,
    file: &[u8],
) -> Result<Bytes, RenderFailure> {
    become_untraceable().map_err(RenderFailure::Io)?;
    let folder = Folder::create().map_err(RenderFailure::Io)?;
    let image = folder.path().join(if request.format == Format::Avif { "image.avif" } else { "image.heic" });
    fs::write(&image, file).await.map_err(RenderFailure::Io)?;
    let (report, reporter) = io::pipe().map_err(RenderFailure::Io)?;
    let mut converter = Command::new(&renderer.program)
        .args(["decode", "--command"])
        .args([command, &image, &folder.path().join("picture.jpg")])
        .current_dir(folder.path())
        .env_clear()
        .stdin(reporter)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(RenderFailure::Io)?;
    let Ok(status) = tokio::time::timeout(renderer.deadline, converter.wait()).await else {
        let _ = converter.kill().await;
        return Err(RenderFailure::Crashed(CrashCause::Deadline));
    };
    let status = status.map_err(RenderFailure::Io)?;
    // The pipe is closed by the execution of the command, or has the reason why it was not executed.
    let mut reason = Vec::new();
    report.take(MAX_REPORT_BYTES).read_to_end(&mut reason).map_err(RenderFailure::Io)?;
    if !reason.is_empty() {
        let reason = format!("the command was not executed: {}", String::from_utf8_lossy(&reason));
        return Err(RenderFailure::Io(io::Error::other(reason)));
    }
    match cause(status) {
        None => {}
        // Commands exit with an error if they cannot decode a file.
        Some(CrashCause::Exit(_)) => return Err(Undecodable::Corrupt.into()),
        Some(cause) => return Err(RenderFailure::Crashed(cause)),
    }
    picture(&folder, request).await.ok_or(RenderFailure::Undecodable(Undecodable::Corrupt))
}

/// Returns the JPEG of the primary picture, which has the displayed size of the image. If a file has several pictures, libheif
/// numbers the names of their JPEGs from 1; at most nine are tried.
async fn picture(folder: &Folder, request: DecodeRequest) -> Option<Bytes> {
    let names = std::iter::once("picture.jpg".to_owned()).chain((1..10).map(|number| format!("picture-{number}.jpg")));
    for name in names {
        let path = folder.path().join(name);
        // Does not follow links, which could lead out of the folder.
        let Ok(found) = fs::symlink_metadata(&path).await else { continue };
        if !found.is_file() || found.len() > u64::from(MAX_FILE_BYTES) {
            continue;
        }
        let file = fs::read(&path).await.ok()?;
        let content = inspect(&file).ok().filter(|found| found.format == Format::Jpeg);
        // The command has turned the picture. If it copied the orientation, `inspect` turned the size again, which is undone here.
        let has_displayed_size = content.is_some_and(|found| {
            let (width, height) =
                if found.orientation.swaps_sides() { (found.height, found.width) } else { (found.width, found.height) };
            (width, height) == (request.width.into(), request.height.into())
        });
        if has_displayed_size {
            return Some(file.into());
        }
    }
    None
}
