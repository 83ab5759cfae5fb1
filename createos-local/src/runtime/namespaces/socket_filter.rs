//! The system calls that a socket maker may make: those that make a TCP socket and hand it
//! over. Anything else ends it.

use libc::{c_int, c_long, *};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::seccomp::{Rules, compile, pack, unsupported};
use crate::runtime::RuntimeError;

/// Beside `socket`, of which only some kinds are made.
const CALLS: &[c_long] = &[
    SYS_bind,
    SYS_close,
    SYS_exit_group,
    SYS_fcntl,
    SYS_listen,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    SYS_ppoll,
    SYS_recvfrom,
    SYS_restart_syscall,
    SYS_sendmsg,
    SYS_setsockopt,
];

/// The filter as packed BPF.
pub(super) fn filter() -> Result<Vec<u8>, RuntimeError> {
    let build = || {
        let mut rules: Rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
        let is = |index, value: c_int| {
            let value = u64::from(value.cast_unsigned());
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        };
        let kind = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
        let tcp = |family| SeccompRule::new(vec![is(0, family)?, is(1, kind)?, is(2, 0)?]);
        rules.insert(SYS_socket, vec![tcp(AF_INET)?, tcp(AF_INET6)?]);
        compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)
    };
    build().map(|program| pack(&program)).map_err(unsupported)
}
