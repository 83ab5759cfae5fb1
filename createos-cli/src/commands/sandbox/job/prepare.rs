//! From a local directory to a sandbox that holds it.

use std::path::Path;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{LocalTree, MAX_FILE_BYTES, Sandbox, TreeSource};

use super::{BoxArgs, Boxes, WORK};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Bar, Spinner, format};
use crate::resolve::Found;
use crate::wait;

/// What of the directory is sent; refused while nothing is made yet.
pub(in crate::commands::sandbox) async fn select(
    ctx: &Context,
    dir: &Path,
    args: &BoxArgs,
) -> Result<LocalTree, Failure> {
    let name = dir.display();
    if let Err(error) = tokio::fs::read_dir(dir).await {
        return Err(Failure::io(format!("cannot open {name}"), &error));
    }
    let mut select = LocalTree::select(dir);
    for pattern in &args.exclude {
        select = select.exclude(pattern);
    }
    let spinner = Spinner::start(ctx.out.terminal(), format!("reading {name}"));
    let tree = select.await?;
    drop(spinner);
    if tree.is_empty() {
        let git = "git lists nothing there: is everything ignored?";
        let hint = if tree.source() == TreeSource::Git { git } else { "name another directory" };
        return Err(Failure::local(format!("nothing in {name} is left to send")).hint(hint));
    }
    if tree.archive_bytes() > MAX_FILE_BYTES {
        let size = format::bytes(tree.archive_bytes());
        return Err(Failure::local(format!("{name} is {size} packed, and 500 MB can be sent"))
            .hint("leave something out with --exclude, or fetch it inside"));
    }
    Ok(tree)
}

/// Says once that nothing outside is closed to it.
pub(in crate::commands::sandbox) fn say_if_open(args: &BoxArgs, ctx: &Context) {
    if args.egress.is_empty() {
        ctx.out.note("the sandbox may reach everything outside; --egress allows some hosts only");
    }
}

/// Makes a sandbox and waits until it runs.
pub(in crate::commands::sandbox) async fn create(
    ctx: &Context,
    boxes: &Boxes,
    args: &BoxArgs,
    what: &str,
) -> Result<(Sandbox, Found), Failure> {
    let name = super::name(what);
    let creation = args.creation(&ctx.plane()?.client, &name);
    let spinner = Spinner::start(ctx.out.terminal(), format!("creating {name}"));
    let made = boxes.make(creation).await;
    drop(spinner);
    let sandbox = made.map_err(|error| {
        let unsure = error.may_have_acted();
        let failure = Failure::from(error);
        match unsure {
            true => failure
                .hint(format!("it may be there all the same: createos sandbox rm {name} --force")),
            false => failure,
        }
    })?;
    let found = Found { id: sandbox.id().clone(), name: Some(name) };
    wait::until(ctx, &sandbox, &found, SandboxStatus::Running).await?;
    Ok((sandbox, found))
}

/// Puts the files where the commands run.
pub(in crate::commands::sandbox) async fn upload(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    tree: &LocalTree,
) -> Result<(), Failure> {
    let text =
        format!("sending {} ({})", tree.root().display(), format::bytes(tree.archive_bytes()));
    let spinner = Spinner::start(ctx.out.terminal(), text);
    let bar = Bar::new(ctx.out.terminal());
    let sent = sandbox.files().upload_tree(tree, WORK).progress(bar.follow()).await;
    drop((bar, spinner));
    sent.map(drop).map_err(|error| found.explain(error))
}
