//! Tries, one by one, what a sandbox needs of this machine: `createos-warden probe DIR`.
//!
//! Each trial runs in a child of its own and prints one line: its name, a tab, and
//! nothing more or the reason why it failed.

use crate::failure::{Context, Result};
use crate::layers::{self, Creator};
use crate::ranges::Ranges;
use crate::sys::{self, Forked};
use crate::{inside, launcher};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

type Trial = fn(&Path) -> Result<()>;

const TRIALS: [(&str, Trial); 5] = [
    ("user_namespaces", user_namespaces),
    ("namespaces", namespaces),
    ("proc", proc_mount),
    ("seccomp", seccomp),
    ("overlay", overlay),
];

pub(crate) fn run(dir: &Path) {
    for (name, trial) in TRIALS {
        let reason = match in_child(|| trial(dir)) {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        };
        println!("{name}\t{}", reason.replace(['\n', '\t'], " "));
    }
}

/// Runs a trial in a child and returns why it failed, or nothing.
pub(crate) fn in_child(trial: impl FnOnce() -> Result<()>) -> Result<String> {
    let (told, telling) = sys::pipe().context("make a pipe")?;
    match sys::fork_process().context("start a process")? {
        Forked::Child => {
            if let Err(error) = trial() {
                let _ = File::from(telling).write_all(error.to_string().as_bytes());
            }
            sys::exit_now(0);
        }
        Forked::Parent { pid } => {
            drop(telling);
            let mut reason = String::new();
            File::from(told).read_to_string(&mut reason).context("hear of the trial")?;
            sys::wait_for(pid).context("wait for the trial")?;
            Ok(reason)
        }
    }
}

/// Why sandboxes here can have no way out, if so.
pub(crate) fn capture() -> Option<String> {
    let trial = || {
        become_root_of(sys::NEW_USER | sys::NEW_NS | sys::NEW_NET)?;
        inside::open_loopback([10, 0, 0, 2])?;
        inside::open_capture([10, 0, 0, 2])?;
        let sockets = sys::capturing_listener(sys::CAPTURE_PORT, 1)
            .and_then(|listener| Ok((listener, sys::capturing_datagrams(sys::CAPTURE_PORT)?)))
            .and_then(|sockets| Ok((sockets, sys::packet_sender()?)));
        sockets.context("make sockets that take what is for elsewhere").map(drop)
    };
    match in_child(trial) {
        Ok(reason) => (!reason.is_empty()).then_some(reason),
        Err(error) => Some(error.to_string()),
    }
}

fn user_namespaces(_: &Path) -> Result<()> {
    sys::unshare_namespaces(sys::NEW_USER).context("create a user namespace")
}

fn namespaces(_: &Path) -> Result<()> {
    sys::unshare_namespaces(launcher::NAMESPACES | sys::NEW_CGROUP)
        .context("create the namespaces of a sandbox")
}

fn seccomp(_: &Path) -> Result<()> {
    /// One instruction: allow everything.
    const ALLOW: [u8; 8] = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
    sys::unshare_namespaces(sys::NEW_USER).context("create a user namespace")?;
    sys::install_seccomp_filter(&ALLOW).context("install a system call filter")
}

fn proc_mount(dir: &Path) -> Result<()> {
    std::env::set_current_dir(dir).context("enter the directory")?;
    become_root_of(launcher::NAMESPACES)?;
    // Only a child is in the new process namespace, and only it may mount its /proc.
    match in_child(|| inside::mount_proc(Path::new("proc")))?.as_str() {
        "" => Ok(()),
        reason => Err(reason.into()),
    }
}

fn overlay(dir: &Path) -> Result<()> {
    let (below, creator) = if sys::effective_uid() == 0 {
        let range = Ranges::prepare(dir)?.range(0);
        (format!("{}/", range.stage), Creator::Root { base: range.base })
    } else {
        std::env::set_current_dir(dir).context("enter the directory")?;
        become_root_of(sys::NEW_USER | sys::NEW_NS)?;
        (String::new(), Creator::User)
    };
    let private = format!("{below}sandboxes/probe");
    let mount = layers::overlay(&[format!("{below}cache")], Path::new(&private), creator)?;
    sys::attach_mount(&mount, Path::new("mnt")).context("attach an overlay")?;
    if sys::is_read_only(Path::new("mnt")).context("look at the overlay")? {
        return Err("the kernel made the overlay read-only".into());
    }
    Ok(())
}

fn become_root_of(namespaces: u64) -> Result<()> {
    let (uid, gid) = (sys::effective_uid(), sys::effective_gid());
    sys::unshare_namespaces(namespaces).context("create namespaces")?;
    fs::write("/proc/self/setgroups", "deny").context("give up supplementary groups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")).context("map the user id")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")).context("map the group id")?;
    sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE).context("keep mounts private")
}
