//! `createos local serve`: the engine in the foreground.

use createos_local::Engine;
use serde_json::json;

use super::{EngineArgs, ServeArgs, data_dir};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::signals::Signals;

pub(super) async fn run(args: ServeArgs, ctx: &Context) -> Result<Exit, Failure> {
    if args.detached {
        // Fails only for a process that leads its session already.
        let _ = rustix::process::setsid();
    }
    log(ctx);
    let mut signals = Signals::listen().map_err(|error| Failure::io("cannot start", &error))?;
    let engine = tokio::select! {
        engine = start(args.engine) => engine?,
        exit = signals.exit_code() => return Err(Failure::interrupted(exit)),
    };
    announce(&engine, ctx)?;
    signals.exit_code().await;
    ctx.out.note("stopping");
    tokio::select! {
        () = engine.shutdown() => Ok(Exit::Success),
        // Whoever asks twice does not want to wait.
        exit = signals.exit_code() => Err(Failure::interrupted(exit)),
    }
}

/// What the engine has to say goes to standard error, which `local start`
/// connects to the log file.
fn log(ctx: &Context) {
    let logging = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(ctx.out.terminal().stderr && console::colors_enabled_stderr())
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .try_init();
    // Only a second engine in this process could have been here before.
    debug_assert!(logging.is_ok());
}

async fn start(args: EngineArgs) -> Result<Engine, Failure> {
    let mut builder =
        Engine::builder().data_dir(data_dir(args.data_dir)?).allow_nesting(args.allow_nesting);
    if let Some(addr) = args.listen {
        builder = builder.listen(addr);
    }
    builder.start().await.map_err(|error| Failure::local(error.to_string()))
}

/// Says that the engine serves. The text does not show the key: terminals are
/// recorded and shared.
fn announce(engine: &Engine, ctx: &Context) -> Result<(), Failure> {
    if ctx.out.is_json() {
        let line = json!({
            "url": engine.url(),
            "api_key": engine.api_key().expose(),
            "pid": std::process::id(),
        });
        return ctx.out.raw(&format!("{line}\n"));
    }
    ctx.out.text(format!(
        "Serving {}, state in {}. Ctrl+C ends it.\n\
         To use it from another terminal:\n  \
         export CREATEOS_SANDBOX_URL={}\n  \
         export CREATEOS_API_KEY=\"$(cat {})\"",
        engine.url(),
        engine.data_dir().display(),
        engine.url(),
        engine.data_dir().join("api.key").display(),
    ))
}
