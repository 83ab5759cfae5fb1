//! Managed processes on the real engine, through the SDK.

use std::time::{Duration, Instant};

use createos_sdk::wire::{OutputStream, ProcessKind, ProcessState, Signal};
use createos_sdk::{ErrorKind, Process, ProcessEvent, ProcessExit, ProcessStream, Sandbox};
use createos_tests::{Fixture, sh, until};
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Longest that something quick may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);
const RING: usize = 1 << 20;

async fn spawn(sandbox: &Sandbox, script: &str) -> Process {
    sandbox.spawn("bash").args(["-c", script]).await.expect("it starts")
}

/// What a stream brings up to its exit: output by stream, and gaps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Followed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    gaps: Vec<(u64, u64)>,
    exit: Option<ProcessExit>,
}

async fn follow(mut events: ProcessStream) -> Followed {
    let mut followed = Followed::default();
    while let Some(event) = events.try_next().await.expect("the stream is whole") {
        match event {
            ProcessEvent::Output { stream: OutputStream::Stderr, bytes, .. } => {
                followed.stderr.extend(bytes);
            }
            ProcessEvent::Output { bytes, .. } => followed.stdout.extend(bytes),
            ProcessEvent::Gap { after, next } => followed.gaps.push((after, next)),
            ProcessEvent::Exit(exit) => followed.exit = Some(exit),
            other => panic!("{other:?}"),
        }
    }
    followed
}

/// Reads up to the first output that ends like this, and its place.
async fn read_to(events: &mut ProcessStream, end: &[u8]) -> u64 {
    let mut seen = Vec::new();
    let reading = async {
        while let Some(event) = events.try_next().await.expect("an event") {
            if let ProcessEvent::Output { seq, bytes, .. } = event {
                seen.extend(bytes);
                if seen.ends_with(end) {
                    return seq;
                }
            }
        }
        panic!("it ended");
    };
    timeout(SOON, reading).await.expect("in time")
}

/// Reads until a terminal has shown this.
async fn show(events: &mut ProcessStream, wanted: &str) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match events.try_next().await.expect("an event").expect("it goes on") {
                ProcessEvent::Output { bytes, .. } => seen.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
    };
    if timeout(SOON, reading).await.is_err() {
        panic!("{wanted:?} is not in {:?}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test]
async fn output_and_end_are_kept_for_whoever_comes() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "echo $STAGE-$NEW in $PWD; echo oops >&2; exit 3";
    let process = sandbox
        .spawn("bash")
        .args(["-c", script])
        .cwd("/usr")
        .env("NEW", "new")
        .await
        .expect("it starts");
    let followed = follow(process.attach().await.expect("attach")).await;
    assert_eq!(followed.stdout, b"test-new in /usr\n");
    assert_eq!(followed.stderr, b"oops\n");
    assert_eq!(followed.exit, Some(ProcessExit::Code(3)));
    // As often as one likes.
    assert_eq!(follow(process.attach().await.expect("attach")).await, followed);
    assert_eq!(process.wait().tree().await.expect("wait"), ProcessExit::Code(3));

    let view = process.refresh().await.expect("view");
    assert_eq!((&view.state, &view.kind), (&ProcessState::Exited, &ProcessKind::Process));
    assert_eq!((view.leader_exited, view.tree_exited, view.exit_code), (true, true, Some(3)));
    assert!(view.pid > 1 && view.created_at.is_some() && view.finished_at >= view.created_at);
    assert_eq!((view.cmd.as_deref(), view.cwd.as_deref()), (Some("bash"), Some("/usr")));
    assert_eq!((view.output.oldest_seq, view.output.bytes), (1, 22));
    let listed = sandbox.processes().await.expect("list");
    assert_eq!(listed.iter().map(Process::id).collect::<Vec<_>>(), [process.id()]);

    let signaled = spawn(&sandbox, "kill -SEGV $$").await;
    let exit = signaled.wait().await.expect("wait");
    assert_eq!(exit, ProcessExit::Signal("SIGSEGV".to_owned()));
    fixture.end().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let missing = sandbox.spawn("no-such-program").await.expect_err("no such program");
    assert_eq!(missing.kind(), ErrorKind::InvalidArgument);
    assert!(missing.to_string().contains("no-such-program"), "{missing}");
    let file = sandbox.spawn("/etc/passwd").await.expect_err("not a program");
    assert_eq!(file.kind(), ErrorKind::InvalidArgument);
    for directory in ["/no/such/directory", "/etc/passwd"] {
        let error = sandbox.spawn("true").cwd(directory).await.expect_err("no directory");
        assert!(error.kind() == ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(directory), "{error}");
    }
    let unknown = sandbox.process("prc-unknown".parse::<createos_sdk::ProcessId>().expect("an id"));
    assert_eq!(unknown.refresh().await.expect_err("unknown").kind(), ErrorKind::NotFound);
    assert!(sandbox.processes().await.expect("list").is_empty(), "nothing is left of them");
    assert_eq!(sh(&sandbox, "pgrep -c agent").await, "2\n", "nor of their supervisors");
    fixture.end().await;
}

#[tokio::test]
async fn a_stream_goes_on_where_the_last_one_was_left() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let process = spawn(&sandbox, "while read -r line; do echo \"got $line\"; done").await;
    let mut first = process.attach().await.expect("attach");
    process.input("one\n").await.expect("input");
    let seq = read_to(&mut first, b"got one\n").await;
    drop(first);
    // It does not notice that nobody is there.
    process.input("two\n").await.expect("input");
    process.input("three\n").await.expect("input");
    let mut second = process.attach().after(seq).await.expect("attach");
    let mut third = process.attach().after(seq + 4).await.expect("attach");
    read_to(&mut second, b"got two\ngot three\n").await;
    read_to(&mut third, b"two\ngot three\n").await;
    process.close_stdin().await.expect("close");
    let rest = follow(second).await;
    assert_eq!((rest.stdout.len(), rest.exit), (0, Some(ProcessExit::Code(0))));
    fixture.end().await;
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "echo begin; read -r go; seq 300000; exit 0";
    let process = spawn(&sandbox, script).await;
    let mut events = process.attach().await.expect("attach");
    let seq = read_to(&mut events, b"begin\n").await;
    drop(events);
    process.input("go\n").await.expect("input");
    process.wait().tree().await.expect("it ends though nobody reads");

    let all: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let kept = &all.as_bytes()[all.len() - RING..];
    let late = follow(process.attach().after(seq).await.expect("attach")).await;
    assert_eq!(late.gaps.len(), 1, "{:?}", late.gaps);
    assert_eq!(late.gaps[0].0, seq);
    assert!(late.stdout == kept, "{} bytes", late.stdout.len());
    // From the beginning means: from what there is.
    let whole = follow(process.attach().await.expect("attach")).await;
    assert!(whole.gaps.is_empty() && whole.stdout == kept);
    let view = process.refresh().await.expect("view");
    let range = view.output;
    assert_eq!((range.bytes, range.newest_seq), (RING as u64, 6 + all.len() as u64 + 1));
    assert_eq!(range.oldest_seq, 6 + (all.len() - RING) as u64 + 1);
    fixture.end().await;
}

#[tokio::test]
async fn all_that_is_kept_comes_though_nothing_new_happens() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let process = spawn(&sandbox, "head -c 1000000 /dev/zero; exec sleep 7000").await;
    until(&sandbox, "pgrep -c -x sleep", "1\n").await;
    for _ in 0..20 {
        let mut events = process.attach().await.expect("attach");
        let mut received = 0;
        let reading = async {
            while received < 1_000_000 {
                match events.try_next().await.expect("an event").expect("it goes on") {
                    ProcessEvent::Output { bytes, .. } => received += bytes.len(),
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(SOON, reading).await.expect("nothing more has to happen for that");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_nobody() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let flood = spawn(&sandbox, "yes 0123456789abcdef | head -c 1G").await;
    let mut stopped = flood.attach().await.expect("attach");
    stopped.next().await.expect("begun").expect("output");
    let other = follow(flood.attach().await.expect("attach"));
    let (other, exit) = tokio::join!(other, timeout(SOON * 3, flood.wait().tree()));
    assert_eq!(exit.expect("it is not held up").expect("wait"), ProcessExit::Code(0));
    assert_eq!(other.exit, Some(ProcessExit::Code(0)));
    let peak = sh(&sandbox, "awk '/VmHWM/ {print $2}' /proc/1/status").await;
    let peak: u32 = peak.trim().parse().expect("a size");
    assert!(peak < 16 << 10, "the agent took {peak} KiB");
    // Back again, the one that stopped learns what it missed, and the end.
    let rest = follow(stopped).await;
    assert_eq!(rest.gaps.len(), 1, "{:?}", rest.gaps);
    assert!(rest.stdout.len() >= RING, "{} bytes", rest.stdout.len());
    assert_eq!(rest.exit, Some(ProcessExit::Code(0)));
    fixture.end().await;
}

#[tokio::test]
async fn input_is_ordered_and_ends() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let sum = spawn(&sandbox, "sha256sum").await;
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let mut stdin = sum.stdin();
    stdin.write_all(&content).await.expect("write");
    stdin.shutdown().await.expect("close");
    sandbox.files().write("/tmp/same", content).await.expect("write");
    let summed = follow(sum.attach().await.expect("attach")).await.stdout;
    let expected = sh(&sandbox, "sha256sum </tmp/same").await;
    assert_eq!(String::from_utf8_lossy(&summed), expected);

    let process = spawn(&sandbox, "exec sleep 60").await;
    assert_eq!(process.input("a").await.expect("input"), 1);
    assert_eq!(process.input("b").await.expect("input"), 2);
    process.close_stdin().await.expect("close");
    let closed = process.input("c").await.expect_err("closed");
    assert_eq!(closed.kind(), ErrorKind::Conflict);
    process.terminate().grace(Duration::ZERO).await.expect("terminate");
    let ended = process.input("d").await.expect_err("ended");
    assert_eq!(ended.kind(), ErrorKind::Conflict);
    assert_eq!(process.signal(Signal::User1).await.expect_err("ended").kind(), ErrorKind::Conflict);
    assert_eq!(process.resize(1, 1).await.expect_err("no terminal").kind(), ErrorKind::Conflict);
    fixture.end().await;
}

#[tokio::test]
async fn signals_reach_the_group() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "trap 'echo usr1' USR1; trap 'echo hup; exit 5' HUP; echo ready; \
                  while :; do sleep 0.05; done";
    let process = spawn(&sandbox, script).await;
    let mut events = process.attach().await.expect("attach");
    read_to(&mut events, b"ready\n").await;
    process.signal(Signal::User1).await.expect("signal");
    read_to(&mut events, b"usr1\n").await;
    process.signal(Signal::Hangup).await.expect("signal");
    assert_eq!(follow(events).await.exit, Some(ProcessExit::Code(5)));

    // Children of the same group get it, whoever has left the group does not.
    let process = spawn(&sandbox, "sleep 7001 & setsid sleep 7002 & sleep 7003").await;
    until(&sandbox, "pgrep -c -x sleep", "3\n").await;
    process.signal(Signal::Terminate).await.expect("signal");
    until(&sandbox, "pgrep -a -x sleep | cut -d' ' -f2-", "sleep 7002\n").await;
    let view = process.refresh().await.expect("view");
    assert_eq!((view.leader_exited, view.tree_exited), (true, false));
    assert_eq!((&view.state, view.signal.as_deref()), (&ProcessState::Running, Some("SIGTERM")));
    assert!(view.finished_at.is_none());
    let ended = process.terminate().await.expect("terminate");
    assert!(ended.tree_exited && ended.state == ProcessState::Exited);
    fixture.end().await;
}

#[tokio::test]
async fn a_wait_is_for_the_command_or_for_all_it_started() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script =
        "setsid sh -c 'while [ ! -e /tmp/go ]; do sleep 0.05; done' >/dev/null 2>&1 & exit 4";
    let process = spawn(&sandbox, script).await;
    assert_eq!(process.wait().await.expect("the command"), ProcessExit::Code(4));
    let early = process.wait().tree().limit(Duration::from_millis(600)).await;
    assert_eq!(early.expect_err("the tree lives").kind(), ErrorKind::Timeout);
    // Its output is closed, so streams have come to their end.
    let followed = follow(process.attach().await.expect("attach")).await;
    assert_eq!(followed.exit, Some(ProcessExit::Code(4)));
    let (waited, _) = tokio::join!(process.wait().tree(), sh(&sandbox, "touch /tmp/go"));
    assert_eq!(waited.expect("the tree"), ProcessExit::Code(4));
    assert!(process.refresh().await.expect("view").tree_exited);
    fixture.end().await;
}

#[tokio::test]
async fn nothing_of_a_tree_survives_its_termination() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    // Who can end well, gets the time to.
    let polite =
        spawn(&sandbox, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done").await;
    until(&sandbox, "pgrep -c -x sleep", "1\n").await;
    let view = polite.terminate().grace(SOON).await.expect("terminate");
    assert_eq!((view.exit_code, view.tree_exited), (Some(0), true));
    assert_eq!(follow(polite.attach().await.expect("attach")).await.stdout, b"bye\n");

    // Escapes of every kind: ignored signals, new sessions, double forks, stopped processes,
    // and a first thread that has gone.
    let thread = "import ctypes, threading, time; \
                  threading.Thread(target=time.sleep, args=(7005,)).start(); \
                  ctypes.CDLL(None).pthread_exit(None)";
    let script = format!(
        "trap '' TERM; sleep 7001 & setsid sleep 7002 & \
         (setsid sh -c 'sleep 7003 & exit' &) & (sleep 7004 & sleep 0.3; kill -STOP $!) & \
         python3 -c '{thread}' & while :; do sleep 7006; done"
    );
    let stubborn = spawn(&sandbox, &script).await;
    until(&sandbox, "pgrep -c -x sleep; pgrep -c python3", "5\n1\n").await;
    let began = Instant::now();
    let view = timeout(SOON, stubborn.terminate().grace(Duration::from_millis(300))).await;
    let view = view.expect("in time").expect("terminate");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((view.signal.as_deref(), view.tree_exited), (Some("SIGKILL"), true));
    // At once: the answer came after the end.
    assert_eq!(sh(&sandbox, "pgrep -c -x sleep; pgrep -c python3").await, "0\n0\n");
    assert_eq!(sh(&sandbox, "ps -eo stat | grep -c Z").await, "0\n");
    let again = stubborn.terminate().await.expect("again");
    assert_eq!(again.signal.as_deref(), Some("SIGKILL"));
    fixture.end().await;
}

/// Processes of the bomb below, as the host sees them.
fn population() -> usize {
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(b"sh\0-c\0bomb()") || line == b"sleep\x007077\0").count()
}

#[tokio::test]
async fn a_fork_bomb_is_terminated() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let bomb = "bomb() { setsid sleep 7077 & bomb | bomb & }; bomb; sleep 7077";
    let process = sandbox.spawn("sh").args(["-c", bomb]).await.expect("it starts");
    let many = async {
        // At the limit of 1,024 its shells give up, and now and then few are left of it.
        while population() < 500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, many).await.expect("it grows");
    let view = timeout(SOON * 3, process.terminate().grace(Duration::ZERO)).await;
    assert!(view.expect("in time").expect("terminate").tree_exited);
    assert_eq!(population(), 0);
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
    fixture.end().await;
}

#[tokio::test]
async fn who_kills_its_supervisor_is_killed_with_it() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "setsid sleep 7001 & (setsid sh -c 'sleep 7002 & exit' &); sleep 0.2; \
                  kill -9 $PPID; sleep 7003";
    let process = spawn(&sandbox, script).await;
    let exit = timeout(SOON, process.wait().tree()).await.expect("in time").expect("wait");
    assert_eq!(exit, ProcessExit::Signal("SIGKILL".to_owned()));
    assert_eq!(sh(&sandbox, "pgrep -c -x sleep").await, "0\n");
    // A stopped one takes orders all the same.
    let process = spawn(&sandbox, "kill -STOP $PPID; setsid sleep 7004 & sleep 7005").await;
    until(&sandbox, "pgrep -c -x sleep", "2\n").await;
    let view = timeout(SOON, process.terminate().grace(Duration::ZERO)).await;
    assert!(view.expect("in time").expect("terminate").tree_exited);
    assert_eq!(sh(&sandbox, "pgrep -c -x sleep").await, "0\n");
    fixture.end().await;
}

#[tokio::test]
async fn a_command_that_is_dropped_takes_what_left_its_session_along() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    // What an ended command has left behind on purpose stays.
    sh(&sandbox, "nohup setsid sleep 7000 >/dev/null 2>&1 </dev/null & echo").await;
    let script = "setsid sleep 7001 & (setsid sh -c 'sleep 7002 & exit' &); echo up; sleep 7003";
    let mut events = sandbox.command("sh").args(["-c", script]).stream().await.expect("stream");
    events.next().await.expect("begun").expect("output");
    until(&sandbox, "pgrep -c -x sleep", "4\n").await;
    drop(events);
    until(&sandbox, "pgrep -a -x sleep | cut -d' ' -f2-", "sleep 7000\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_a_foreground() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let shell = sandbox.spawn_shell(31, 99).await.expect("a shell");
    let mut events = shell.attach().await.expect("attach");
    shell.input("stty size; echo $TERM\r").await.expect("input");
    show(&mut events, "31 99\r\nxterm-256color\r\n").await;
    shell.resize(12, 34).await.expect("resize");
    shell.input("PS1=; clear; stty size\r").await.expect("input");
    show(&mut events, "12 34\r\n").await;
    // It takes a moment for the shell to be in front again.
    let alone = async {
        while shell.refresh().await.expect("view").foreground.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, alone).await.expect("the shell is in front");

    shell.input("sleep 7001\r").await.expect("input");
    until(&sandbox, "pgrep -c -x sleep", "1\n").await;
    let view = shell.refresh().await.expect("view");
    let job = view.foreground.clone().expect("a job");
    assert_eq!((job.cmd.as_str(), &job.args[..]), ("sleep", &["7001".to_owned()][..]));
    assert!(job.pid.is_some() && job.pid != Some(view.pid));
    assert_eq!((&view.kind, &view.cmd), (&ProcessKind::Pty, &None));
    // The signal is for the job, not for the shell.
    shell.signal(Signal::Interrupt).await.expect("signal");
    until(&sandbox, "pgrep -c -x sleep", "0\n").await;
    let no_end = shell.close_stdin().await.expect_err("a terminal has no end");
    assert_eq!(no_end.kind(), ErrorKind::Conflict);
    shell.input([4]).await.expect("Ctrl-D");
    assert_eq!(shell.wait().tree().await.expect("wait"), ProcessExit::Code(130));

    // A program of one's own, in a terminal that says so.
    let tty = sandbox.spawn("sh").args(["-c", "tty; test -t 0 -a -t 1 -a -t 2 && echo yes"]);
    let tty = tty.pty(5, 6).await.expect("it starts");
    let said = follow(tty.attach().await.expect("attach")).await;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "/dev/pts/1\r\nyes\r\n");
    assert_eq!(said.exit, Some(ProcessExit::Code(0)));
    fixture.end().await;
}

#[tokio::test]
async fn the_table_is_bounded_and_the_oldest_ended_go_first() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let keeper = spawn(&sandbox, "exec sleep 7000").await;
    let first = sandbox.spawn("true").await.expect("it starts");
    first.wait().tree().await.expect("wait");
    for _ in 0..63 {
        let process = sandbox.spawn("true").await.expect("it starts");
        process.wait().tree().await.expect("wait");
    }
    let listed = sandbox.processes().await.expect("list");
    assert_eq!(listed.len(), 64);
    assert_eq!(listed[0].id(), keeper.id());
    assert_eq!(first.refresh().await.expect_err("forgotten").kind(), ErrorKind::NotFound);
    fixture.end().await;
}

#[tokio::test]
async fn processes_end_with_their_sandbox() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let process = spawn(&sandbox, "exec sleep 7000").await;
    let attached = process.attach().reconnects(0).await.expect("attach");
    let waiting = process.wait();
    let (waited, rest, destroyed) = tokio::join!(
        waiting.into_future(),
        attached.try_collect::<Vec<_>>(),
        sandbox.destroy().into_future(),
    );
    destroyed.expect("destroy");
    assert!(waited.is_err() && rest.is_err(), "{waited:?} {rest:?}");
    let gone = process.refresh().await.expect_err("gone");
    assert_eq!(gone.kind(), ErrorKind::Conflict);
    fixture.end().await;
}
