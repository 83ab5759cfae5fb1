//! Booting a sandbox: a child in new namespaces that builds its own machine and
//! then becomes the agent.

use crate::cgroup::Groups;
use crate::failure::{Context, Result};
use crate::inside;
use crate::layers::{self, Creator};
use crate::protocol::{Boot, Configure, Facts};
use crate::sandbox::{Sandbox, State};
use crate::sys;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(crate) const NAMESPACES: u64 =
    sys::NEW_USER | sys::NEW_NS | sys::NEW_PID | sys::NEW_NET | sys::NEW_IPC | sys::NEW_UTS;
const IDS: u32 = 65536;
/// Ranges to try, first to last. The first lies above those that systemd and
/// container tools hand out, so it owns nothing on the host.
const BASE_IDS: [u32; 3] = [0x7000_0000, 0x0008_0000, 100_000];

/// The machine, prepared once.
pub(crate) struct Host {
    configure: Configure,
    pub(crate) groups: Groups,
    creator: Creator,
}

/// The mounts that make up a root filesystem, not attached anywhere yet.
struct Root {
    system: OwnedFd,
    usr: Option<OwnedFd>,
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
        let creator = if sys::effective_uid() == 0 {
            Creator::Root { base_id: stage_for_root(&data_dir)? }
        } else {
            std::fs::create_dir_all("mnt").context("create the mount point")?;
            Creator::User
        };
        facts.privileged = matches!(creator, Creator::Root { .. });
        facts.ids = if facts.privileged { IDS } else { 1 };
        Ok(Self { configure, groups, creator })
    }

    pub(crate) fn launch(&self, boot: Boot) -> Result<Sandbox> {
        let group = self.groups.create(&boot)?;
        self.clone_launcher(&boot, &group).inspect_err(|_| group.remove()).map(
            |(pid, pidfd, status, alive)| Sandbox {
                id: boot.id,
                pid,
                pidfd,
                group,
                state: State::Launching { ticket: boot.ticket, status, _alive: alive },
            },
        )
    }

    fn clone_launcher(
        &self,
        boot: &Boot,
        group: &crate::cgroup::Group,
    ) -> Result<(i32, OwnedFd, File, OwnedFd)> {
        // Only host root may mount layers whose ids are mapped, so that happens out here.
        let root = match self.creator {
            Creator::Root { .. } => Some(self.root_of(boot)?),
            Creator::User => None,
        };
        let (go, alive) = sys::pipe().context("make a pipe")?;
        let (status, told) = sys::pipe().context("make a pipe")?;
        sys::set_nonblocking(&status).context("prepare the status pipe")?;

        let cloned = sys::clone_into(NAMESPACES, group.unified().as_ref());
        let cloned = cloned.context("create the namespaces of a sandbox")?;
        let sys::Cloned::Parent { pid, pidfd } = cloned else {
            drop((alive, status));
            let told = sys::move_above_standard(told);
            self.run_launcher(boot, root, File::from(go), told);
        };
        let admitted = self.admit(pid, group).and_then(|()| {
            File::from(alive.try_clone().context("start the launcher")?)
                .write_all(&[1])
                .context("start the launcher")
        });
        if let Err(error) = admitted {
            let _ = sys::send_signal(pid, sys::SIGKILL);
            let _ = sys::wait_for(pid);
            return Err(error);
        }
        Ok((pid, pidfd, File::from(status), alive))
    }

    /// What only the parent of a new namespace can do.
    fn admit(&self, pid: i32, group: &crate::cgroup::Group) -> Result<()> {
        match self.creator {
            Creator::Root { base_id } => layers::write_id_maps(pid, base_id, IDS)?,
            Creator::User => {
                std::fs::write(format!("/proc/{pid}/setgroups"), "deny")
                    .context("give up supplementary groups")?;
                let map = |kind: &str, id: u32| {
                    std::fs::write(format!("/proc/{pid}/{kind}_map"), format!("0 {id} 1\n"))
                        .context(&format!("map {kind} {id}"))
                };
                map("uid", sys::effective_uid())?;
                map("gid", sys::effective_gid())?;
            }
        }
        group.adopt(pid)
    }

    fn root_of(&self, boot: &Boot) -> Result<Root> {
        let private = Path::new(&boot.directory);
        let lower = format!("{}:{}/fs", self.configure.agent_layer, boot.base);
        let system = layers::overlay(&lower, &private.join("root"), self.creator)?;
        let usr = match (boot.host_usr, self.creator) {
            (false, _) => None,
            (true, Creator::Root { .. }) => Some("usr".to_owned()),
            // Directories that host root owns could not be written in; ours can.
            (true, Creator::User) => Some(format!("{}/usr:/usr", boot.base)),
        };
        let usr = usr
            .map(|lower| layers::overlay(&lower, &private.join("usr"), self.creator))
            .transpose()?;
        Ok(Root { system, usr })
    }

    /// The child's whole life before it becomes the agent.
    fn run_launcher(&self, boot: &Boot, root: Option<Root>, mut go: File, told: OwnedFd) -> ! {
        let outcome = go
            .read_exact(&mut [0])
            .context("wait for the warden")
            .and_then(|()| self.build_and_enter(boot, root, &go));
        let Err(error) = outcome;
        let _ = File::from(told).write_all(error.to_string().as_bytes());
        sys::exit_now(1);
    }

    fn build_and_enter(&self, boot: &Boot, root: Option<Root>, go: &File) -> Result<Infallible> {
        let single_id = matches!(self.creator, Creator::User);
        sys::new_session().context("start a session")?;
        sys::become_namespace_root(!single_id).context("become root inside")?;
        sys::unshare_namespaces(sys::NEW_CGROUP).context("hide the control groups")?;
        sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE)
            .context("keep mounts private")?;
        let root = root.map_or_else(|| self.root_of(boot), Ok)?;
        inside::attach(&root.system, root.usr.as_ref())?;
        inside::mount_system(!single_id)?;
        let listener = inside::open_agent_socket()?;
        inside::enter()?;
        inside::name_machine(&boot.hostname)?;
        inside::hide_kernel_files()?;
        inside::open_loopback(boot.ip)?;
        if single_id {
            inside::limit_as_user(boot.memory_bytes, boot.max_processes)?;
        }
        inside::become_agent(&self.configure.seccomp, listener, go)
    }
}

/// Mounts, in a namespace of our own, what sandboxes are layered from, with mapped
/// ids, and returns the base of the mapping that this machine accepts.
pub(crate) fn stage_for_root(data_dir: &Path) -> Result<u32> {
    let stage = data_dir.join("stage");
    sys::unshare_namespaces(sys::NEW_NS).context("create a mount namespace")?;
    sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE)
        .context("keep mounts private")?;
    std::fs::create_dir_all(&stage).context("create the staging directory")?;
    let flags = sys::MS_NOSUID | sys::MS_NODEV;
    sys::mount_fs("tmpfs", &stage, flags, "mode=755,size=64k").context("mount a tmpfs")?;
    std::env::set_current_dir(&stage).context("enter the staging directory")?;
    std::fs::create_dir("mnt").context("create the mount point")?;

    let mut refusal = None;
    let mapping = BASE_IDS.iter().find_map(|base| {
        layers::id_mapping(*base, IDS)
            .map_err(|error| refusal.get_or_insert(error).to_string())
            .ok()
            .map(|mapping| (*base, mapping))
    });
    let Some((base, mapping)) = mapping else {
        return Err(refusal.unwrap_or_else(|| "no ids to map".into()));
    };
    for name in ["cache", "sandboxes"] {
        layers::attach_mapped(&data_dir.join(name), Path::new(name), &mapping)?;
    }
    layers::attach_mapped(Path::new("/usr"), Path::new("usr"), &mapping)?;
    Ok(base)
}
