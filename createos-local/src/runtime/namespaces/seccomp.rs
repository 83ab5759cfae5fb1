//! The system calls that programs in a sandbox may make.
//!
//! An allow-list: what is not named answers ENOSYS, as an older kernel would, so
//! that programs fall back. Programs of another architecture, 32-bit ones included, are
//! killed: their call numbers mean something else. A second, smaller list answers EPERM to calls that
//! every kernel has but a sandbox may not use; of two filters that both refuse,
//! the kernel takes the answer of the one loaded last.

use std::collections::BTreeMap;

use libc::{c_long, *};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::runtime::RuntimeError;

pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Both filters as packed BPF, in the order in which they must be loaded.
pub(crate) fn filters() -> Result<Vec<Vec<u8>>, RuntimeError> {
    build(allowed(&[]), || {
        let mut rules = refused(REFUSED.iter().chain(NESTING))?;
        rules.insert(SYS_clone, namespaces()?);
        Ok(rules)
    })
}

/// The same for a sandbox that may hold containers of its own.
pub(crate) fn nesting_filters() -> Result<Vec<Vec<u8>>, RuntimeError> {
    build(allowed(NESTING), || refused(REFUSED.iter()))
}

fn allowed(more: &[c_long]) -> Rules {
    COMMON.iter().chain(LEGACY).chain(more).map(|call| (*call, Vec::new())).collect()
}

fn build(
    allowed: Rules,
    refused: impl FnOnce() -> Result<Rules, seccompiler::BackendError>,
) -> Result<Vec<Vec<u8>>, RuntimeError> {
    let errno = |code: c_int| SeccompAction::Errno(code.cast_unsigned());
    let build = || -> Result<_, seccompiler::BackendError> {
        Ok([
            compile(allowed, errno(ENOSYS), SeccompAction::Allow)?,
            compile(refused()?, SeccompAction::Allow, errno(EPERM))?,
        ])
    };
    let programs = build().map_err(unsupported)?;
    Ok(programs.iter().map(pack).collect())
}

pub(super) fn unsupported(error: seccompiler::BackendError) -> RuntimeError {
    RuntimeError::Unsupported(format!("cannot build the system call filter: {error}"))
}

pub(super) fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

/// Each instruction as the kernel reads it: code, two jumps, operand.
pub(super) fn pack(program: &BpfProgram) -> Vec<u8> {
    let instructions = program.iter();
    instructions
        .flat_map(|instruction| {
            let [a, b] = instruction.code.to_ne_bytes();
            let [c, d, e, f] = instruction.k.to_ne_bytes();
            [a, b, instruction.jt, instruction.jf, c, d, e, f]
        })
        .collect()
}

fn refused<'a>(
    calls: impl Iterator<Item = &'a c_long>,
) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
    let differs = |value: c_int| {
        let value = value.cast_unsigned();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.into())
    };
    // Other families reach host-wide services without a namespace, or parsers in the
    // kernel that no sandbox needs.
    let families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
    for call in [SYS_socket, SYS_socketpair] {
        let others = families.into_iter().map(differs).collect::<Result<_, _>>()?;
        rules.insert(call, vec![SeccompRule::new(others)?]);
    }
    Ok(rules)
}

/// Matches a clone into any new namespace.
fn namespaces() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let has_bit = |bit: c_int| {
        let bit = u64::from(bit.cast_unsigned());
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)
    };
    let namespaces = [
        CLONE_NEWNS,
        CLONE_NEWCGROUP,
        CLONE_NEWUTS,
        CLONE_NEWIPC,
        CLONE_NEWUSER,
        CLONE_NEWPID,
        CLONE_NEWNET,
    ];
    // clone3 is on no list: its flags lie in memory, where a filter cannot look. It
    // answers ENOSYS, and every C library then uses clone.
    namespaces.into_iter().map(|flag| SeccompRule::new(vec![has_bit(flag)?])).collect()
}

const REFUSED: &[c_long] = &[
    SYS_acct,
    SYS_bpf,
    SYS_clock_settime,
    SYS_delete_module,
    SYS_finit_module,
    SYS_init_module,
    SYS_kexec_file_load,
    SYS_kexec_load,
    SYS_perf_event_open,
    SYS_quotactl,
    SYS_reboot,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_userfaultfd,
    SYS_vhangup,
];

/// Calls that make containers. Refused as well, but in a sandbox that may nest.
const NESTING: &[c_long] = &[
    SYS_add_key,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_keyctl,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_pivot_root,
    SYS_request_key,
    SYS_setdomainname,
    SYS_setns,
    SYS_umount2,
    SYS_unshare,
];

/// Calls that exist on every architecture.
const COMMON: &[c_long] = &[
    SYS_accept,
    SYS_accept4,
    SYS_adjtimex,
    SYS_bind,
    SYS_brk,
    SYS_capget,
    SYS_capset,
    SYS_chdir,
    SYS_chroot,
    SYS_clock_adjtime,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_clone,
    SYS_close,
    SYS_close_range,
    SYS_connect,
    SYS_copy_file_range,
    SYS_dup,
    SYS_dup3,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_execve,
    SYS_execveat,
    SYS_exit,
    SYS_exit_group,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_fadvise64,
    SYS_fallocate,
    SYS_fchdir,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_fchown,
    SYS_fchownat,
    SYS_fcntl,
    SYS_fdatasync,
    SYS_fgetxattr,
    SYS_flistxattr,
    SYS_flock,
    SYS_fremovexattr,
    SYS_fsetxattr,
    SYS_fstat,
    SYS_fstatfs,
    SYS_fsync,
    SYS_ftruncate,
    SYS_futex,
    SYS_futex_waitv,
    SYS_get_mempolicy,
    SYS_get_robust_list,
    SYS_getcpu,
    SYS_getcwd,
    SYS_getdents64,
    SYS_getegid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getgroups,
    SYS_getitimer,
    SYS_getpeername,
    SYS_getpgid,
    SYS_getpid,
    SYS_getppid,
    SYS_getpriority,
    SYS_getrandom,
    SYS_getresgid,
    SYS_getresuid,
    SYS_getrlimit,
    SYS_getrusage,
    SYS_getsid,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_gettid,
    SYS_gettimeofday,
    SYS_getuid,
    SYS_getxattr,
    SYS_inotify_add_watch,
    SYS_inotify_init1,
    SYS_inotify_rm_watch,
    SYS_io_cancel,
    SYS_io_destroy,
    SYS_io_getevents,
    SYS_io_setup,
    SYS_io_submit,
    SYS_ioctl,
    SYS_ioprio_get,
    SYS_ioprio_set,
    SYS_kcmp,
    SYS_kill,
    SYS_landlock_add_rule,
    SYS_landlock_create_ruleset,
    SYS_landlock_restrict_self,
    SYS_lgetxattr,
    SYS_linkat,
    SYS_listen,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_lremovexattr,
    SYS_lseek,
    SYS_lsetxattr,
    SYS_madvise,
    SYS_mbind,
    SYS_membarrier,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_mseal,
    SYS_memfd_create,
    SYS_mincore,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_mlock,
    SYS_mlock2,
    SYS_mlockall,
    SYS_mmap,
    SYS_mprotect,
    SYS_mq_getsetattr,
    SYS_mq_notify,
    SYS_mq_open,
    SYS_mq_timedreceive,
    SYS_mq_timedsend,
    SYS_mq_unlink,
    SYS_mremap,
    SYS_msgctl,
    SYS_msgget,
    SYS_msgrcv,
    SYS_msgsnd,
    SYS_msync,
    SYS_munlock,
    SYS_munlockall,
    SYS_munmap,
    SYS_name_to_handle_at,
    SYS_nanosleep,
    SYS_newfstatat,
    SYS_openat,
    SYS_openat2,
    SYS_personality,
    SYS_pidfd_getfd,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_pipe2,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    SYS_ppoll,
    SYS_prctl,
    SYS_pread64,
    SYS_preadv,
    SYS_preadv2,
    SYS_prlimit64,
    SYS_process_madvise,
    SYS_process_mrelease,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pselect6,
    SYS_ptrace,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_read,
    SYS_readahead,
    SYS_readlinkat,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmmsg,
    SYS_recvmsg,
    SYS_remap_file_pages,
    SYS_removexattr,
    SYS_renameat,
    SYS_renameat2,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigpending,
    SYS_rt_sigprocmask,
    SYS_rt_sigqueueinfo,
    SYS_rt_sigreturn,
    SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait,
    SYS_rt_tgsigqueueinfo,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_getaffinity,
    SYS_sched_getattr,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_rr_get_interval,
    SYS_sched_setaffinity,
    SYS_sched_setattr,
    SYS_sched_setparam,
    SYS_sched_setscheduler,
    SYS_sched_yield,
    SYS_seccomp,
    SYS_semctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_sendfile,
    SYS_sendmmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_set_mempolicy,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_setfsgid,
    SYS_setfsuid,
    SYS_setgid,
    SYS_setgroups,
    SYS_sethostname,
    SYS_setitimer,
    SYS_setpgid,
    SYS_setpriority,
    SYS_setregid,
    SYS_setresgid,
    SYS_setresuid,
    SYS_setreuid,
    SYS_setrlimit,
    SYS_setsid,
    SYS_setsockopt,
    SYS_setuid,
    SYS_setxattr,
    SYS_shmat,
    SYS_shmctl,
    SYS_shmdt,
    SYS_shmget,
    SYS_shutdown,
    SYS_sigaltstack,
    SYS_signalfd4,
    SYS_socket,
    SYS_socketpair,
    SYS_splice,
    SYS_statfs,
    SYS_statx,
    SYS_symlinkat,
    SYS_sync,
    SYS_sync_file_range,
    SYS_syncfs,
    SYS_sysinfo,
    SYS_tee,
    SYS_tgkill,
    SYS_timer_create,
    SYS_timer_delete,
    SYS_timer_getoverrun,
    SYS_timer_gettime,
    SYS_timer_settime,
    SYS_timerfd_create,
    SYS_timerfd_gettime,
    SYS_timerfd_settime,
    SYS_times,
    SYS_tkill,
    SYS_truncate,
    SYS_umask,
    SYS_uname,
    SYS_unlinkat,
    SYS_utimensat,
    SYS_vmsplice,
    SYS_wait4,
    SYS_waitid,
    SYS_write,
    SYS_writev,
];

/// Older forms that x86-64 still has.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[c_long] = &[
    SYS_access,
    SYS_alarm,
    SYS_arch_prctl,
    SYS_chmod,
    SYS_chown,
    SYS_creat,
    SYS_dup2,
    SYS_epoll_create,
    SYS_epoll_ctl_old,
    SYS_epoll_wait,
    SYS_epoll_wait_old,
    SYS_eventfd,
    SYS_fork,
    SYS_futimesat,
    SYS_get_thread_area,
    SYS_getdents,
    SYS_getpgrp,
    SYS_inotify_init,
    SYS_lchown,
    SYS_link,
    SYS_lstat,
    SYS_mkdir,
    SYS_mknod,
    SYS_open,
    SYS_pause,
    SYS_pipe,
    SYS_poll,
    SYS_readlink,
    SYS_rename,
    SYS_rmdir,
    SYS_select,
    SYS_set_thread_area,
    SYS_signalfd,
    SYS_stat,
    SYS_symlink,
    SYS_time,
    SYS_unlink,
    SYS_ustat,
    SYS_utime,
    SYS_utimes,
    SYS_vfork,
];

#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_fit_what_the_kernel_takes() {
        for filters in [filters(), nesting_filters()] {
            let filters = filters.expect("filters compile");
            assert_eq!(filters.len(), 2);
            for filter in filters {
                assert_eq!(filter.len() % 8, 0);
                assert!(filter.len() / 8 <= 4096, "{} instructions", filter.len() / 8);
            }
        }
    }

    #[test]
    fn no_call_is_on_both_lists() {
        for call in REFUSED.iter().chain(NESTING) {
            assert!(!COMMON.contains(call) && !LEGACY.contains(call), "call {call}");
        }
    }
}
