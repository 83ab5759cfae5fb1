//! What came of all jobs.

use serde_json::{Value, json};

use super::jobs::{Job, Outcome};
use super::{Golden, Left};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Table;

/// One document or one row for each; 0 when every job and every clean-up succeeded.
pub(super) fn report(
    ctx: &Context,
    golden: &Golden,
    jobs: &[Job],
    outcomes: &[Outcome],
    left: &[Left],
) -> Result<Exit, Failure> {
    let failed = outcomes.iter().filter(|outcome| !outcome.succeeded()).count();
    let clones = outcomes.iter().filter_map(|outcome| outcome.left.clone());
    let stayed: Vec<String> = clones.chain(left.iter().map(Left::text)).collect();
    let document = json!({
        "golden": golden.sandbox.id().as_str(),
        "jobs": jobs.iter().zip(outcomes).map(row).collect::<Vec<Value>>(),
        "failed": failed,
        "teardown_failures": stayed,
    });
    ctx.out.result(&document, || ctx.out.table(&table(jobs, outcomes)))?;
    let all = jobs.len();
    ctx.out.note(&format!("{} of {all} jobs succeeded", all - failed));
    let well = failed == 0 && stayed.is_empty();
    Ok(if well { Exit::Success } else { Exit::Code(1) })
}

fn row((job, outcome): (&Job, &Outcome)) -> Value {
    let mut row = json!({ "index": job.index, "cmd": job.line });
    if let Some(id) = &outcome.sandbox {
        row["sandbox"] = json!(id.as_str());
    }
    row["exit_code"] = json!(outcome.exit_code.unwrap_or(-1));
    row["duration_ms"] = json!(u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX));
    if let Some(log) = &outcome.log {
        row["log"] = json!(log.display().to_string());
    }
    if let Some(error) = &outcome.error {
        row["error"] = json!(error);
    }
    row
}

fn table(jobs: &[Job], outcomes: &[Outcome]) -> Table {
    let mut table =
        Table::new(&[("JOB", 0), ("EXIT", 0), ("TIME", 0), ("COMMAND", 0), ("LOG", 100)]);
    for (job, outcome) in jobs.iter().zip(outcomes) {
        let exit = outcome.exit_code.map(|code| code.to_string());
        let log = outcome.log.as_ref().map(|log| log.display().to_string());
        table.row([
            job.index.to_string(),
            exit.unwrap_or_default(),
            format!("{:.1} s", outcome.took.as_secs_f64()),
            job.line.clone(),
            log.unwrap_or_default(),
        ]);
    }
    table
}
