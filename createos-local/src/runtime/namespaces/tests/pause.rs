//! Pause, resume and fork on the real kernel.

use super::*;
use crate::runtime::Saved;

/// Counts ten times a second, in its own memory, and shows how far it is when asked.
const COUNTER: &str = "
import signal, sys, time
count = 0
def show(*_):
    open('/root/count', 'w').write(str(count))
signal.signal(signal.SIGUSR1, show)
open('/root/up', 'w').close()
while True:
    time.sleep(0.02)
    count += 1
";

impl Machine {
    /// Starts a command that outlives its call.
    async fn background(&self, script: &str) {
        let script = format!("nohup {script} >/dev/null 2>&1 </dev/null & echo");
        assert_eq!(self.run(&script).await.2, ExitReason::Code(0));
    }

    async fn start_counter(&self) {
        let mut file = self.runtime.write_file(&self.id, b"/root/counter.py").await.expect("open");
        file.write(Bytes::from(COUNTER)).await.expect("write");
        file.commit().await.expect("commit");
        self.background("python3 /root/counter.py").await;
        self.run("while [ ! -e /root/up ]; do sleep 0.01; done").await;
    }

    async fn count(&self) -> u32 {
        let script = "rm -f /root/count; pkill -USR1 -f '[c]ounter.py'; \
                      while [ ! -s /root/count ]; do sleep 0.01; done; cat /root/count";
        self.run(script).await.0.trim().parse().expect("a number")
    }

    /// CPU ticks that the sandbox's processes have used.
    async fn ticks(&self) -> Duration {
        self.runtime.usage(&self.id).await.expect("usage").cpu
    }

    /// What ended takes a moment to be gone.
    async fn until_at_rest(&self) {
        let init = self.runtime.init_of(&self.id).expect("running");
        for _ in 0..250 {
            if agent::is_at_rest(&init).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("something still runs: {}", self.run("ps -ef").await.0);
    }

    async fn resume(&self, saved: Saved) {
        self.runtime.resume(spec(&self.id), saved).await.expect("resume");
    }
}

#[tokio::test]
async fn a_process_stands_still_and_goes_on_where_it_was() {
    let machine = Machine::boot_freezing().await;
    machine.start_counter().await;
    let before = machine.count().await;
    let saved = machine.runtime.pause(&machine.id).await.expect("pause");
    assert_eq!(saved, Saved::Frozen);
    let ticks = machine.ticks().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(machine.ticks().await, ticks, "it ran while it was paused");
    assert_eq!(machine.runtime.pause(&machine.id).await.expect("again"), Saved::Frozen);
    machine.resume(saved).await;
    let after = machine.count().await;
    assert!(after >= before && after < before + 25, "{before} became {after}");
    machine.run("sleep 0.2").await;
    assert!(machine.count().await > after, "it does not go on");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn whatever_is_in_memory_is_kept_and_what_is_not_is_ended() {
    let machine = Machine::boot_freezing().await;
    let pause = async || machine.runtime.pause(&machine.id).await.expect("pause");
    for (make, check, clear) in [
        ("echo x > /dev/shm/kept", "cat /dev/shm/kept", "rm /dev/shm/kept"),
        ("mkdir /run/kept; echo x > /run/kept/f", "cat /run/kept/f", "rm -r /run/kept"),
        ("echo x > /dev/kept", "cat /dev/kept", "rm /dev/kept"),
        (
            "nohup sleep 4321 >/dev/null 2>&1 </dev/null &",
            "pgrep -x sleep >/dev/null && echo x",
            "pkill sleep",
        ),
        (
            "python3 -c 'import ctypes; ctypes.CDLL(None).shmget(7, 64, 0o1600)'",
            "test $(wc -l < /proc/sysvipc/shm) -gt 1 && echo x",
            "ipcrm -M 7",
        ),
    ] {
        machine.run(make).await;
        let saved = pause().await;
        assert_eq!(saved, Saved::Frozen, "after {make}");
        machine.resume(saved).await;
        assert_eq!(machine.run(check).await.0, "x\n", "after {make}");
        machine.run(clear).await;
    }
    machine.run("echo kept > /root/file; echo kept > /tmp/file").await;
    machine.until_at_rest().await;
    let saved = pause().await;
    assert_eq!(saved, Saved::Files);
    assert!(machine.runtime.init_of(&machine.id).is_err(), "nothing runs");
    machine.resume(saved).await;
    assert_eq!(machine.run("cat /root/file /tmp/file").await.0, "kept\nkept\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_frozen_sandbox_can_be_stopped_removed_and_killed() {
    let machine = Machine::boot_freezing().await;
    let mut deaths = machine.runtime.deaths().expect("taken once");
    let freeze = async || {
        machine.background("sleep 4321").await;
        let saved = machine.runtime.pause(&machine.id).await.expect("pause");
        assert_eq!(saved, Saved::Frozen);
    };
    freeze().await;
    machine.runtime.stop(&machine.id).await.expect("stop");
    machine.runtime.boot(spec(&machine.id)).await.expect("boot again");
    freeze().await;
    let init = machine.runtime.init_of(&machine.id).expect("in the books");
    init.kill();
    assert_eq!(deaths.recv().await.expect("told").id, machine.id);
    let error = machine.runtime.resume(spec(&machine.id), Saved::Frozen).await;
    assert!(error.expect_err("it ended").to_string().contains("ended while they stood still"));
    machine.runtime.boot(spec(&machine.id)).await.expect("its files boot");
    freeze().await;
    machine.runtime.remove(&machine.id).await.expect("remove");
    assert!(machine.runtime.on_disk().await.expect("list").is_empty());
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_does_not_run_cannot_be_paused() {
    let machine = Machine::boot_freezing().await;
    machine.runtime.stop(&machine.id).await.expect("stop");
    machine.runtime.pause(&machine.id).await.expect_err("nothing to pause");
    machine.runtime.shutdown().await;
}

/// A guest that has stopped its agent, or forks as fast as it can, is paused like any other.
#[tokio::test]
async fn a_guest_that_fights_the_pause_loses() {
    let machine = Machine::boot_freezing().await;
    machine.background("sh -c 'while :; do sleep 0.001; done'").await;
    let saved = machine.runtime.pause(&machine.id).await.expect("pause");
    assert_eq!(saved, Saved::Frozen);
    let ticks = machine.ticks().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(machine.ticks().await, ticks);
    machine.resume(saved).await;

    let agent = machine.runtime.init_of(&machine.id).expect("running").pid;
    signal(agent, rustix::process::Signal::STOP);
    let saved = machine.runtime.pause(&machine.id).await.expect("pause");
    assert_eq!(saved, Saved::Frozen);
    machine.runtime.remove(&machine.id).await.expect("remove");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_guest_had_stopped_stays_stopped() {
    let machine = Machine::boot_freezing().await;
    machine.background("sleep 4321").await;
    machine.background("sleep 1234").await;
    machine.run("while ! pkill -STOP -f '[s]leep 1234'; do sleep 0.01; done").await;
    let states = "ps -o stat=,args= -C sleep | sed 's/^\\(.\\)[^ ]* */\\1 /' | sort";
    let before = machine.run(states).await.0;
    assert_eq!(before, "S sleep 4321\nT sleep 1234\n");
    let saved = machine.runtime.pause(&machine.id).await.expect("pause");
    machine.resume(saved).await;
    assert_eq!(machine.run(states).await.0, before);
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_fork_has_the_files_and_neither_sees_the_other_s_writes() {
    let machine = Machine::boot_freezing().await;
    let script = "mkdir -p /work/dir; cd /work; echo one > file; ln file dir/same; ln -s file link; \
                  truncate -s 100M sparse; rm /etc/issue; rm -rf /usr/share/base-files; mkdir /usr/share/base-files; \
                  echo mine > /usr/bin/mine; chmod 4755 /usr/bin/mine; mkfifo pipe; \
                  touch -d '2001-02-03 04:05:06' file; mv /usr/share/dpkg /usr/share/moved";
    machine.run(script).await;
    machine.background("sleep 4321").await;
    let look = "cd /work; cat file link dir/same; stat -c '%n %a %h %s %F %Y' file sparse pipe \
                /usr/bin/mine; ls /etc/issue /usr/share/base-files 2>/dev/null; ls /usr/share/moved | wc -l; \
                test file -ef dir/same && echo linked; du -k sparse; id -u";
    let before = machine.run(look).await.0;
    assert!(before.contains("linked") && before.contains("981173106"), "{before}");

    for saved in [Saved::Frozen, Saved::Files] {
        if saved == Saved::Files {
            machine.run("pkill sleep").await;
            machine.until_at_rest().await;
        }
        assert_eq!(machine.runtime.pause(&machine.id).await.expect("pause"), saved);
        let child: SandboxId = "sb-00000000000000000000000002".parse().expect("id");
        // What an earlier try left does no harm.
        let half = machine.runtime.data_dir.join(format!("sandboxes/{child}/root/upper/work"));
        std::fs::create_dir_all(&half).expect("directory");
        std::fs::write(half.join("half"), "x").expect("file");
        let child_spec = BootSpec { ip: [10, 0, 4, 18].into(), ..spec(&child) };
        let forked = machine.runtime.fork(&machine.id, saved, child_spec.clone()).await;
        assert_eq!(forked.expect("fork"), Saved::Files);
        machine.runtime.resume(child_spec, Saved::Files).await.expect("resume the child");
        machine.resume(saved).await;

        assert_eq!(machine.run_in(&child, look).await, before);
        assert_eq!(machine.run_in(&child, "pgrep sleep; ls /work/half").await, "");
        machine.run_in(&child, "echo child > /work/file; rm /work/link").await;
        assert_eq!(machine.run(look).await.0, before);
        machine.run("echo parent > /work/other").await;
        assert_eq!(machine.run_in(&child, "cat /work/file; ls /work/other").await, "child\n");
        machine.run("rm /work/other").await;
        machine.runtime.remove(&child).await.expect("remove");
    }
    machine.runtime.shutdown().await;
}
