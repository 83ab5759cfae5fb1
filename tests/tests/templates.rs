//! Templates on the real engine: Dockerfiles whose commands really run (api.md 5.8, 6.8).

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use createos_local::{BuildLimits, Engine};
use createos_sdk::template::{BuildEvent, Template};
use createos_sdk::wire::{SandboxStatus, TemplateStatus};
use createos_sdk::{Client, ErrorKind, Sandbox};
use createos_tests::{EngineProcess, Fixture, sh};
use futures::TryStreamExt as _;

const SHAPE: &str = "s-1vcpu-256mb";

async fn submit(client: &Client, name: &str, rest: &str) -> Template {
    let dockerfile = format!("FROM nodeops/sandbox:debian\n{rest}");
    client.create_template(name, dockerfile).await.unwrap()
}

async fn build(client: &Client, name: &str, rest: &str) -> Template {
    let template = submit(client, name, rest).await;
    if let Err(error) = template.wait_until_ready().await {
        panic!("{error}\n{}", template.logs().await.unwrap());
    }
    template
}

/// Builds what must fail, and returns its log.
async fn fail(client: &Client, name: &str, rest: &str) -> String {
    let template = submit(client, name, rest).await;
    let error = template.wait_until_ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{error}");
    template.logs().await.unwrap()
}

async fn sandbox_of(client: &Client, rootfs: &str) -> Sandbox {
    let created = client.create_sandbox(SHAPE).rootfs(rootfs).await;
    created.unwrap_or_else(|error| panic!("no sandbox of {rootfs}: {error}"))
}

#[tokio::test]
async fn a_template_has_what_its_commands_made_and_what_it_declared() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let rest = "\
ARG WHAT=tools
ENV TOOLS=/opt/$WHAT PATH=/opt/tools:$PATH
RUN mkdir -p $TOOLS && echo 'echo hello from the template' >$TOOLS/greet \\
    # a comment in the middle
    && chmod +x $TOOLS/greet
RUN [\"sh\", \"-c\", \"echo $WHAT >/usr/share/what; rm -r /usr/share/doc\"]
SHELL [\"/bin/bash\", \"-c\"]
RUN [[ $WHAT == t* ]] && echo bash
WORKDIR /srv
WORKDIR app
RUN pwd >where && id -un >who
USER www-data
RUN id -un; id -gn; echo $HOME; touch /tmp/mine; ! touch /srv/not-mine
LABEL a=b
VOLUME /data
CMD [\"greet\"]
";
    let template = build(client, "tools", rest).await;
    let view = template.refresh().await.unwrap();
    assert_eq!(
        (view.status.clone(), view.base.as_str()),
        (TemplateStatus::Ready, "nodeops/sandbox:debian")
    );
    assert!(view.ext4_size_bytes > 0 && view.built_at.is_some());
    let log = template.logs().await.unwrap();
    for said in ["\nbash\n", "\nwww-data\nwww-data\n/var/www\n", "Built: "] {
        assert!(log.contains(said), "{said:?} in {log}");
    }

    for rootfs in ["tools", template.id().as_str()] {
        let sandbox = sandbox_of(client, rootfs).await;
        // It has a name of its own, and not that of what built it.
        let name =
            sh(&sandbox, "uname -n; cat /etc/hostname; getent hosts $(uname -n) | wc -l").await;
        let own = sandbox.refresh().await.unwrap().name.clone().unwrap();
        assert_eq!(name, format!("{own}\n{own}\n1\n"));
        let said = sh(&sandbox, "greet; cat /usr/share/what; pwd; id -un; cat where who").await;
        assert_eq!(said, "hello from the template\ntools\n/srv/app\nwww-data\n/srv/app\nroot\n");
        assert_eq!(
            sh(&sandbox, "ls -d /data /usr/share/doc 2>/dev/null; echo $WHAT").await,
            "/data\n\n"
        );
        sandbox.destroy().await.unwrap();
    }
    fixture.end().await;
}

#[tokio::test]
async fn sandboxes_of_a_template_are_apart_and_outlive_it() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let template = build(client, "t", "RUN echo built >/root/f && echo u >/usr/local/f").await;
    let (one, two) = (sandbox_of(client, "t").await, sandbox_of(client, "t").await);
    sh(&one, "echo mine >/root/f; rm /usr/local/f").await;
    assert_eq!(sh(&two, "cat /root/f /usr/local/f").await, "built\nu\n");
    two.pause().await.unwrap();
    template.delete().await.unwrap();

    let error = client.create_sandbox(SHAPE).rootfs("t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = client.create_sandbox(SHAPE).rootfs(template.id().as_str()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(client.get_template("t").await.unwrap_err().kind(), ErrorKind::NotFound);
    two.resume().await.unwrap();
    assert_eq!(sh(&two, "cat /root/f /usr/local/f").await, "built\nu\n");
    assert_eq!(sh(&one, "cat /root/f; ls /usr/local/f 2>&1 | wc -l").await, "mine\n1\n");
    one.pause().await.unwrap();
    let fork = one.fork().await.unwrap();
    assert_eq!(sh(&fork, "cat /root/f").await, "mine\n");

    // Its layer goes with the last one that has it.
    let layers = fixture.engine.data_dir().join("layers");
    assert!(std::fs::read_dir(&layers).unwrap().count() > 0);
    for sandbox in [one, two, fork] {
        sandbox.destroy().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 0);
    let templates = fixture.engine.data_dir().join("templates");
    assert_eq!(std::fs::read_dir(templates).unwrap().count(), 0);
    fixture.end().await;
}

#[tokio::test]
async fn a_template_comes_back_with_the_next_engine() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Engine::builder().data_dir(dir.path().join("data")).start();
    let engine = start().await.unwrap();
    let client = engine.client();
    build(&client, "t", "RUN echo kept >/root/f\nUSER daemon\nWORKDIR /tmp").await;
    let before = sandbox_of(&client, "t").await;
    engine.shutdown().await;

    let engine = start().await.unwrap();
    let client = engine.client();
    let after = sandbox_of(&client, "t").await;
    assert_eq!(sh(&after, "id -un; pwd").await, "daemon\n/tmp\n");
    let before = client.sandbox(before.id());
    before.resume().await.unwrap();
    assert_eq!(sh(&before, "id -un; pwd").await, "daemon\n/tmp\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn builds_that_go_wrong_fail_with_a_log_and_leave_nothing() {
    let mut limits = BuildLimits::default();
    limits.time = Duration::from_secs(20);
    limits.output_bytes = 2 << 20;
    limits.disk_mib = 300;
    limits.processes = 64;
    limits.memory_bytes = 128 << 20;
    let engine = Engine::builder().ephemeral().build_limits(limits).start().await.unwrap();
    let client = engine.client();

    let log = fail(&client, "failing", "RUN echo so far; exit 3\nRUN echo never").await;
    assert!(
        log.contains("so far\nthe command failed with code 3") && !log.contains("Step 3"),
        "{log}"
    );
    let log = fail(&client, "full", "RUN head -c 500M /dev/zero >/f").await;
    assert!(log.contains("No space left on device"), "{log}");
    let log = fail(&client, "flood", "RUN yes").await;
    assert!(log.contains("wrote more than 2 MiB"), "{}", &log[log.len() - 200..]);
    let log = fail(&client, "nobody", "USER no-such-user").await;
    assert!(log.contains("there is no user or group \"no-such-user\""), "{log}");
    let log = fail(&client, "shell", "SHELL [\"/bin/nothing\"]\nRUN x").await;
    assert!(log.contains("cannot start \"/bin/nothing\""), "{log}");
    let log = fail(&client, "memory", "RUN head -c 1G /dev/zero | tail").await;
    assert!(log.contains("failed with code") || log.contains("killed"), "{log}");
    // What hangs in the background, or kills PID 1's children, holds nothing up.
    build(&client, "daemon", "RUN sleep 1000 >/dev/null 2>&1 &").await;
    let began = Instant::now();
    let log = fail(&client, "endless", "RUN sleep 1000").await;
    assert!(log.contains("took longer than 20 seconds"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(40));

    let sandboxes = engine.data_dir().join("sandboxes");
    assert_eq!(std::fs::read_dir(sandboxes).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(engine.data_dir().join("layers")).unwrap().count(), 1, "daemon's");
    engine.shutdown().await;
}

/// Images of layers that are open.
fn open_layers(data_dir: &std::path::Path) -> Vec<String> {
    let layers = data_dir.canonicalize().unwrap().join("layers");
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| file.starts_with(layers.to_str().unwrap())).collect()
}

#[tokio::test]
async fn layers_stay_open_for_the_next_sandbox_until_they_are_removed() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let template = build(client, "t", "RUN echo built >/root/f").await;
    let size = "df -m / | tail -n 1 | tr -s ' ' | cut -d' ' -f2";
    let plain = fixture.sandbox().await;
    let plain_size = sh(&plain, size).await;
    for _ in 0..2 {
        let sandbox = sandbox_of(client, "t").await;
        assert_eq!(sh(&sandbox, "cat /root/f").await, "built\n");
        assert_eq!(sh(&sandbox, size).await, plain_size, "what is built is not charged");
        sandbox.destroy().await.unwrap();
        sandbox.wait_until(SandboxStatus::Destroyed).await.unwrap();
        assert_eq!(open_layers(fixture.engine.data_dir()).len(), 1);
    }
    template.delete().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !open_layers(fixture.engine.data_dir()).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", open_layers(fixture.engine.data_dir()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn the_log_is_followed_while_it_is_written() {
    let fixture = Fixture::start().await;
    let template = submit(&fixture.client, "t", "RUN echo first; sleep 2; echo second").await;
    let mut log = template.logs().follow().await.unwrap();
    let mut first = None;
    loop {
        match log.try_next().await.unwrap().expect("an end") {
            BuildEvent::Line(line) if line.text == "first" => first = Some(Instant::now()),
            BuildEvent::Line(line) if line.text == "second" => {
                let apart = first.expect("in order").elapsed();
                assert!(apart > Duration::from_millis(1500), "it came while it was written");
            }
            BuildEvent::End(status) => {
                assert_eq!(status, TemplateStatus::Ready);
                break;
            }
            _ => {}
        }
    }
    assert!(log.try_next().await.unwrap().is_none());
    fixture.end().await;
}

#[tokio::test]
async fn an_engine_that_is_killed_leaves_a_failed_build_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_createos-tests-engine"));
        command.arg(&data);
        command
    };
    let engine = EngineProcess::start(&mut command());
    let template = submit(&engine.client, "t", "RUN echo begun; sleep 1000").await;
    let mut log = template.logs().follow().await.unwrap();
    while let Some(event) = log.try_next().await.unwrap() {
        if matches!(&event, BuildEvent::Line(line) if line.text == "begun") {
            break;
        }
    }
    engine.kill();
    let error = log.try_next().await.expect_err("it broke off");
    assert_eq!(error.kind(), ErrorKind::StreamLost, "{error}");

    let engine = EngineProcess::start(&mut command());
    let template = engine.client.get_template("t").await.unwrap();
    assert_eq!(template.view().unwrap().status, TemplateStatus::Failed);
    let log = template.logs().await.unwrap();
    assert!(log.contains("begun\nthe engine ended while this template was being built"), "{log}");
    assert_eq!(std::fs::read_dir(data.join("sandboxes")).unwrap().count(), 0);
    engine.end();
}

#[tokio::test]
async fn a_build_that_is_deleted_ends_with_its_processes() {
    let fixture = Fixture::start().await;
    let marker = "3141592";
    let template = submit(&fixture.client, "t", &format!("RUN sleep {marker}")).await;
    let runs = || {
        let found = Command::new("pgrep").args(["-f", &format!("^sleep {marker}$")]).output();
        found.expect("pgrep").status.success()
    };
    let begun = Instant::now();
    while !runs() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the command runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    template.delete().await.unwrap();
    let begun = Instant::now();
    while runs()
        || std::fs::read_dir(fixture.engine.data_dir().join("sandboxes")).unwrap().count() > 0
    {
        assert!(begun.elapsed() < Duration::from_secs(30), "it ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.end().await;
}
