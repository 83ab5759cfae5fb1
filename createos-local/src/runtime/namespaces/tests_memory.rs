//! Memory snapshots on the real kernel, with the real CRIU.

use super::tests::{Machine, signal, spec};
use super::*;
use crate::runtime::{
    Control, ExecSpec, ExitReason, ProcessEvent, ProcessSpec, Processes, Saved, When,
};
use createos_sdk::ProcessId;
use futures::StreamExt;

/// Holds a hundred megabytes, threads, a terminal, sockets, a lock, a watch and a deleted
/// file, and answers on a port of its own with what it finds of them.
const BUSY: &str = r#"
import fcntl, http.server, os, pty, select, signal, socket, subprocess, sys, tempfile, threading, time
blob = os.urandom(1 << 20) * 100
was = hash(blob)
count = 0
def tick():
    global count
    while True:
        count += 1
        time.sleep(0.005)
for _ in range(4):
    threading.Thread(target=tick, daemon=True).start()
gone = open("/root/gone", "w+")
gone.write("deleted, not lost")
gone.flush()
os.unlink("/root/gone")
lock = open("/root/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
shell, terminal = pty.fork()
if shell == 0:
    os.execvp("bash", ["bash", "--norc"])
server = socket.create_server(("127.0.0.1", 9001))
near = socket.create_connection(("127.0.0.1", 9001))
far, _ = server.accept()
left, right = socket.socketpair()
pipe_in, pipe_out = os.pipe()
os.write(pipe_out, b"in the pipe")
sleeper = subprocess.Popen(["sleep", "1000"])
stopped = subprocess.Popen(["sleep", "1000"])
stopped.send_signal(signal.SIGSTOP)
began = time.monotonic()
def ask_shell():
    os.write(terminal, b"echo $((40 + 2)) $(stty size)\n")
    heard = b""
    while b"\n42 " not in heard and select.select([terminal], [], [], 10)[0]:
        heard += os.read(terminal, 4096)
    return b"\n42 " in heard
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        before = count
        time.sleep(0.1)
        near.sendall(b"over tcp")
        left.sendall(b"over a pair")
        gone.seek(0)
        state = open("/proc/%d/stat" % stopped.pid).read().split()[2]
        told = [
            len(blob), hash(blob) == was, count > before, gone.read(), ask_shell(),
            far.recv(100), right.recv(100), sleeper.poll(), state, threading.active_count(),
        ]
        if self.path == "/pipe":
            told.append(os.read(pipe_in, 100))
        if self.path == "/clock":
            told = [time.monotonic() - began]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr(told).encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 9000), Answer).serve_forever()
"#;
const ASK: &str = "python3 -c 'import sys, urllib.request as r; \
                   print(r.urlopen(\"http://127.0.0.1:9000\" + sys.argv[1]).read().decode())' ";

async fn start_busy(machine: &Machine) {
    let mut file = machine.runtime.write_file(&machine.id, b"/root/busy.py").await.expect("file");
    file.write(BUSY.into()).await.expect("write");
    file.commit().await.expect("commit");
    let start = "setsid python3 busy.py </dev/null >log 2>&1 & \
                 for i in $(seq 200); do curl -s 127.0.0.1:9000 >/dev/null && exit; sleep 0.1; done";
    machine.run(start).await;
}

async fn ask(machine: &Machine, path: &str) -> String {
    let (answer, error, end) = machine.run(&format!("{ASK} {path}")).await;
    assert_eq!(end, ExitReason::Code(0), "{error}{}", machine.run("cat log").await.0);
    answer.trim().to_owned()
}

const ALL_THERE: &str = "[104857600, True, True, 'deleted, not lost', True, b'over tcp', \
                         b'over a pair', None, 'T', ";

async fn save_and_bring_back(machine: &Machine) {
    machine.runtime.dump(&machine.id).await.expect("saved");
    machine.runtime.restore(spec(&machine.id)).await.expect("back");
}

#[tokio::test]
async fn everything_a_program_holds_comes_back() {
    let machine = Machine::boot().await;
    start_busy(&machine).await;
    assert!(ask(&machine, "/").await.starts_with(ALL_THERE));
    machine.runtime.dump(&machine.id).await.expect("saved");
    let left = machine.runtime.init_of(&machine.id);
    assert!(left.is_err(), "nothing of it runs");
    machine.runtime.restore(spec(&machine.id)).await.expect("back");
    let answer = ask(&machine, "/pipe").await;
    assert!(answer.starts_with(ALL_THERE) && answer.ends_with("b'in the pipe']"), "{answer}");
    let lock = "flock -n /root/lock true; echo $?";
    assert_eq!(machine.run(lock).await.0, "1\n", "the lock is still held");
    save_and_bring_back(&machine).await;
    assert!(ask(&machine, "/").await.starts_with(ALL_THERE), "a second time");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn clocks_that_only_go_forward_stand_still_meanwhile() {
    let machine = Machine::boot().await;
    start_busy(&machine).await;
    let elapsed = async || -> f64 {
        let answer = ask(&machine, "/clock").await;
        answer.trim_matches(['[', ']']).parse().expect("seconds")
    };
    let before = elapsed().await;
    machine.runtime.dump(&machine.id).await.expect("saved");
    let saved = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    machine.runtime.restore(spec(&machine.id)).await.expect("back");
    let (after, paused) = (elapsed().await, saved.elapsed().as_secs_f64());
    assert!(after > before, "{before} {after}");
    assert!(after < before + paused, "{before} {after}, paused for {paused}");
    save_and_bring_back(&machine).await;
    assert!(elapsed().await > after, "and so again");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_keeps_a_guest_inside_is_as_before() {
    let machine = Machine::boot().await;
    let looks = "sh -c 'setpriv --reuid 1000 --regid 1000 --clear-groups sleep 500 & \
                 sleep 501 & until [ $(pgrep -xc sleep) = 2 ]; do :; done' >/dev/null 2>&1";
    machine.run(looks).await;
    let walls = "for p in 1 $(pgrep sleep); do \
                 grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp)' /proc/$p/status; done; \
                 cat /proc/self/cgroup /proc/self/uid_map; grep . /proc/sys/kernel/hostname; \
                 ulimit -a; umask; cut -d' ' -f4- /proc/self/mountinfo | sed 's/lowerdir=[^ ]*//' | \
                 sort; stat -c '%n %A %U %G %t:%T' / /dev/* /run /.cos /.cos/* /.cos/run/*";
    let before = machine.run(walls).await.0;
    for _ in 0..2 {
        save_and_bring_back(&machine).await;
        similar(&before, &machine.run(walls).await.0);
    }
    super::tests::assert_walls_hold(&machine).await;
    machine.runtime.shutdown().await;
}

/// The same lines, but for numbers that the kernel hands out.
#[track_caller]
fn similar(before: &str, after: &str) {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}

#[tokio::test]
async fn limits_hold_afterwards() {
    let machine = Machine::boot().await;
    save_and_bring_back(&machine).await;
    super::tests::assert_limits_hold(&machine).await;
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn nothing_that_came_back_outlives_the_warden() {
    let machine = Machine::boot().await;
    machine.run("sleep 1000 >/dev/null 2>&1 &").await;
    save_and_bring_back(&machine).await;
    let mut deaths = machine.runtime.deaths().expect("taken once");
    let init = machine.runtime.init_of(&machine.id).expect("running");
    signal(machine.warden(), rustix::process::Signal::KILL);
    assert!(deaths.recv().await.expect("told").reason.contains("warden"));
    assert!(!init.is_alive(), "a sandbox outlived the warden");
    machine.runtime.boot(spec(&machine.id)).await.expect("a new warden boots it");
    save_and_bring_back(&machine).await;
    signal(
        machine.runtime.init_of(&machine.id).expect("running").pid,
        rustix::process::Signal::KILL,
    );
    assert!(deaths.recv().await.expect("told").reason.contains("signal 9"));
    machine.runtime.shutdown().await;
}

/// The kernel counts what belongs to a user namespace for its owner, and so on outwards.
#[tokio::test]
async fn what_came_back_is_not_counted_for_the_host() {
    let machine = Machine::boot().await;
    let owners = |machine: &Machine| {
        let pid = machine.runtime.init_of(&machine.id).expect("running").pid;
        let script = "import fcntl, os, struct, sys\n\
                      space = os.open('/proc/%s/ns/user' % sys.argv[1], os.O_RDONLY)\n\
                      while True:\n\
                      \x20try: owner = fcntl.ioctl(space, 0xb704, b'1234')\n\
                      \x20except OSError: break\n\
                      \x20print(struct.unpack('I', owner)[0])\n\
                      \x20try: space = fcntl.ioctl(space, 0xb702)\n\
                      \x20except OSError: break\n";
        let mut python = std::process::Command::new("python3");
        let output = python.args(["-c", script, &pid.to_string()]).output().expect("python3");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("numbers");
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = owners(&machine);
    assert_ne!(before[0], "0");
    save_and_bring_back(&machine).await;
    assert!(owners(&machine).contains(&before[0]), "{:?}", owners(&machine));
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn one_image_becomes_two_sandboxes_side_by_side() {
    let machine = Machine::boot().await;
    start_busy(&machine).await;
    machine.run("echo 10.9.9.9 elsewhere >> /etc/hosts").await;
    assert_eq!(machine.runtime.pause(&machine.id).await.expect("saved"), Saved::Memory);
    let child: SandboxId = "sb-00000000000000000000000003".parse().expect("id");
    let own = BootSpec { name: "wild-otter".to_owned(), ip: [10, 0, 4, 18].into(), ..spec(&child) };
    let forked = machine.runtime.fork(&machine.id, Saved::Memory, own.clone()).await;
    assert_eq!(forked.expect("forked"), Saved::Memory);
    let (source, forked) = tokio::join!(
        machine.runtime.restore(spec(&machine.id)),
        machine.runtime.resume(own, Saved::Memory)
    );
    source.expect("source");
    forked.expect("child");
    let names = "hostname; cat /etc/hostname /etc/hosts; ip -o -4 addr show lo | awk '{print $4}'";
    let same = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
    assert_eq!(
        machine.run(names).await.0,
        format!(
            "calm-heron\ncalm-heron\n{same}127.0.1.1 calm-heron\n10.9.9.9 elsewhere\n\
             127.0.0.1/8\n10.0.4.17/32\n"
        )
    );
    let map = |machine: &Machine| {
        let pid = machine.runtime.init_of(&machine.id).expect("running").pid;
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("file");
        (read("uid_map"), read("gid_map"), read("cgroup"))
    };
    let of_source = map(&machine);
    let machine = Machine { id: child.clone(), ..machine };
    assert_eq!(
        machine.run(names).await.0,
        format!(
            "wild-otter\nwild-otter\n{same}127.0.1.1 wild-otter\n10.9.9.9 elsewhere\n\
             127.0.0.1/8\n10.0.4.18/32\n"
        )
    );
    let of_child = map(&machine);
    assert_ne!(of_source.0, of_child.0, "user ids of its own");
    assert_ne!(of_source.1, of_child.1, "group ids of its own");
    assert_ne!(of_source.2, of_child.2, "control groups of its own");
    assert!(of_child.2.contains(child.as_str()), "{}", of_child.2);
    // Each goes on by itself, whatever becomes of the other.
    assert!(ask(&machine, "/").await.starts_with(ALL_THERE));
    machine.run("echo child > /root/whose; echo child > /dev/shm/whose").await;
    let source: SandboxId = super::tests::ID.parse().expect("id");
    let machine = Machine { id: source, ..machine };
    assert_eq!(machine.run("cat /root/whose /dev/shm/whose").await.0, "");
    machine.runtime.remove(&machine.id).await.expect("removed");
    let machine = Machine { id: child, ..machine };
    assert!(ask(&machine, "/").await.starts_with(ALL_THERE));
    save_and_bring_back(&machine).await;
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_saved_sandbox_comes_back_in_the_next_engine() {
    let machine = Machine::boot().await;
    start_busy(&machine).await;
    machine.runtime.dump(&machine.id).await.expect("saved");
    machine.runtime.shutdown().await;
    let machine = machine.restart();
    assert!(machine.runtime.has_image(&machine.id));
    machine.runtime.restore(spec(&machine.id)).await.expect("back");
    assert!(!machine.runtime.has_image(&machine.id), "what goes on is not saved any more");
    assert!(ask(&machine, "/").await.starts_with(ALL_THERE));
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_damaged_image_is_refused_and_a_whole_one_still_works() {
    let machine = Machine::boot().await;
    machine.run("echo here > /dev/shm/note").await;
    machine.runtime.dump(&machine.id).await.expect("saved");
    let image = machine.image();
    let mut names: Vec<_> =
        std::fs::read_dir(&image).expect("image").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    for name in names {
        let name = name.to_str().expect("a name");
        if name == "dump.log" || name == "stats-dump" {
            continue;
        }
        // Made anew, or about what was not there.
        let tolerant = ["userns-", "nftables-", "netns-", "route", "rule-", "ifaddr", "timens"];
        let tolerant = tolerant.iter().any(|start| name.starts_with(start));
        let path = image.join(name);
        let whole = std::fs::read(&path).expect("file");
        let garbage: Vec<u8> = whole.iter().map(|byte| !byte).collect();
        for damaged in [&whole[..whole.len() / 2], &garbage] {
            if damaged == whole || (tolerant && damaged.len() == whole.len()) {
                continue;
            }
            // Written anew: a link to the file must not change with it.
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(&path, damaged).expect("damaged");
            let refused = machine.runtime.restore(spec(&machine.id)).await;
            assert!(matches!(refused, Err(RuntimeError::NotRestored(_))), "{name}: {refused:?}");
            assert!(machine.runtime.init_of(&machine.id).is_err());
            assert_eq!(std::fs::read(&path).expect("file"), damaged, "{name} was changed");
        }
        std::fs::write(&path, whole).expect("mended");
    }
    machine.runtime.restore(spec(&machine.id)).await.expect("back");
    assert_eq!(machine.run("cat /dev/shm/note").await.0, "here\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn many_are_saved_and_brought_back_at_once() {
    let machine = Machine::boot().await;
    let ids: Vec<SandboxId> =
        (10..20).map(|n| format!("sb-{n:026}").parse().expect("id")).collect();
    futures::future::try_join_all(ids.iter().map(|id| machine.runtime.boot(spec(id))))
        .await
        .expect("boot");
    for _ in 0..2 {
        futures::future::try_join_all(ids.iter().map(|id| machine.runtime.dump(id)))
            .await
            .expect("saved");
        let back = ids.iter().map(|id| machine.runtime.restore(spec(id)));
        futures::future::try_join_all(back).await.expect("back");
    }
    for id in ids {
        machine.runtime.remove(&id).await.expect("removed");
    }
    assert_eq!(machine.run("echo alive").await.0, "alive\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_saved_runs_on() {
    let machine = Machine::boot().await;
    machine.run("sleep 1000 >/dev/null 2>&1 &").await;
    let alive = "pgrep -c sleep; touch /.cos/run/x || echo sealed";
    for program in ["/bin/false", "/no/such/program"] {
        let refused = machine.runtime.save(&machine.id, Path::new(program)).await;
        assert!(matches!(refused, Err(RuntimeError::NotSaved(_))), "{program}: {refused:?}");
        assert!(!machine.runtime.has_image(&machine.id));
        assert_eq!(machine.run(alive).await.0, "1\nsealed\n");
    }
    save_and_bring_back(&machine).await;
    assert_eq!(machine.run(alive).await.0, "1\nsealed\n");
    machine.runtime.shutdown().await;
}

/// CRIU leaves a program that it is killed at in a state that nobody knows.
#[tokio::test]
async fn where_criu_is_killed_the_sandbox_ends_and_keeps_its_files() {
    let machine = Machine::boot().await;
    let mut deaths = machine.runtime.deaths().expect("taken once");
    machine.runtime.trial().await.expect("works");
    let warden = machine.warden();
    for patience in [0, 10, 30] {
        start_busy(&machine).await;
        let killer = tokio::task::spawn_blocking(move || {
            let children = format!("/proc/{warden}/task/{warden}/children");
            let is_criu = |pid: &&str| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("images-dir")
            };
            let criu = loop {
                let children = std::fs::read_to_string(&children).expect("children");
                if let Some(pid) = children.split_whitespace().find(is_criu) {
                    break pid.parse().expect("a pid");
                }
            };
            std::thread::sleep(Duration::from_millis(patience));
            signal(criu, rustix::process::Signal::KILL);
        });
        let killed = machine.runtime.dump(&machine.id).await.expect_err("killed").to_string();
        killer.await.expect("killed it");
        assert!(killed.contains("signal 9"), "{killed}");
        assert_eq!(deaths.recv().await.expect("told").id, machine.id);
        assert_eq!(machine.processes(), Vec::<String>::new(), "after {patience} ms");
        assert!(!machine.runtime.has_image(&machine.id));
        machine.runtime.boot(spec(&machine.id)).await.expect("boot");
        assert_eq!(machine.run("pgrep -c python3; ls busy.py").await.0, "0\nbusy.py\n");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_stop_cuts_everything_short() {
    let machine = Machine::boot().await;
    machine.runtime.trial().await.expect("works");
    for step in 0..12 {
        let patience = Duration::from_millis(step * 10);
        machine.run("sleep 1000 >/dev/null 2>&1 &").await;
        let _ = tokio::time::timeout(patience, machine.runtime.dump(&machine.id)).await;
        machine.runtime.stop(&machine.id).await.expect("stop");
        assert_eq!(machine.processes(), Vec::<String>::new(), "after {patience:?}");
        machine.runtime.boot(spec(&machine.id)).await.expect("boot");
        assert_eq!(machine.run("pgrep -c sleep").await.0, "0\n");

        machine.run("sleep 1000 >/dev/null 2>&1 &").await;
        machine.runtime.dump(&machine.id).await.expect("saved");
        assert_eq!(machine.processes(), Vec::<String>::new());
        let back = machine.runtime.restore(spec(&machine.id));
        let _ = tokio::time::timeout(patience, back).await;
        machine.runtime.stop(&machine.id).await.expect("stop");
        machine.runtime.boot(spec(&machine.id)).await.expect("boot");
        assert_eq!(machine.run("pgrep -c sleep").await.0, "0\n");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn nothing_stays_of_a_warden_that_is_killed_at_it() {
    let machine = Machine::boot().await;
    machine.runtime.trial().await.expect("works");
    machine.runtime.dump(&machine.id).await.expect("saved");
    let mut wardens = 0;
    for patience in [5, 30, 60, 90] {
        // Any sandbox tells which process the warden is.
        let other: SandboxId = "sb-00000000000000000000000002".parse().expect("id");
        machine.runtime.boot(spec(&other)).await.expect("boot");
        let pid = machine.runtime.init_of(&other).expect("running").pid;
        let back = machine.runtime.restore(spec(&machine.id));
        let kill = async {
            tokio::time::sleep(Duration::from_millis(patience)).await;
            signal(super::tests::parent_of(pid), rustix::process::Signal::KILL);
        };
        let (back, ()) = tokio::join!(back, kill);
        wardens += u32::from(back.is_err());
        machine.runtime.boot(spec(&other)).await.expect("the next warden boots it");
        machine.runtime.remove(&other).await.expect("removed");
        machine.runtime.stop(&machine.id).await.expect("stopped");
        assert_eq!(machine.processes(), Vec::<String>::new(), "after {patience} ms");
        if back.is_ok() {
            break;
        }
        assert!(machine.runtime.has_image(&machine.id), "after {patience} ms");
    }
    assert!(wardens > 0, "none was killed in time");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_machine_without_criu_says_so() {
    let machine = Machine::boot().await;
    let Machine { runtime, id, data } = machine;
    let machine = Machine { runtime: runtime.with_criu(Some("/bin/false".into())), id, data };
    for _ in 0..2 {
        let refused = machine.runtime.dump(&machine.id).await.expect_err("refused");
        let RuntimeError::Unsupported(reason) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("/bin/false") && reason.contains("code 1"), "{reason}");
        assert_eq!(machine.run("echo alive").await.0, "alive\n");
    }
    assert_eq!(machine.runtime.on_disk().await.expect("list"), std::slice::from_ref(&machine.id));
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_goes_on_over_connections_ends_before() {
    let machine = Machine::boot().await;
    machine.run("head -c 50000000 /dev/zero > /root/big").await;
    let flood = ExecSpec {
        program: "yes".to_owned(),
        args: Vec::new(),
        env: Default::default(),
        stdin: None,
        place: Default::default(),
    };
    let mut flood = machine.runtime.exec(&machine.id, flood).await.expect("start");
    assert!(matches!(flood.next().await, Some(Ok(_))));
    let mut read = machine.runtime.read_file(&machine.id, b"/root/big").await.expect("open");
    let mut write = machine.runtime.write_file(&machine.id, b"/root/half").await.expect("open");
    write.write("half".into()).await.expect("write");
    save_and_bring_back(&machine).await;
    while let Some(Ok(_)) = flood.next().await {}
    while let Some(Ok(_)) = read.chunks.next().await {}
    write.commit().await.expect_err("cut off");
    let left = "pgrep -c yes; stat -c %s big; ls half";
    assert_eq!(machine.run(left).await.0, "0\n50000000\n");
    save_and_bring_back(&machine).await;
    machine.runtime.shutdown().await;
}

/// Programs that have left whoever started them, each in its own way.
#[tokio::test]
async fn orphans_come_back() {
    let machine = Machine::boot().await;
    for start in [
        "sleep 1001 &",
        "(sleep 1002 &)",
        "(sleep 1003 & sleep 1004 | sleep 1005 &)",
        "setsid sleep 1006 &",
        "setsid sh -c 'sleep 1007 & sleep 1008 & exit'",
        "setsid sh -c '(sleep 1009 &); sleep 1010; exit' &",
        "setsid bash -c 'set -m; (sleep 1011 &); sleep 1012 & (sleep 1013 | sleep 1014) & sleep 1015' &",
        "setsid sh -c 'setsid sh -c \"(sleep 1016 &); exec sleep 1017\" & exit' &",
        // Looks after what others leave behind, as supervisors of services do.
        "setsid python3 -c 'import ctypes, os, time; ctypes.CDLL(None).prctl(36, 1); \
         os.system(\"setsid sh -c \\\"(sleep 1018 &); sleep 1019 & exit\\\"\"); time.sleep(1000)' &",
    ] {
        machine.run(&format!("{{ {start}\n}} </dev/null >/dev/null 2>&1")).await;
    }
    let list = "pgrep -a sleep | cut -d' ' -f3 | sort";
    let all: String = (1001..=1019).map(|number| format!("{number}\n")).collect();
    let mut left = String::new();
    for _ in 0..500 {
        left = machine.run(list).await.0;
        if left == all {
            break;
        }
    }
    assert_eq!(left, all);
    for _ in 0..2 {
        save_and_bring_back(&machine).await;
        assert_eq!(machine.run(list).await.0, all);
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn where_saving_fails_a_pause_keeps_the_memory_in_memory() {
    let machine = Machine::boot().await;
    let real = machine.runtime.trial().await.expect("works");
    let (wrapper, broken) = (machine.data().join("criu"), machine.data().join("broken"));
    let script = format!(
        "#!/bin/sh\n[ -e {} ] && exit 7\nexec {} \"$@\"\n",
        broken.display(),
        real.display()
    );
    std::fs::write(&wrapper, script).expect("wrapper");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let Machine { runtime, id, data } = machine;
    runtime.shutdown().await;
    let machine = Machine { runtime, id, data }.restart();
    let Machine { runtime, id, data } = machine;
    let machine = Machine { runtime: runtime.with_criu(Some(wrapper)), id, data };
    machine.runtime.boot(spec(&machine.id)).await.expect("boot");
    machine.runtime.trial().await.expect("works");
    start_busy(&machine).await;
    for expected in [Saved::Frozen, Saved::Memory, Saved::Frozen] {
        if expected == Saved::Frozen {
            std::fs::write(&broken, "").expect("broken");
        } else {
            std::fs::remove_file(&broken).expect("mended");
        }
        let saved = machine.runtime.pause(&machine.id).await.expect("paused");
        assert_eq!(saved, expected);
        machine.runtime.resume(spec(&machine.id), saved).await.expect("resumed");
        assert!(ask(&machine, "/").await.starts_with(ALL_THERE));
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn where_the_memory_is_lost_the_files_still_boot() {
    let machine = Machine::boot().await;
    machine.run("echo kept > /root/file; sleep 1000 >/dev/null 2>&1 &").await;
    assert_eq!(machine.runtime.pause(&machine.id).await.expect("saved"), Saved::Memory);
    std::fs::write(machine.image().join("pstree.img"), "garbage").expect("damaged");
    let refused = machine.runtime.resume(spec(&machine.id), Saved::Memory).await;
    let refused = refused.expect_err("damaged").to_string();
    assert!(refused.contains("damaged") && refused.contains("files are kept"), "{refused}");
    machine.runtime.resume(spec(&machine.id), Saved::Memory).await.expect("from its files");
    assert_eq!(machine.run("cat /root/file; pgrep -c sleep").await.0, "kept\n0\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn managed_processes_come_back_with_their_output() {
    let machine = Machine::boot().await;
    let spawn = async |id: &str, script: &str, terminal| {
        let spec = ProcessSpec {
            id: id.parse().expect("id"),
            argv: ["bash", "-c", script].map(str::to_owned).into(),
            env: Default::default(),
            directory: None,
            terminal,
            user: None,
        };
        machine.runtime.spawn(&machine.id, spec.clone()).await.expect("started");
        spec.id
    };
    let echo = "echo up; while read line; do echo got $line; done; sleep 3000 & exit 3";
    let plain = spawn("proc-1", echo, None).await;
    let size = createos_sdk::wire::PtySize::new(33, 90);
    let typed = spawn("proc-2", "stty size; exec bash --norc -i", Some(size)).await;
    let heard = async |process: &ProcessId, text: &str| {
        let mut events = machine.runtime.follow(&machine.id, process, 0).await.expect("follow");
        let mut told = String::new();
        while !told.contains(text) {
            match events.next().await {
                Some(Ok(ProcessEvent::Output { bytes, .. })) => {
                    told += &String::from_utf8_lossy(&bytes)
                }
                other => panic!("{other:?} after {told}"),
            }
        }
        told
    };
    let feed = async |process: &ProcessId, text: &'static str| {
        let patience = Duration::from_secs(5);
        machine.runtime.feed(&machine.id, process, text.into(), patience).await.expect("room");
    };
    feed(&plain, "one\n").await;
    feed(&typed, "sleep 2000 &\n").await;
    feed(&typed, "echo $((40 + 2))\n").await;
    heard(&plain, "got one").await;
    heard(&typed, "42\r\n").await;
    save_and_bring_back(&machine).await;
    assert!(heard(&typed, "42\r\n").await.contains("33 90"), "what was said is kept");
    feed(&plain, "two\n").await;
    feed(&typed, "jobs; stty size; echo $((50 + 3))\n").await;
    assert!(heard(&plain, "got two").await.contains("up\ngot one"));
    let told = heard(&typed, "53\r\n").await;
    assert!(told.contains("Running") && told.matches("33 90").count() == 2, "{told}");
    machine.runtime.control(&machine.id, &plain, Control::CloseInput).await.expect("closed");
    let status =
        machine.runtime.status(&machine.id, &plain, When::LeaderEnded).await.expect("ends");
    assert_eq!(status.exit, Some(ExitReason::Code(3)));
    assert!(!status.tree_ended);
    save_and_bring_back(&machine).await;
    for process in [&plain, &typed] {
        let end = When::Terminated { grace: Duration::ZERO };
        let status = machine.runtime.status(&machine.id, process, end).await.expect("ends");
        assert!(status.tree_ended, "{status:?}");
    }
    assert_eq!(machine.run("pgrep -c sleep").await.0, "0\n");
    machine.runtime.shutdown().await;
}
