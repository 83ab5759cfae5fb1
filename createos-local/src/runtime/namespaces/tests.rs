//! The runtime on the real kernel.

use super::*;
use crate::runtime::{ExecEvent, ExitReason, Limits};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

struct Machine {
    runtime: Namespaces,
    id: SandboxId,
    _data: tempfile::TempDir,
}

const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";

fn spec(id: &SandboxId) -> BootSpec {
    BootSpec {
        id: id.clone(),
        name: "calm-heron".to_owned(),
        rootfs: crate::runtime::HOST_ROOTFS.to_owned(),
        ip: [10, 0, 4, 17].into(),
        limits: Limits { memory_bytes: 256 << 20, cpu_percent: 100, max_processes: 128 },
    }
}

impl Machine {
    async fn boot() -> Self {
        let data = tempfile::tempdir().expect("directory");
        let runtime = Namespaces::start(data.path(), None).expect("runtime");
        let id: SandboxId = ID.parse().expect("id");
        runtime.boot(spec(&id)).await.expect("boot");
        Self { runtime, id, _data: data }
    }

    async fn run(&self, script: &str) -> (String, String, ExitReason) {
        self.exec("sh", &["-c", script], None).await.expect("command starts")
    }

    async fn exec(
        &self,
        program: &str,
        args: &[&str],
        stdin: Option<Bytes>,
    ) -> Result<(String, String, ExitReason), RuntimeError> {
        let spec = ExecSpec {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: [("STAGE".to_owned(), "test".to_owned())].into(),
            stdin,
        };
        let mut events = self.runtime.exec(&self.id, spec).await?;
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
    let (out, ..) =
        machine.run("ls /home /root | grep -v :; cat /proc/1/comm; ls /proc/1/fd").await;
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
    let mut file = machine.runtime.write_file(&machine.id, "/a/b/c").await.expect("open");
    file.write(content.clone()).await.expect("write");
    assert_eq!(file.commit().await.expect("commit"), content.len() as u64);
    let read = machine.runtime.read_file(&machine.id, "/a/b/c").await.expect("read");
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
    assert_eq!(machine.runtime.on_disk().await.expect("list"), [machine.id.clone()]);
    machine.runtime.boot(spec(&machine.id)).await.expect("boot again");
    assert_eq!(machine.run("cat /root/f; pgrep sleep").await.0, "hi\n");
    machine.runtime.remove(&machine.id).await.expect("remove");
    assert!(machine.runtime.on_disk().await.expect("list").is_empty());
    machine.runtime.shutdown().await;
}
