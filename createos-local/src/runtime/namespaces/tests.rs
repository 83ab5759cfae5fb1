//! The runtime on the real kernel.

mod chains;
mod pause;

use super::*;
use crate::runtime::{
    Control, ExecEvent, ExitReason, Limits, MAX_INPUT, ProcessEvent, ProcessSpec, Processes as _,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

/// With the cache that ephemeral engines share: making a base takes seconds.
fn start(data_dir: &Path) -> Result<Namespaces, RuntimeError> {
    let cache = crate::default_data_dir().expect("a home").join("cache");
    Namespaces::start(data_dir, Some(&cache))
}

pub(super) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

pub(super) struct Machine {
    pub(super) runtime: Namespaces,
    pub(super) id: SandboxId,
    pub(super) data: Scratch,
}

pub(super) const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";

pub(super) fn spec(id: &SandboxId) -> BootSpec {
    BootSpec {
        id: id.clone(),
        name: "calm-heron".to_owned(),
        ip: [10, 0, 4, 17].into(),
        limits: Limits {
            memory_bytes: 256 << 20,
            cpu_percent: 100,
            max_processes: 128,
            disk_mib: 10_240,
        },
        nesting: false,
    }
}

pub(super) fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("parent");
    parent.trim().parse().expect("a pid")
}

pub(super) struct Scratch(tempfile::TempDir);

impl Scratch {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An ordinary user's overlays leave directories that need more than a plain removal.
        let _ = crate::tree::remove_tree(&self.path().join("sandboxes"));
    }
}

impl Machine {
    /// On a machine that has no CRIU.
    pub(super) async fn boot_freezing() -> Self {
        let Self { runtime, id, data } = Self::boot().await;
        Self { runtime: runtime.with_criu(Some("/no/criu".into())), id, data }
    }

    pub(super) async fn boot() -> Self {
        let data = tempfile::tempdir().expect("directory");
        let runtime = start(data.path()).expect("runtime");
        let id: SandboxId = ID.parse().expect("id");
        runtime.boot(spec(&id)).await.expect("boot");
        Self { runtime, id, data: Scratch(data) }
    }

    pub(super) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(super) fn image(&self) -> PathBuf {
        self.data().join(format!("sandboxes/{}/images/memory", self.id))
    }

    /// The same directory with another engine.
    pub(super) fn restart(self) -> Self {
        let Self { runtime, id, data } = self;
        drop(runtime);
        let runtime = start(data.path()).expect("runtime");
        Self { runtime, id, data }
    }

    pub(super) fn warden(&self) -> i32 {
        parent_of(self.runtime.init_of(&self.id).expect("running").pid)
    }

    /// Command lines of processes in this engine's control groups.
    pub(super) fn processes(&self) -> Vec<String> {
        let instance = std::fs::read_to_string(self.data().join("instance")).expect("name");
        let entries = std::fs::read_dir("/proc").expect("proc").flatten();
        let is_ours = |pid: &String| {
            let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
            let lives = read("stat").is_ok_and(|stat| !stat.contains(") Z "));
            lives && read("cgroup").is_ok_and(|groups| groups.contains(instance.trim()))
        };
        let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let read =
            |pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.filter(is_ours).map(read).collect()
    }

    pub(super) async fn run(&self, script: &str) -> (String, String, ExitReason) {
        self.exec("sh", &["-c", script], None).await.expect("command starts")
    }

    async fn run_in(&self, id: &SandboxId, script: &str) -> String {
        self.exec_in(id, "sh", &["-c", script], None).await.expect("command starts").0
    }

    pub(super) async fn exec(
        &self,
        program: &str,
        args: &[&str],
        stdin: Option<Bytes>,
    ) -> Result<(String, String, ExitReason), RuntimeError> {
        self.exec_in(&self.id, program, args, stdin).await
    }

    async fn exec_in(
        &self,
        id: &SandboxId,
        program: &str,
        args: &[&str],
        stdin: Option<Bytes>,
    ) -> Result<(String, String, ExitReason), RuntimeError> {
        let spec = ExecSpec {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: [("STAGE".to_owned(), "test".to_owned())].into(),
            stdin,
            place: Default::default(),
        };
        let mut events = self.runtime.exec(id, spec).await?;
        let (mut stdout, mut stderr, mut reason) = (Vec::new(), Vec::new(), None);
        while let Some(event) = events.next().await {
            match event? {
                ExecEvent::Stdout(bytes) => stdout.extend(bytes),
                ExecEvent::Stderr(bytes) => stderr.extend(bytes),
                ExecEvent::Exited(exited) => reason = Some(exited),
            }
        }
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ok((text(stdout), text(stderr), reason.expect("an end")))
    }
}

#[tokio::test]
async fn a_sandbox_is_a_machine_of_its_own() {
    let machine = Machine::boot().await;
    let (out, err, end) =
        machine.run("echo $STAGE; id -u; hostname; pwd; echo oops >&2; exit 7").await;
    assert_eq!((out.as_str(), err.as_str()), ("test\n0\ncalm-heron\n/root\n", "oops\n"));
    assert_eq!(end, ExitReason::Code(7));
    let (out, ..) = machine.run("ls /home /root | grep -v :; cat /proc/1/comm").await;
    assert!(out.trim_start().starts_with("agent"), "{out}");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn signals_and_missing_programs_are_told_apart() {
    let machine = Machine::boot().await;
    assert_eq!(machine.run("kill -9 $$").await.2, ExitReason::Signal(9));
    let missing = machine.exec("no-such-program", &[], None).await;
    assert!(matches!(missing, Err(RuntimeError::NotStarted { exit_code: 127, .. })), "{missing:?}");
    let closed = machine.exec("/etc/passwd", &[], None).await;
    assert!(matches!(closed, Err(RuntimeError::NotStarted { exit_code: 126, .. })), "{closed:?}");
    let big = Bytes::from(vec![b'x'; 3 << 20]);
    let (out, ..) = machine.exec("wc", &["-c"], Some(big)).await.expect("wc");
    assert_eq!(out.trim(), (3 << 20).to_string());
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn files_go_in_and_out() {
    let machine = Machine::boot().await;
    let content = Bytes::from((0..3_000_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let mut file = machine.runtime.write_file(&machine.id, b"/a/b/c").await.expect("open");
    file.write(content.clone()).await.expect("write");
    assert_eq!(file.commit().await.expect("commit"), content.len() as u64);
    let read = machine.runtime.read_file(&machine.id, b"/a/b/c").await.expect("read");
    assert_eq!(read.size, content.len() as u64);
    let chunks: Vec<Bytes> = read.chunks.try_collect().await.expect("content");
    assert_eq!(chunks.concat(), content);
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn nothing_stays_after_remove() {
    let machine = Machine::boot().await;
    let (pid, ..) =
        machine.run("echo hi > /root/f; nohup sleep 1000 >/dev/null 2>&1 & echo ok").await;
    assert_eq!(pid, "ok\n");
    machine.runtime.stop(&machine.id).await.expect("stop");
    assert_eq!(machine.runtime.on_disk().await.expect("list"), std::slice::from_ref(&machine.id));
    machine.runtime.boot(spec(&machine.id)).await.expect("boot again");
    assert_eq!(machine.run("cat /root/f; pgrep sleep").await.0, "hi\n");
    machine.runtime.remove(&machine.id).await.expect("remove");
    assert!(machine.runtime.on_disk().await.expect("list").is_empty());
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn walls_hold_from_the_inside() {
    let machine = Machine::boot().await;
    assert_walls_hold(&machine).await;
    machine.runtime.shutdown().await;
}

pub(super) async fn assert_walls_hold(machine: &Machine) {
    for attempt in [
        "mount -t tmpfs none /mnt",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "mknod /tmp/disk b 254 0",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "head -c1 /proc/kcore | grep .",
        "dmesg",
        "rm -rf /.cos/agent",
        "touch /.cos/run/x",
        "ip link add dummy0 type dummy",
        "chroot /proc/1/root ls /",
        "cat /etc/machine-id",
        "cat /proc/1/environ | grep -a .",
        "ls /proc/1/fd /proc/1/root/",
        "cat /sys/devices/virtual/powercap/* /proc/interrupts | grep .",
        "swapon /dev/vda",
    ] {
        let (out, _, end) = machine.run(attempt).await;
        assert_ne!(end, ExitReason::Code(0), "{attempt} worked: {out}");
    }
    let (out, ..) = machine.run("ls /proc | grep -c '^[0-9]'").await;
    assert!(out.trim().parse::<u32>().expect("a count") < 10, "host processes show: {out}");
    // Nothing inside can end or stop PID 1.
    machine.run("kill -9 1; kill -STOP 1; kill -9 -1").await;
    assert_eq!(machine.run("echo alive").await.0, "alive\n");
}

#[tokio::test]
async fn a_fork_bomb_and_a_memory_hog_stay_inside() {
    let machine = Machine::boot().await;
    assert_limits_hold(&machine).await;
    machine.runtime.shutdown().await;
}

pub(super) async fn assert_limits_hold(machine: &Machine) {
    let bomb = "bomb() { bomb | bomb & bomb & }; bomb; bomb; bomb & sleep 4321";
    let spec = ExecSpec {
        program: "bash".to_owned(),
        args: vec!["-c".to_owned(), bomb.to_owned()],
        env: Default::default(),
        stdin: None,
        place: Default::default(),
    };
    let mut events = machine.runtime.exec(&machine.id, spec).await.expect("start");
    let mut told = String::new();
    while !told.contains("fork") {
        match events.next().await {
            Some(Ok(ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes))) => {
                told.push_str(&String::from_utf8_lossy(&bytes));
            }
            other => panic!("it never met its limit: {other:?} after {told}"),
        }
    }
    let full = machine.exec("true", &[], None).await;
    assert!(matches!(full, Ok(_) | Err(RuntimeError::Refused(_))), "{full:?}");
    drop(events);
    until_gone(machine, "bash").await;
    if machine.runtime.facts().memory.is_some() {
        let (.., end) =
            machine.run("head -c 600000000 /dev/zero | tail -c 500000000 | wc -c").await;
        assert_eq!(machine.run("echo alive").await.0, "alive\n", "after {end:?}");
    }
}

#[tokio::test]
async fn a_dropped_command_dies_with_everything_it_started() {
    let machine = Machine::boot().await;
    let spec = ExecSpec {
        program: "sh".to_owned(),
        args: vec![
            "-c".to_owned(),
            "sleep 987 & setsid sh -c 'echo up; exec sleep 654' & sleep 321".to_owned(),
        ],
        env: Default::default(),
        stdin: None,
        place: Default::default(),
    };
    let mut events = machine.runtime.exec(&machine.id, spec).await.expect("start");
    assert!(matches!(events.next().await, Some(Ok(ExecEvent::Stdout(_)))));
    drop(events);
    until_gone(&machine, "sleep").await;
    machine.runtime.shutdown().await;
}

/// Waits until no process of this name is left.
async fn until_gone(machine: &Machine, name: &str) {
    const NONE_MATCHED: ExitReason = ExitReason::Code(1);
    let mut left = String::new();
    for _ in 0..250 {
        // Not by a shell: where nothing more can be started, a search that could not run
        // would look like one that found nothing.
        match machine.exec("pgrep", &["-a", "-x", name], None).await {
            Ok((.., NONE_MATCHED)) => return,
            Ok((found, error, end)) => left = format!("{found} {error} {end:?}"),
            Err(error) => left = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still there: {left}");
}

#[tokio::test]
async fn output_that_nobody_reads_is_held_back() {
    let machine = Machine::boot().await;
    let spec = ExecSpec {
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), "yes & wait".to_owned()],
        env: Default::default(),
        stdin: None,
        place: Default::default(),
    };
    let mut flood = machine.runtime.exec(&machine.id, spec).await.expect("start");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(machine.run("echo others go on").await.0, "others go on\n");
    let (rss, ..) = machine.run("awk '/VmRSS/ {print $2}' /proc/1/status").await;
    assert!(rss.trim().parse::<u32>().expect("a size") < 8192, "the agent grew: {rss} KiB");
    assert!(matches!(flood.next().await, Some(Ok(ExecEvent::Stdout(_)))));
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn many_boot_at_once() {
    let data = tempfile::tempdir().expect("directory");
    let runtime = start(data.path()).expect("runtime");
    let ids: Vec<SandboxId> = (0..50).map(|n| format!("sb-{n:026}").parse().expect("id")).collect();
    let boots = ids.iter().map(|id| runtime.boot(spec(id)));
    futures::future::try_join_all(boots).await.expect("all boot");
    let removals = ids.iter().map(|id| runtime.remove(id));
    futures::future::try_join_all(removals).await.expect("all removed");
    assert!(runtime.on_disk().await.expect("list").is_empty());
    runtime.shutdown().await;
}

#[tokio::test]
async fn the_end_of_a_sandbox_or_the_warden_is_told() {
    let machine = Machine::boot().await;
    let mut deaths = machine.runtime.deaths().expect("taken once");
    let pid = machine.runtime.init_of(&machine.id).expect("running").pid;
    let kill = |pid: i32| signal(pid, rustix::process::Signal::KILL);
    kill(pid);
    let died = deaths.recv().await.expect("told");
    assert_eq!(died.id, machine.id);
    assert!(died.reason.contains("signal 9"), "{}", died.reason);

    machine.runtime.boot(spec(&machine.id)).await.expect("boot again");
    let init = machine.runtime.init_of(&machine.id).expect("running");
    kill(machine.warden());
    assert!(deaths.recv().await.expect("told").reason.contains("warden"));
    assert!(!init.is_alive(), "a sandbox outlived the warden");
    machine.runtime.boot(spec(&machine.id)).await.expect("a new warden boots it");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn modes_do_not_depend_on_the_umask() {
    let machine = Machine::boot().await;
    let (modes, ..) = machine.run("stat -c %a / /usr /etc /etc/passwd /tmp /root").await;
    assert_eq!(modes, "755\n755\n755\n644\n1777\n700\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_boot_that_nobody_waits_for_leaves_nothing() {
    let machine = Machine::boot().await;
    machine.runtime.remove(&machine.id).await.expect("remove");
    for step in 0..40 {
        let patience = Duration::from_micros(200 * step);
        let boot = tokio::time::timeout(patience, machine.runtime.boot(spec(&machine.id))).await;
        if boot.is_ok_and(|booted| booted.is_ok()) {
            machine.runtime.stop(&machine.id).await.expect("stop");
        }
        // The next one is never told that an abandoned one is in its way.
        machine.runtime.boot(spec(&machine.id)).await.expect("boot");
        assert_eq!(machine.run("echo fresh").await.0, "fresh\n");
        machine.runtime.stop(&machine.id).await.expect("stop");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_boot_without_memory_says_so() {
    let machine = Machine::boot().await;
    if machine.runtime.facts().memory.is_some() {
        machine.runtime.remove(&machine.id).await.expect("remove");
        let limits = Limits { memory_bytes: 64 << 10, ..spec(&machine.id).limits };
        let error = machine.runtime.boot(BootSpec { limits, ..spec(&machine.id) }).await;
        let error = error.expect_err("not enough memory").to_string();
        assert!(error.contains("memory"), "{error}");
        machine.runtime.boot(spec(&machine.id)).await.expect("with enough it boots");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_warden_that_is_held_up_holds_up_nobody_else() {
    let machine = Machine::boot().await;
    let warden = machine.warden();
    signal(warden, rustix::process::Signal::TERM);
    assert_eq!(machine.run("echo unimpressed").await.0, "unimpressed\n");
    signal(warden, rustix::process::Signal::STOP);
    let stop = tokio::time::timeout(Duration::from_millis(200), machine.runtime.stop(&machine.id));
    stop.await.expect_err("it waits for the warden");
    assert!(machine.runtime.warden.try_lock().is_ok(), "and leaves the way free meanwhile");
    signal(warden, rustix::process::Signal::CONT);
    machine.runtime.boot(spec(&machine.id)).await.expect("boot");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn sandboxes_share_no_ids() {
    let machine = Machine::boot().await;
    if machine.runtime.facts().privileged {
        let other: SandboxId = "sb-00000000000000000000000002".parse().expect("id");
        machine.runtime.boot(spec(&other)).await.expect("boot");
        let map = |id| {
            let pid = machine.runtime.init_of(id).expect("running").pid;
            std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("map")
        };
        assert_ne!(map(&machine.id), map(&other));
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn oversized_commands_are_refused_as_a_shell_would() {
    let machine = Machine::boot().await;
    let long = "x".repeat(200_000);
    for args in [vec![long.as_str()], vec![long.as_str(); 8]] {
        let refused = machine.exec("echo", &args, None).await;
        let expected = matches!(refused, Err(RuntimeError::NotStarted { exit_code: 126, .. }));
        assert!(expected, "{} arguments: {refused:?}", args.len());
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_guest_does_to_its_files_ends_with_it() {
    let machine = Machine::boot().await;
    let script = "cd /root; n=$(printf %0250d 0); i=0; \
                  while [ $i -lt 40 ]; do mkdir $n && cd -P $n || break; i=$((i+1)); done; \
                  rm -rf /dev/shm; mv /etc /etc2; ln -s /proc/1/root /etc";
    machine.run(script).await;
    machine.runtime.stop(&machine.id).await.expect("stop");
    machine.runtime.boot(spec(&machine.id)).await.expect("it boots as the guest left it");
    machine.runtime.remove(&machine.id).await.expect("remove");
    assert!(machine.runtime.on_disk().await.expect("list").is_empty());
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_shared_cache_lies_where_an_engine_may_follow() {
    let home = tempfile::tempdir().expect("directory");
    let (data, shared) = (home.path().join("own"), home.path().join("data"));
    std::fs::create_dir(&data).expect("directory");
    Namespaces::start(&data, Some(&shared.join("cache"))).expect("runtime").shutdown().await;
    let engine = crate::Engine::builder().data_dir(&shared).start().await.expect("start");
    engine.shutdown().await;
}

#[tokio::test]
async fn input_that_nobody_reads_is_bounded_and_never_half_written() {
    let machine = Machine::boot().await;
    let spec = ProcessSpec {
        id: "prc-1".parse().expect("id"),
        argv: vec!["sh".to_owned(), "-c".to_owned(), "read -r go </tmp/go; wc -c".to_owned()],
        env: Default::default(),
        directory: None,
        terminal: None,
        user: None,
    };
    machine.run("mkfifo /tmp/go").await;
    let process = machine.runtime.spawn(&machine.id, spec).await.expect("start").id;
    let input = Bytes::from(vec![b'x'; MAX_INPUT]);
    let feed = |patience| machine.runtime.feed(&machine.id, &process, input.clone(), patience);
    let short = Duration::from_millis(100);
    let mut taken = 0;
    while feed(short).await.is_ok() {
        taken += 1;
        assert!(taken < 8, "the agent takes it all");
    }
    let full = feed(short).await.expect_err("full");
    assert!(matches!(full, RuntimeError::Full(_)), "{full:?}");
    // Once it reads, there is room; what was refused did not leave anything.
    let (waiting, _) = tokio::join!(feed(Duration::from_secs(20)), machine.run("echo >/tmp/go"));
    assert_eq!(waiting.expect("room"), taken + 1);
    let done = |control| machine.runtime.control(&machine.id, &process, control);
    done(Control::CloseInput).await.expect("close");
    let mut events = machine.runtime.follow(&machine.id, &process, 0).await.expect("follow");
    let count = match events.next().await {
        Some(Ok(ProcessEvent::Output { bytes, .. })) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(count, format!("{}\n", (taken as usize + 1) * MAX_INPUT));
    machine.runtime.shutdown().await;
}
