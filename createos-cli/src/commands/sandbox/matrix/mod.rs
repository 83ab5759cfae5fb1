//! `createos sandbox matrix`.

mod golden;
mod jobs;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use createos_sdk::{LocalTree, Sandbox};
use futures::{StreamExt, stream};

use super::job::{self, BoxArgs, Boxes, Left};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::Found;
use jobs::{Job, Outcome};

/// Run many commands, each on a clone of one prepared sandbox
///
/// The directory is sent to /work of one sandbox, which is prepared, paused and
/// forked for each job; the jobs run there, in bash. The clones are destroyed in
/// every outcome, and so is the prepared sandbox. The exit code is 0 when every
/// job and every clean-up succeeded.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox matrix . --prepare 'npm ci' --job 'npm test' \\
      --job 'npm run lint'
  createos sandbox matrix . --jobs-file jobs.txt --concurrency 4 --logs logs
  createos sandbox matrix --from my-box --job './run 1' --job './run 2'")]
pub(super) struct MatrixArgs {
    /// The directory to send
    #[arg(value_name = "DIR", required_unless_present = "from", conflicts_with = "from")]
    dir: Option<PathBuf>,

    /// Clone this sandbox instead; it is paused and stays
    #[arg(long, value_name = "SANDBOX")]
    from: Option<String>,

    /// Run this before the sandbox is cloned; when it fails, there are no clones
    #[arg(long, value_name = "COMMAND", conflicts_with = "from")]
    prepare: Option<String>,

    /// A command to run on a clone of its own (repeatable)
    #[arg(long, value_name = "COMMAND")]
    job: Vec<String>,

    /// File with one job a line; blank lines and those with # are left out
    #[arg(long, value_name = "FILE")]
    jobs_file: Option<PathBuf>,

    /// Jobs that run at a time [default: 10]
    #[arg(long, value_name = "N", default_value = "10", hide_default_value = true)]
    concurrency: NonZeroUsize,

    /// Directory for the output of each job [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,

    /// Keep the prepared sandbox, paused, to clone it again with --from
    #[arg(long, conflicts_with = "from")]
    keep_golden: bool,

    #[command(flatten)]
    sandbox: BoxArgs,
}

/// What every job is cloned from.
struct Golden {
    sandbox: Sandbox,
    found: Found,
    /// Made by us.
    ours: bool,
}

pub(super) async fn run(args: MatrixArgs, ctx: &Context) -> Result<Exit, Failure> {
    let lines = jobs::read(&args).await?;
    let tree = match &args.dir {
        Some(dir) => Some(job::select(ctx, dir, &args.sandbox).await?),
        None => None,
    };
    if let (Some(option), None) = (args.sandbox.first_of_new(), &tree) {
        return Err(Failure::usage(format!("{option} is for a new sandbox, and --from names one")));
    }
    let logs = jobs::logs(&args).await?;
    let jobs: Vec<Job> = Job::all(lines, &logs);
    let boxes = Boxes::default();
    let work = work(ctx, &boxes, &args, tree.as_ref(), &jobs);
    let (ended, left) = job::guarded(ctx, &boxes, work).await;
    left.iter().for_each(|left| left.warn(ctx));
    let (golden, outcomes) = ended?;
    report::report(ctx, &golden, &jobs, &outcomes, &left)
}

async fn work(
    ctx: &Context,
    boxes: &Boxes,
    args: &MatrixArgs,
    tree: Option<&LocalTree>,
    jobs: &[Job],
) -> Result<(Golden, Vec<Outcome>), Failure> {
    let golden = match (tree, &args.from) {
        (Some(tree), _) => golden::make(ctx, boxes, args, tree).await?,
        (None, from) => golden::take(ctx, from.as_deref()).await?,
    };
    golden::pause(ctx, &golden).await?;
    if args.keep_golden {
        boxes.keep(&golden.sandbox);
        ctx.out.note(&format!(
            "{} is kept, paused: createos sandbox matrix --from {} --job …",
            golden.found.label(),
            golden.found.handle()
        ));
    }
    let runs = jobs.iter().map(|job| jobs::run(ctx, boxes, args, &golden, job));
    // In the order of the jobs, whichever ends first.
    let outcomes: Vec<Outcome> =
        stream::iter(runs).buffered(args.concurrency.get()).collect().await;
    Ok((golden, outcomes))
}
