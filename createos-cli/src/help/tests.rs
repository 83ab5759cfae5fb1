//! Every command explains itself. What is asked here is asked of each one, also of
//! those that are added later.

use std::ffi::OsString;

use clap::error::ErrorKind;

use super::*;
use crate::cli;

/// Every command with its path, the root and hidden ones included.
fn commands() -> Vec<(String, Command)> {
    fn walk(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        found.push((path.trim_start().to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            walk(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }
    let mut root = cli::definition();
    root.build();
    let mut found = Vec::new();
    walk(&root, "", &mut found);
    found
}

/// What `--help` prints on a terminal of this width.
fn at(width: usize, command: &Command) -> String {
    long(&command.clone().term_width(width)).to_string()
}

/// The lines of the examples.
fn examples(command: &Command) -> Vec<String> {
    let before = command.get_before_help().map(ToString::to_string).unwrap_or_default();
    let lines = before.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_summary_and_examples() {
    let mut wrong = Vec::new();
    for (path, command) in commands() {
        let count = examples(&command).iter().filter(|line| line.contains("createos")).count();
        if command.get_about().is_none() || !(1..=6).contains(&count) {
            wrong.push(format!("{path}: {count} examples, about: {:?}", command.get_about()));
        }
    }
    assert!(wrong.is_empty(), "in `before_help`, under `Examples:`\n{}", wrong.join("\n"));
}

/// The part of an example that is ours: not its explanation, nor the shell's.
fn own_words(line: &str) -> Option<Vec<OsString>> {
    let end = ["   ", " | ", " < ", " > ", " && ", " # ", " >"].iter();
    let end = end.filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
    let line = &line[..end];
    if line.contains("$(") || !line.starts_with("createos") {
        return None;
    }
    Some(shlex::split(line)?.into_iter().map(OsString::from).collect())
}

#[test]
fn every_example_is_a_line_that_is_understood() {
    let mut wrong = Vec::new();
    for (path, command) in commands() {
        for line in examples(&command) {
            let Some(words) = own_words(&line) else { continue };
            if let Err(error) = cli::definition().try_get_matches_from(words)
                && error.kind() != ErrorKind::DisplayHelp
            {
                wrong.push(format!("{path}: {line}\n{error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_fits_the_terminal() {
    let mut wrong = Vec::new();
    for (path, command) in commands() {
        let text = at(80, &command);
        let long = text.lines().filter(|line| console::measure_text_width(line) > 80);
        wrong.extend(long.map(|line| format!("{path} at 80: {line}")));
        // Examples stand as they are; everything else folds.
        let fixed: Vec<&str> = [command.get_before_help(), command.get_after_help()]
            .into_iter()
            .flatten()
            .map(|text| text.ansi().to_string().leak() as &str)
            .flat_map(str::lines)
            .collect();
        let text = at(60, &command);
        let long = text.lines().filter(|line| console::measure_text_width(line) > 60);
        let long = long.filter(|line| !fixed.contains(line) && !line.starts_with("Usage:"));
        wrong.extend(long.map(|line| format!("{path} at 60: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hidden_defaults_are_told_in_words() {
    let mut wrong = Vec::new();
    for (path, command) in commands() {
        for arg in command.get_arguments().filter(|arg| arg.is_hide_default_value_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let told = help.contains("[default") || arg.get_default_values().is_empty();
            if !told {
                wrong.push(format!("{path} {}", arg.get_id()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn related_commands_exist() {
    let known: Vec<String> = commands().into_iter().map(|(path, _)| path).collect();
    for (path, related) in related::all() {
        for name in related.iter().chain([&path]) {
            assert!(known.iter().any(|known| known == name), "{path}: {name}");
        }
    }
}

#[test]
fn short_help_is_short() {
    for (path, command) in commands() {
        let (short, long) = (short(&command).to_string(), at(80, &command));
        assert!(short.lines().count() < long.lines().count(), "{path}: {short}");
        assert!(!short.contains("Examples:") && !short.contains("--api-key"), "{short}");
        assert!(short.contains(&format!("createos {path}").trim().to_owned()), "{short}");
    }
}

/// Where the texts of every command are kept.
const SNAPSHOTS: &str = "../../tests/snapshots/help";

/// `INSTA_UPDATE=always cargo test -p createos-cli --bin createos snapshots` writes them anew.
#[test]
fn snapshots_of_every_help_at_60_80_and_120_columns() {
    let mut files = Vec::new();
    for (path, command) in commands() {
        let name = if path.is_empty() { "createos".to_owned() } else { path.replace(' ', "-") };
        // Wider terminals show what one of 80 columns does.
        let text = format!(
            "-h\n\n{}\n--help at 60 columns\n\n{}\n--help at 80 and 120 columns\n\n{}",
            short(&command),
            at(60, &command),
            at(80, &command)
        );
        files.push(format!("{name}.snap"));
        insta::with_settings!({
            snapshot_path => SNAPSHOTS,
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, text);
        });
    }
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help");
    for entry in std::fs::read_dir(kept).expect("snapshots") {
        let file = entry.expect("a file").file_name().to_string_lossy().into_owned();
        assert!(files.contains(&file), "{file} is of a command that is no more");
    }
}
