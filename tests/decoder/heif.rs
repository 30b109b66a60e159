//! Covers HEIC and AVIF by a command: libheif's, where it is installed (Debian's libheif-examples).

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use valet::{
    domain::rendering::{CrashCause, RenderFailure},
    model::Format,
};

use super::{Pixels, format_of, path, renderer};

/// Returns the path of libheif's command, if it is installed.
pub(super) fn libheif() -> Option<PathBuf> {
    ["/usr/bin/heif-dec", "/usr/bin/heif-convert"].map(PathBuf::from).into_iter().find(|command| command.exists())
}

/// Returns the path of a new script, which is called with an image and the JPEG to make.
fn script(text: &str) -> PathBuf {
    let script = std::env::temp_dir().join(format!("valet-command-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    script
}

#[tokio::test]
async fn heic_and_avif_have_pictures() {
    let Some(command) = libheif() else {
        println!("skipped: heif::heic_and_avif_have_pictures: needs libheif's heif-dec or heif-convert");
        return;
    };
    for (name, width, height) in [("plain.heic", 120, 80), ("plain.avif", 120, 80), ("orientation-6.avif", 80, 120)] {
        let file = std::fs::read(path("fixtures").join(name)).unwrap();
        let rendered = renderer().with_heif_command(command.clone()).render(format_of(name), file.into()).await;
        let rendered = rendered.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let pixels = Pixels::of(&rendered.pictures[0].jpeg);
        assert_eq!((pixels.width, pixels.height), (width, height), "{name}");
    }
}

/// Otherwise a command could read the credentials in the environment of the process that starts it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_that_starts_a_command_is_untraceable() {
    let file = std::fs::read(path("fixtures/plain.heic")).unwrap();
    let _ = renderer().with_heif_command(script("exit 3")).render(Format::Heif, file.into()).await;
    let found = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(found, rustix::process::DumpableBehavior::NotDumpable);
}

#[tokio::test]
async fn failing_commands_have_a_named_failure_and_leave_no_files() {
    let file = std::fs::read(path("fixtures/plain.heic")).unwrap();
    let failure_of = async |text: &str| {
        let renderer = renderer().with_heif_command(script(text)).with_deadline(Duration::from_secs(20));
        renderer.render(Format::Heif, file.clone().into()).await.unwrap_err()
    };
    assert_eq!(failure_of("exit 3").await.name(), Some("corrupt"));
    assert_eq!(failure_of("exit 0").await.name(), Some("corrupt"), "no picture");
    assert_eq!(failure_of("ln -s /etc/passwd $2").await.name(), Some("corrupt"), "a link");
    assert_eq!(failure_of("cp $1 $2").await.name(), Some("corrupt"), "no JPEG");
    assert_eq!(
        failure_of("test -z \"$SECRET$HOME\" || exec sleep 60; exit 3").await.name(),
        Some("corrupt"),
        "an empty environment"
    );
    let failure = failure_of("exec sleep 60").await;
    assert!(matches!(failure, RenderFailure::Crashed(CrashCause::Deadline)), "{failure:?}");
    let failure = failure_of("exec head -c 100000000 /dev/zero > $2").await;
    assert!(matches!(failure, RenderFailure::Crashed(CrashCause::Signal(_))), "a long file: {failure:?}");
    let failure = renderer().render(Format::Heif, file.into()).await.unwrap_err();
    assert_eq!(failure.name(), Some("unsupported"), "no command");
}
