//! What this machine can give a sandbox, found by trying.
//!
//! [`run`] starts a real warden on the given directory, tries each mechanism, boots
//! a sandbox and looks around inside. Nothing is concluded from versions or files.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use createos_sdk::SandboxId;
use futures::StreamExt;

use crate::core::try_desktop;
use crate::network_protocol::{Link, Subnet};
use crate::runtime::{
    BootSpec, CRIU_REMEDY, DESKTOP_REMEDY, DESKTOP_ROOTFS, ExecEvent, ExecSpec, HOST_ROOTFS,
    LINES_REMEDY, Limits, NETWORKS_REMEDY, NO_DISK_LIMIT, NO_FUSE, NO_NESTING, NO_WAY_OUT,
    Namespaces, Runtime, RuntimeError, Saved, desktop_programs,
};

/// How well this machine provides something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Status {
    /// Works in full.
    Ok,
    /// Works in a reduced way; [`Item::detail`] says how.
    Degraded,
    /// Does not work; [`Item::remedy`] says what would change that.
    Missing,
}

impl Status {
    /// The word for it: `ok`, `degraded` or `missing`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One capability of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// A stable name, such as `memory_limit`.
    pub name: &'static str,
    /// How well it works.
    pub status: Status,
    /// What was found, or the cause of what is missing.
    pub detail: String,
    /// What to do about it, when something can be done.
    pub remedy: Option<String>,
}

impl Item {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), remedy: None }
    }

    fn flawed(
        name: &'static str,
        status: Status,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, status, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Everything [`run`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// One item for each capability, in a stable order.
    pub items: Vec<Item>,
}

impl Report {
    /// Whether sandboxes can run here, be it with reduced parts.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.items.iter().any(|item| item.name == "sandbox" && item.status != Status::Missing)
    }

    /// The worst status of all items.
    #[must_use]
    pub fn worst(&self) -> Status {
        self.items.iter().map(|item| item.status).max().unwrap_or(Status::Missing)
    }
}

/// Tries everything, with files below `data_dir` (created if it is missing), because
/// what a filesystem allows depends on which one it is. Takes a second or two, the
/// first time on a machine some more. Leaves nothing behind but the cache.
pub async fn run(data_dir: &Path) -> Report {
    let mut items = vec![kernel()];
    // Private, as the engine will want it.
    let scratch = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .and_then(|()| tempfile::Builder::new().prefix("doctor-").tempdir_in(data_dir));
    let scratch = match scratch {
        Ok(scratch) => scratch,
        Err(error) => {
            let detail = format!("cannot write to {}: {error}", data_dir.display());
            items.push(missing("state_directory", detail, STATE_DIRECTORY));
            items.push(missing("sandbox", "not tried", "solve what is named above"));
            return Report { items };
        }
    };
    items.push(Item::ok("state_directory", data_dir.display().to_string()));
    let (dir, cache) = (scratch.path().to_owned(), data_dir.join("cache"));
    let tried =
        tokio::task::spawn_blocking(move || (trials(&dir), Namespaces::start(&dir, Some(&cache))));
    let (tried, started) = match tried.await {
        Ok(tried) => tried,
        Err(error) => (Vec::new(), Err(RuntimeError::Unsupported(error.to_string()))),
    };
    items.extend(tried);
    match started {
        Ok(runtime) => {
            items.extend(limits(&runtime));
            items.extend(inside(&runtime).await);
            runtime.shutdown().await;
        }
        Err(error) => items.push(missing("sandbox", error.to_string(), SANDBOX)),
    }
    Report { items }
}

const STATE_DIRECTORY: &str = "choose another directory with --data-dir";
const SANDBOX: &str = "solve what is named missing above";
const CGROUPS: &str = "run the engine as root, or in a session whose control groups systemd \
                       delegates (systemd-run --user --scope -p Delegate=yes)";

fn missing(name: &'static str, detail: impl Into<String>, remedy: &str) -> Item {
    Item::flawed(name, Status::Missing, detail, remedy)
}

fn kernel() -> Item {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    Item::ok("kernel", format!("Linux {release} on {}", std::env::consts::ARCH))
}

/// The warden's own trials: what it needs, and what to do where it is refused.
fn trials(dir: &Path) -> Vec<Item> {
    let remedies = [
        (
            "user_namespaces",
            "run as root, or let users create user namespaces (sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
        ),
        ("namespaces", "use a kernel with all namespaces; in a container, run it privileged"),
        ("proc", "run outside a container, or in one whose /proc is not masked (--privileged)"),
        ("seccomp", "use a kernel with CONFIG_SECCOMP_FILTER"),
        (
            "overlay",
            "put the state directory on ext4, xfs, btrfs or tmpfs (--data-dir); in a container, \
             on a volume. Needs Linux 5.19 or newer",
        ),
    ];
    let output = match probe(dir) {
        Ok(output) => output,
        Err(error) => {
            let detail = format!("cannot run the engine's helper program: {error}");
            let remedy = "use a state directory on a filesystem that allows programs (no noexec)";
            return vec![missing("helper_program", detail, remedy)];
        }
    };
    let outcome = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.unwrap_or("not tried").to_owned()
    };
    let item = |(name, remedy): (&'static str, &str)| match outcome(name).as_str() {
        "" => Item::ok(name, "tried, works"),
        reason => missing(name, reason, remedy),
    };
    remedies.map(item).into()
}

fn probe(dir: &Path) -> std::io::Result<String> {
    for name in
        ["cache", "stage", "proc", "mnt", "layers", "sandboxes/probe/upper", "sandboxes/probe/work"]
    {
        std::fs::create_dir_all(dir.join("probe").join(name))?;
    }
    let helpers = Namespaces::install_helpers(dir)?;
    let output = Command::new(helpers).arg("probe").arg(dir.join("probe")).output()?;
    crate::tree::remove_tree(&dir.join("probe"))?;
    // The real engine starts on this directory next, with a cache of its own choice.
    std::fs::remove_dir_all(dir.join("cache"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn limits(runtime: &Namespaces) -> Vec<Item> {
    let facts = runtime.facts();
    let mode = if facts.privileged {
        Item::ok("privileges", format!("root; {} user ids inside, mapped", facts.ids))
    } else {
        Item::flawed(
            "privileges",
            Status::Degraded,
            "an ordinary user: only one user id exists inside, so programs that change to another \
             user fail",
            "run the engine as root",
        )
    };
    let enforced = |name, place: &Option<String>, otherwise: &str| match place {
        Some(place) => Item::ok(name, format!("control group {place}")),
        None => Item::flawed(name, Status::Degraded, otherwise, CGROUPS),
    };
    let notes = facts.notes.iter();
    let notes = notes.map(|note| Item::flawed("control_groups", Status::Degraded, note, CGROUPS));
    vec![
        mode,
        enforced("memory_limit", &facts.memory, "advisory: each process is limited, not their sum"),
        enforced("cpu_limit", &facts.cpu, "not enforced: a sandbox can use every CPU"),
        enforced("process_limit", &facts.processes, "by resource limit instead of control group"),
        match &facts.no_disks {
            None => Item::ok("disk_limit", "each sandbox has an XFS image of its size"),
            Some(reason) => Item::flawed(
                "disk_limit",
                Status::Degraded,
                format!("advisory, and disks cannot be resized: {reason}"),
                NO_DISK_LIMIT,
            ),
        },
        if facts.nesting {
            Item::ok("nesting", "sandboxes can hold containers, where the engine allows it")
        } else {
            missing("nesting", "sandboxes cannot hold containers of their own", NO_NESTING)
        },
    ]
    .into_iter()
    .chain(notes)
    .collect()
}

/// Boots a sandbox and looks around.
async fn inside(runtime: &Namespaces) -> Vec<Item> {
    let id: SandboxId = match "sb-00000000000000000000doctor".parse() {
        Ok(id) => id,
        Err(error) => return vec![missing("sandbox", format!("{error}"), SANDBOX)],
    };
    let spec = BootSpec {
        id: id.clone(),
        name: "doctor".to_owned(),
        ip: [10, 0, 0, 2].into(),
        limits: Limits {
            memory_bytes: 256 << 20,
            cpu_percent: 100,
            max_processes: 256,
            disk_mib: 10_240,
        },
        nesting: false,
    };
    let boot = match runtime.boot(spec.clone()).await {
        Ok(boot) => boot,
        Err(error) => return vec![missing("sandbox", error.to_string(), SANDBOX)],
    };
    let looked = look_around(runtime, &id).await;
    let networks = private_networks(runtime, &id).await;
    let lines = device_sessions(runtime).await;
    let volumes = match runtime.try_volumes(&id).await {
        Ok(()) => Item::ok("s3_disks", "a file system was mounted in a sandbox"),
        Err(error) => missing("s3_disks", format!("cannot be mounted: {error}"), NO_FUSE),
    };
    let snapshots = snapshots(runtime, &spec).await;
    let desktop = desktop(runtime, &id).await;
    let removed = runtime.remove(&id).await;
    let mut items = match looked {
        Ok(items) => items,
        Err(error) => return vec![missing("sandbox", error.to_string(), SANDBOX)],
    };
    items.extend([networks, lines, volumes, snapshots, desktop]);
    let millis = boot.spawn.as_secs_f64() * 1000.0;
    items.push(match removed {
        Ok(()) => Item::ok("sandbox", format!("booted in {millis:.1} ms, ran commands, removed")),
        Err(error) => missing("sandbox", format!("cannot be removed: {error}"), SANDBOX),
    });
    items
}

/// Puts the sandbox on a network of its own, and off it again.
async fn private_networks(runtime: &Namespaces, id: &SandboxId) -> Item {
    let subnet = Subnet::new([10, 64, 0, 0], 22);
    let link = Link {
        network: "doctor".to_owned(),
        subnet,
        address: [10, 64, 0, 2].into(),
        interface: "net0".to_owned(),
        devices: Vec::new(),
    };
    let tried = async {
        runtime.link_machine(id, vec![link]).await?;
        runtime.link_machine(id, Vec::new()).await
    };
    match tried.await {
        Ok(()) => Item::ok("private_networks", "a sandbox was put on one and off it again"),
        Err(error) => missing("private_networks", error.to_string(), NETWORKS_REMEDY),
    }
}

/// Makes a line to a network of its own.
async fn device_sessions(runtime: &Namespaces) -> Item {
    let subnet = Subnet::new([10, 64, 0, 0], 22);
    match runtime.line_to("doctor", subnet).await {
        Ok(_) => Item::ok("device_sessions", "a tunnel to a private network was made"),
        Err(error) => missing("device_sessions", error.to_string(), LINES_REMEDY),
    }
}

async fn look_around(runtime: &Namespaces, id: &SandboxId) -> Result<Vec<Item>, RuntimeError> {
    let status = shell(runtime, id, "grep -E '^(Seccomp|CapBnd):' /proc/self/status").await?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or("unknown").trim().to_owned()
    };
    let filtered = match field("Seccomp:").as_str() {
        "2" => Item::ok("system_call_filter", "active inside"),
        other => missing(
            "system_call_filter",
            format!("not active inside (mode {other})"),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    };
    let bounding = Item::ok("capabilities", format!("bounding set inside {}", field("CapBnd:")));
    let tools = "for tool in bash python3 node git curl; do \
                 command -v $tool >/dev/null && printf '%s ' $tool; done";
    let tools = shell(runtime, id, tools).await?;
    let rootfs = Item::ok(
        "rootfs",
        format!("{HOST_ROOTFS} from this machine's /usr, with {}", tools.trim()),
    );
    let network = match runtime.no_way_out() {
        None => {
            Item::ok("network", "TCP, UDP and names: what leaves a sandbox, the engine carries")
        }
        Some(reason) => {
            let detail = format!("sandboxes have no way out, and no rules for one: {reason}");
            Item::flawed("network", Status::Degraded, detail, NO_WAY_OUT)
        }
    };
    Ok(vec![filtered, bounding, rootfs, network])
}

/// Starts a desktop.
async fn desktop(runtime: &Namespaces, id: &SandboxId) -> Item {
    const NAME: &str = "desktop";
    if let Err(programs) = desktop_programs() {
        return missing(
            NAME,
            format!("{DESKTOP_ROOTFS} is not offered: {programs}"),
            DESKTOP_REMEDY,
        );
    }
    let began = Instant::now();
    match try_desktop(runtime, id).await {
        Ok(()) => {
            let seconds = began.elapsed().as_secs_f64();
            Item::ok(NAME, format!("{DESKTOP_ROOTFS} came up in {seconds:.1} s"))
        }
        Err(error) => missing(NAME, format!("a desktop does not start: {error}"), DESKTOP_REMEDY),
    }
}

/// Pauses and resumes a sandbox in which something runs.
async fn snapshots(runtime: &Namespaces, spec: &BootSpec) -> Item {
    const NAME: &str = "memory_snapshot";
    match pause_and_resume(runtime, spec).await {
        Ok(Saved::Memory) => Item::ok(NAME, "memory and processes are saved to disk"),
        Ok(_) => {
            let cause = match runtime.trial().await {
                Ok(program) => format!("{} cannot save it now", program.display()),
                Err(error) => error.to_string(),
            };
            let detail = format!(
                "this machine freezes a paused sandbox in memory instead of saving it to disk \
                 ({cause}). It goes on counting against the machine; a restart of the engine \
                 loses running processes, not files; and a fork has the files of its source, not \
                 its processes"
            );
            Item::flawed(NAME, Status::Degraded, detail, CRIU_REMEDY)
        }
        Err(error) => {
            let detail = format!("a sandbox with running processes cannot be paused: {error}");
            missing(NAME, detail, CRIU_REMEDY)
        }
    }
}

async fn pause_and_resume(runtime: &Namespaces, spec: &BootSpec) -> Result<Saved, RuntimeError> {
    let start = "nohup sleep 1000 >/dev/null 2>&1 </dev/null & echo $!";
    let pid = shell(runtime, &spec.id, start).await?;
    let saved = runtime.pause(&spec.id).await?;
    runtime.resume(spec.clone(), saved).await?;
    let look = format!("kill -0 {} && echo alive", pid.trim());
    match shell(runtime, &spec.id, &look).await?.as_str() {
        "alive\n" => Ok(saved),
        _ => Err(RuntimeError::Refused("a process was gone after it".to_owned())),
    }
}

async fn shell(runtime: &Namespaces, id: &SandboxId, script: &str) -> Result<String, RuntimeError> {
    let spec = ExecSpec {
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: Default::default(),
        stdin: None,
        place: Default::default(),
    };
    let mut events = runtime.exec(id, spec).await?;
    let mut output = Vec::new();
    while let Some(event) = events.next().await {
        if let ExecEvent::Stdout(bytes) = event? {
            output.extend_from_slice(&bytes);
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_examined_and_left_clean() {
        let data = tempfile::tempdir().expect("directory");
        let report = run(data.path()).await;
        assert!(report.is_usable(), "{report:#?}");
        for item in &report.items {
            assert_eq!(item.remedy.is_some(), item.status != Status::Ok, "{item:?}");
        }
        let left: Vec<_> = std::fs::read_dir(data.path()).expect("directory").flatten().collect();
        assert_eq!(left.len(), 1, "only the cache stays: {left:?}");
    }

    #[tokio::test]
    async fn an_engine_starts_where_the_doctor_was_first() {
        let home = tempfile::tempdir().expect("directory");
        let data = home.path().join("fresh/data");
        assert!(run(&data).await.is_usable());
        let engine = crate::Engine::builder().data_dir(&data).start().await.expect("start");
        engine.shutdown().await;
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_named() {
        let report = run(Path::new("/proc/nowhere")).await;
        assert!(!report.is_usable());
        assert_eq!(report.worst(), Status::Missing);
        let item = &report.items[1];
        assert_eq!((item.name, item.status), ("state_directory", Status::Missing));
        assert!(item.detail.contains("/proc/nowhere"), "{item:?}");
    }
}
