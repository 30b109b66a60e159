//! Covers HEIC and AVIF, which a command decodes: libheif's, where it is installed (Debian's libheif-examples), or a script.

use std::{path::PathBuf, time::Duration};

use valet::{
    domain::rendering::{CrashCause, RenderFailure},
    model::Format,
};

use super::{
    Pixels, format_of,
    heif_commands::{libheif, script},
    path, renderer,
};

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

/// A command that cannot be executed says nothing about the image, which must not get a failure for good.
#[tokio::test]
async fn commands_that_cannot_be_executed_are_no_failure_of_the_image() {
    let file = std::fs::read(path("fixtures/plain.heic")).unwrap();
    let failure_of = async |command: PathBuf| {
        renderer().with_heif_command(command).render(Format::Heif, file.clone().into()).await.unwrap_err()
    };
    let (no_program, no_interpreter) = (path("fixtures/plain.heic"), script(""));
    std::fs::write(&no_interpreter, "#!/no/such/interpreter\n").unwrap();
    for command in ["/no/such/command".into(), no_program, no_interpreter] {
        let failure = failure_of(command.clone()).await;
        assert!(matches!(failure, RenderFailure::Io(_)) && failure.name().is_none(), "{}: {failure:?}", command.display());
        assert!(failure.to_string().contains("os error"), "{failure}");
    }
    // Only the process that did not execute a command can report that.
    for text in ["echo failed >&0; exit 1", "echo failed; exit 1", "exit 126"] {
        assert_eq!(failure_of(script(text)).await.name(), Some("corrupt"), "{text}");
    }
}

/// A command could read the environment of a traceable process, and credentials in it.
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
    // A JPEG of arithmetic coding, which no decoder here reads.
    let mut arithmetic = std::fs::read(path("fixtures/plain.jpg")).unwrap();
    let frame = arithmetic.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    arithmetic[frame + 1] = 0xc9;
    let picture = std::env::temp_dir().join(format!("valet-arithmetic-{}.jpg", uuid::Uuid::new_v4().simple()));
    std::fs::write(&picture, &arithmetic).unwrap();
    let failure = failure_of(&format!("cp {} $2", picture.display())).await;
    assert_eq!(failure.name(), Some("corrupt"), "a picture that no decoder reads");
    std::fs::remove_file(picture).unwrap();
    let failure = renderer().render(Format::Jpeg, arithmetic.into()).await.unwrap_err();
    assert_eq!(failure.name(), Some("unsupported"), "the same as an upload");
    let failure = renderer().render(Format::Heif, file.into()).await.unwrap_err();
    assert_eq!(failure.name(), Some("unsupported"), "no command");
}
