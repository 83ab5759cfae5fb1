//! Processes: clone with namespaces, fork, wait, kill, limits, hostname.

use super::{check, check_int, nr, null, owned, syscall};
use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

pub(crate) const NEW_TIME: u64 = 0x80;
pub(crate) const NEW_NS: u64 = 0x0002_0000;
pub(crate) const NEW_CGROUP: u64 = 0x0200_0000;
pub(crate) const NEW_UTS: u64 = 0x0400_0000;
pub(crate) const NEW_IPC: u64 = 0x0800_0000;
pub(crate) const NEW_USER: u64 = 0x1000_0000;
pub(crate) const NEW_PID: u64 = 0x2000_0000;
pub(crate) const NEW_NET: u64 = 0x4000_0000;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;
const WNOHANG: c_int = 1;

pub(crate) const SIGKILL: c_int = 9;
pub(crate) const SIGTERM: c_int = 15;
pub(crate) const SIGCONT: c_int = 18;
pub(crate) const SIGSTOP: c_int = 19;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// A resource of `setrlimit(2)`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Resource {
    Data = 2,
    Core = 4,
    Processes = 6,
    OpenFiles = 7,
}

unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn setsid() -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, flags: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn gethostname(name: *mut c_char, len: usize) -> c_int;
    fn getppid() -> c_int;
    fn clock_gettime(clock: c_int, time: *mut Moment) -> c_int;
    fn sethostname(name: *const c_char, len: usize) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
    -> c_int;
    fn umask(mask: u32) -> u32;
}

/// A clock that only goes forward.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Clock {
    Monotonic = 1,
    Boottime = 7,
}

/// A reading of a clock; the layout of `struct timespec`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    padding: u32,
}

impl Moment {
    pub(crate) fn new(seconds: i64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds, padding: 0 }
    }
}

/// What a clock says to the processes of this one's time namespace.
pub(crate) fn now(clock: Clock) -> Moment {
    let mut moment = Moment::default();
    // SAFETY: the structure has the layout of `struct timespec`, whose nanoseconds are
    // below 2^30, on a little-endian machine. Both clocks exist on every kernel.
    unsafe { clock_gettime(clock as c_int, &mut moment) };
    moment
}

/// Which side of a fork this is.
pub(crate) enum Forked {
    Child,
    Parent { pid: i32 },
}

/// Which side of [`clone_into`] this is.
pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Splits this process in two. Safe here because the helper programs have one
/// thread: no lock can be held by a thread that the child does not have.
pub(crate) fn fork_process() -> io::Result<Forked> {
    // SAFETY: see above.
    match check_int(unsafe { fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent { pid }),
    }
}

/// Like [`fork_process`], in new namespaces and, when given, in another version 2
/// control group from the first instruction on.
pub(crate) fn clone_into(namespaces: u64, cgroup: Option<&OwnedFd>) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    let mut arguments = CloneArgs {
        flags: namespaces | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: SIGCHLD,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no shared memory is asked for, so the child is a plain copy; one thread, as above.
    let pid = check(unsafe { syscall(nr::CLONE3, &mut arguments, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just written a descriptor that is ours alone.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends this process at once, without running anything on the way out.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { _exit(code) }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare_namespaces(namespaces: u64) -> io::Result<()> {
    // SAFETY: integer argument only.
    check_int(unsafe { unshare(namespaces as c_int) }).map(drop)
}

/// Moves this process into these namespaces of the process that a pidfd names.
pub(crate) fn join_namespaces(pidfd: &impl AsRawFd, namespaces: u64) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check_int(unsafe { setns(pidfd.as_raw_fd(), namespaces as c_int) }).map(drop)
}

/// Moves this process into a namespace, of whatever kind it is.
pub(crate) fn enter_namespace(namespace: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check_int(unsafe { setns(namespace.as_raw_fd(), 0) }).map(drop)
}

/// A handle for a process that is a child of ours.
pub(crate) fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integer arguments only.
    owned(unsafe { syscall(nr::PIDFD_OPEN, pid, 0u32) })
}

/// Whether the process that a pidfd names has ended.
pub(crate) fn is_over(pidfd: &impl AsRawFd) -> bool {
    let mut poll = [super::PollFd::new(pidfd, super::POLLIN)];
    super::poll_fds(&mut poll, Some(0)).is_ok_and(|ready| ready > 0)
}

/// Becomes the leader of a new session without a terminal.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check_int(unsafe { setsid() }).map(drop)
}

/// What became of this process's children.
pub(crate) enum Reaped {
    /// This one has ended; its raw wait status.
    Ended {
        pid: i32,
        status: i32,
    },
    /// This one was stopped; told only to whoever asks for it.
    Stopped {
        pid: i32,
    },
    /// There are some, and they live.
    Living,
    NoChildren,
}

/// Takes one ended child.
pub(crate) fn reap() -> Reaped {
    reap_with(WNOHANG)
}

/// Takes one ended child, or notices that one was stopped.
pub(crate) fn reap_or_notice_stop() -> Reaped {
    const WUNTRACED: c_int = 2;
    reap_with(WNOHANG | WUNTRACED)
}

fn reap_with(options: c_int) -> Reaped {
    const STOPPED: c_int = 0x7f;
    let mut status = 0;
    // SAFETY: the kernel writes one integer.
    match unsafe { waitpid(-1, &mut status, options) } {
        0 => Reaped::Living,
        pid if pid > 0 && status & 0xff == STOPPED => Reaped::Stopped { pid },
        pid if pid > 0 => Reaped::Ended { pid, status },
        _ => Reaped::NoChildren,
    }
}

/// Takes one ended child: its pid and raw wait status. `None`: none has ended.
pub(crate) fn reap_one() -> Option<(i32, i32)> {
    match reap() {
        Reaped::Ended { pid, status } => Some((pid, status)),
        Reaped::Stopped { .. } | Reaped::Living | Reaped::NoChildren => None,
    }
}

/// Waits for one child.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one integer.
        match check_int(unsafe { waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn parent() -> i32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { getppid() }
}

/// Sends a signal; to a whole process group when the number is negative. A process
/// that is already gone is no error.
pub(crate) fn send_signal(pid: i32, signal: c_int) -> io::Result<()> {
    const ESRCH: i32 = 3;
    // SAFETY: integer arguments only.
    match check_int(unsafe { kill(pid, signal) }) {
        Err(error) if error.raw_os_error() != Some(ESRCH) => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn hostname() -> io::Result<String> {
    let mut name = [0u8; 65];
    // SAFETY: the buffer is valid for its length, which is the longest name's and a NUL.
    check_int(unsafe { gethostname(name.as_mut_ptr().cast(), name.len()) })?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe the same text.
    check_int(unsafe { sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Lowers a limit, soft and hard, to `value` or to what the hard limit allows.
pub(crate) fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let value = value.min(current_limit(resource)?.hard);
    set_limit(resource, &Limit { soft: value, hard: value })
}

fn current_limit(resource: Resource) -> io::Result<Limit> {
    let mut current = Limit { soft: 0, hard: 0 };
    // SAFETY: the structure has the layout of `struct rlimit`.
    check_int(unsafe { getrlimit(resource as c_int, &mut current) })?;
    Ok(current)
}

fn set_limit(resource: Resource, wanted: &Limit) -> io::Result<()> {
    // SAFETY: as above.
    check_int(unsafe { setrlimit(resource as c_int, wanted) }).map(drop)
}

/// Sets the mode bits that new files do not get.
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: integer argument only; cannot fail.
    unsafe { umask(mask) };
}

/// Makes a command the leader of its own session, with its standard input as the
/// session's terminal if it is one. It gets the usual soft limit of open files: there
/// are programs that close every possible one of them at start. When memory runs out, it
/// is killed before those who look after it.
pub(crate) fn in_new_session(command: &mut Command, in_terminal: bool) -> &mut Command {
    const USUAL: u64 = 1024;
    // SAFETY: this process has one thread, so its child after a fork is as good as any.
    unsafe {
        command.pre_exec(move || {
            let hard = current_limit(Resource::OpenFiles)?.hard;
            set_limit(Resource::OpenFiles, &Limit { soft: USUAL.min(hard), hard })?;
            let _ = std::fs::write("/proc/self/oom_score_adj", "500");
            // Ours would be inherited.
            super::signal::unblock_signals()?;
            new_session()?;
            if in_terminal { super::terminal::take_terminal() } else { Ok(()) }
        })
    }
}

/// Replaces this program; returns only on failure. The environment is empty.
pub(crate) fn execute(path: &CStr) -> io::Result<Infallible> {
    let argv = [path.as_ptr(), null::<c_char>()];
    let envp = [null::<c_char>()];
    // SAFETY: both arrays end with a null pointer and outlive the call.
    unsafe { execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// How a raw wait status reads: `Ok(code)` or `Err(signal)`.
pub(crate) fn exit_status(status: i32) -> Result<i32, i32> {
    match status & 0x7f {
        0 => Ok((status >> 8) & 0xff),
        signal => Err(signal),
    }
}

const _: () = assert!(size_of::<c_ulong>() == 8, "64-bit machines only");
const _: () = assert!(cfg!(target_endian = "little"), "little-endian machines only");
