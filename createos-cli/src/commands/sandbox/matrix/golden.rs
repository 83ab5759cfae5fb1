//! The sandbox that every job is cloned from.

use createos_sdk::LocalTree;
use createos_sdk::wire::SandboxStatus;

use super::{Golden, MatrixArgs};
use crate::commands::ending;
use crate::commands::sandbox::job::{self, Boxes, Program, Sink};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Payload, Spinner};
use crate::resolve::{self, Rules};

/// Makes one, sends the directory and prepares it.
pub(super) async fn make(
    ctx: &Context,
    boxes: &Boxes,
    args: &MatrixArgs,
    tree: &LocalTree,
) -> Result<Golden, Failure> {
    job::say_if_open(&args.sandbox, ctx);
    let (sandbox, found) = job::create(ctx, boxes, &args.sandbox, "matrix").await?;
    job::upload(ctx, &sandbox, &found, tree).await?;
    if let Some(line) = &args.prepare {
        ctx.out.note(&format!("preparing: {line}"));
        let timeout = args.sandbox.timeout;
        let program = Program { ctx, sandbox: &sandbox, found: &found, line, ours: true, timeout };
        // Standard output is for the result.
        let exit = program.run(&mut Sink::Stderr(Payload::new())).await?;
        if !exit.success() {
            let code = ending::code(ctx, &exit);
            return Err(Failure::local(format!("preparing failed with {code}: {line}"))
                .hint("no job was run"));
        }
    }
    Ok(Golden { sandbox, found, ours: true })
}

/// Takes one of the user's.
pub(super) async fn take(ctx: &Context, from: Option<&str>) -> Result<Golden, Failure> {
    let missing = || Failure::usage("which sandbox? its name or id is missing");
    // It is going to be paused, so its whole name is needed.
    let rules = Rules::CHANGE;
    let text = from.map(str::trim).filter(|text| !text.is_empty()).ok_or_else(missing)?;
    let found = resolve::sandbox(ctx, Some(text), rules).await?.ok_or_else(missing)?;
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let disks = sandbox.disks().await.map_err(|error| found.explain(error))?;
    if let Some(disk) = disks.first() {
        let (label, name) = (found.label(), found.handle());
        return Err(Failure::local(format!(
            "{label} has the disk {}, which clones would not have",
            disk.name
        ))
        .hint(format!(
            "take it out: createos sandbox disk detach {name} {}:{} --force",
            disk.name, disk.mount_path
        )));
    }
    Ok(Golden { sandbox, found, ours: false })
}

/// Only what is paused can be cloned.
pub(super) async fn pause(ctx: &Context, golden: &Golden) -> Result<(), Failure> {
    let explain = |error| golden.found.explain(error);
    let view = golden.sandbox.refresh().await.map_err(explain)?;
    if view.status == SandboxStatus::Paused {
        return Ok(());
    }
    let label = golden.found.label();
    let _spinner = Spinner::start(ctx.out.terminal(), format!("pausing {label}"));
    golden.sandbox.pause().await.map(drop).map_err(explain)?;
    if !golden.ours {
        ctx.out.note(&format!(
            "{label} is paused now; go on with it: createos sandbox resume {}",
            golden.found.handle()
        ));
    }
    Ok(())
}
