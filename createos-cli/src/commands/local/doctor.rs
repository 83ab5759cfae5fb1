//! `createos local doctor`: what this machine can do.

use console::style;
use createos_local::doctor::{self, Item, Report, Status};
use serde_json::{Value, json};

use super::data_dir;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Spinner, Text, printable};

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let dir = data_dir(None)?;
    let report = {
        let _spinner = Spinner::start(ctx.out.terminal(), "trying everything".to_owned());
        doctor::run(&dir).await
    };
    let document = json!({
        "usable": report.is_usable(),
        "items": report.items.iter().map(item).collect::<Vec<Value>>(),
    });
    ctx.out.result(&document, || text(&report))?;
    Ok(if report.is_usable() { Exit::Success } else { Exit::Code(1) })
}

fn item(item: &Item) -> Value {
    let mut value = json!({
        "name": item.name,
        "status": item.status.as_str(),
        "detail": item.detail,
    });
    if let Some(remedy) = &item.remedy {
        value["remedy"] = json!(remedy);
    }
    value
}

/// Width of the longest status word.
const STATUS_WIDTH: usize = "degraded".len();

/// One line for each capability, with what helps below it.
fn text(report: &Report) -> Text {
    let name_width = report.items.iter().map(|item| item.name.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for item in &report.items {
        let detail = printable(&item.detail).replace('\n', " ");
        lines.push(format!("{}  {:<name_width$}  {detail}", colored(item.status), item.name));
        for line in item.remedy.iter().flat_map(|remedy| remedy.lines()) {
            let line = printable(line);
            lines.push(format!("{:STATUS_WIDTH$}  {:name_width$}  → {line}", "", ""));
        }
    }
    let summary = match (report.is_usable(), report.worst()) {
        (true, Status::Ok) => "Sandboxes run here, with everything.",
        (true, _) => "Sandboxes run here; what is reduced is named above.",
        (false, _) => "Sandboxes cannot run here yet; what is missing is named above.",
    };
    lines.push(format!("\n{summary}"));
    Text::styled(lines.join("\n"))
}

fn colored(status: Status) -> String {
    let word = style(format!("{:<STATUS_WIDTH$}", status.as_str()));
    match status {
        Status::Ok => word.green(),
        Status::Degraded => word.yellow(),
        _ => word.red(),
    }
    .to_string()
}
