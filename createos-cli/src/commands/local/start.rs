//! `createos local start`: the engine in the background.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{EngineArgs, data_dir};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Spinner;
use crate::store::local::{LocalEngine, Store, started_at};

/// The first start on a machine prepares files.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of the log that are shown when a start fails.
const LOG_LINES: usize = 5;
/// What the engine announces fits easily.
const MAX_ANNOUNCEMENT: u64 = 64 * 1024;

/// The first line of `createos local serve --output json`.
#[derive(Deserialize)]
struct Announcement {
    url: String,
    api_key: String,
    pid: u32,
}

/// What it prints instead when it cannot serve.
#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

/// Where an engine in the background writes what it has to say.
pub(super) fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("engine.log")
}

pub(super) async fn run(args: EngineArgs, ctx: &Context) -> Result<Exit, Failure> {
    let store = Store::open(&ctx.paths)?;
    let recorded = store.load()?;
    if let Some(engine) = recorded.as_ref().filter(|engine| engine.is_alive()) {
        return keep(engine, &args, &store, ctx);
    }
    // An engine that ended keeps its directory, and with it its sandboxes.
    let before = recorded.map(|engine| engine.data_dir);
    let dir = data_dir(args.data_dir.clone().or(before))?;
    let engine = {
        let _spinner = Spinner::start(ctx.out.terminal(), "starting the engine".to_owned());
        launch(&args, &dir).await?
    };
    store.save(&engine)?;
    show(&engine, "started", ctx)?;
    Ok(Exit::Success)
}

/// One engine is enough; commands use it again if they did not.
fn keep(
    engine: &LocalEngine,
    args: &EngineArgs,
    store: &Store,
    ctx: &Context,
) -> Result<Exit, Failure> {
    let elsewhere = args
        .data_dir
        .as_ref()
        .is_some_and(|dir| std::path::absolute(dir).ok().as_ref() != Some(&engine.data_dir));
    if elsewhere || args.listen.is_some_and(|addr| !engine.url.ends_with(&addr.to_string())) {
        let text = format!("the local engine runs already, at {}", engine.url);
        return Err(Failure::new(Class::Conflict, text)
            .hint("stop it first: createos local stop\nor run another: createos local serve"));
    }
    let engine = LocalEngine { active: true, ..engine.clone() };
    store.save(&engine)?;
    show(&engine, "already_running", ctx)?;
    Ok(Exit::Success)
}

fn show(engine: &LocalEngine, action: &str, ctx: &Context) -> Result<(), Failure> {
    let document = json!({
        "action": action,
        "url": engine.url,
        "pid": engine.pid,
        "version": engine.version,
        "data_dir": engine.data_dir,
    });
    ctx.out.result(&document, || {
        let how = if action == "started" { "started" } else { "was running already" };
        format!(
            "The local engine {how}: {} (process {}).\nCommands use it from now on.",
            engine.url, engine.pid
        )
    })?;
    ctx.out.hint("next: createos sandbox create --shape s-1vcpu-256mb --name my-box");
    Ok(())
}

async fn launch(args: &EngineArgs, dir: &Path) -> Result<LocalEngine, Failure> {
    let log = log_file(dir);
    let mut child = spawn(args, dir, &log)?;
    let announced = tokio::time::timeout(PATIENCE, announcement(&mut child)).await;
    let first = match announced {
        Ok(Ok(announcement)) => return recorded(announcement, dir),
        Ok(Err(first)) => first,
        Err(_) => {
            // It does not serve, so it must not stay behind.
            let _ = child.kill().await;
            let text = "the engine was not ready after 60s";
            return Err(Failure::new(Class::Timeout, text).hint(see(&log)));
        }
    };
    // Without an announcement it is on its way out.
    let _ = child.wait().await;
    Err(reason(&first, &log))
}

/// Spawns `createos local serve` in a session of its own.
fn spawn(args: &EngineArgs, dir: &Path, log: &Path) -> Result<Child, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::io("cannot find this program's file", &error))?;
    let errors = open_log(dir, log)
        .map_err(|error| Failure::io(format!("cannot write {}", log.display()), &error))?;
    let mut command = Command::new(program);
    command.args(["local", "serve", "--detached", "--output", "json", "--data-dir"]).arg(dir);
    if args.allow_nesting {
        command.arg("--allow-nesting");
    }
    if let Some(listen) = args.listen {
        command.arg("--listen").arg(listen.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    command.spawn().map_err(|error| Failure::io("cannot start the engine", &error))
}

/// The directory is private, as the engine demands.
fn open_log(dir: &Path, log: &Path) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(log)
}

/// Reads the first line; the error is what came instead.
async fn announcement(child: &mut Child) -> Result<Announcement, String> {
    let Some(stdout) = child.stdout.take() else { return Err(String::new()) };
    let mut reader = BufReader::new(stdout.take(MAX_ANNOUNCEMENT));
    let mut text = String::new();
    // An unreadable line is explained by the log.
    let _ = reader.read_line(&mut text).await;
    if let Ok(announcement) = serde_json::from_str(&text) {
        return Ok(announcement);
    }
    let _ = reader.read_to_string(&mut text).await;
    Err(text)
}

fn recorded(announcement: Announcement, dir: &Path) -> Result<LocalEngine, Failure> {
    let Announcement { url, api_key, pid } = announcement;
    let started = started_at(pid).ok_or_else(|| {
        Failure::local("the engine ended right after its start").hint(see(&log_file(dir)))
    })?;
    Ok(LocalEngine {
        url,
        api_key,
        pid,
        started,
        data_dir: dir.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        active: true,
    })
}

/// What the engine said, else the end of its log.
fn reason(first: &str, log: &Path) -> Failure {
    if let Ok(refusal) = serde_json::from_str::<Refusal>(first) {
        return Failure::local(refusal.error.message)
            .hint("see what this machine can do: createos local doctor");
    }
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    Failure::local("the engine ended before it served").hint(format!("{tail}\n{}", see(log)))
}

fn see(log: &Path) -> String {
    format!("see why: {}", log.display())
}
