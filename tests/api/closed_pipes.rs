//! Covers commands whose reader closes the pipe (`valet openapi | head -1`): each ends without an error message.
//!
//! Commands: all.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{app::TestApp, process_client::Settings};

/// End of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    ByItself,
    /// When it gets SIGTERM.
    WhenStopped,
}

/// Name of each command in the help, arguments, and end.
const COMMANDS: [(&str, &[&str], Ends); 15] = [
    ("openapi", &["openapi"], Ends::ByItself),
    ("check", &["check"], Ends::ByItself),
    ("sweep", &["sweep"], Ends::ByItself),
    ("sweep", &["sweep", "--orphans", "--before", "2026-01-01T00:00:00Z"], Ends::ByItself),
    ("recount", &["recount"], Ends::ByItself),
    ("taken", &["taken"], Ends::ByItself),
    ("join", &["join", "--yes"], Ends::ByItself),
    ("passwd", &["passwd", "nobody@example.com"], Ends::ByItself),
    ("key", &["key", "list"], Ends::ByItself),
    ("webhook", &["webhook", "list"], Ends::ByItself),
    ("help", &["help"], Ends::ByItself),
    ("worker", &["worker", "--once"], Ends::ByItself),
    ("worker", &["worker"], Ends::WhenStopped),
    ("serve", &["serve"], Ends::WhenStopped),
    ("dev", &["dev", "--bind", "127.0.0.1:0", "--s3-bind", "127.0.0.1:0"], Ends::WhenStopped),
];

/// Returns a command that starts the program.
fn valet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_valet"))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_quietly_when_their_reader_closes_the_pipe() {
    let app = TestApp::start().await;
    app.user().await;
    for (_, arguments, ends) in COMMANDS {
        let is_server = ends == Ends::WhenStopped;
        let folder = std::env::temp_dir().join(format!("valet-pipe-{}", uuid::Uuid::new_v4().simple()));
        let mut command = valet();
        command
            .args(arguments)
            .envs(Settings::for_app(&app).0)
            .env("PREVIEWS", "worker")
            .env("WEBHOOK_SECRET", "a secret of the tests, for webhooks alone")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if arguments[0] == "dev" {
            command.args(["--data-dir", folder.to_str().unwrap()]);
        }
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let began = Instant::now();
        // Stops a server after 3 s: it has written its first lines by then.
        while child.try_wait().unwrap().is_none() && !(is_server && began.elapsed() > Duration::from_secs(3)) {
            assert!(began.elapsed() < Duration::from_secs(60), "{arguments:?} still runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if is_server {
            assert_eq!(child.try_wait().unwrap(), None, "{arguments:?} keeps running");
            assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        }
        let done = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(!err.contains("panicked") && !err.to_lowercase().contains("broken pipe"), "{arguments:?}: {err}");
        // `passwd` of a missing account and `check` with findings may exit with 1; the others succeed.
        let expected = if matches!(arguments[0], "passwd" | "check") { vec![0, 1] } else { vec![0] };
        assert!(done.status.code().is_some_and(|code| expected.contains(&code)), "{arguments:?}: {:?} {err}", done.status);
        let _ = std::fs::remove_dir_all(&folder);
    }
}

#[test]
fn every_command_is_covered() {
    let help = String::from_utf8(valet().arg("--help").output().unwrap().stdout).unwrap();
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1).take_while(|line| !line.is_empty());
    let listed: std::collections::BTreeSet<_> = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(listed.len() > 6, "{help}");
    assert_eq!(listed, COMMANDS.iter().map(|(name, ..)| *name).collect(), "{help}");
}
