//! The `createos` command.

// Doc comments on arguments are help texts, where a link's brackets would be noise.
#![allow(rustdoc::bare_urls)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod commands;
mod completion;
mod context;
mod failure;
mod help;
mod output;
mod prompt;
mod resolve;
mod session;
mod signals;
mod ssh;
mod store;
mod terminal;
mod unbroken;
mod value;
mod wait;

use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;

use clap::ValueEnum;

use cli::{Ended, Line};
use commands::{Command, Exit};
use context::{Context, GlobalArgs};
use failure::Failure;
use output::{Format, Mode, Printer, Terminal};
use signals::Signals;

fn main() -> ExitCode {
    if completion::answer() {
        return ExitCode::SUCCESS;
    }
    terminal::restore_on_panic();
    let terminal = Terminal::detect();
    terminal.apply_colors();
    let words: Vec<OsString> = std::env::args_os().collect();
    let (ctx, ended) = match cli::parse(&words) {
        Ok(line) => start(line, terminal),
        Err(Ended::Printed(text)) => {
            let ctx = context(Mode::Table, terminal, GlobalArgs::default());
            let printed = ctx.out.raw(&text);
            (ctx, printed.map(|()| Exit::Success))
        }
        Err(Ended::Refused { failure, asked, payload }) => {
            let asked = asked.or_else(|| format_from_environment().ok().flatten());
            let mode = Mode::choose(asked, terminal.stdout, payload);
            (context(mode, terminal, GlobalArgs::default()), Err(failure))
        }
    };
    finish(&ctx, ended)
}

fn context(mode: Mode, terminal: Terminal, global: GlobalArgs) -> Context {
    Context::new(Printer::new(mode, terminal), global)
}

/// Runs a line that was understood.
fn start(line: Line, terminal: Terminal) -> (Context, Result<Exit, Failure>) {
    let Line { cli, path } = line;
    let (asked, wrong) = match (cli.global.output, format_from_environment()) {
        (Some(asked), _) => (Some(asked), None),
        (None, Ok(asked)) => (asked, None),
        (None, Err(failure)) => (None, Some(failure)),
    };
    let payload = cli.command.as_ref().is_none_or(Command::writes_payload);
    let ctx = context(Mode::choose(asked, terminal.stdout, payload), terminal, cli.global);
    let ended = match (wrong, cli.command) {
        (Some(failure), _) => Err(failure),
        (None, None) => commands::overview(&ctx),
        (None, Some(command)) => run(command, &ctx),
    };
    let ended = ended.map_err(|failure| failure.with_usage(|| cli::usage(&path)));
    (ctx, ended)
}

/// One thread is enough for a command, and starts fastest; a server uses every core.
fn run(command: Command, ctx: &Context) -> Result<Exit, Failure> {
    let mut builder = match command.handles_signals() {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime =
        builder.enable_all().build().map_err(|error| Failure::io("cannot start", &error))?;
    let ended = runtime.block_on(until_signal(command, ctx));
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    ended
}

/// Runs the command; a signal drops it where it stands, which runs its cleanup.
async fn until_signal(command: Command, ctx: &Context) -> Result<Exit, Failure> {
    if command.handles_signals() {
        return command.run(ctx).await;
    }
    let mut signals = Signals::listen().map_err(|error| Failure::io("cannot start", &error))?;
    let mut running = pin!(command.run(ctx));
    tokio::select! {
        ended = &mut running => ended,
        // Asked before the command is dropped: its guards hold the note.
        exit = signals.exit_code() => {
            signals::insist();
            ctx.ended_by_signal(exit).map(|()| Exit::Success)
        }
    }
}

fn finish(ctx: &Context, ended: Result<Exit, Failure>) -> ExitCode {
    unbroken::settle();
    match ended {
        Ok(Exit::Success) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Left) => {
            ctx.out.note(prompt::NOTHING);
            ExitCode::SUCCESS
        }
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Err(Failure::Report(mut report)) => {
            ctx.complete(&mut report);
            ctx.out.failure(&report);
            ExitCode::from(report.exit)
        }
    }
}

/// `CREATEOS_OUTPUT`, where no flag says otherwise.
fn format_from_environment() -> Result<Option<Format>, Failure> {
    let Some((name, word)) = context::environment(&["CREATEOS_OUTPUT"]) else { return Ok(None) };
    Format::from_str(&word, true)
        .map(Some)
        .map_err(|_| Failure::usage(format!("{name} is {word:?}; it can be table or json")))
}
