//! Guests that mean harm: the engine and the other sandboxes stay well.

use std::time::Duration;

use createos_sdk::{ErrorKind, ExecEvent, Sandbox};
use createos_tests::Fixture;
use futures::StreamExt;
use tokio::time::timeout;

/// Longest that something quick may take on a machine that a guest keeps busy.
const SOON: Duration = Duration::from_secs(20);

async fn sh(sandbox: &Sandbox, script: &str) -> Result<String, createos_sdk::Error> {
    let run = sandbox.command("sh").args(["-c", script]).output();
    let output = timeout(SOON, run).await.expect("an answer in time")?;
    Ok(output.stdout_lossy().into_owned())
}

/// The neighbour and the API work as if nothing happened.
async fn all_is_well(fixture: &Fixture, neighbour: &Sandbox) {
    assert_eq!(sh(neighbour, "echo fine").await.expect("the neighbour"), "fine\n");
    let whoami = timeout(SOON, fixture.client.whoami()).await.expect("in time").expect("whoami");
    assert!(whoami.stats.running >= 1);
}

async fn destroy(sandbox: &Sandbox) {
    timeout(SOON, sandbox.destroy()).await.expect("in time").expect("destroy");
}

#[tokio::test]
async fn a_fork_bomb_fills_its_own_sandbox_only() {
    let fixture = Fixture::start().await;
    let (bomber, neighbour) = (fixture.sandbox().await, fixture.sandbox().await);
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 600";
    let _ = bomber.spawn("sh").args(["-c", bomb]).await.expect("it is lit");
    all_is_well(&fixture, &neighbour).await;
    // Inside there is no room for another process, and that is what it says.
    let full = bomber.command("true").output().await;
    if let Ok(output) = &full {
        assert!(output.status.success() || output.error.is_some(), "{output:?}");
    }
    destroy(&bomber).await;
    all_is_well(&fixture, &neighbour).await;
    fixture.end().await;
}

#[tokio::test]
async fn memory_runs_out_for_the_one_that_wants_too_much() {
    let fixture = Fixture::start().await;
    let (hog, neighbour) = (fixture.sandbox().await, fixture.sandbox().await);
    let script = "b = []\nwhile True: b.append(bytearray(16 << 20))";
    let run = hog.command("python3").args(["-c", script]).output();
    let output = timeout(SOON, run).await.expect("in time").expect("an answer");
    assert_eq!(output.status.code(), 137, "{output:?}");
    all_is_well(&fixture, &neighbour).await;
    assert_eq!(sh(&hog, "echo alive").await.expect("it goes on"), "alive\n");
    // Files in memory count as well.
    let fill = "head -c 200M /dev/zero >/dev/shm/a; head -c 200M /dev/zero >/run/b; \
                head -c 200M /dev/zero >/tmp/c; true";
    let _ = sh(&hog, fill).await;
    all_is_well(&fixture, &neighbour).await;
    destroy(&hog).await;
    fixture.end().await;
}

#[tokio::test]
async fn a_flood_to_a_reader_that_stops_is_held_back() {
    let fixture = Fixture::start().await;
    let (flooder, neighbour) = (fixture.sandbox().await, fixture.sandbox().await);
    let flood = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | \
                 head -c 1G; echo 1 >/done";
    let mut events = flooder.command("sh").args(["-c", flood]).stream().await.expect("stream");
    events.next().await.expect("begun").expect("output");
    // Nobody reads on: what was written waits inside, in bounded buffers.
    let before = resident();
    for _ in 0..5 {
        all_is_well(&fixture, &neighbour).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let held = resident().saturating_sub(before);
    assert!(held < 64 << 20, "{held} bytes are held for a reader that does not read");
    assert_eq!(sh(&flooder, "ls /done || true").await.expect("exec"), "");
    // And nothing of it is lost when the reader comes back.
    let mut total = 0;
    let rest = async {
        while let Some(event) = events.next().await {
            match event.expect("the stream is whole") {
                ExecEvent::Stdout(bytes) => total += bytes.len(),
                ExecEvent::Exit(status) => assert!(status.success()),
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(120), rest).await.expect("it ends");
    // The first piece was taken before the counting began.
    assert!(((1 << 30) - (1 << 20)..1 << 30).contains(&total), "{total}");
    fixture.end().await;
}

/// Memory of this process, which is the engine's as well.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test]
async fn killing_and_replacing_everything_in_sight_hurts_nobody_else() {
    let fixture = Fixture::start().await;
    let (guest, neighbour) = (fixture.sandbox().await, fixture.sandbox().await);
    // PID 1 cannot be killed from inside, by whatever signal.
    let script = "for s in $(seq 1 64); do kill -$s 1; done 2>/dev/null; kill -9 -1; echo on";
    let _ = sh(&guest, script).await;
    assert_eq!(sh(&guest, "echo alive").await.expect("still there"), "alive\n");
    // What tools it finds next it has chosen itself; the way in does not depend on them.
    let script = "rm -rf /etc /root /var /home /.cos /usr/bin/env 2>/dev/null; \
                  ln -sfn / /etc; ln -sfn /proc/1/root /root; echo done";
    sh(&guest, script).await.expect("it may ruin itself");
    let answer = guest.files().write("/new/file", "x").await;
    answer.expect("files work all the same");
    all_is_well(&fixture, &neighbour).await;
    assert!(std::path::Path::new("/etc/passwd").exists() && std::path::Path::new("/root").exists());
    destroy(&guest).await;
    fixture.end().await;
}

/// PID 1 of a sandbox, as the host sees it.
fn agent_of(sandbox: &Sandbox) -> rustix::process::Pid {
    let id = sandbox.id().as_str();
    let found = std::fs::read_dir("/proc").expect("proc").flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        (groups.contains(id) && inner.ends_with("\t1")).then_some(pid)
    });
    rustix::process::Pid::from_raw(found.expect("its control group names it")).expect("a pid")
}

#[tokio::test]
async fn a_stopped_agent_stops_nobody_else() {
    let fixture = Fixture::start().await;
    let (stopped, neighbour) = (fixture.sandbox().await, fixture.sandbox().await);
    let stream = stopped.command("sh").args(["-c", "while :; do echo x; done"]).stream();
    let mut stream = stream.await.expect("stream");
    stream.next().await.expect("begun").expect("output");
    let agent = agent_of(&stopped);
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).expect("stop");
    let (exec, read, ()) = tokio::join!(
        timeout(SOON, stopped.command("true").output()),
        // Reads are tried again, so they take longer to fail.
        timeout(3 * SOON, stopped.files().read("/etc/hostname")),
        async {
            for _ in 0..10 {
                all_is_well(&fixture, &neighbour).await;
            }
        },
    );
    let exec = exec.expect("an answer in time").expect_err("nobody is there");
    assert!(exec.may_have_acted(), "{exec}");
    assert_eq!(read.expect("in time").expect_err("nobody is there").kind(), ErrorKind::Server);
    destroy(&stopped).await;
    assert!(timeout(SOON, stream.collect::<Vec<_>>()).await.is_ok(), "the stream ends");
    all_is_well(&fixture, &neighbour).await;
    fixture.end().await;
}
