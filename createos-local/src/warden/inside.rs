//! The steps a launcher takes inside its new namespaces, in their order.

use crate::failure::{Context, Result};
use crate::sys::{self, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT};
use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Where the new root is put together, below the current directory.
const ROOT: &str = "mnt";
const AGENT_DESCRIPTOR: i32 = 3;
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const READ_ONLY_PROC: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];
const HIDDEN_FILES: [&str; 9] = [
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];
const HIDDEN_DIRECTORIES: [&str; 5] =
    ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/devices/virtual/powercap", "/sys/firmware"];

/// The engine may be spared by the memory killer; what runs inside is not.
pub(crate) fn forget_priority() {
    let path = "/proc/self/oom_score_adj";
    let spared = fs::read_to_string(path).is_ok_and(|score| score.starts_with('-'));
    if spared {
        let _ = fs::write(path, "0");
    }
}

/// The host's device files as mounts, taken while its /dev is in sight.
pub(crate) fn host_devices() -> Result<Vec<(&'static str, OwnedFd)>> {
    let take = |name| {
        let device = sys::clone_mount(&Path::new("/dev").join(name));
        Ok((name, device.context(&format!("show /dev/{name}"))?))
    };
    DEVICES.into_iter().map(take).collect()
}

/// Makes the new root ours, before anything is mounted in it: what a guest left there
/// may be links, and must not lead out. The host's root stays mounted, out of reach of
/// paths, until [`leave_host`]: the kernel gives a new /proc only where one is in sight.
pub(crate) fn enter(system: &OwnedFd, usr: Option<&OwnedFd>) -> Result<()> {
    sys::attach_mount(system, Path::new(ROOT)).context("attach the root filesystem")?;
    std::env::set_current_dir(ROOT).context("enter the new root")?;
    sys::pivot_to_current_directory().context("swap the root")?;
    if let Some(usr) = usr {
        sys::attach_mount(usr, Path::new("/usr")).context("attach /usr")?;
    }
    // The kernel turns an overlay that it cannot work with read-only without saying so.
    for path in ["/"].into_iter().chain(usr.map(|_| "/usr")) {
        if sys::is_read_only(Path::new(path)).context("look at the root filesystem")? {
            return Err(format!("the kernel made the overlay at {path} read-only").into());
        }
    }
    Ok(())
}

pub(crate) fn leave_host() -> Result<()> {
    sys::drop_old_root().context("leave the host's root")?;
    std::env::set_current_dir("/").context("enter the new root")
}

/// The filesystems that every Linux machine has.
pub(crate) fn mount_system(devices: &[(&str, OwnedFd)], many_ids: bool) -> Result<()> {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount_proc(Path::new("/proc"))?;
    sys::mount_fs("sysfs", Path::new("/sys"), quiet | MS_RDONLY, "").context("mount /sys")?;
    sys::mount_fs("tmpfs", Path::new("/run"), MS_NOSUID | MS_NODEV, "mode=755,size=64m")
        .context("mount /run")?;
    mount_devices(devices, many_ids)
}

pub(crate) fn mount_proc(target: &Path) -> Result<()> {
    sys::mount_fs("proc", target, MS_NOSUID | MS_NODEV | MS_NOEXEC, "").context("mount /proc")
}

/// Attaches the host's device files in a directory.
pub(crate) fn show_devices(devices: &[(&str, OwnedFd)], directory: &Path) -> Result<()> {
    for (name, device) in devices {
        // Read-only spares the host's file its times; what is written to a device is none
        // of the mount's business.
        let fixed = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC;
        let node = directory.join(name);
        File::create(&node)
            .and_then(|_| sys::attach_mount(device, &node))
            .and_then(|()| sys::change_mount(&node, fixed))
            .context(&format!("show {}", node.display()))?;
    }
    Ok(())
}

/// Where the host's files show in a sandbox, and which of its devices each one is.
pub(crate) fn device_mounts() -> impl Iterator<Item = (String, &'static str)> {
    let devices = DEVICES.into_iter().map(|name| (format!("/dev/{name}"), name));
    devices.chain(HIDDEN_FILES.into_iter().map(|path| (path.to_owned(), "null")))
}

fn mount_devices(devices: &[(&str, OwnedFd)], many_ids: bool) -> Result<()> {
    let (dev, quiet) = (Path::new("/dev"), MS_NOSUID | MS_NOEXEC);
    sys::mount_fs("tmpfs", dev, MS_NOSUID, "mode=755,size=64k").context("mount /dev")?;
    show_devices(devices, dev)?;
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).context("create a directory in /dev")?;
    }
    // 5 is the tty group everywhere; with a single id it does not exist.
    let group = if many_ids { ",gid=5" } else { "" };
    let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    sys::mount_fs("devpts", &dev.join("pts"), quiet, &options).context("mount /dev/pts")?;
    sys::mount_fs("tmpfs", &dev.join("shm"), MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
        .context("mount /dev/shm")?;
    sys::mount_fs("mqueue", &dev.join("mqueue"), quiet | MS_NODEV, "").context("mount mqueue")?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name)).context("create a link in /dev")?;
    }
    Ok(())
}

/// The agent's directory, which nothing inside can change, with its socket.
pub(crate) fn open_agent_socket() -> Result<UnixListener> {
    let doing = "prepare the agent's socket";
    let (own, run) = (Path::new("/.cos"), Path::new("/.cos/run"));
    let fixed = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
    sys::bind(own, own, 0).context(doing)?;
    sys::mount_fs("tmpfs", run, MS_NOSUID | MS_NODEV, "mode=700,size=4k").context(doing)?;
    let listener = UnixListener::bind(run.join("sock")).context(doing)?;
    protect_agent_socket(true)?;
    sys::change_mount(own, fixed).context(doing)?;
    Ok(listener)
}

/// Makes the directory of the agent's socket unchangeable, or lets it be changed.
pub(crate) fn protect_agent_socket(protect: bool) -> Result<()> {
    let read_only = if protect { MS_RDONLY } else { 0 };
    let flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | read_only;
    sys::change_mount(Path::new("/.cos/run"), flags).context("protect the agent's socket")
}

/// Hostname, and the files that say it. Those that exist are the user's; and where
/// none can be made, somebody inside wanted it so.
pub(crate) fn name_machine(hostname: &str) -> Result<()> {
    sys::set_hostname(hostname).context("set the hostname")?;
    let hosts =
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{}\n", own_entry(hostname));
    for (path, content) in [(HOSTNAME, format!("{hostname}\n")), (HOSTS, hosts)] {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(content.as_bytes()));
    }
    // Those of a template or a source say its name.
    rename_machine();
    Ok(())
}

/// Names the engine's resolver, where the sandbox names none. It answers at every address.
pub(crate) fn name_resolver() {
    let names_one =
        |text: String| text.lines().any(|line| line.trim_start().starts_with("nameserver"));
    if !read_small(RESOLVER).is_ok_and(names_one) {
        // Whatever a guest made of its files is its own affair.
        let _ = replace(RESOLVER, "nameserver 10.0.0.1\n");
    }
}

fn own_entry(hostname: &str) -> String {
    format!("127.0.1.1 {hostname}")
}

/// The machine has got another hostname: the files that say the old one say the new one
/// now, unless somebody inside wanted it otherwise.
pub(crate) fn rename_machine() {
    let renamed = || -> std::io::Result<()> {
        let (own, named) = (sys::hostname()?, read_small(HOSTNAME)?);
        let (old, hosts) = (named.trim(), read_small(HOSTS)?);
        let entry = own_entry(old);
        if old == own || !hosts.lines().any(|line| line == entry) {
            return Ok(());
        }
        let line = |line: &str| if line == entry { own_entry(&own) } else { line.to_owned() };
        let hosts: String = hosts.lines().map(|text| line(text) + "\n").collect();
        replace(HOSTNAME, &format!("{own}\n"))?;
        replace(HOSTS, &hosts)
    };
    // Whatever a guest made of its files is its own affair.
    let _ = renamed();
}

/// A regular file of a guest, if it is short.
fn read_small(path: &str) -> std::io::Result<String> {
    const LIMIT: u64 = 64 << 10;
    let file = OpenOptions::new().read(true).custom_flags(sys::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LIMIT {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

fn replace(path: &str, content: &str) -> std::io::Result<()> {
    let fresh = format!("{path}.createos");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
    written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// How much root inside may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What programs need, and nothing that reaches the kernel's rarer parts.
    Locked,
    /// Everything that a user namespace can give, for containers inside. The kernel mounts
    /// a /proc in there only where none of the outer one is covered.
    Nesting,
}

/// Shows the sandbox's own control group, for container tools.
pub(crate) fn mount_control_groups() -> Result<()> {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount_fs("cgroup2", Path::new("/sys/fs/cgroup"), quiet, "").context("mount /sys/fs/cgroup")
}

/// Covers the parts of /proc and /sys that concern the whole machine.
pub(crate) fn hide_kernel_files() -> Result<()> {
    let fixed = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for name in READ_ONLY_PROC {
        let path = Path::new(name);
        if path.exists() {
            sys::bind(path, path, MS_REC)
                .and_then(|()| sys::change_mount(path, fixed))
                .context(&format!("make {name} read-only"))?;
        }
    }
    for name in HIDDEN_FILES {
        if Path::new(name).exists() {
            sys::bind(Path::new("/dev/null"), Path::new(name), 0)
                .context(&format!("hide {name}"))?;
        }
    }
    for name in HIDDEN_DIRECTORIES {
        if Path::new(name).is_dir() {
            sys::mount_fs("tmpfs", Path::new(name), MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k")
                .context(&format!("hide {name}"))?;
        }
    }
    Ok(())
}

pub(crate) fn open_loopback(address: [u8; 4]) -> Result<()> {
    sys::loopback_up().context("bring the loopback device up")?;
    match sys::add_loopback_address(address.into()) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context("set the sandbox's address"),
    }
}

/// The way out: into the hands of the engine.
pub(crate) fn open_capture(address: [u8; 4]) -> Result<()> {
    sys::open_capture(address.into()).context("lead what leaves the sandbox to the engine")
}

/// Without control groups: limits per process, and on processes. What the kernel counts
/// for the user who owns the namespace, it shares out.
pub(crate) fn limit_as_user(memory_bytes: u64, max_processes: u32) -> Result<()> {
    let _ = fs::write("/proc/sys/user/max_inotify_instances", "64");
    sys::limit(sys::Resource::Data, memory_bytes).context("limit memory")?;
    // The socket maker is in this user namespace, so the kernel counts it: it is the one more.
    let processes = u64::from(max_processes) + 1;
    sys::limit(sys::Resource::Processes, processes).context("limit processes")
}

/// The last steps: nothing of the host may be left in reach when the agent starts.
pub(crate) fn become_agent(
    seccomp: &[Vec<u8>],
    profile: Profile,
    listener: UnixListener,
    go: &File,
    report_ready: impl FnOnce() -> Result<()>,
) -> Result<Infallible> {
    // 1, not 0: only then does the kernel not start the host's crash handler either.
    sys::limit(sys::Resource::Core, 1).context("limit core dumps")?;
    sys::limit(sys::Resource::OpenFiles, 1 << 20).context("limit open files")?;
    for standard in 0..=2 {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        null.and_then(|null| sys::place_at(null.into(), standard)).context("open /dev/null")?;
    }
    let go = sys::move_above_standard(go.try_clone().context("keep the warden's pipe")?.into());
    sys::place_at(listener.into(), AGENT_DESCRIPTOR).context("hand over the socket")?;
    sys::close_on_exec_from(AGENT_DESCRIPTOR.cast_unsigned() + 1).context("close the rest")?;
    // Loaded while still capable: without no_new_privs only that allows it.
    for filter in seccomp {
        sys::install_seccomp_filter(filter).context("install the system call filter")?;
    }
    if profile == Profile::Locked {
        sys::drop_capabilities().context("drop capabilities")?;
    }
    sys::die_with_parent().context("tie the sandbox to the warden")?;
    let mut poll = [sys::PollFd::new(&go, sys::POLLIN)];
    if sys::poll_fds(&mut poll, Some(0)).context("look for the warden")? > 0 {
        // It died before the line above took effect.
        return Err("the warden is gone".into());
    }
    report_ready()?;
    sys::execute(c"/.cos/agent").context("start the agent")
}
