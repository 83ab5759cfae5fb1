//! The command line's definition, and what happens when a line does not fit it.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::commands::Command;
use crate::context::GlobalArgs;
use crate::failure::Failure;
use crate::help;
use crate::output::Format;

/// Create, run and manage isolated sandboxes from the terminal
#[derive(Parser)]
#[command(name = "createos", version, propagate_version = false, max_term_width = 80)]
#[command(disable_help_subcommand = true)]
#[command(before_help = "\
Examples:
  createos local start                      sandboxes on this machine
  createos login                            or on the hosted control plane
  createos sandbox create --shape s-1vcpu-256mb --name my-box
  createos sandbox exec my-box -- uname -a")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// A line that was understood.
pub(crate) struct Line {
    pub(crate) cli: Cli,
    /// The names of the chosen commands, outermost first.
    pub(crate) path: Vec<String>,
}

/// A line that ends here.
pub(crate) enum Ended {
    /// Help or version was asked for.
    Printed(String),
    /// The line is wrong.
    Refused { failure: Failure, asked: Option<Format>, payload: bool },
}

/// The definition, from which help and completions are made as well.
pub(crate) fn definition() -> clap::Command {
    help::dress(Cli::command())
}

/// Parses a line whose first word is the program.
pub(crate) fn parse(line: &[OsString]) -> Result<Line, Ended> {
    let matches = definition().try_get_matches_from(line).map_err(|error| ended(&error, line))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| ended(&error, line))?;
    Ok(Line { cli, path: path(&matches) })
}

fn ended(error: &clap::Error, line: &[OsString]) -> Ended {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    let text = match error.kind() {
        DisplayVersion => Some(error.render()),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand => {
            let short = error.kind() == DisplayHelp && !line.iter().any(|word| word == "--help");
            let words = line.iter().take_while(|word| *word != "-h" && *word != "--help");
            let command = command_at(words.map(|word| word.to_string_lossy()));
            Some(if short { help::short(&command) } else { help::long(&command) })
        }
        _ => None,
    };
    if let Some(text) = text {
        let colored = console::colors_enabled();
        return Ended::Printed(if colored { text.ansi().to_string() } else { text.to_string() });
    }
    // What can be understood of a wrong line decides how its error is written.
    let matches = definition().ignore_errors(true).try_get_matches_from(line).unwrap_or_default();
    let path = path(&matches);
    let asked = match matches.try_get_one::<Format>("output") {
        Ok(Some(asked)) => Some(*asked),
        _ => asked_later(line),
    };
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    Ended::Refused { failure: refusal(error, &path), asked, payload: writes_payload(&words) }
}

/// Commands whose standard output may be a file of the user's: an error
/// envelope has no place in it.
fn writes_payload(path: &[&str]) -> bool {
    matches!(
        path,
        ["sandbox", "exec" | "offload" | "shell" | "pull" | "list", ..]
            | ["sandbox", "template", "logs"]
            | ["completion", ..]
            | ["local", "serve", ..]
    )
}

/// The form that a wrong line asks for behind its mistake, which is where the
/// parser stops.
fn asked_later(line: &[OsString]) -> Option<Format> {
    let words: Vec<&str> = line.iter().map_while(|word| word.to_str()).collect();
    let words = words.split(|word| *word == "--").next().unwrap_or_default();
    let value = |at: usize| {
        let word = words[at];
        match word {
            "-o" | "--output" => words.get(at + 1).copied(),
            _ => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        }
    };
    let form = |at| Format::from_str(value(at)?.trim_start_matches('='), true).ok();
    (0..words.len()).rev().find_map(form)
}

/// clap's message without its decoration; the usage line is the hint.
fn refusal(error: &clap::Error, path: &[String]) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"];
    let end = end.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    let usage = match error.get(ContextKind::Usage) {
        Some(usage) => usage.to_string(),
        None => usage(path),
    };
    let message: Vec<&str> = text[..end].lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    Failure::usage(message.join("\n  ")).hint(usage.trim().to_owned())
}

/// The names of the chosen commands, outermost first.
fn path(matches: &ArgMatches) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = matches;
    while let Some((name, inner)) = at.subcommand() {
        names.push(name.to_owned());
        at = inner;
    }
    names
}

/// The usage line of a command.
pub(crate) fn usage(path: &[String]) -> String {
    command_at(path.iter()).render_usage().to_string()
}

/// The command that words lead to; those that name none are flags and their values.
fn command_at(words: impl Iterator<Item = impl AsRef<str>>) -> clap::Command {
    let mut root = definition();
    root.build();
    let mut command = &root;
    for word in words {
        command = command.find_subcommand(word.as_ref()).unwrap_or(command);
    }
    command.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &[&str]) -> Failure {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        match parse(&line) {
            Err(Ended::Refused { failure, .. }) => failure,
            Err(Ended::Printed(text)) => panic!("{text}"),
            Ok(_) => panic!("the line was understood"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn refusals_name_the_mistake_and_the_usage() {
        let failure = refused(&["createos", "sandbox", "lisst"]);
        assert!(failure.message().contains("lisst"), "{failure:?}");
        assert!(failure.message().contains("list"), "{failure:?}");
        let failure = refused(&["createos", "sandbox", "get", "--bogus", "x"]);
        let Failure::Report(report) = failure else { panic!("a report") };
        assert_eq!(report.exit, 2);
        assert!(report.hint.is_some_and(|hint| hint.contains("createos sandbox get")));
    }

    #[test]
    fn a_wrong_line_still_says_how_to_answer() {
        let line = ["createos", "sandbox", "exec", "-o", "json", "--bogus"].map(OsString::from);
        let Err(Ended::Refused { asked, payload, .. }) = parse(&line) else { panic!("refused") };
        assert_eq!((asked, payload), (Some(Format::Json), true));
        let forms = [
            ("-o json", Some(Format::Json)),
            ("-o=table", Some(Format::Table)),
            ("-ojson", Some(Format::Json)),
            ("--output=JSON", Some(Format::Json)),
            ("-- -o json", None),
            ("-o yaml", None),
        ];
        for (form, wanted) in forms {
            let line = format!("createos sandbox create --bogus {form}");
            let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let Err(Ended::Refused { asked, .. }) = parse(&line) else { panic!("refused") };
            assert_eq!(asked, wanted, "{form}");
        }
    }
}
