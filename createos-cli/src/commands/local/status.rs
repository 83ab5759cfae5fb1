//! `createos local status`.

use createos_sdk::wire::SandboxStats;
use serde_json::json;

use crate::commands::Exit;
use crate::context::{Context, Credential, KeySource, Target};
use crate::failure::Failure;
use crate::output::format;
use crate::store::local::{LocalEngine, Store};

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let Some(engine) = Store::open(&ctx.paths)?.load()? else {
        ctx.out.result(&json!({ "running": false }), || "The local engine is not running.")?;
        ctx.out.hint("start it: createos local start");
        return Ok(Exit::Code(1));
    };
    if !engine.is_alive() {
        let document = json!({ "running": false, "data_dir": engine.data_dir });
        ctx.out.result(&document, || {
            format!("The local engine is not running (process {} has ended).", engine.pid)
        })?;
        ctx.out.hint("start it again, its sandboxes are kept: createos local start");
        return Ok(Exit::Code(1));
    }
    // An engine that runs but does not answer is worth an error.
    let stats = stats(&engine, ctx).await?;
    show(ctx, &engine, &stats)?;
    Ok(Exit::Success)
}

/// Asks the engine itself, with its own key, whatever the commands' target is.
async fn stats(engine: &LocalEngine, ctx: &Context) -> Result<SandboxStats, Failure> {
    let key = engine.api_key.clone();
    let credential = Credential::Key { key, source: KeySource::LocalEngine };
    let client = ctx.client(&Target::Local(engine.clone()), &credential)?;
    let answer = client.whoami().await;
    let who = answer.map_err(|error| {
        let failure = Failure::from(error);
        let text = format!("the local engine does not answer: {}", failure.message());
        failure.saying(text).hint("createos local stop; createos local start")
    })?;
    Ok(who.stats)
}

fn show(ctx: &Context, engine: &LocalEngine, stats: &SandboxStats) -> Result<(), Failure> {
    let document = json!({
        "running": true,
        "url": engine.url,
        "pid": engine.pid,
        "version": engine.version,
        "data_dir": engine.data_dir,
        "active": engine.active,
        "sandboxes": stats,
    });
    ctx.out.result(&document, || {
        let target = if engine.active { "yes" } else { "no (createos local start to use it)" };
        let rows = [
            ("url", engine.url.clone()),
            ("process", engine.pid.to_string()),
            ("version", engine.version.clone()),
            ("state in", engine.data_dir.display().to_string()),
            ("used by commands", target.to_owned()),
            (
                "sandboxes",
                format!(
                    "{} running, {} paused, {} other",
                    stats.running, stats.paused, stats.other
                ),
            ),
        ];
        format::details("The local engine is running.", &rows)
    })
}
