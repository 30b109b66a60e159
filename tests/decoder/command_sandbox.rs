//! Covers the sandbox of an operator's command (`valet decode --command`), from inside: attempts to leave the sandbox fail, and
//! succeed outside of it.

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use super::PROGRAM;

/// Runs a bash script as the command.
fn inside(script: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["decode", "--command", "/bin/bash", "-c", script]).env_clear();
    output(command)
}

/// Runs a bash script without the sandbox.
fn outside(script: &str) -> Output {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", script]).env_clear();
    output(command)
}

/// Runs a command to its end.
fn output(mut command: Command) -> Output {
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().unwrap()
}

/// Returns standard output and standard error.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_command_has_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    let denied = inside(&script);
    assert!(!denied.status.success() && text(&denied).contains("not permitted"), "{}", text(&denied));
    assert!(listener.accept().is_err(), "a connection from inside");
    assert!(outside(&script).status.success());
    assert!(listener.accept().is_ok());
}

#[test]
fn a_command_does_not_reach_other_processes() {
    let script = format!("kill -0 {}", std::process::id());
    assert!(!inside(&script).status.success());
    assert!(outside(&script).status.success());
    // Programs that the command starts do not reach other processes either.
    assert!(!inside(&format!("/bin/bash -c '{script}; exit $?'; exit $?")).status.success());
}

/// Perl, which is a part of Debian's base system, makes each call by its number and arguments.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_command_is_denied_system_calls_that_no_decoder_needs() {
    let script = |call: &str| format!("perl -e 'print syscall({call}) == -1 ? $!+0 : \"done\"'");
    let cases = [
        ("41,2,1,0", "socket"),
        ("53,1,1,0,0", "socketpair"),
        ("425,1,0", "io_uring_setup"),
        ("101,0,0,0,0", "ptrace"),
        ("310,1,0,0,0,0,0", "process_vm_readv"),
        ("434,1,0", "pidfd_open"),
        ("272,0x10000000", "unshare"),
        ("56,0x10000011,0,0,0,0", "clone of a user namespace"),
        ("165,0,0,0,0,0", "mount"),
        ("161,0", "chroot"),
        ("308,-1,0", "setns"),
        ("304,-1,0,0", "open_by_handle_at"),
        ("321,0,0,0", "bpf"),
        ("250,0,0,0,0,0", "keyctl"),
        ("323,0", "userfaultfd"),
        ("302,1,7,0,0", "prlimit64 of another process"),
        ("16,0,0x5412,0", "ioctl that types into a terminal"),
    ];
    for (call, case) in cases {
        assert_eq!(text(&inside(&script(call))), "1", "{case}: EPERM is expected");
    }
    assert_eq!(text(&inside(&script("435,0,0"))), "38", "clone3: ENOSYS is expected");
    // These calls have other results outside of the sandbox.
    for call in ["41,2,1,0", "101,0,0,0,0", "308,-1,0", "435,0,0"] {
        assert!(!["1", "38"].contains(&text(&outside(&script(call))).as_str()), "{call}");
    }
}

#[test]
fn a_command_inherits_no_file_and_gains_no_rights() {
    let script = format!("exec 7</etc/passwd; exec {PROGRAM} decode --command /bin/ls /proc/self/fd");
    // Three streams, and the descriptor by which the list is read.
    assert_eq!(text(&outside(&script)).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let status = text(&inside("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"));
    assert_eq!(status.split_whitespace().collect::<Vec<_>>(), ["NoNewPrivs:", "1", "Seccomp:", "2"]);
}

#[test]
fn a_command_has_a_lower_priority() {
    let niceness = |output: &Output| text(output).trim().parse::<i32>().unwrap();
    assert_eq!(niceness(&inside("nice")), (niceness(&outside("nice")) + 5).min(19));
}

#[test]
fn a_command_starts_threads_and_programs() {
    assert_eq!(text(&inside("echo one | cat")).trim(), "one");
}
