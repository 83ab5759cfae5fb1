//! Desktops that are paused, forked, and started again.

use std::process::Command;
use std::time::Duration;

use createos_local::Engine;
use createos_sdk::computer::Computer;
use createos_sdk::{ErrorKind, Sandbox};
use createos_tests::{EngineProcess, sh, until};
use tokio::time::{sleep, timeout};

/// Far more than anything takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

async fn window(computer: &Computer) {
    let window = async {
        loop {
            match computer.windows().application("xterm").await.expect("windows").pop() {
                Some(window) => return window,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let window = timeout(PATIENCE, window).await.expect("a window");
    computer.window(window.id).focus().await.expect("focus");
}

/// What is typed into the terminal that has the focus is done.
async fn works(sandbox: &Sandbox, mark: &str) {
    let computer = sandbox.computer();
    let text = format!("echo {mark} 漢字 $RANDOM_MARK >/tmp/{mark}\n");
    computer.keyboard().type_text(text).await.expect("type");
    until(sandbox, &format!("cat /tmp/{mark}"), &format!("{mark} 漢字 kept\n")).await;
    assert!(!computer.screenshot().await.expect("a picture").is_empty());
}

async fn token(sandbox: &Sandbox) -> String {
    let connecting = async {
        loop {
            let screen = "screen-0".parse::<createos_sdk::ScreenId>().expect("an id");
            match sandbox.computer().screen(screen).connect().await {
                Ok(connection) => return connection.token.expose().to_owned(),
                Err(error) if error.message().contains("desktop_unavailable") => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, connecting).await.expect("a link")
}

/// What the tokens' keeper inside says of one: where it leads, if anywhere.
async fn leads(sandbox: &Sandbox, token: &str) -> String {
    let ask = "import sys; sys.path.insert(0, '/run/createos-desktop'); import createos_tokens; \
               print(createos_tokens.Tokens('/run/createos-desktop/token-0').lookup(sys.argv[1]))";
    let output = sandbox.command("python3").args(["-c", ask, token]).output().await.expect("ask");
    output.stdout_str().expect("text").trim().to_owned()
}

/// Pauses a desktop in which something is going on, and goes on with it; says whether it was
/// paused in memory.
async fn goes_on(engine: &Engine) -> bool {
    let creating = engine.client().create_sandbox("s-1vcpu-1gb").rootfs("desktop:1").ingress(true);
    let sandbox = creating.await.expect("a sandbox with a desktop");
    let computer = sandbox.computer();
    computer.wait_until_ready().await.expect("the desktop comes up");
    computer.launch("xterm").await.expect("launch");
    window(&computer).await;
    // The shell's memory is what is kept.
    computer.keyboard().type_text("RANDOM_MARK=kept\n").await.expect("type");
    works(&sandbox, "before").await;
    let token = token(&sandbox).await;
    assert_eq!(leads(&sandbox, &token).await, "['127.0.0.1', '5900']");

    sandbox.pause().await.expect("pause");
    let view = sandbox.refresh().await.expect("view");
    let frozen = view.status_reason.is_some();
    let refused = computer.screenshot().await.expect_err("it is paused");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let twin = if frozen { None } else { Some(sandbox.fork().await.expect("fork")) };

    sandbox.resume().await.expect("resume");
    works(&sandbox, "after").await;
    // Links outlive a pause, and lead nowhere in a copy.
    assert_eq!(leads(&sandbox, &token).await, "['127.0.0.1', '5900']");
    if let Some(twin) = twin {
        works(&twin, "twin").await;
        assert_eq!(leads(&twin, &token).await, "None");
        assert_eq!(sh(&sandbox, "ls /tmp/twin 2>/dev/null || :").await, "");
        twin.destroy().await.expect("destroy");
    }
    // One supervisor each, also after the engine has looked after it again.
    assert_eq!(sh(&sandbox, "pgrep -fc '[s]ession run 0'").await, "1\n");
    sandbox.destroy().await.expect("destroy");
    frozen
}

#[tokio::test]
async fn a_desktop_goes_on_from_disk() {
    let engine = Engine::builder().ephemeral().start().await.expect("the engine starts");
    assert!(!goes_on(&engine).await, "it was paused in memory; see `createos local doctor`");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_desktop_goes_on_from_memory() {
    let engine = Engine::builder().ephemeral().criu("/no/criu").start().await;
    let engine = engine.expect("the engine starts");
    assert!(goes_on(&engine).await);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_desktop_that_is_booted_again_has_its_screens() {
    let data = tempfile::tempdir().expect("a directory");
    let program = env!("CARGO_BIN_EXE_createos-tests-engine");
    let engine = EngineProcess::start(Command::new(program).arg(data.path()));
    let creating = engine.client.create_sandbox("s-1vcpu-1gb").rootfs("desktop:1");
    let sandbox = creating.await.expect("a sandbox with a desktop");
    let computer = sandbox.computer();
    computer.wait_until_ready().await.expect("the desktop comes up");
    let second = computer.create_screen(Some((640, 480).into())).await.expect("a screen");
    computer.screen(second.screen_id).resize((800, 600)).await.expect("resize");
    let id = sandbox.id().clone();
    engine.kill();

    let engine = EngineProcess::start(Command::new(program).arg(data.path()));
    let sandbox = engine.client.sandbox(&id);
    sandbox.resume().await.expect("resume");
    let computer = sandbox.computer();
    computer.wait_until_ready().await.expect("the desktop comes up");
    computer.on_screen(second_id()).wait_until_ready().await.expect("the second as well");
    let screens = computer.screens().await.expect("screens");
    let sizes: Vec<_> = screens.iter().map(|screen| (screen.width, screen.height)).collect();
    assert_eq!(sizes, [(1280, 800), (800, 600)]);

    // Whatever of it is killed comes back.
    for victim in ["[X]tigervnc :0", "[s]ession run 0", "[o]penbox"] {
        sh(&sandbox, &format!("pkill -9 -f '{victim}' || :")).await;
        sleep(Duration::from_millis(300)).await;
        computer.wait_until_ready().await.unwrap_or_else(|error| panic!("{victim}: {error}"));
    }
    sandbox.destroy().await.expect("destroy");
    engine.end();
}

fn second_id() -> createos_sdk::ScreenId {
    "screen-1".parse().expect("an id")
}
