//! The steps a launcher takes inside its new namespaces, in their order.

use crate::failure::{Context, Result};
use crate::sys::{self, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT};
use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Where the new root is put together, below the current directory.
const ROOT: &str = "mnt";
const AGENT_DESCRIPTOR: i32 = 3;

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const READ_ONLY_PROC: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];
const HIDDEN_FILES: [&str; 8] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];
const HIDDEN_DIRECTORIES: [&str; 3] = ["/proc/acpi", "/proc/scsi", "/sys/firmware"];

fn at(path: &str) -> std::path::PathBuf {
    Path::new(ROOT).join(path)
}

/// Attaches the overlays and makes sure they can be written: the kernel turns an
/// overlay that it cannot work with read-only without saying so.
pub(crate) fn attach(system: &OwnedFd, usr: Option<&OwnedFd>) -> Result<()> {
    sys::attach_mount(system, Path::new(ROOT)).context("attach the root filesystem")?;
    if let Some(usr) = usr {
        sys::attach_mount(usr, &at("usr")).context("attach /usr")?;
    }
    for path in [ROOT, "mnt/usr"] {
        if sys::is_read_only(Path::new(path)).context("look at the root filesystem")? {
            return Err(format!("the kernel made the overlay at {path} read-only").into());
        }
    }
    Ok(())
}

/// The filesystems that every Linux machine has.
pub(crate) fn mount_system(many_ids: bool) -> Result<()> {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount_proc(&at("proc"))?;
    sys::mount_fs("sysfs", &at("sys"), quiet | MS_RDONLY, "").context("mount /sys")?;
    sys::mount_fs("tmpfs", &at("run"), MS_NOSUID | MS_NODEV, "mode=755,size=64m")
        .context("mount /run")?;
    mount_devices(many_ids)
}

pub(crate) fn mount_proc(target: &Path) -> Result<()> {
    sys::mount_fs("proc", target, MS_NOSUID | MS_NODEV | MS_NOEXEC, "").context("mount /proc")
}

fn mount_devices(many_ids: bool) -> Result<()> {
    let quiet = MS_NOSUID | MS_NOEXEC;
    sys::mount_fs("tmpfs", &at("dev"), MS_NOSUID, "mode=755,size=64k").context("mount /dev")?;
    for device in DEVICES {
        let (host, node) = (Path::new("/dev").join(device), at("dev").join(device));
        File::create(&node)
            .and_then(|_| sys::bind(&host, &node, 0))
            .context(&format!("show {}", host.display()))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(at("dev").join(name)).context("create a directory in /dev")?;
    }
    // 5 is the tty group everywhere; with a single id it does not exist.
    let group = if many_ids { ",gid=5" } else { "" };
    let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    sys::mount_fs("devpts", &at("dev/pts"), quiet, &options).context("mount /dev/pts")?;
    sys::mount_fs("tmpfs", &at("dev/shm"), MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
        .context("mount /dev/shm")?;
    sys::mount_fs("mqueue", &at("dev/mqueue"), quiet | MS_NODEV, "").context("mount mqueue")?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, at("dev").join(name)).context("create a link in /dev")?;
    }
    Ok(())
}

/// The agent's directory, which nothing inside can change, with its socket.
pub(crate) fn open_agent_socket() -> Result<UnixListener> {
    let doing = "prepare the agent's socket";
    let (own, run) = (at(".cos"), at(".cos/run"));
    let fixed = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
    sys::bind(&own, &own, 0).context(doing)?;
    sys::mount_fs("tmpfs", &run, MS_NOSUID | MS_NODEV, "mode=700,size=4k").context(doing)?;
    let listener = UnixListener::bind(run.join("sock")).context(doing)?;
    sys::change_mount(&run, fixed).context(doing)?;
    sys::change_mount(&own, fixed).context(doing)?;
    Ok(listener)
}

/// Makes the new root the only one.
pub(crate) fn enter() -> Result<()> {
    std::env::set_current_dir(ROOT).context("enter the new root")?;
    sys::pivot_to_current_directory().context("swap the root")?;
    std::env::set_current_dir("/").context("enter the new root")
}

/// Hostname, and the files that say it; those that the user changed stay.
pub(crate) fn name_machine(hostname: &str) -> Result<()> {
    sys::set_hostname(hostname).context("set the hostname")?;
    write_once("/etc/hostname", &format!("{hostname}\n"))?;
    write_once(
        "/etc/hosts",
        &format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n"),
    )
}

fn write_once(path: &str, content: &str) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(content.as_bytes()).context(&format!("write {path}")),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).context(&format!("create {path}")),
    }
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

/// Without control groups: limits per process, and on processes.
pub(crate) fn limit_as_user(memory_bytes: u64, max_processes: u32) -> Result<()> {
    sys::limit(sys::Resource::Data, memory_bytes).context("limit memory")?;
    sys::limit(sys::Resource::Processes, u64::from(max_processes)).context("limit processes")
}

/// The last steps: nothing of the host may be left in reach when the agent starts.
pub(crate) fn become_agent(
    seccomp: &[Vec<u8>],
    listener: UnixListener,
    go: &File,
) -> Result<Infallible> {
    sys::limit(sys::Resource::Core, 0).context("limit core dumps")?;
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
    sys::drop_capabilities().context("drop capabilities")?;
    sys::die_with_parent().context("tie the sandbox to the warden")?;
    let mut poll = [sys::PollFd::new(&go, sys::POLLIN)];
    if sys::poll_fds(&mut poll, Some(0)).context("look for the warden")? > 0 {
        // It died before the line above took effect.
        return Err("the warden is gone".into());
    }
    sys::execute(c"/.cos/agent").context("start the agent")
}
