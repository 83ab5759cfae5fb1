//! Memory snapshots: a sandbox's processes go into files, and come back from them, be it
//! as the same sandbox or as another one.
//!
//! What CRIU does not find in the image, it needs readied: root filesystem and devices
//! (which it takes as they are), hostname, clocks and control groups. The sandbox's user namespace
//! it makes itself, as root of another one: so it holds no right over the host while it
//! reads an image, and what the kernel counts for a sandbox counts for the owner of that
//! outer namespace, [`Range::owner`].

use crate::cgroup::Group;
use crate::criu::{self, Action, Run};
use crate::failure::{Context, Result};
use crate::hook::{self, MACHINE, Machine};
use crate::image::{self, damaged};
use crate::inside;
use crate::launcher::{Host, clone_as_owner};
use crate::layers;
use crate::protocol::{Boot, Memory};
use crate::ranges::Range;
use crate::root::Root;
use crate::sandbox::{Sandbox, State};
use crate::sys::{self, Clock, Moment};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where CRIU finds what is mounted for it, below the staging directory.
const PLACE: &str = "mnt";
/// Beside the image, while a sandbox comes back from it: as CRIU is to see it.
const VIEW: &str = "view";
/// In there: the number that PID 1 has outside.
const PID: &str = "pid";
/// CRIU's names for a user namespace, and for the tree of processes.
const USERS: &str = "userns-";
const TREE: &str = "pstree.img";

impl Host {
    /// Begins to save the processes of a running sandbox.
    pub(crate) fn dump(&mut self, sandbox: &Sandbox, memory: &Memory) -> Result<Run> {
        let range = self.ranges()?.range(sandbox.range);
        if sandbox.nesting {
            return Err("the processes of a sandbox that may nest cannot be saved".into());
        }
        let directory = self.data_dir.join(&memory.images);
        let (init, ip) = (sandbox.pid, sandbox.ip);
        let capture = self.no_capture.is_none();
        // Not the sandbox's: its limits are not for what is done to it from outside.
        let group = self.groups.create_unlimited(&format!("{}.dump", sandbox.id))?;
        let (unified, seats) = (group.unified()?, group.seats()?);
        let clone = || sys::clone_into(0, unified.as_ref()).context("start CRIU");
        let become_criu = |directory: &Path, go: &File| {
            seats.take()?;
            // Reached through its parent, which is private. The processes read it as
            // themselves when they come back.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
                .context("open the image's directory")?;
            share_with(init)?;
            start_anew()?;
            // Some of what it must read (limits) is the owner's to read.
            sys::become_capable_user(range.owner()).context("become the ids' owner")?;
            let mut arguments = vec!["--tree".to_owned(), init.to_string()];
            let known = inside::device_mounts().map(|(path, _)| path);
            for path in known.chain(["/usr".to_owned()]) {
                arguments.extend(["--external".to_owned(), format!("mnt[{path}]:{path}")]);
            }
            let mut variables = vec![(hook::ADDRESS, address(ip))];
            variables.extend(capture.then(|| (hook::CAPTURE, "yes".into())));
            criu::execute(Action::Dump, memory, directory, &arguments, &variables, go)
        };
        let bytes = sandbox.memory_bytes;
        let admit = |_| Ok(());
        let started = Run::start(Action::Dump, directory, bytes, clone, admit, become_criu);
        match started {
            Ok((run, _)) => Ok(run.in_group(group)),
            Err(error) => {
                group.try_remove();
                Err(error)
            }
        }
    }

    /// Begins to bring a sandbox back.
    pub(crate) fn restore(&mut self, boot: Boot, memory: &Memory) -> Result<Sandbox> {
        // Bringing processes back takes some room of its own, for a moment.
        let roomy = Boot {
            memory_bytes: boot.memory_bytes.saturating_add(64 << 20),
            max_processes: boot.max_processes.saturating_add(64),
            cpu_percent: 10_000,
            ..boot.clone()
        };
        self.ranges()?;
        let group = self.groups.create(&roomy)?;
        let range = self.ranges()?.take();
        match self.start_restore(&boot, memory, &group, &range) {
            Ok((run, pidfd)) => Ok(Sandbox {
                id: boot.id.clone(),
                boot: boot.ticket,
                ip: boot.ip,
                memory_bytes: boot.memory_bytes,
                nesting: boot.nesting,
                pid: run.pid,
                pidfd,
                group,
                range: range.index,
                directory: boot.directory.clone(),
                layers: boot.layers.clone(),
                discard: false,
                state: State::Restoring { run, boot: Box::new(boot), memory: memory.clone() },
                cables: Vec::new(),
                freeze: None,
            }),
            Err(error) => {
                group.try_remove();
                self.release(range.index);
                Err(error)
            }
        }
    }

    fn start_restore(
        &self,
        boot: &Boot,
        memory: &Memory,
        group: &Group,
        range: &Range,
    ) -> Result<(Run, OwnedFd)> {
        if group.is_empty() {
            return Err("bringing processes back needs control groups".into());
        }
        let agent = &self.configure.agent_layer;
        let root = Root::of_range(boot, agent, range, self.disks.as_ref())?;
        let (unified, seats) = (group.unified()?, group.seats()?);
        let clone = || clone_as_owner(sys::NEW_USER, unified.as_ref(), Some(range));
        let become_criu = |view: &Path, go: &File| {
            seats.take()?;
            sys::become_namespace_root(true).context("become root of a user namespace")?;
            let image = self.data_dir.join(&memory.images);
            let machine = Machine::read(&image)?;
            make_view(&image, &machine, view, range.base)?;
            sys::unshare_namespaces(sys::NEW_NS | sys::NEW_UTS | sys::NEW_CGROUP)
                .context("create namespaces")?;
            sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE)
                .context("keep mounts private")?;
            sys::set_hostname(&boot.hostname).context("set the hostname")?;
            ready_mounts(&root)?;
            turn_clocks_back(&machine)?;
            start_anew()?;
            let mut variables = vec![(hook::ADDRESS, address(boot.ip))];
            variables.push((hook::SOURCE, image.into()));
            let capture = self.no_capture.is_none();
            variables.extend(capture.then(|| (hook::CAPTURE, "yes".into())));
            criu::execute(Action::Restore, memory, view, &arguments(view)?, &variables, go)
        };
        let (view, admit) = (self.view_of(memory), layers::write_same_id_maps);
        Run::start(Action::Restore, view, boot.memory_bytes, clone, admit, become_criu)
    }

    /// PID 1 of a sandbox that has come back; it is this process's child.
    pub(crate) fn restored(&self, boot: &Boot, memory: &Memory) -> Result<(i32, OwnedFd)> {
        let text = fs::read_to_string(self.view_of(memory).join(PID));
        let text = text.context("learn which process came back")?;
        let pid = text.trim().parse().map_err(|_| "CRIU wrote no process number")?;
        let pidfd = sys::open_process(pid).context("find the process that came back")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.context("look at the process that came back")?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.map(str::trim) != Some(&std::process::id().to_string()) {
            return Err("the process that came back has gone".into());
        }
        self.groups.limit(boot)?;
        Ok((pid, pidfd))
    }

    pub(crate) fn remove_view(&self, memory: &Memory) {
        let _ = fs::remove_dir_all(self.view_of(memory));
    }

    fn view_of(&self, memory: &Memory) -> PathBuf {
        self.data_dir.join(&memory.images).with_extension(VIEW)
    }
}

/// Mounts what the processes will find mounted.
fn ready_mounts(root: &Root) -> Result<()> {
    let place = Path::new(PLACE);
    sys::mount_fs("tmpfs", place, sys::MS_NOSUID, "mode=755,size=64k").context("mount a tmpfs")?;
    for (name, mount) in [("root", Some(&root.system)), ("usr", root.usr.as_ref())] {
        let Some(mount) = mount else { continue };
        let target = place.join(name);
        fs::create_dir(&target)
            .and_then(|()| sys::attach_mount(mount, &target))
            .context("attach the root filesystem")?;
        if sys::is_read_only(&target).context("look at the root filesystem")? {
            return Err("the kernel made the overlay read-only".into());
        }
    }
    let devices = place.join("dev");
    fs::create_dir(&devices).context("create a directory for devices")?;
    inside::show_devices(&inside::host_devices()?, &devices)
}

/// Enters what CRIU does not save because it is its own as well; it finds it again.
fn share_with(init: i32) -> Result<()> {
    for kind in ["uts", "time"] {
        let namespace = File::open(format!("/proc/{init}/ns/{kind}"));
        namespace
            .and_then(|namespace| sys::enter_namespace(&namespace))
            .context(&format!("enter the sandbox's {kind} namespace"))?;
    }
    Ok(())
}

/// Sheds what a child inherits from the warden.
fn start_anew() -> Result<()> {
    sys::unblock_signals().context("unblock signals")?;
    sys::new_session().context("start a session")
}

fn address(ip: [u8; 4]) -> OsString {
    std::net::Ipv4Addr::from(ip).to_string().into()
}

fn arguments(view: &Path) -> Result<Vec<String>> {
    let here = std::env::current_dir().context("look where CRIU starts")?;
    let mut arguments = vec!["--root".to_owned()];
    arguments.push(here.join(PLACE).join("root").display().to_string());
    arguments.extend(["--pidfile".to_owned(), view.join(PID).display().to_string()]);
    let devices = inside::device_mounts().map(|(path, name)| (path, format!("dev/{name}")));
    for (path, source) in devices.chain([("/usr".to_owned(), "usr".to_owned())]) {
        arguments.extend(["--external".to_owned(), format!("mnt[{path}]:{PLACE}/{source}")]);
    }
    Ok(arguments)
}

/// Makes this process's children, and itself, see the clocks as they were.
fn turn_clocks_back(machine: &Machine) -> Result<()> {
    let doing = "set the clocks";
    sys::unshare_namespaces(sys::NEW_TIME).context(doing)?;
    let offsets = [
        ("monotonic", machine.monotonic, Clock::Monotonic),
        ("boottime", machine.boottime, Clock::Boottime),
    ]
    .map(|(name, then, clock)| {
        let offset = between(sys::now(clock), then);
        format!("{name} {} {}\n", offset.seconds, offset.nanoseconds)
    });
    fs::write("/proc/self/timens_offsets", offsets.concat()).context(doing)?;
    let namespace = File::open("/proc/self/ns/time_for_children").context(doing)?;
    sys::enter_namespace(&namespace).context(doing)
}

/// From `now` to `then`, with nanoseconds that count forward.
fn between(now: Moment, then: Moment) -> Moment {
    let nanoseconds = i64::from(then.nanoseconds) - i64::from(now.nanoseconds);
    let borrow = i64::from(nanoseconds < 0);
    let nanoseconds = nanoseconds + borrow * 1_000_000_000;
    let seconds = then.seconds.saturating_sub(now.seconds).saturating_sub(borrow);
    Moment::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
}

/// An image stays as it is, and several sandboxes may come from it at once, each with ids
/// of its own. So CRIU sees links to its files, and two files that are different.
fn make_view(image: &Path, machine: &Machine, view: &Path, base: u32) -> Result<()> {
    let doing = "ready the image";
    match fs::remove_dir_all(view) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(doing),
        _ => fs::create_dir(view).context(doing)?,
    }
    fs::set_permissions(view, fs::Permissions::from_mode(0o755)).context(doing)?;
    let mut users = 0;
    for (name, size) in machine.files.iter().map(|(name, size)| (name.as_str(), *size)) {
        let (whole, target) = (image.join(name), view.join(name));
        if name.contains('/') {
            return Err(damaged("a file is elsewhere"));
        }
        if !fs::symlink_metadata(&whole).is_ok_and(|file| file.is_file() && file.len() == size) {
            return Err(damaged(&format!("{name} is not what it was")));
        }
        let different = match name {
            TREE => Some(image::tree_of(&fs::read(&whole).context(doing)?)?),
            _ if name.starts_with(USERS) => {
                users += 1;
                Some(image::users_of(&fs::read(&whole).context(doing)?, base)?)
            }
            _ => None,
        };
        match different {
            Some(content) => fs::write(&target, content),
            None => fs::hard_link(&whole, &target),
        }
        .context(doing)?;
    }
    fs::hard_link(image.join(MACHINE), view.join(MACHINE)).context(doing)?;
    // A guest cannot have made another one.
    if users == 1 { Ok(()) } else { Err(damaged("it has not one user namespace")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_back_and_forward() {
        let (early, late) = (Moment::new(5, 900_000_000), Moment::new(7, 100_000_000));
        assert_eq!(between(early, late), Moment::new(1, 200_000_000));
        assert_eq!(between(late, early), Moment::new(-2, 800_000_000));
        assert_eq!(between(early, early), Moment::new(0, 0));
    }
}
