//! `createos local stop`.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Spinner;
use crate::store::local::{LocalEngine, Store};

/// An engine ends its sandboxes first.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let store = Store::open(&ctx.paths)?;
    let Some(engine) = store.load()? else {
        return Err(Failure::local("the local engine is not running")
            .hint("an engine of `createos local serve` ends with Ctrl+C there"));
    };
    let stopped = terminate(&engine)?;
    if stopped {
        let _spinner = Spinner::start(ctx.out.terminal(), "waiting for the engine".to_owned());
        ended(&engine).await?;
    }
    store.clear()?;
    let document = json!({ "action": "stopped", "pid": engine.pid, "was_running": stopped });
    ctx.out.result(&document, || {
        let how = if stopped { "stopped" } else { "was not running any more" };
        format!("The local engine (process {}) {how}.", engine.pid)
    })?;
    Ok(Exit::Success)
}

/// Sends SIGTERM; `false` when the engine had ended before.
///
/// The number may belong to another process by now. A descriptor pins the
/// process, then its start time is compared, then the signal goes there.
fn terminate(engine: &LocalEngine) -> Result<bool, Failure> {
    let cannot = |error: rustix::io::Errno| {
        Failure::io(format!("cannot stop process {}", engine.pid), &error.into())
    };
    let Some(pid) = i32::try_from(engine.pid).ok().and_then(Pid::from_raw) else {
        return Ok(false);
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(cannot(error)),
    };
    if !engine.is_alive() {
        return Ok(false);
    }
    match pidfd_send_signal(process, Signal::TERM) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(cannot(error)),
    }
}

async fn ended(engine: &LocalEngine) -> Result<(), Failure> {
    let started = Instant::now();
    while engine.is_alive() {
        if started.elapsed() >= PATIENCE {
            let text = format!("process {} has not ended after 30s", engine.pid);
            return Err(Failure::new(Class::Timeout, text)
                .hint(format!("see why: {}", super::start::log_file(&engine.data_dir).display())));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
