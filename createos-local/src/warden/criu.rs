//! Runs CRIU, the program that writes the processes of a sandbox to files and makes them
//! again from there. It is a program of its own and never linked: what it needs to know
//! goes to it as arguments, and what it has to say stands in its log.

use crate::cgroup::Group;
use crate::failure::{Context, Result};
use crate::protocol::Memory;
use crate::sys::{self, Cloned};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long saving or bringing back may take, at least and for each gigabyte of memory. On
/// a quiet machine, that takes two seconds.
const LIMIT: Duration = Duration::from_secs(30);
const LIMIT_PER_GIB: Duration = Duration::from_secs(60);
/// How long killed helpers may take to end. They need no time worth mentioning.
const CLEARING: Duration = Duration::from_secs(1);
/// Deleted files that are still open go into the image, up to this size.
const DELETED_FILES: &str = "1073741824";
/// How much of the log's end is looked at for errors.
const LOG: u64 = 64 << 10;
/// How long an explanation may be, in characters.
const EXPLANATION: usize = 400;
/// In the image's directory: why the hook refused.
pub(crate) const REFUSAL: &str = "refused";
/// There as well, during a restore: the number that PID 1 has outside.
pub(crate) const INIT: &str = "init";

/// A run under way. It is a child of the warden, which reaps it.
pub(crate) struct Run {
    pub(crate) pid: i32,
    limit: Duration,
    deadline: Instant,
    /// Why it was ended.
    verdict: Option<String>,
    /// Of CRIU and its own helpers, if not the sandbox's.
    group: Option<Group>,
    /// Holds why there was no run at all, if so.
    told: File,
    /// Held until then: the child sees it end if the warden dies under it.
    _alive: File,
    directory: PathBuf,
    log: &'static str,
}

/// What [`Run`] is to do.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    Dump,
    Restore,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Restore => "restore",
        }
    }

    fn log(self) -> &'static str {
        match self {
            Self::Dump => "dump.log",
            Self::Restore => "restore.log",
        }
    }
}

impl Run {
    /// Makes a child that becomes CRIU, once `admit` has let it; returns its pidfd, too.
    /// `directory` has the image.
    pub(crate) fn start(
        action: Action,
        directory: PathBuf,
        memory_bytes: u64,
        clone: impl FnOnce() -> Result<Cloned>,
        admit: impl FnOnce(i32) -> Result<()>,
        become_criu: impl FnOnce(&Path, &File) -> Result<Infallible>,
    ) -> Result<(Self, OwnedFd)> {
        // Of an earlier run.
        let _ = fs::remove_file(directory.join(REFUSAL));
        let (told, telling) = sys::pipe().context("make a pipe")?;
        let (go, alive) = sys::pipe().context("make a pipe")?;
        let Cloned::Parent { pid, pidfd } = clone()? else {
            drop((told, alive));
            let mut go = File::from(go);
            let begun = go.read_exact(&mut [0]).context("wait for the warden");
            let Err(error) = begun.and_then(|()| become_criu(&directory, &go));
            let _ = File::from(telling).write_all(error.to_string().as_bytes());
            sys::exit_now(1);
        };
        let mut alive = File::from(alive);
        let begun = admit(pid).and_then(|()| alive.write_all(&[1]).context("let CRIU start"));
        if let Err(error) = begun {
            let _ = sys::send_signal(pid, sys::SIGKILL);
            let _ = sys::wait_for(pid);
            return Err(error);
        }
        let gibibytes = u32::try_from(memory_bytes >> 30).unwrap_or(u32::MAX);
        let limit = LIMIT + LIMIT_PER_GIB.saturating_mul(gibibytes);
        let run = Self {
            pid,
            limit,
            deadline: Instant::now() + limit,
            verdict: None,
            group: None,
            told: told.into(),
            _alive: alive,
            directory,
            log: action.log(),
        };
        Ok((run, pidfd))
    }

    /// It ends with everything in these groups, which then go.
    pub(crate) fn in_group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Ends it if it takes too long, or waits for processes that are not there any more:
    /// they are the warden's children, so it is not told.
    pub(crate) fn watch(&mut self) {
        let verdict = if Instant::now() >= self.deadline {
            format!("took longer than {} s", self.limit.as_secs())
        } else if self.has_lost_init() {
            "failed".to_owned()
        } else {
            return;
        };
        self.verdict.get_or_insert(verdict);
        self.kill();
    }

    fn has_lost_init(&self) -> bool {
        let init = fs::read_to_string(self.directory.join(INIT)).unwrap_or_default();
        init.parse::<u32>().is_ok_and(|init| !Path::new(&format!("/proc/{init}")).exists())
    }

    pub(crate) fn kill(&self) {
        let _ = sys::send_signal(self.pid, sys::SIGKILL);
    }

    /// How it went, now that it has ended with this raw wait status.
    pub(crate) fn outcome(&mut self, status: i32) -> Result<()> {
        let mut told = String::new();
        // Its end is closed by now, by the exec or by the exit.
        let _ = (&self.told).take(4096).read_to_string(&mut told);
        if !told.is_empty() {
            return Err(told.into());
        }
        if let Ok(refusal) = fs::read_to_string(self.directory.join(REFUSAL)) {
            return Err(refusal.into());
        }
        let end = match sys::exit_status(status) {
            Ok(0) => return Ok(()),
            Ok(code) => format!("ended with code {code}"),
            Err(signal) => match self.verdict.take() {
                Some(verdict) => verdict,
                None => format!("was killed by signal {signal}"),
            },
        };
        let log = tail(&self.directory.join(self.log)).unwrap_or_default();
        match explain(&log) {
            explanation if explanation.is_empty() => Err(format!("CRIU {end}").into()),
            explanation => Err(format!("CRIU {end}: {explanation}").into()),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // Where it was killed, its helpers do not notice.
            group.remove(Instant::now() + CLEARING);
        }
    }
}

/// Becomes CRIU, in what namespaces and directory this process is in, and dies with the
/// warden, which `go` is from.
pub(crate) fn execute(
    action: Action,
    memory: &Memory,
    directory: &Path,
    arguments: &[String],
    variables: &[(&str, OsString)],
    go: &File,
) -> Result<Infallible> {
    sys::die_with_parent().context("tie CRIU to the warden")?;
    let mut poll = [sys::PollFd::new(go, sys::POLLIN)];
    if sys::poll_fds(&mut poll, Some(0)).context("look for the warden")? > 0 {
        // It died before the line above took effect.
        return Err("the warden is gone".into());
    }
    let here = std::env::current_dir().context("look where CRIU starts")?;
    let hook = std::env::current_exe().context("find the warden's program")?;
    let mut command = Command::new(&memory.criu);
    command.arg(action.name());
    // It has every right over the sandbox, and not all of them over the host.
    command.arg("--unprivileged");
    command.arg("--images-dir").arg(directory);
    // Paths that the processes themselves must reach are below this directory, which they
    // can enter, unlike those above it.
    command.arg("--work-dir").arg(&here);
    command.arg("--log-file").arg(directory.join(action.log()));
    command.arg("--action-script").arg(hook);
    command.args(["-v2", "--manage-cgroups=ignore", "--shell-job", "--tcp-established"]);
    command.args(["--ext-unix-sk", "--file-locks", "--skip-in-flight"]);
    if let Action::Dump = action {
        command.args(["--network-lock", "skip", "--link-remap"]);
        command.args(["--ghost-limit", DELETED_FILES]);
    } else {
        command.args(["--restore-detached", "--restore-sibling", "--mntns-compat-mode"]);
    }
    command.args(arguments);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    // Where it keeps, on a tmpfs, what it found out about the kernel.
    command.env("XDG_RUNTIME_DIR", &here);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::close_on_exec_from(3).context("close the rest")?;
    Err(command.exec()).context(&format!("run {}", memory.criu))
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG)))?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The errors in a log that say more than that there was one, as one line.
fn explain(log: &str) -> String {
    // Tools that only firewalls inside would need are tried, and may be missing; a limit of
    // its own is tried to be raised.
    let empty = ["FAILED.", "tables-", "rlimit: "];
    let errors = log.lines().filter_map(|line| {
        let (_, error) = line.split_once("Error (")?.1.split_once("): ")?;
        (!empty.iter().any(|empty| error.contains(empty))).then_some(error)
    });
    let joined = errors.take(3).collect::<Vec<_>>().join("; ");
    joined.chars().filter(|c| !c.is_control()).take(EXPLANATION).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_log_are_told_in_one_line() {
        let log = "(00.1) Warn  (criu/a.c:1): nothing\n\
                   (00.2) Error (criu/util.c:642): execvp(\"iptables-save\", ...) failed: No such\n\
                   (00.3)      1: Error (criu/sk-unix.c:351): unix: Unix socket 7 not found\u{7}\n\
                   (00.4) Error (criu/cr-dump.c:1545): Dump files (pid: 9) failed with -1\n\
                   (00.5) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        assert_eq!(
            explain(log),
            "unix: Unix socket 7 not found; Dump files (pid: 9) failed with -1"
        );
        assert_eq!(explain(""), "");
        let long = format!("Error (a): {}\n", "ä".repeat(10_000));
        assert_eq!(explain(&long).chars().count(), EXPLANATION);
    }
}
