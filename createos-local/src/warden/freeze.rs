//! Making every process of a sandbox stand still: by its control group, where it has one that
//! can, and otherwise by a stop signal to each.

use crate::cgroup::Group;
use crate::failure::{Context, Result};
use crate::sys;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long processes may take to stand still. One that waits for a disk does not until that
/// answers.
const LIMIT: Duration = Duration::from_secs(2);
/// They mostly do at once: for so long nothing else is done.
const AT_ONCE: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_micros(30);

/// A sandbox that stands still, or is about to.
pub(crate) struct Freeze {
    means: Means,
    /// Whom to tell when it does.
    ticket: Option<u64>,
    deadline: Instant,
}

enum Means {
    /// Its version 2 control group.
    Group(PathBuf),
    /// Signals to those named here, in this order. Others had been stopped before, and stay so.
    Signals { init: i32, stopped: Vec<i32> },
}

/// How far a freeze has come.
pub(crate) enum Progress {
    /// To be told to whom asked; what went wrong, if it did.
    Over(u64, Result<()>),
    Waiting,
}

impl Freeze {
    pub(crate) fn begin(group: &Group, init: i32, ticket: u64) -> Self {
        let means = match group.unified_dir() {
            Some(dir) if fs::write(dir.join("cgroup.freeze"), "1").is_ok() => {
                Means::Group(dir.to_owned())
            }
            _ => Means::Signals { init, stopped: Vec::new() },
        };
        Self { means, ticket: Some(ticket), deadline: Instant::now() + LIMIT }
    }

    /// The one who waits for it, if it is not over.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.ticket
    }

    /// Looks how far it has come. A failure leaves the sandbox to be thawed.
    pub(crate) fn advance(&mut self) -> Progress {
        let Some(ticket) = self.ticket else { return Progress::Waiting };
        let patience = Instant::now() + AT_ONCE;
        let outcome = loop {
            match self.means.stand_still() {
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
                Ok(false) if Instant::now() >= self.deadline => {
                    break Err("its processes do not stand still; one may wait for a disk".into());
                }
                Ok(false) if Instant::now() >= patience => return Progress::Waiting,
                Ok(false) => std::thread::sleep(STEP),
            }
        };
        self.ticket = None;
        Progress::Over(ticket, outcome)
    }

    /// Lets everything go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        match &self.means {
            Means::Group(dir) => {
                fs::write(dir.join("cgroup.freeze"), "0").context("let the sandbox go on")
            }
            Means::Signals { init, stopped } => {
                let members = members_of(*init).context("look for the sandbox's processes")?;
                // Parents last: they are not to see a child that stands still.
                for pid in stopped.iter().rev().filter(|pid| members.contains(pid)) {
                    sys::send_signal(*pid, sys::SIGCONT).context("let the sandbox go on")?;
                }
                Ok(())
            }
        }
    }
}

impl Means {
    fn stand_still(&mut self) -> Result<bool> {
        match self {
            Self::Group(dir) => {
                let events = fs::read_to_string(dir.join("cgroup.events"));
                let events = events.context("look at the sandbox's control group")?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
            Self::Signals { init, stopped } => stop_members(*init, stopped),
        }
    }
}

/// Stops everyone who runs; whether nobody does any more.
fn stop_members(init: i32, stopped: &mut Vec<i32>) -> Result<bool> {
    let mut all = true;
    // From the first process on, so that parents stop before their children.
    for pid in members_of(init).context("look for the sandbox's processes")? {
        if !runs(pid) {
            continue;
        }
        all = false;
        if !stopped.contains(&pid) {
            stopped.push(pid);
        }
        sys::send_signal(pid, sys::SIGSTOP).context("stop a process of the sandbox")?;
    }
    Ok(all)
}

/// The processes of a sandbox, oldest numbers first.
fn members_of(init: i32) -> io::Result<Vec<i32>> {
    let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(init)?;
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        members.extend(pid.filter(|pid| namespace(*pid).is_ok_and(|found| found == own)));
    }
    members.sort_unstable();
    Ok(members)
}

/// Neither stopped, by us or before, nor at its end.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state_of(&stat).is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// The state behind the command name, which may hold anything but ends at the last
/// parenthesis.
fn state_of(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_behind_any_name() {
        assert_eq!(state_of("7 (a) T) S 1 7"), Some('S'));
        assert_eq!(state_of("7 (a) T 1 7"), Some('T'));
        assert_eq!(state_of("garbage"), None);
        assert_eq!(state_of(""), None);
    }

    #[test]
    fn members_are_those_of_the_same_namespace() {
        let own = std::process::id().cast_signed();
        assert!(members_of(own).expect("members").contains(&own));
        assert!(members_of(i32::MAX).is_err());
        assert!(runs(own) && !runs(i32::MAX));
    }
}
