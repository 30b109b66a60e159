//! The filters of system calls (seccomp). Decoding needs memory, its standard streams, and calls that end the process: at any
//! other call the kernel kills it.
//!
//! A command of the operator ([`install_for_command`]) needs calls that are not known here; those that no decoder needs are
//! refused.

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

/// Installs the filter of an operator's command for good, for everything that it executes and starts too. Calls that leave the
/// process fail with `EPERM`: sockets, other processes, namespaces and mounts, the kernel's own interfaces.
pub fn install_for_command() -> Result<(), FilterError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    // The flags of clone3 are in memory, which no filter reads; without it, libraries call clone.
    let without_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (calls, error) in [(denied_to_command()?, libc::EPERM), (without_clone3, libc::ENOSYS)] {
        let refusal = SeccompAction::Errno(error.unsigned_abs());
        apply_filter(&BpfProgram::try_from(SeccompFilter::new(calls, SeccompAction::Allow, refusal, architecture)?)?)?;
    }
    Ok(())
}

/// Returns the system calls that are denied to a command, each with its rules: one of them must match the arguments, and a call
/// without rules is denied with any.
fn denied_to_command() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = DENIED_TO_COMMAND.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    let namespace_flags = namespaces.map(|flag| u64::from(flag.unsigned_abs()));
    let rules: Result<_, _> = namespace_flags.into_iter().map(|flag| rule(0, Length::Dword, Is::MaskedEq(flag), flag)).collect();
    calls.insert(libc::SYS_clone, rules?);
    // `abort()` sends a signal to the process itself.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        calls.insert(call, vec![rule(0, Length::Dword, Is::Ne, u64::from(std::process::id()))?]);
    }
    // Limits of other processes are denied; 0 stands for the process itself.
    calls.insert(libc::SYS_prlimit64, vec![rule(0, Length::Dword, Is::Ne, 0)?]);
    // TIOCSTI adds bytes to the input of a terminal, as if a person had typed them.
    calls.insert(libc::SYS_ioctl, vec![rule(1, Length::Dword, Is::Eq, TIOCSTI)?]);
    // The same calls by their numbers in the x32 ABI, which some kernels support.
    #[cfg(target_arch = "x86_64")]
    for (call, rules) in calls.clone() {
        calls.insert(call | X32, rules);
    }
    #[cfg(target_arch = "x86_64")]
    calls.extend(X32_ALONE.iter().map(|call| (call | X32, Vec::new())));
    Ok(calls)
}

/// The request of `ioctl` that puts a byte into a terminal's input; the C libraries have it in different types.
const TIOCSTI: u64 = 0x5412;

/// Bit that marks the numbers of system calls of the x32 ABI.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Denied calls that have separate numbers in the x32 ABI: `ioctl`, `rt_sigqueueinfo`, `ptrace`, `kexec_load`,
/// `rt_tgsigqueueinfo`, `process_vm_readv` and `process_vm_writev`.
#[cfg(target_arch = "x86_64")]
const X32_ALONE: [i64; 7] = [514, 524, 521, 528, 536, 539, 540];

/// System calls that are denied to a command with any arguments.
const DENIED_TO_COMMAND: [i64; 54] = [
    // Sockets, also through io_uring.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    // Namespaces and mounts.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // The kernel.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_userfaultfd,
];

/// Returns a rule with one condition, for the argument of this index.
fn rule(argument: u8, length: Length, is: Is, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])
}

/// Returns the system calls that are allowed, each with its rules: one of them must match the arguments, and a call without rules
/// is allowed with any.
fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    calls.insert(libc::SYS_read, vec![rule(0, Length::Dword, Is::Eq, 0)?]);
    calls.insert(libc::SYS_write, vec![rule(0, Length::Dword, Is::Eq, 1)?, rule(0, Length::Dword, Is::Eq, 2)?]);
    // Memory must not become executable, and mappings must not be of files.
    let is_data = SeccompCondition::new(2, Length::Dword, Is::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs())), 0)?;
    let anonymous = u64::from(libc::MAP_ANONYMOUS.unsigned_abs());
    let is_anonymous = SeccompCondition::new(3, Length::Dword, Is::MaskedEq(anonymous), anonymous)?;
    calls.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![is_data.clone()])?]);
    calls.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![is_data, is_anonymous])?]);
    // The allocator names its memory.
    calls.insert(libc::SYS_prctl, vec![rule(0, Length::Dword, Is::Eq, u64::from(libc::PR_SET_VMA.unsigned_abs()))?]);
    // `abort()` sends a signal to the process itself.
    calls.insert(libc::SYS_tgkill, vec![rule(0, Length::Dword, Is::Eq, u64::from(std::process::id()))?]);
    Ok(calls)
}

/// System calls that are allowed with any arguments.
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
