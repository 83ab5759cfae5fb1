//! Booting a sandbox: a child in new namespaces that builds its own machine and
//! then becomes the agent.

use crate::cgroup::{Group, Groups, Seats};
use crate::disks::{Demand, Disks};
use crate::failure::{Context, Result};
use crate::inside;
use crate::layers;
use crate::probe;
use crate::protocol::{Boot, Configure, Facts};
use crate::ranges::{IDS, Range, Ranges};
use crate::root::Root;
use crate::sandbox::{Launch, READY, Sandbox, State};
use crate::sockets;
use crate::sys;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(crate) const NAMESPACES: u64 =
    sys::NEW_USER | sys::NEW_NS | sys::NEW_PID | sys::NEW_NET | sys::NEW_IPC | sys::NEW_UTS;

/// The machine, prepared once.
pub(crate) struct Host {
    pub(crate) data_dir: PathBuf,
    pub(crate) configure: Configure,
    pub(crate) groups: Groups,
    /// Of host root; an ordinary user has one id, and every sandbox gets that.
    ranges: Option<Ranges>,
    /// Where this machine can have them.
    pub(crate) disks: Option<Disks>,
    /// Why sandboxes have no way out; nothing where they have.
    pub(crate) no_capture: Option<String>,
}

/// A launcher that has just been let go.
struct Launched {
    pid: i32,
    pidfd: OwnedFd,
    launch: Launch,
}

/// The launcher's own descriptors.
struct Wires {
    /// One byte comes through when it may begin; it ends when the warden does.
    go: File,
    /// Takes [`READY`], or why there is no sandbox.
    told: File,
}

impl Host {
    /// Leaves this process in a directory with the layout of the data directory,
    /// so that every path from the engine can stay relative and needs no escaping.
    pub(crate) fn prepare(
        data_dir: PathBuf,
        configure: Configure,
        facts: &mut Facts,
    ) -> Result<Self> {
        sys::set_umask(0o022);
        let groups = Groups::prepare(&configure.cgroup, facts);
        let ranges = if sys::effective_uid() == 0 {
            Some(Ranges::prepare(&data_dir)?)
        } else {
            std::fs::create_dir_all("mnt").context("create the mount point")?;
            None
        };
        facts.privileged = ranges.is_some();
        facts.ids = if facts.privileged { IDS } else { 1 };
        facts.nesting = facts.privileged && groups.is_unified();
        let disks = match &ranges {
            Some(_) => Disks::prepare(&data_dir, configure.disk_mib),
            None => Err("only root can mount disk images".into()),
        };
        facts.no_disks = disks.as_ref().err().map(ToString::to_string);
        facts.no_capture = probe::capture();
        let no_capture = facts.no_capture.clone();
        Ok(Self { data_dir, configure, groups, ranges, disks: disks.ok(), no_capture })
    }

    /// Whether the engine runs as an ordinary user, whose sandboxes all have one id.
    pub(crate) fn single_id(&self) -> bool {
        self.ranges.is_none()
    }

    /// Opens what a boot needs; see [`Disks::demand`].
    pub(crate) fn demand(&mut self, boot: &Boot) -> Demand {
        match &mut self.disks {
            Some(disks) => disks.demand(boot),
            None if boot.disk_mib > 0 => Demand::Failed("this machine cannot have disks".into()),
            None => Demand::Met,
        }
    }

    pub(crate) fn launch(&mut self, boot: Boot) -> Result<Sandbox> {
        if let Some(memory) = boot.memory.clone() {
            return self.restore(boot, &memory);
        }
        let group = self.groups.create(&boot)?;
        let range = self.ranges.as_mut().map(Ranges::take);
        let index = range.as_ref().map_or(0, |range| range.index);
        let delegated = match (boot.nesting, &range) {
            (true, Some(range)) => group.delegate(range.base),
            _ => Ok(()),
        };
        let launched = delegated.and_then(|()| self.start_launcher(&boot, &group, range.as_ref()));
        match launched {
            Ok(Launched { pid, pidfd, launch }) => Ok(Sandbox {
                id: boot.id,
                boot: boot.ticket,
                ip: boot.ip,
                memory_bytes: boot.memory_bytes,
                nesting: boot.nesting,
                pid,
                pidfd,
                group,
                range: index,
                directory: boot.directory,
                layers: boot.layers,
                discard: false,
                state: State::Launching(launch),
                cables: Vec::new(),
                freeze: None,
            }),
            Err(error) => {
                group.try_remove();
                self.release(index);
                Err(error)
            }
        }
    }

    /// What memory snapshots need: they are host root's.
    pub(crate) fn ranges(&mut self) -> Result<&mut Ranges> {
        let refusal = "only an engine that runs as root can save the processes of a sandbox";
        Ok(self.ranges.as_mut().ok_or(refusal)?)
    }

    pub(crate) fn release(&mut self, range: usize) {
        if let Some(ranges) = &mut self.ranges {
            ranges.release(range);
        }
    }

    /// The host's id of root inside; nothing where that is the user's own.
    pub(crate) fn root_of(&self, sandbox: &Sandbox) -> Option<u32> {
        self.ranges.as_ref().map(|ranges| ranges.range(sandbox.range).base)
    }

    /// Starts a socket maker and returns the engine's end of it.
    pub(crate) fn start_socket_maker(&self, sandbox: &Sandbox) -> Result<OwnedFd> {
        let range = self.ranges.as_ref().map(|ranges| ranges.range(sandbox.range));
        sockets::start(&sandbox.pidfd, range.as_ref(), &self.configure.socket_filter)
    }

    fn start_launcher(
        &self,
        boot: &Boot,
        group: &Group,
        range: Option<&Range>,
    ) -> Result<Launched> {
        let agent = &self.configure.agent_layer;
        let root = range.map(|range| Root::of_range(boot, agent, range, self.disks.as_ref()));
        let root = root.transpose()?;
        let (go, alive) = sys::pipe().context("make a pipe")?;
        let (status, told) = sys::pipe().context("make a pipe")?;
        sys::set_nonblocking(&status).context("prepare the status pipe")?;
        let (unified, seats) = (group.unified()?, group.seats()?);
        let cloned = clone_as_owner(NAMESPACES, unified.as_ref(), range)?;
        let sys::Cloned::Parent { pid, pidfd } = cloned else {
            drop((alive, status));
            let told = sys::move_above_standard(told).into();
            self.run_launcher(boot, root, seats, Wires { go: go.into(), told });
        };
        let admitted = admit(pid, range).and_then(|()| {
            let mut alive = File::from(alive.try_clone().context("start the launcher")?);
            alive.write_all(&[1]).context("start the launcher")
        });
        if let Err(error) = admitted {
            let _ = sys::send_signal(pid, sys::SIGKILL);
            let _ = sys::wait_for(pid);
            return Err(error);
        }
        let launch = Launch { status: Some(status.into()), told: Vec::new(), _alive: alive };
        Ok(Launched { pid, pidfd, launch })
    }

    /// The child's whole life before it becomes the agent.
    fn run_launcher(&self, boot: &Boot, root: Option<Root>, seats: Seats, mut wires: Wires) -> ! {
        let begun = seats
            .take()
            .and_then(|()| wires.go.read_exact(&mut [0]).context("wait for the warden"));
        let Err(error) = begun.and_then(|()| self.build_and_enter(boot, root, &mut wires));
        let _ = wires.told.write_all(error.to_string().as_bytes());
        sys::exit_now(1);
    }

    fn build_and_enter(
        &self,
        boot: &Boot,
        root: Option<Root>,
        wires: &mut Wires,
    ) -> Result<Infallible> {
        let single_id = self.ranges.is_none();
        sys::unblock_signals().context("unblock signals")?;
        sys::new_session().context("start a session")?;
        inside::forget_priority();
        sys::become_namespace_root(!single_id).context("become root inside")?;
        sys::unshare_namespaces(sys::NEW_CGROUP).context("hide the control groups")?;
        sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE)
            .context("keep mounts private")?;
        let root = root.map_or_else(|| Root::of_user(boot, &self.configure.agent_layer), Ok)?;
        let devices = inside::host_devices()?;
        inside::enter(&root.system, root.usr.as_ref())?;
        inside::mount_system(&devices, !single_id)?;
        let listener = inside::open_agent_socket()?;
        inside::leave_host()?;
        inside::name_machine(&boot.hostname)?;
        inside::name_resolver();
        if single_id {
            inside::limit_as_user(boot.memory_bytes, boot.max_processes)?;
        }
        let (seccomp, profile) = if boot.nesting {
            inside::mount_control_groups()?;
            (&self.configure.nesting_seccomp, inside::Profile::Nesting)
        } else {
            inside::hide_kernel_files()?;
            (&self.configure.seccomp, inside::Profile::Locked)
        };
        inside::open_loopback(boot.ip)?;
        if self.no_capture.is_none() {
            inside::open_capture(boot.ip)?;
        }
        inside::become_agent(seccomp, profile, listener, &wires.go, || {
            wires.told.write_all(&[READY]).context("report to the warden")
        })
    }
}

/// Clones this process into namespaces. Host root lends them the range's owner for that
/// moment.
pub(crate) fn clone_as_owner(
    namespaces: u64,
    cgroup: Option<&OwnedFd>,
    range: Option<&Range>,
) -> Result<sys::Cloned> {
    if let Some(range) = range {
        // Where that id does not exist, as in some containers, root stays the owner.
        if sys::set_effective_uid(range.owner()).is_ok() {
            sys::raise_effective_capabilities().context("keep capabilities")?;
        }
    }
    let cloned = sys::clone_into(namespaces, cgroup);
    if range.is_some() && !matches!(cloned, Ok(sys::Cloned::Child)) {
        sys::set_effective_uid(0).context("become root again")?;
    }
    cloned.context("create the namespaces of a sandbox")
}

/// What only the parent of a new namespace can do.
fn admit(pid: i32, range: Option<&Range>) -> Result<()> {
    match range {
        Some(range) => layers::write_id_maps(pid, range.base, IDS),
        None => {
            std::fs::write(format!("/proc/{pid}/setgroups"), "deny")
                .context("give up supplementary groups")?;
            let map = |kind: &str, id: u32| {
                std::fs::write(format!("/proc/{pid}/{kind}_map"), format!("0 {id} 1\n"))
                    .context(&format!("map {kind} {id}"))
            };
            map("uid", sys::effective_uid())?;
            map("gid", sys::effective_gid())
        }
    }
}
