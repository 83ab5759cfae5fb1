//! What a sandbox uses: memory from its control group, CPU time from its processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::warden::Init;
use crate::runtime::Usage;

/// Reads it now. `group` is the sandbox's memory group, where it has one. Blocks.
pub(super) fn read(init: &Init, group: Option<&Path>) -> io::Result<Usage> {
    let namespace = fs::read_link(pid_namespace(init.pid))?;
    let mut total = Process::default();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // Whoever ends while we look is not there any more.
        if fs::read_link(pid_namespace(pid)).is_ok_and(|found| found == namespace)
            && let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(process) = Process::parse(&stat)
        {
            total.ticks += process.ticks;
            total.pages += process.pages;
        }
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let of_processes = total.pages * rustix::param::page_size() as u64;
    Ok(Usage {
        cpu: Duration::from_secs_f64(total.ticks as f64 / ticks_per_second as f64),
        memory_bytes: group.and_then(memory_of_group).unwrap_or(of_processes),
    })
}

fn pid_namespace(pid: i32) -> PathBuf {
    format!("/proc/{pid}/ns/pid").into()
}

/// Memory in use, without file pages that the kernel would give up at once.
fn memory_of_group(group: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    let used: u64 = number("memory.usage_in_bytes").or_else(|| number("memory.current"))?;
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    let inactive = ["total_inactive_file ", "inactive_file "].iter().find_map(|name| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    });
    Some(used.saturating_sub(inactive.unwrap_or(0)))
}

/// A process's share. Time of children that ended is their parent's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    ticks: u64,
    pages: u64,
}

impl Process {
    /// Fields behind the command name, which may hold anything: state is the first of them,
    /// times are the 12th to 15th, resident pages the 22nd.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = (11..15).map(number).sum::<Option<u64>>()?;
        Some(Self { ticks, pages: number(21)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_line_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 300 1000000 42 99";
        assert_eq!(Process::parse(stat), Some(Process { ticks: 26, pages: 42 }));
        assert_eq!(Process::parse("7 (x) S 1"), None);
        assert_eq!(Process::parse(""), None);
        let own = fs::read_to_string("/proc/self/stat").expect("stat");
        assert!(Process::parse(&own).is_some_and(|process| process.pages > 0));
    }
}
