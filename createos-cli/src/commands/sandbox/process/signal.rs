//! `createos sandbox process signal`.

use clap::Args;
use createos_sdk::wire::Signal;
use serde_json::json;

use super::end;
use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Send a signal to a process, or to what is in front at its terminal
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process signal my-box proc_01k... SIGHUP
  createos sandbox process signal my-box proc_01k... int")]
pub(super) struct SignalArgs {
    /// Name or id of the sandbox
    sandbox: String,

    /// Id of the process, as list shows it
    process: String,

    /// Its name, with or without SIG: HUP, INT, QUIT, KILL, TERM, USR1, USR2, WINCH
    #[arg(value_parser = end::signal)]
    signal: Signal,
}

pub(super) async fn run(args: SignalArgs, ctx: &Context) -> Result<Exit, Failure> {
    let signal = args.signal;
    let target = ProcessRef::named(args.sandbox, args.process);
    let Some((place, process)) = target.find(ctx).await? else { return Ok(Exit::Success) };
    place.on_running(ctx, async || process.signal(signal.clone()).await).await?;
    let document = json!({
        "action": "process_signalled",
        "sandbox_id": place.found.id.as_str(),
        "process_id": process.id().as_str(),
        "signal": signal.as_str(),
    });
    ctx.out.result(&document, || format!("sent {signal} to {}", process.id()))?;
    Ok(Exit::Success)
}
