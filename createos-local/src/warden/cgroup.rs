//! Control groups: limits where this machine lets us set them.
//!
//! Version 1, version 2 and both at once are found by trying. Everything is made
//! below the engine's own groups, so limits around the engine hold for sandboxes
//! too. Where version 2 forbids that (a group with processes cannot pass on
//! controllers), the nearest ancestor is used that passes some on already: what
//! concerns other people's groups is not changed.

use crate::failure::{Context, Result};
use crate::protocol::{Boot, Facts};
use crate::sys;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WANTED: [&str; 3] = ["memory", "cpu", "pids"];
const CPU_PERIOD_US: u64 = 100_000;
/// How long what a killed engine left may take to end.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// This engine's directories, one in each tree that is of use.
pub(crate) struct Groups {
    trees: Vec<Tree>,
}

struct Tree {
    dir: PathBuf,
    unified: bool,
    /// Of [`WANTED`], those that work here.
    controllers: Vec<&'static str>,
}

/// A mounted hierarchy and this process's place in it.
struct Hierarchy {
    /// Where the tree is mounted.
    mount: PathBuf,
    /// Our own group in it.
    own: PathBuf,
    unified: bool,
    controllers: Vec<&'static str>,
}

impl Groups {
    /// Finds the trees, makes our directory in each, and ends whatever an engine
    /// that was killed left in them.
    pub(crate) fn prepare(name: &str, facts: &mut Facts) -> Self {
        let mut trees = Vec::new();
        for hierarchy in hierarchies() {
            match hierarchy.claim(name) {
                Ok(tree) => trees.push(tree),
                Err(error) => facts.notes.push(error.to_string()),
            }
        }
        let groups = Self { trees };
        for tree in &groups.trees {
            tree.end_leftovers();
        }
        facts.memory = groups.place_of("memory");
        facts.cpu = groups.place_of("cpu");
        facts.processes = groups.place_of("pids");
        groups
    }

    fn place_of(&self, controller: &str) -> Option<String> {
        let tree = self.trees.iter().find(|tree| tree.controllers.contains(&controller))?;
        Some(tree.dir.display().to_string())
    }

    /// Makes the groups of a sandbox, with its limits set.
    pub(crate) fn create(&self, boot: &Boot) -> Result<Group> {
        let group = self.create_unlimited(&boot.id)?;
        match self.limit(boot) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.try_remove();
                Err(error)
            }
        }
    }

    /// Makes groups that only hold something together.
    pub(crate) fn create_unlimited(&self, name: &str) -> Result<Group> {
        let mut group = Group { dirs: Vec::new() };
        for tree in &self.trees {
            let dir = tree.dir.join(name);
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    group.try_remove();
                    return Err(error).context(&format!("create {}", dir.display()));
                }
                _ => group.dirs.push(GroupDir { dir, unified: tree.unified }),
            }
        }
        Ok(group)
    }

    /// Sets the limits of a sandbox that has groups.
    pub(crate) fn limit(&self, boot: &Boot) -> Result<()> {
        self.trees.iter().try_for_each(|tree| tree.set_limits(boot))
    }

    /// Whether there is a version 2 tree, which a sandbox can be given a part of.
    pub(crate) fn is_unified(&self) -> bool {
        self.trees.iter().any(|tree| tree.unified)
    }

    pub(crate) fn remove_all(&self) {
        for tree in &self.trees {
            let _ = fs::remove_dir(&tree.dir);
        }
    }
}

impl Tree {
    fn set_limits(&self, boot: &Boot) -> Result<()> {
        let set = |file: &str, value: u64| {
            let path = self.dir.join(&boot.id).join(file);
            fs::write(&path, value.to_string()).context(&format!("set {}", path.display()))
        };
        let quota = CPU_PERIOD_US * u64::from(boot.cpu_percent) / 100;
        for controller in &self.controllers {
            match (*controller, self.unified) {
                ("memory", false) => set("memory.limit_in_bytes", boot.memory_bytes)?,
                ("memory", true) => {
                    set("memory.max", boot.memory_bytes)?;
                    // Absent where the kernel has no swap accounting.
                    let _ = set("memory.swap.max", 0);
                }
                ("cpu", false) => {
                    set("cpu.cfs_period_us", CPU_PERIOD_US)?;
                    set("cpu.cfs_quota_us", quota)?;
                }
                ("cpu", true) => {
                    let path = self.dir.join(&boot.id).join("cpu.max");
                    fs::write(&path, format!("{quota} {CPU_PERIOD_US}"))
                        .context(&format!("set {}", path.display()))?;
                }
                _ => set("pids.max", u64::from(boot.max_processes))?,
            }
        }
        Ok(())
    }

    fn end_leftovers(&self) {
        let deadline = Instant::now() + LEFTOVERS;
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                GroupDir { dir: entry.path(), unified: self.unified }.remove(deadline);
            }
        }
    }
}

/// The groups of one sandbox.
pub(crate) struct Group {
    dirs: Vec<GroupDir>,
}

struct GroupDir {
    dir: PathBuf,
    unified: bool,
}

impl Group {
    /// Whether this machine gives it no group at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// The version 2 group, which a process can be started in.
    pub(crate) fn unified(&self) -> Result<Option<OwnedFd>> {
        let open = |dir| File::open(dir).context("open a control group");
        Ok(self.unified_dir().map(open).transpose()?.map(OwnedFd::from))
    }

    /// Where that one is.
    pub(crate) fn unified_dir(&self) -> Option<&Path> {
        self.dirs.iter().find(|group| group.unified).map(|group| group.dir.as_path())
    }

    /// Lets `owner` make groups of its own below the version 2 group, within bounds. The
    /// limits of the group itself stay ours.
    pub(crate) fn delegate(&self, owner: u32) -> Result<()> {
        let doing = "hand a control group over";
        for group in self.dirs.iter().filter(|group| group.unified) {
            for (file, most) in [("cgroup.max.descendants", "1024"), ("cgroup.max.depth", "16")] {
                fs::write(group.dir.join(file), most).context(doing)?;
            }
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(group.dir.join(file), Some(owner), Some(owner)).context(doing)?;
            }
        }
        Ok(())
    }

    /// The way into the version 1 groups, for a process that is about to be started.
    pub(crate) fn seats(&self) -> Result<Seats> {
        let open = |group: &GroupDir| {
            let path = group.dir.join("tasks");
            let file = File::options().write(true).open(&path);
            file.context(&format!("open {}", path.display()))
        };
        let older = self.dirs.iter().filter(|group| !group.unified);
        Ok(Seats(older.map(open).collect::<Result<_>>()?))
    }

    pub(crate) fn kill(&self) {
        if let Some(dir) = self.unified_dir() {
            let _ = fs::write(dir.join("cgroup.kill"), "1");
        }
    }

    /// Whether everything is gone. Killed processes take a moment to leave.
    pub(crate) fn try_remove(&self) -> bool {
        self.dirs.iter().filter(|group| !group.try_remove()).count() == 0
    }

    /// Removes everything, and waits for it. Blocks.
    pub(crate) fn remove(&self, deadline: Instant) {
        self.dirs.iter().for_each(|group| group.remove(deadline));
    }

    pub(crate) fn was_out_of_memory(&self) -> bool {
        self.dirs.iter().any(|group| {
            let file = if group.unified { "memory.events" } else { "memory.oom_control" };
            fs::read_to_string(group.dir.join(file)).is_ok_and(|text| {
                text.lines().any(|line| {
                    line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0")
                })
            })
        })
    }
}

/// Version 1 groups that a new process enters by itself. Moving another process stops all
/// forks of the machine, and that waits for every processor: 10 ms and more. A thread that
/// moves itself waits for nobody.
pub(crate) struct Seats(Vec<File>);

impl Seats {
    /// Enters them. Only for a process that has one thread.
    pub(crate) fn take(self) -> Result<()> {
        const MYSELF: &[u8] = b"0";
        self.0.into_iter().try_for_each(|mut seat| seat.write_all(MYSELF)).context("enter a group")
    }
}

impl GroupDir {
    fn kill(&self) {
        if self.unified && fs::write(self.dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let procs = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            let _ = sys::send_signal(pid, sys::SIGKILL);
        }
    }

    fn try_remove(&self) -> bool {
        match remove_groups(&self.dir) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) => {
                self.kill();
                false
            }
        }
    }

    fn remove(&self, deadline: Instant) {
        while !self.try_remove() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Removes a group and, where a sandbox made some, those below it. Their depth is bounded.
fn remove_groups(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            for entry in fs::read_dir(dir)?.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove_groups(&entry.path())?;
                }
            }
            fs::remove_dir(dir)
        }
        other => other,
    }
}

impl Hierarchy {
    /// Makes our directory as far down as it can be of use.
    fn claim(self, name: &str) -> Result<Tree> {
        let mut last = None;
        for parent in self.own.ancestors().take_while(|dir| dir.starts_with(&self.mount)) {
            let dir = parent.join(name);
            match self.try_parent(parent, &dir) {
                Ok(controllers) => return Ok(Tree { dir, unified: self.unified, controllers }),
                Err(error) => last = last.or(Some((dir, error))),
            }
        }
        let (dir, error) = last.ok_or("no control group of our own")?;
        Err(format!("cannot use control groups at {}: {error}", dir.display()).into())
    }

    /// Makes our directory below `parent` and returns the controllers that work there.
    fn try_parent(&self, parent: &Path, dir: &Path) -> io::Result<Vec<&'static str>> {
        let passed_on = if self.unified && !self.controllers.is_empty() {
            self.passed_on(parent)?
        } else {
            self.controllers.clone()
        };
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if self.unified && !passed_on.is_empty() {
            enable(dir, &passed_on).inspect_err(|_| drop(fs::remove_dir(dir)))?;
        }
        Ok(passed_on)
    }

    /// Controllers that a version 2 group gives its children. Only our own is changed.
    fn passed_on(&self, parent: &Path) -> io::Result<Vec<&'static str>> {
        if parent == self.own {
            enable(parent, &self.controllers)?;
        }
        let enabled = fs::read_to_string(parent.join("cgroup.subtree_control"))?;
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        let wanted = self.controllers.iter().copied();
        let passed_on: Vec<_> = wanted.filter(|name| enabled.contains(name)).collect();
        if passed_on.is_empty() {
            return Err(io::Error::other("no controller is passed on to its groups"));
        }
        Ok(passed_on)
    }
}

fn enable(dir: &Path, controllers: &[&str]) -> io::Result<()> {
    let line: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    fs::write(dir.join("cgroup.subtree_control"), line.join(" "))
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    mounts.lines().filter_map(|line| parse_mount(line, &own)).collect()
}

/// One line of mountinfo: fields, a dash, then type, source and super options.
fn parse_mount(line: &str, own: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (root, mount) = (left.nth(3)?, PathBuf::from(left.next()?));
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let unified = match kind {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let listed: Vec<String> = if unified {
        let path =
            mount.join(own_group(own, "")?.trim_start_matches('/')).join("cgroup.controllers");
        let names = fs::read_to_string(path).unwrap_or_default();
        names.split_whitespace().map(str::to_owned).collect()
    } else {
        options.split(',').map(str::to_owned).collect()
    };
    let controllers: Vec<_> =
        WANTED.into_iter().filter(|name| listed.iter().any(|listed| listed == name)).collect();
    if !unified && controllers.is_empty() {
        return None;
    }
    let group = own_group(own, if unified { "" } else { controllers[0] })?;
    // A container's mount shows only the part of the tree below its root.
    let group = group.strip_prefix(root.trim_end_matches('/')).unwrap_or(group);
    let own = mount.join(group.trim_start_matches('/'));
    Some(Hierarchy { mount, own, unified, controllers })
}

/// Our path in the tree of a controller, or in version 2's for an empty name.
fn own_group<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = if controller.is_empty() {
            names.is_empty()
        } else {
            names.split(',').any(|name| name == controller)
        };
        matches.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "8:pids:/\n4:memory:/outer/inner\n1:cpu,cpuacct:/\n0::/user.slice/x\n";

    #[test]
    fn own_group_is_found_by_controller() {
        assert_eq!(own_group(OWN, "memory"), Some("/outer/inner"));
        assert_eq!(own_group(OWN, "cpu"), Some("/"));
        assert_eq!(own_group(OWN, ""), Some("/user.slice/x"));
        assert_eq!(own_group(OWN, "rdma"), None);
    }

    #[test]
    fn mounts_of_version_1_are_read() {
        let line = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
        let hierarchy = parse_mount(line, OWN).expect("memory tree");
        assert_eq!(hierarchy.own, Path::new("/sys/fs/cgroup/memory/outer/inner"));
        assert_eq!(hierarchy.controllers, ["memory"]);
        assert!(!hierarchy.unified);
    }

    #[test]
    fn a_container_sees_its_own_part_of_the_tree() {
        let line = "30 25 0:26 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let hierarchy = parse_mount(line, OWN).expect("memory tree");
        assert_eq!(hierarchy.own, Path::new("/sys/fs/cgroup/memory/inner"));
    }

    #[test]
    fn other_mounts_are_passed_over() {
        for line in [
            "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
            "31 25 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer",
            "garbage",
            "",
        ] {
            assert!(parse_mount(line, OWN).is_none(), "{line}");
        }
    }
}
