//! `createos sandbox offload`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use createos_sdk::{LocalTree, ProcessExit, Sandbox};
use serde_json::json;

use super::job::{self, BoxArgs, Boxes, Program, Sink, WORK};
use crate::commands::{Exit, ending};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Payload, Spinner, format};
use crate::resolve::Found;

/// Run one command on a sandbox that is there for it alone
///
/// The directory is sent to /work and the command runs there, in bash. In a git
/// work tree that is what git tracks, and new files that it does not ignore;
/// elsewhere all but .git, node_modules, target and the like. The exit code is
/// the command's. The sandbox is destroyed in every outcome.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox offload . -- make test
  createos sandbox offload . --fetch report.xml --timeout 20m -- ./ci.sh
  createos sandbox offload . --egress pypi.org -- 'pip install . && pytest'
  createos sandbox offload ./site --shape s-2vcpu-4gb -- npm run build")]
pub(super) struct OffloadArgs {
    /// The directory to send
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The command; its words are joined with blanks and run by bash
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,

    /// Bring this path back when the command has ended; relative to /work
    /// (repeatable)
    #[arg(long, value_name = "PATH", value_parser = relative)]
    fetch: Vec<String>,

    /// Keep the sandbox when the command fails
    #[arg(long)]
    keep_on_fail: bool,

    #[command(flatten)]
    sandbox: BoxArgs,
}

fn relative(text: &str) -> Result<String, String> {
    let text = text.trim();
    let parts = || text.split('/').filter(|part| !part.is_empty() && *part != ".");
    if text.starts_with('/') || parts().next().is_none() || parts().any(|part| part == "..") {
        return Err("write it relative to the directory, without .., such as out/report".to_owned());
    }
    Ok(text.to_owned())
}

/// What came of the command.
struct Ran {
    sandbox: Sandbox,
    exit: ProcessExit,
    millis: u64,
    /// It stays although it failed.
    kept: bool,
}

pub(super) async fn run(args: OffloadArgs, ctx: &Context) -> Result<Exit, Failure> {
    let line = args.command.join(" ");
    if line.trim().is_empty() {
        return Err(Failure::usage("which command? write it behind --"));
    }
    let tree = job::select(ctx, &args.dir, &args.sandbox).await?;
    job::say_if_open(&args.sandbox, ctx);
    let boxes = Boxes::default();
    let work = work(ctx, &boxes, &args, &tree, &line);
    let (ended, left) = job::guarded(ctx, &boxes, work).await;
    let teardown_failure = left.first().map(job::Left::text);
    left.iter().for_each(|left| left.warn(ctx));
    let ran = ended?;
    if ctx.out.is_json() {
        ctx.out.document(&json!({
            "sandbox": ran.sandbox.id().as_str(),
            "command": line,
            "exit_code": ran.exit.code(),
            "duration_ms": ran.millis,
            "teardown_failure": teardown_failure,
            "kept": ran.kept,
        }))?;
    }
    let code = ending::code(ctx, &ran.exit);
    Ok(match code {
        _ if teardown_failure.is_some() => Exit::Code(1),
        0 => Exit::Success,
        code => Exit::Code(code),
    })
}

async fn work(
    ctx: &Context,
    boxes: &Boxes,
    args: &OffloadArgs,
    tree: &LocalTree,
    line: &str,
) -> Result<Ran, Failure> {
    let (sandbox, found) = job::create(ctx, boxes, &args.sandbox, "offload").await?;
    job::upload(ctx, &sandbox, &found, tree).await?;
    let started = Instant::now();
    let mut sink = match ctx.out.is_json() {
        true => Sink::Stderr(Payload::new()),
        false => Sink::Ours(Payload::new()),
    };
    let timeout = args.sandbox.timeout;
    let program = Program { ctx, sandbox: &sandbox, found: &found, line, ours: true, timeout };
    let exit = program.run(&mut sink).await?;
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let fetched = fetch(ctx, args, &sandbox, &found).await;
    let failed = !exit.success();
    let kept = failed && args.keep_on_fail;
    if kept {
        boxes.keep(&sandbox);
        ctx.out.note(&format!(
            "{} is kept, and costs money until it is removed\n  \
             look into it:  createos sandbox shell {found}\n  \
             remove it:     createos sandbox rm {found} --force",
            found.label(),
            found = found.handle(),
        ));
    }
    match fetched {
        // How the command ended says more.
        Err(failure) if failed => ctx.out.warn(failure.message()),
        fetched => fetched?,
    }
    Ok(Ran { sandbox, exit, millis, kept })
}

async fn fetch(
    ctx: &Context,
    args: &OffloadArgs,
    sandbox: &Sandbox,
    found: &Found,
) -> Result<(), Failure> {
    if args.fetch.is_empty() {
        return Ok(());
    }
    let spinner = Spinner::start(ctx.out.terminal(), "fetching".to_owned());
    let fetched = sandbox.files().download_paths(WORK, &args.fetch, &args.dir).await;
    drop(spinner);
    let fetched = fetched.map_err(|error| found.explain(error))?;
    let moved = &fetched.summary;
    let skipped = match moved.skipped {
        0 => String::new(),
        skipped => format!("; {skipped} that are no plain files were left out"),
    };
    let size = format::bytes(moved.bytes);
    ctx.out.note(&format!("fetched {} files, {size}{skipped}", moved.files));
    match fetched.missing.as_slice() {
        [] => Ok(()),
        missing => Err(Failure::local(format!("not there to be fetched: {}", missing.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetched_paths_stay_inside() {
        for path in ["out", "./out/x", "a/b/", "..x"] {
            assert!(relative(path).is_ok(), "{path}");
        }
        for path in ["", ".", "./", "/out", "../out", "a/../b", "a/.."] {
            assert!(relative(path).is_err(), "{path}");
        }
    }
}
