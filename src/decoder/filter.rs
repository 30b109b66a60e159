//! The filter of system calls (seccomp): decoding needs memory, two pipes and an end. Any other call ends the process at once.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// The filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Filters for this processor do not exist.
    #[error("no filter for this processor: {0}")]
    Backend(#[from] BackendError),
    /// The kernel refused it.
    #[error("failed to install the filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Installs the filter for good; `no_new_privs` is set with it.
pub fn install() -> Result<(), FilterError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(allowed()?, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}

fn rule(argument: u8, length: Length, is: Is, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])
}

/// The system calls that are allowed, each with its rules: one of them must match the arguments, and a call without rules is allowed
/// with any.
fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    calls.insert(libc::SYS_read, vec![rule(0, Length::Dword, Is::Eq, 0)?]);
    calls.insert(libc::SYS_write, vec![rule(0, Length::Dword, Is::Eq, 1)?, rule(0, Length::Dword, Is::Eq, 2)?]);
    // No memory becomes executable.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.insert(call, vec![rule(2, Length::Dword, Is::MaskedEq(executable), 0)?]);
    }
    // The allocator names its memory.
    calls.insert(libc::SYS_prctl, vec![rule(0, Length::Dword, Is::Eq, u64::from(libc::PR_SET_VMA.unsigned_abs()))?]);
    // An abort is a signal to the process itself.
    calls.insert(libc::SYS_tgkill, vec![rule(0, Length::Dword, Is::Eq, u64::from(std::process::id()))?]);
    Ok(calls)
}

const ALWAYS: [i64; 17] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
];
