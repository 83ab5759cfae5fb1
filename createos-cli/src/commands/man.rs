//! `createos man`: manual pages, made from the same definitions as the help.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use serde_json::json;

use super::Exit;
use crate::cli;
use crate::context::Context;
use crate::failure::Failure;

/// Write a manual page for every command
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos man ~/.local/share/man/man1     then: man createos-sandbox-create
  createos man ./man")]
pub(crate) struct ManArgs {
    /// Directory for the pages; created where missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(args: &ManArgs, ctx: &Context) -> Result<Exit, Failure> {
    let cannot = |path: &Path, error: &io::Error| {
        Failure::io(format!("cannot write {}", path.display()), error)
    };
    std::fs::create_dir_all(&args.dir).map_err(|error| cannot(&args.dir, &error))?;
    let mut root = cli::definition();
    root.build();
    let mut pages = Vec::new();
    collect(&root, &mut pages);
    for (name, page) in &pages {
        let path = args.dir.join(name);
        std::fs::write(&path, page).map_err(|error| cannot(&path, &error))?;
    }
    let document = json!({ "action": "written", "directory": args.dir, "pages": pages.len() });
    ctx.out.result(&document, || {
        format!("wrote {} manual pages to {}", pages.len(), args.dir.display())
    })?;
    Ok(Exit::Success)
}

fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let man = Man::new(command.clone())
        .section("1")
        .date("")
        .source(concat!("createos ", env!("CARGO_PKG_VERSION")))
        .manual("createos");
    let mut page = Vec::new();
    // Memory takes everything.
    let _ = write(&man, command, &mut page);
    pages.push((man.get_filename(), page));
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.filter(|inner| inner.get_name() != "help").for_each(|inner| collect(inner, pages));
}

fn write(man: &Man, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    // What stands in front of the options in the help.
    if let Some(text) = command.get_before_help() {
        let text = text.to_string();
        as_typed(page, "EXAMPLES", text.trim_start_matches("Examples:"))?;
    }
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    if let Some(text) = command.get_after_help() {
        as_typed(page, "NOTES", &text.to_string())?;
    }
    Ok(())
}

/// A section whose lines stay as they are.
fn as_typed(page: &mut Vec<u8>, title: &str, text: &str) -> io::Result<()> {
    writeln!(page, ".SH {title}\n.nf")?;
    for line in text.trim_matches('\n').lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or an apostrophe in front would be a request to the formatter.
        writeln!(page, "\\&{line}")?;
    }
    writeln!(page, ".fi")
}
