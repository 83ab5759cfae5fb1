//! The jobs: where they come from, and how one runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use createos_sdk::{Sandbox, SandboxId};
use tokio::fs::File;

use super::{Golden, MatrixArgs};
use crate::commands::ending;
use crate::commands::sandbox::job::{Boxes, Program, Sink};
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::resolve::Found;

/// What `timeout` of the coreutils says.
const TIMED_OUT: i32 = 124;

/// One line to run.
pub(super) struct Job {
    /// From 1.
    pub(super) index: usize,
    pub(super) line: String,
    log: PathBuf,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) sandbox: Option<SandboxId>,
    /// Absent when it never ran.
    pub(super) exit_code: Option<i32>,
    pub(super) took: Duration,
    pub(super) log: Option<PathBuf>,
    pub(super) error: Option<String>,
    /// Its clone is still there.
    pub(super) left: Option<String>,
}

impl Outcome {
    pub(super) fn succeeded(&self) -> bool {
        self.exit_code == Some(0) && self.error.is_none()
    }
}

impl Job {
    pub(super) fn all(lines: Vec<String>, logs: &Path) -> Vec<Self> {
        let number = |(at, line): (usize, String)| Self {
            index: at + 1,
            line,
            log: logs.join(format!("job-{}.log", at + 1)),
        };
        lines.into_iter().enumerate().map(number).collect()
    }
}

/// The lines of `--job` and of the file, in this order.
pub(super) async fn read(args: &MatrixArgs) -> Result<Vec<String>, Failure> {
    let mut lines: Vec<String> = args.job.iter().map(|line| line.trim().to_owned()).collect();
    if let Some(path) = &args.jobs_file {
        let name = path.display();
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|error| Failure::io(format!("cannot read {name}"), &error))?;
        lines.extend(of_file(&text));
    }
    lines.retain(|line| !line.is_empty());
    if lines.is_empty() {
        return Err(Failure::usage("there are no jobs; name some with --job or --jobs-file"));
    }
    Ok(lines)
}

fn of_file(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned)
}

/// Where their output goes.
pub(super) async fn logs(args: &MatrixArgs) -> Result<PathBuf, Failure> {
    match &args.logs {
        Some(dir) => {
            let made = tokio::fs::create_dir_all(dir).await;
            made.map_err(|error| Failure::io(format!("cannot make {}", dir.display()), &error))?;
            Ok(dir.clone())
        }
        None => {
            let made = tempfile::Builder::new().prefix("createos-matrix-").tempdir();
            let made =
                made.map_err(|error| Failure::io("cannot make a directory for logs", &error));
            Ok(made?.keep())
        }
    }
}

/// Clones, runs, destroys. What goes wrong is part of the outcome.
pub(super) async fn run(
    ctx: &Context,
    boxes: &Boxes,
    args: &MatrixArgs,
    golden: &Golden,
    job: &Job,
) -> Outcome {
    let mut outcome = Outcome::default();
    let started = Instant::now();
    match boxes.make(golden.sandbox.fork().no_wait()).await {
        Ok(clone) => {
            outcome.sandbox = Some(clone.id().clone());
            let ran = on_clone(ctx, args, golden, job, &clone, &mut outcome).await;
            outcome.error = ran.err().map(|failure| failure.message().to_owned());
            if let Err(left) = boxes.end(&clone).await {
                left.warn(ctx);
                outcome.left = Some(left.text());
            }
        }
        Err(error) => {
            let failure = golden.found.explain(error);
            outcome.error = Some(format!("no clone: {}", failure.message()));
        }
    }
    if outcome.took.is_zero() {
        outcome.took = started.elapsed();
    }
    say(ctx, job, &outcome);
    outcome
}

async fn on_clone(
    ctx: &Context,
    args: &MatrixArgs,
    golden: &Golden,
    job: &Job,
    clone: &Sandbox,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let found = Found { id: clone.id().clone(), name: None };
    let explain = |error| found.explain(error);
    let running = clone.wait_until(createos_sdk::wire::SandboxStatus::Running);
    running.budget(Duration::from_secs(300)).await.map_err(explain)?;
    // A fork has none of its own.
    if args.sandbox.idle().is_some() {
        clone.set_auto_pause(args.sandbox.idle()).await.map_err(explain)?;
    }
    let name = job.log.display().to_string();
    let file = File::create(&job.log).await;
    let file = file.map_err(|error| Failure::io(format!("cannot write {name}"), &error))?;
    outcome.log = Some(job.log.clone());
    let started = Instant::now();
    let program = Program {
        ctx,
        sandbox: clone,
        found: &found,
        line: &job.line,
        ours: golden.ours,
        timeout: args.sandbox.timeout,
    };
    let ran = program.run(&mut Sink::File(file, name)).await;
    outcome.took = started.elapsed();
    match ran {
        Ok(exit) => outcome.exit_code = Some(i32::from(ending::code(ctx, &exit))),
        Err(failure) => {
            if failure.class() == Some(Class::Timeout) {
                outcome.exit_code = Some(TIMED_OUT);
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// One line when it has ended.
fn say(ctx: &Context, job: &Job, outcome: &Outcome) {
    let how = match (&outcome.error, outcome.exit_code) {
        (Some(error), _) => error.clone(),
        (None, Some(0)) => "ok".to_owned(),
        (None, code) => format!("failed with {}", code.unwrap_or(-1)),
    };
    let seconds = outcome.took.as_secs_f64();
    ctx.out.note(&format!("job {} ({seconds:.1} s): {how}: {}", job.index, job.line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_jobs() {
        let lines: Vec<String> = of_file("a\n\n  # no\nb # yes\r\n  c  ").collect();
        assert_eq!(lines, ["a", "", "b # yes", "c"]);
    }
}
