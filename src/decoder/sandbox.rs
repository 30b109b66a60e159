//! The sandbox of the decoding process: restrictions that it puts on itself before it reads a byte of the image. Also the weaker
//! sandbox of `PREVIEW_HEIF_COMMAND`, the operator's decoder of HEIC and AVIF.
//!
//! 1. [`limit_and_restart`] closes inherited descriptors, sets limits of the kernel and executes the program again, so that the
//!    allocator and the libraries start under these limits. Before the restart the process reserves no memory.
//! 2. [`enter`] checks which restrictions are in force, then installs the filter of system calls. Its result has those in
//!    force: not every kernel and operating system has all.

use crate::model::decoding::Sandbox;

/// Address space in bytes: enough for 100 megapixels.
pub const MEMORY_BYTES: u64 = 768 << 20;

/// Processor time in seconds: five times as much as an image of 200 megapixels takes.
pub const CPU_SECONDS: u64 = 10;

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits: memory, processor time, and descriptors for the standard streams and the program's libraries; no files to write, no
/// processes, no core dumps.
#[cfg(unix)]
const LIMITS: [(Resource, Limit); 6] = [
    (Resource::As, Limit { current: MEMORY_BYTES, maximum: MEMORY_BYTES }),
    // At the soft limit of processor time the kernel sends SIGXCPU, and at the hard limit SIGKILL.
    (Resource::Cpu, Limit { current: CPU_SECONDS, maximum: CPU_SECONDS + 1 }),
    (Resource::Fsize, Limit { current: 0, maximum: 0 }),
    (Resource::Nofile, Limit { current: 8, maximum: 8 }),
    (Resource::Nproc, Limit { current: 0, maximum: 0 }),
    (Resource::Core, Limit { current: 0, maximum: 0 }),
];

/// A soft and a hard limit of the kernel.
#[cfg(unix)]
struct Limit {
    current: u64,
    maximum: u64,
}

/// Folder that lists the descriptors of the process that reads it.
const DESCRIPTORS: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// Closes every descriptor but the standard streams: files and sockets of the worker that a library opened without close-on-exec.
/// The process has opened none itself yet.
#[cfg(unix)]
fn close_inherited() {
    let numbers =
        std::fs::read_dir(DESCRIPTORS).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let inherited: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for descriptor in inherited {
        // The descriptor by which the list was read is closed already, so an error is expected for it.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Added to the niceness of a process that makes pictures: it gets a quarter of a processor that it shares with requests. A
/// person waits for the requests, and a picture may come a moment later.
#[cfg(unix)]
const NICENESS: i32 = 5;

/// Lowers the process's priority, where the operating system permits it.
#[cfg(unix)]
fn yield_to_requests() {
    let _ = rustix::process::nice(NICENESS);
}

/// Closes inherited descriptors, sets the limits, and executes this program with `arguments` within them. Does not return if that
/// succeeds; where the operating system has no limits, or refuses one, the process continues without that limit, and `enter`
/// reports that.
pub fn limit_and_restart(arguments: &[String]) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        close_inherited();
        yield_to_requests();
        for (resource, Limit { current, maximum }) in LIMITS {
            // A lower limit of the process that started this one is kept.
            let maximum = getrlimit(resource).maximum.map_or(maximum, |inherited| inherited.min(maximum));
            let _ = setrlimit(resource, Rlimit { current: Some(current.min(maximum)), maximum: Some(maximum) });
        }
        // The link leads to the program also after its file was replaced by a newer one.
        let program = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
        if let Ok(program) = program {
            let _ = std::process::Command::new(program).args(arguments).exec();
        }
    }
    #[cfg(not(unix))]
    let _ = arguments;
}

/// Address space in bytes of `PREVIEW_HEIF_COMMAND`. Decoders of HEVC and AV1 reserve more than those of this program.
#[cfg(unix)]
const COMMAND_MEMORY_BYTES: u64 = 2 << 30;
/// Processor time in seconds of such a command, over all of its threads.
#[cfg(unix)]
const COMMAND_CPU_SECONDS: u64 = 20;
/// Longest file in bytes that such a command may write.
#[cfg(unix)]
const COMMAND_FILE_BYTES: u64 = 64 << 20;

/// Executes `PREVIEW_HEIF_COMMAND` in a weaker sandbox, because the system calls that it needs are not known: limits, no
/// descriptor but the standard streams, no new rights and, on Linux, no sockets, no other processes and no namespaces
/// (`filter::install_for_command`). The command may read and write files and start threads and programs, which inherit this
/// sandbox.
///
/// Writes the error to standard input, which is a pipe of the worker's, so that the worker does not count it as a failure of the
/// image. The command itself has no input, so it cannot write there.
///
/// # Errors
/// When a restriction cannot be set, or the command cannot be executed. Does not return otherwise.
pub fn limit_and_execute(command: &[std::ffi::OsString]) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::{io::Write, os::fd::AsFd};
        close_inherited();
        yield_to_requests();
        // Closed by the execution of the command.
        let mut report = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let failed = execute_within_limits(command);
        if let Err(error) = &failed {
            let _ = write!(report, "{error}");
        }
        failed
    }
    #[cfg(not(unix))]
    {
        let _ = command;
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Sets the limits of a command and executes it. Does not return if that succeeds.
#[cfg(unix)]
fn execute_within_limits(command: &[std::ffi::OsString]) -> std::io::Result<()> {
    use std::{os::unix::process::CommandExt, process::Stdio};
    let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    for (resource, limit) in [
        (Resource::As, COMMAND_MEMORY_BYTES),
        (Resource::Cpu, COMMAND_CPU_SECONDS),
        (Resource::Fsize, COMMAND_FILE_BYTES),
        (Resource::Nofile, 64),
        (Resource::Core, 0),
    ] {
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    #[cfg(target_os = "linux")]
    super::filter::install_for_command().map_err(std::io::Error::other)?;
    Err(std::process::Command::new(program).args(arguments).stdin(Stdio::null()).exec())
}

/// Sets the remaining restrictions, and returns those that are in force.
pub fn enter() -> Sandbox {
    let has_nothing_inherited = has_nothing_inherited();
    // Without huge pages: with them, decoding a photograph takes a third more memory.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    warm_up();
    Sandbox {
        has_nothing_inherited,
        has_limits: has_limits(),
        is_untraceable: become_untraceable(),
        has_filter: install_filter(),
    }
}

#[cfg(unix)]
fn has_limits() -> bool {
    LIMITS.into_iter().all(|(resource, limit)| {
        let found = getrlimit(resource);
        found.maximum.is_some_and(|maximum| maximum <= limit.maximum)
            && found.current.is_some_and(|current| current <= limit.current)
    })
}

#[cfg(not(unix))]
fn has_limits() -> bool {
    false
}

/// Returns whether the process has no descriptor but its standard streams and no environment variable: its list of descriptors has
/// those three, and the one by which the list is read.
fn has_nothing_inherited() -> bool {
    let descriptors = std::fs::read_dir(DESCRIPTORS).map_or(usize::MAX, Iterator::count);
    descriptors <= 4 && std::env::vars_os().next().is_none()
}

#[cfg(target_os = "linux")]
fn become_untraceable() -> bool {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn become_untraceable() -> bool {
    false
}

#[cfg(target_os = "linux")]
fn install_filter() -> bool {
    super::filter::install().is_ok()
}

#[cfg(not(target_os = "linux"))]
fn install_filter() -> bool {
    false
}

/// Makes the allocator and the standard library do the system calls that they do once: under the filter these would end the
/// process.
fn warm_up() {
    std::hint::black_box(vec![1_u8; 1 << 20]);
    #[cfg(target_arch = "x86_64")]
    std::hint::black_box(std::is_x86_feature_detected!("avx2"));
    #[cfg(target_arch = "aarch64")]
    std::hint::black_box(std::arch::is_aarch64_feature_detected!("neon"));
}
