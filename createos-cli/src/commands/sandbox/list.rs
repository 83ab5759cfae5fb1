//! `createos sandbox list`.

use clap::Args;
use createos_sdk::Client;
use createos_sdk::wire::{SandboxStatus, SandboxView};
use futures::{StreamExt, TryStreamExt, future};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};

/// Most rows in one answer (api.md 1.9).
const MAX_PAGE: usize = 500;

/// Shown unless `--all` or `--status` asks for others.
const ACTIVE: [SandboxStatus; 6] = [
    SandboxStatus::Running,
    SandboxStatus::Creating,
    SandboxStatus::Paused,
    SandboxStatus::Pausing,
    SandboxStatus::Resuming,
    SandboxStatus::Forking,
];

/// List your sandboxes, newest first
#[derive(Args)]
#[command(
    visible_alias = "ls",
    before_help = "\
Examples:
  createos sandbox list
  createos sandbox list --status paused
  createos sandbox list --all --output json
  createos sandbox rm --force $(createos sandbox list --quiet)"
)]
pub(super) struct ListArgs {
    /// Show sandboxes in every state, destroyed ones too
    #[arg(short, long)]
    all: bool,

    /// Show only this state; wins over --all
    #[arg(long, value_name = "STATE", value_parser = status)]
    status: Option<SandboxStatus>,

    /// Print one id per line and nothing else
    #[arg(short, long)]
    quiet: bool,

    /// Show at most this many [default: 50]
    #[arg(long, value_name = "N", default_value_t = 50, hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Leave out this many of the newest [default: 0]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    offset: u32,

    /// Add the time of creation
    #[arg(long)]
    wide: bool,
}

impl ListArgs {
    pub(super) fn quiet(&self) -> bool {
        self.quiet
    }
}

fn status(word: &str) -> Result<SandboxStatus, String> {
    match SandboxStatus::from(word.trim()) {
        SandboxStatus::Unknown(_) => Err("it is no state; states are creating, running, pausing, \
             paused, resuming, forking, destroying, destroyed, failed and error"
            .to_owned()),
        status => Ok(status),
    }
}

pub(super) async fn run(args: ListArgs, ctx: &Context) -> Result<Exit, Failure> {
    let (offset, limit) = (args.offset as usize, args.limit as usize);
    let client = &ctx.plane()?.client;
    let wanted: Vec<Option<SandboxStatus>> = match (&args.status, args.all) {
        (Some(status), _) => vec![Some(status.clone())],
        (None, true) => vec![None],
        (None, false) => ACTIVE.into_iter().map(Some).collect(),
    };
    // The newest `offset + limit` rows are among those of the single states.
    let lists = wanted.into_iter().map(|status| rows(client, status, offset + limit));
    let mut rows = future::try_join_all(lists).await?.concat();
    rows.sort_by(|a, b| (&b.created_at, &b.id).cmp(&(&a.created_at, &a.id)));
    // A sandbox that changed its state in between can come twice.
    rows.dedup_by(|a, b| a.id == b.id);
    let rows: Vec<SandboxView> = rows.into_iter().skip(offset).take(limit).collect();
    if args.quiet {
        ctx.out.raw(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>())?;
        return Ok(Exit::Success);
    }
    ctx.out.result(&rows, || match rows.is_empty() {
        true => nothing(&args).into(),
        false => ctx.out.table(&table(&rows, args.wide)),
    })?;
    if rows.is_empty() && offset == 0 {
        ctx.out.hint("create one: createos sandbox create --shape <id>");
    }
    Ok(Exit::Success)
}

async fn rows(
    client: &Client,
    status: Option<SandboxStatus>,
    most: usize,
) -> createos_sdk::Result<Vec<SandboxView>> {
    let mut list = client.sandboxes().page_size(most.min(MAX_PAGE) as u64);
    if let Some(status) = status {
        list = list.status(status);
    }
    let views = list.stream().take(most).try_filter_map(async |row| Ok(row.view()));
    views.map_ok(|view| (*view).clone()).try_collect().await
}

fn nothing(args: &ListArgs) -> String {
    match (&args.status, args.all) {
        _ if args.offset > 0 => format!("No sandboxes behind the first {}.", args.offset),
        (Some(status), _) => format!("No sandboxes in state {status}."),
        (None, true) => "No sandboxes.".to_owned(),
        (None, false) => "No active sandboxes.".to_owned(),
    }
}

fn table(rows: &[SandboxView], wide: bool) -> Table {
    let mut columns = vec![("ID", 70), ("NAME", 0), ("STATUS", 0), ("SIZE", 0), ("IP", 90)];
    if wide {
        columns.push(("CREATED", 90));
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![
            row.id.to_string(),
            row.name.clone().unwrap_or_default(),
            row.status.to_string(),
            row.shape.clone().unwrap_or_default(),
            row.ip.clone().unwrap_or_default(),
        ];
        if wide {
            cells.push(row.created_at.map(format::minute).unwrap_or_default());
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_state_is_known_and_no_other() {
        let words =
            "creating running pausing paused resuming forking destroying destroyed failed error";
        for word in words.split(' ') {
            assert!(status(word).is_ok(), "{word}");
        }
        let message = status("runing").unwrap_err();
        assert!(words.split(' ').all(|word| message.contains(word)), "{message}");
    }
}
