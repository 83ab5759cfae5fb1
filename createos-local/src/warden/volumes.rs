//! Volumes: filesystems that the engine serves itself, shown inside sandboxes.
//!
//! Host root mounts a volume outside, in the warden's own mount namespace, and moves a copy
//! of the mount into the sandbox: so there is always a place from where it can be ended,
//! whatever is done to it inside. An ordinary user's is mounted inside, as root there, and
//! ends with the engine's descriptor.
//!
//! Whatever looks at paths of a guest, or waits for a filesystem, is done by a child: the
//! engine may serve such a filesystem only when it has heard of it, and the warden must not
//! wait for either.

use crate::failure::{Context, Failure, Result};
use crate::protocol::Report;
use crate::sandbox::Sandbox;
use crate::sys::{self, Forked};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/fuse";
/// What `mount` and `df` inside say it is.
const KIND: &str = "fuse.s3";
/// How long a child may take. Most are done within a millisecond.
const LIMIT: Duration = Duration::from_secs(10);
/// What a child tells when somebody uses what it is to unmount.
const BUSY: &str = "busy";
/// A child that succeeds.
const DONE: &str = "+";

#[derive(Default)]
pub(crate) struct Volumes {
    next: u32,
    mounted: HashMap<u32, Volume>,
    jobs: Vec<Job>,
}

struct Volume {
    sandbox: String,
    /// The sandbox's PID 1, in this life of it.
    pid: i32,
    pidfd: OwnedFd,
    /// Where it is mounted outside, and the device number that tells it from others.
    outside: Option<(PathBuf, String)>,
    path: String,
}

struct Job {
    pid: i32,
    told: File,
    deadline: Instant,
    volume: u32,
    ticket: Option<u64>,
    step: Step,
}

enum Step {
    /// Puts it into the sandbox. The descriptor is the engine's, once that is done.
    Mount { device: Option<OwnedFd>, owner: u32 },
    /// Takes it out of the sandbox.
    TakeOut { force: bool },
    /// Ends it outside.
    End,
}

/// A report, and the descriptor that goes with it.
pub(crate) type Told = (Report, Option<OwnedFd>);

impl Volumes {
    /// Begins to mount a volume in a running sandbox. `owner` is the host's id of root inside;
    /// an ordinary user's sandbox has none.
    pub(crate) fn mount(
        &mut self,
        engine: &OwnedFd,
        sandbox: &Sandbox,
        path: &str,
        owner: Option<u32>,
        ticket: u64,
    ) -> Result<()> {
        self.next += 1;
        let slot = self.next;
        let pidfd = sandbox.pidfd.try_clone().context("keep the sandbox's handle")?;
        let mut volume = Volume {
            sandbox: sandbox.id.clone(),
            pid: sandbox.pid,
            pidfd,
            outside: None,
            path: path.to_owned(),
        };
        let (device, owner, job) = match owner {
            Some(owner) => {
                let (device, tree, outside) = mount_outside(slot, owner)?;
                volume.outside = Some(outside);
                let job = in_child(|| move_inside(&volume, &tree));
                (Some(device), owner, job)
            }
            None => {
                let report = Report::VolumeMounted { ticket, volume: slot, owner: 0 };
                let mount = || {
                    let device = mount_inside(&volume)?;
                    let told = sys::send_packet(engine, &report.to_packet(), Some(device.as_fd()));
                    told.context("tell the engine")
                };
                (None, 0, in_child(mount))
            }
        };
        let (pid, told) = match job {
            Ok(job) => job,
            Err(error) => {
                end_outside(&volume);
                return Err(error);
            }
        };
        self.mounted.insert(slot, volume);
        let step = Step::Mount { device, owner };
        let deadline = Instant::now() + LIMIT;
        self.jobs.push(Job { pid, told, deadline, volume: slot, ticket: Some(ticket), step });
        Ok(())
    }

    /// Begins to unmount a volume. Unless forced, only if nobody uses it. `Some` is an answer
    /// that is there at once.
    pub(crate) fn unmount(&mut self, volume: u32, force: bool, ticket: u64) -> Option<Report> {
        if !self.mounted.contains_key(&volume) {
            return Some(Report::Done { ticket });
        }
        self.start(volume, Some(ticket), Step::TakeOut { force })
            .map(|error| Report::Failed { ticket, message: error.to_string() })
    }

    /// Ends the volumes of a sandbox that is gone.
    pub(crate) fn release(&mut self, sandbox: &str) {
        let of = |(slot, volume): (&u32, &Volume)| (volume.sandbox == sandbox).then_some(*slot);
        for slot in self.mounted.iter().filter_map(of).collect::<Vec<_>>() {
            self.start(slot, None, Step::End);
        }
    }

    fn start(&mut self, slot: u32, ticket: Option<u64>, step: Step) -> Option<Failure> {
        let volume = self.mounted.get(&slot)?;
        let started = match &step {
            Step::TakeOut { force } => in_child(|| take_out(volume, *force)),
            Step::End | Step::Mount { .. } => in_child(|| {
                end_outside(volume);
                Ok(())
            }),
        };
        match started {
            Ok((pid, told)) => {
                let deadline = Instant::now() + LIMIT;
                self.jobs.push(Job { pid, told, deadline, volume: slot, ticket, step });
                None
            }
            Err(error) => Some(error),
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Ends children that take too long.
    pub(crate) fn watch(&self) {
        let now = Instant::now();
        for job in self.jobs.iter().filter(|job| now >= job.deadline) {
            let _ = sys::send_signal(job.pid, sys::SIGKILL);
        }
    }

    /// Takes note of an ended child: `None` when it was none of ours.
    pub(crate) fn finish(&mut self, pid: i32) -> Option<Option<Told>> {
        let index = self.jobs.iter().position(|job| job.pid == pid)?;
        let Job { mut told, volume, ticket, step, .. } = self.jobs.swap_remove(index);
        let mut text = String::new();
        // Its end is closed by now.
        let _ = told.read_to_string(&mut text);
        let outcome = match text.as_str() {
            DONE => Ok(()),
            "" => Err("the sandbox's directories do not answer".to_owned()),
            other => Err(other.to_owned()),
        };
        Some(self.conclude(volume, ticket, step, outcome))
    }

    fn conclude(
        &mut self,
        volume: u32,
        ticket: Option<u64>,
        step: Step,
        outcome: std::result::Result<(), String>,
    ) -> Option<Told> {
        match (step, outcome) {
            (Step::Mount { device, owner }, Ok(())) => {
                let ticket = ticket?;
                let report = Report::VolumeMounted { ticket, volume, owner };
                // Without a descriptor here, the child has told.
                device.map(|device| (report, Some(device)))
            }
            (Step::Mount { .. }, Err(message)) => {
                self.start(volume, None, Step::End);
                Some((Report::Failed { ticket: ticket?, message }, None))
            }
            (Step::TakeOut { force: false }, Err(busy)) if busy == BUSY => {
                Some((Report::VolumeBusy { ticket: ticket? }, None))
            }
            // Whatever went wrong inside, it ends outside.
            (Step::TakeOut { .. }, _) => match self.start(volume, ticket, Step::End) {
                None => None,
                Some(error) => {
                    let message = error.to_string();
                    Some((Report::Failed { ticket: ticket?, message }, None))
                }
            },
            (Step::End, _) => {
                self.mounted.remove(&volume);
                ticket.map(|ticket| (Report::Done { ticket }, None))
            }
        }
    }

    /// Stops all work; whatever is mounted goes with the last process that sees it.
    pub(crate) fn end(&mut self) {
        for job in self.jobs.drain(..) {
            let _ = sys::send_signal(job.pid, sys::SIGKILL);
        }
    }
}

fn open_device() -> Result<OwnedFd> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    Ok(opened.context(&format!("open {DEVICE}"))?.into())
}

fn options(device: &OwnedFd, owner: u32) -> String {
    let fd = device.as_raw_fd();
    format!(
        "fd={fd},rootmode=40000,user_id={owner},group_id={owner},allow_other,default_permissions"
    )
}

/// The device, a copy of the mount that is attached nowhere, and where the mount is.
fn mount_outside(slot: u32, owner: u32) -> Result<(OwnedFd, OwnedFd, (PathBuf, String))> {
    let device = open_device()?;
    let target = PathBuf::from(format!("volumes/{slot}"));
    fs::create_dir_all(&target).context("make a directory for a volume")?;
    let flags = sys::MS_NOSUID | sys::MS_NODEV;
    let mounted = sys::mount_fs(KIND, &target, flags, &options(&device, owner));
    if mounted.is_err() {
        let _ = fs::remove_dir(&target);
    }
    mounted.context("mount a volume")?;
    let prepared = sys::clone_mount(&target).context("copy a volume's mount").and_then(|tree| {
        let here = std::env::current_dir().context("look where the warden is")?;
        let number = mounts_of("self")?.into_iter().rfind(|one| one.path == here.join(&target));
        let number = number.ok_or("a volume is not where it was mounted")?.device;
        Ok((tree, number))
    });
    match prepared {
        Ok((tree, number)) => Ok((device, tree, (target, number))),
        Err(error) => {
            let _ = sys::unmount(&target, sys::MNT_FORCE | sys::MNT_DETACH);
            let _ = fs::remove_dir(&target);
            Err(error)
        }
    }
}

/// Becomes root of the sandbox, in its namespaces. A guest's links lead nowhere else.
fn enter(volume: &Volume) -> Result<()> {
    sys::join_namespaces(&volume.pidfd, sys::NEW_USER | sys::NEW_NS)
        .context("enter the sandbox")?;
    let is_root = volume.outside.is_some();
    sys::become_namespace_root(is_root).context("become root inside")
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(&format!("make the directory {}", path.display()))
}

fn move_inside(volume: &Volume, tree: &OwnedFd) -> Result<()> {
    enter(volume)?;
    let path = Path::new(&volume.path);
    make_directory(path)?;
    sys::attach_mount(tree, path).context(&format!("mount at {}", path.display()))
}

fn mount_inside(volume: &Volume) -> Result<OwnedFd> {
    // The kernel wants it opened in the namespace that mounts, and it is not to be seen in
    // the sandbox.
    sys::join_namespaces(&volume.pidfd, sys::NEW_USER).context("enter the sandbox")?;
    let device = open_device()?;
    sys::join_namespaces(&volume.pidfd, sys::NEW_NS).context("enter the sandbox")?;
    sys::become_namespace_root(false).context("become root inside")?;
    let path = Path::new(&volume.path);
    make_directory(path)?;
    let mounted = sys::mount_fs(KIND, path, sys::MS_NOSUID | sys::MS_NODEV, &options(&device, 0));
    mounted.context(&format!("mount at {}", path.display()))?;
    Ok(device)
}

/// Unmounts it inside, wherever it is by now.
fn take_out(volume: &Volume, force: bool) -> Result<()> {
    let inside: Vec<PathBuf> = match &volume.outside {
        Some((_, device)) => {
            // Without its first process, the sandbox has no mounts either.
            let Ok(mounts) = mounts_of(&volume.pid.to_string()) else { return Ok(()) };
            mounts.into_iter().filter(|one| one.device == *device).map(|one| one.path).collect()
        }
        None => vec![PathBuf::from(&volume.path)],
    };
    if sys::is_over(&volume.pidfd) || inside.is_empty() {
        return Ok(());
    }
    enter(volume)?;
    let lazily = if force { sys::MNT_DETACH } else { 0 };
    let abort = if force && volume.outside.is_none() { sys::MNT_FORCE } else { 0 };
    for path in inside.iter().rev() {
        match sys::unmount(path, lazily | abort | sys::UMOUNT_NOFOLLOW) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                return Err(BUSY.into());
            }
            // Somebody inside was quicker.
            _ => {}
        }
    }
    Ok(())
}

/// Cuts off whoever still waits for it, and unmounts it.
fn end_outside(volume: &Volume) {
    if let Some((target, _)) = &volume.outside {
        let _ = sys::unmount(target, sys::MNT_FORCE | sys::MNT_DETACH);
        let _ = fs::remove_dir(target);
    }
}

struct MountEntry {
    device: String,
    path: PathBuf,
}

/// The mounts that a process sees.
fn mounts_of(pid: &str) -> Result<Vec<MountEntry>> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).context("list mounts")?;
    Ok(text.lines().filter_map(mount_entry).collect())
}

fn mount_entry(line: &str) -> Option<MountEntry> {
    let mut fields = line.split(' ').skip(2);
    let (device, path) = (fields.next()?.to_owned(), fields.nth(1)?);
    Some(MountEntry { device, path: PathBuf::from(unescaped(path)) })
}

/// Blanks and the like are three octal digits there.
fn unescaped(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(plain)
}

/// Starts a child that works, tells how that went, and ends with the warden.
fn in_child(work: impl FnOnce() -> Result<()>) -> Result<(i32, File)> {
    let (told, telling) = sys::pipe().context("make a pipe")?;
    match sys::fork_process().context("start a process")? {
        Forked::Parent { pid } => Ok((pid, told.into())),
        Forked::Child => {
            drop(told);
            let _ = sys::die_with_parent();
            let text = match work() {
                Ok(()) => DONE.to_owned(),
                Err(error) => error.to_string(),
            };
            let _ = File::from(telling).write_all(text.as_bytes());
            sys::exit_now(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_blanks() {
        let line = "36 35 98:0 /mnt1 /mnt\\040two\\134x rw,noatime master:1 - ext3 /dev/root rw";
        let entry = mount_entry(line).expect("a mount");
        assert_eq!((entry.device.as_str(), entry.path), ("98:0", PathBuf::from("/mnt two\\x")));
        assert!(mount_entry("36 35").is_none());
        assert_eq!(unescaped("a\\"), "a\\");
        assert_eq!(unescaped("\\99x"), "\\99x");
    }
}
