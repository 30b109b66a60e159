//! Covers the child's sandbox: each attempt to leave it ends the child, and the crash has a cause. The child reports a missing part
//! of the sandbox.
//!
//! The limits and the filter are those of Linux.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use valet::{
    domain::rendering::{CrashCause, RenderFailure},
    model::{
        Format, Orientation,
        decoding::{DecodeOutput, DecodeRequest, Sandbox},
    },
};

use super::{PROGRAM, fixture, format_of, render, renderer};

/// Renders a file with this attempt to leave the sandbox; returns how the child ended.
async fn cause_of(attempt: &str) -> CrashCause {
    let failure = renderer().with_attempt(attempt).render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap_err();
    assert_eq!(failure.name(), Some("crashed"));
    assert!(failure.is_retryable());
    match failure {
        RenderFailure::Crashed(cause) => cause,
        other => panic!("{attempt}: {other:?}"),
    }
}

#[tokio::test]
async fn files_sockets_processes_and_threads_are_forbidden() {
    let marker = std::path::Path::new("/tmp/valet-escaped");
    let _ = std::fs::remove_file(marker);
    for attempt in ["file", "write", "socket", "process", "thread"] {
        assert_eq!(cause_of(attempt).await, CrashCause::ForbiddenCall, "{attempt}");
    }
    assert!(!marker.exists());
}

#[tokio::test]
async fn child_that_takes_too_much_memory_is_ended() {
    assert_eq!(cause_of("memory").await, CrashCause::Aborted);
}

#[tokio::test]
async fn panicking_child_counts_as_a_crash() {
    assert_eq!(cause_of("panic").await, CrashCause::Exit(101));
}

#[tokio::test]
async fn child_that_computes_too_long_is_ended() {
    let endless = renderer().with_attempt("time").with_deadline(Duration::from_secs(300));
    let failure = endless.render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap_err();
    assert!(matches!(failure, RenderFailure::Crashed(CrashCause::ProcessorTime)), "{failure:?}");
}

#[tokio::test]
async fn a_child_is_killed_and_reaped_after_its_deadline() {
    let endless = renderer().with_attempt("time").with_deadline(Duration::from_secs(1));
    // The limit of its processor time would end it after ten seconds. A busy machine may be slower than that, but not each time.
    let mut is_killed = false;
    for _ in 0..5 {
        let began = Instant::now();
        let failure = endless.render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap_err();
        assert!(matches!(failure, RenderFailure::Crashed(CrashCause::Deadline)), "{failure:?}");
        is_killed = began.elapsed() < Duration::from_secs(9);
        if is_killed {
            break;
        }
    }
    assert!(is_killed, "the child ends before its processor time does");
    // Some may be children of other tests that have just ended.
    let (mut left, began) = (zombies(), Instant::now());
    while !left.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "not reaped: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = zombies();
        left.retain(|pid| now.contains(pid));
    }
}

/// Returns the process ids of this process' children that have ended and are not reaped.
fn zombies() -> BTreeSet<String> {
    let all = Command::new("ps").args(["--ppid", &std::process::id().to_string(), "-o", "pid=,stat=,args="]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    let zombies = all.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (pid, state) = (words.next()?, words.next()?);
        (state.starts_with('Z') && line.contains("valet")).then(|| pid.to_owned())
    });
    zombies.collect()
}

#[tokio::test]
async fn missing_program_is_no_failure_of_the_image() {
    let missing = valet::domain::rendering::Renderer::new("/nonexistent/valet".into());
    let failure = missing.render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap_err();
    assert_eq!(failure.name(), None);
    assert!(failure.is_retryable());
}

#[tokio::test]
async fn output_of_another_program_is_a_crash() {
    for program in ["/bin/true", "/bin/cat", "/bin/yes"] {
        let other = valet::domain::rendering::Renderer::new(program.into()).with_deadline(Duration::from_secs(10));
        let failure = other.render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap_err();
        assert!(matches!(failure, RenderFailure::Crashed(_)), "{program}: {failure:?}");
    }
}

#[tokio::test]
async fn files_of_the_worker_do_not_reach_the_child() {
    let open_file = std::fs::File::open("/etc/passwd").unwrap();
    // Without close-on-exec, as a library in C may open a file.
    rustix::io::fcntl_setfd(&open_file, rustix::io::FdFlags::empty()).unwrap();
    let rendered = renderer().render(Format::Jpeg, fixture("orientation-1.jpg")).await.unwrap();
    assert_eq!(rendered.sandbox, Sandbox::COMPLETE);
}

/// Starts the child from a bash script, which may pass open files and variables to it, unlike a worker.
fn by_shell(script: &str) -> Output {
    let file = fixture("orientation-1.jpg");
    let file_bytes = u32::try_from(file.len()).unwrap();
    let request = DecodeRequest { format: Format::Jpeg, orientation: Orientation::NORMAL, width: 48, height: 32, file_bytes };
    let mut child = Command::new("/bin/bash")
        .args(["-c", script, PROGRAM])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&request.to_bytes()).unwrap();
    input.write_all(&file).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn files_and_variables_that_a_child_inherited_are_reported() {
    let sandbox = |script| DecodeOutput::parse(&by_shell(script).stdout).unwrap().sandbox;
    assert_eq!(sandbox("exec env -i $0 decode"), Sandbox::COMPLETE);
    assert_eq!(sandbox("exec env -i $0 decode 7</etc/passwd 300>/dev/null"), Sandbox::COMPLETE, "files are closed");
    assert_eq!(
        sandbox("exec env -i SECRET=1 $0 decode"),
        Sandbox { has_nothing_inherited: false, ..Sandbox::COMPLETE },
        "a variable"
    );
    let without_limits = sandbox("exec env -i $0 decode --limited 7</etc/passwd");
    assert_eq!(
        without_limits,
        Sandbox { has_limits: false, has_nothing_inherited: false, ..Sandbox::COMPLETE },
        "no limits were set, and a file stayed open"
    );
}

/// Returns the niceness of a process (`proc_pid_stat(5)`).
fn niceness(process: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The first field after the name is the third, and the niceness the nineteenth.
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
}

#[test]
fn child_has_a_lower_priority() {
    let mut child = Command::new(PROGRAM).arg("decode").env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (expected, began) = ((niceness(std::process::id()) + 5).min(19), Instant::now());
    while niceness(child.id()) != expected {
        assert!(began.elapsed() < Duration::from_secs(20), "niceness {}", niceness(child.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn concurrent_children_return_the_pictures_of_their_own_images() {
    let files = ["plain.png", "grey.jpg", "p3-large.jpg", "linear-gamma.png", "grey-two-bit.png"];
    let mut expected = Vec::new();
    for name in files {
        let hash = render(format_of(name), fixture(name)).await.unwrap().thumb_hash;
        assert!(!expected.contains(&hash), "{name} looks like another of these images");
        expected.push(hash);
    }
    let concurrent = futures_util::future::join_all(files.iter().map(|name| render(format_of(name), fixture(name)))).await;
    let returned: Vec<_> = concurrent.into_iter().map(|rendered| rendered.unwrap().thumb_hash).collect();
    assert_eq!(returned, expected);
}
