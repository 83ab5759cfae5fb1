//! Everything that is printed goes through [`Printer`]: results to standard
//! output, all else to standard error (cli.md 1.5).

pub(crate) mod debug;
pub(crate) mod format;
mod payload;
mod progress;
mod table;
mod terminal;

use std::io::{self, Write};

use console::style;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Report};
pub(crate) use payload::Payload;
pub(crate) use progress::{Bar, Spinner};
pub(crate) use table::Table;
pub(crate) use terminal::{Terminal, unicode};

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Text for people.
    Table,
    /// One JSON document; `explicit` when the user asked for it.
    Json { explicit: bool },
}

impl Mode {
    /// The mode of a command (cli.md 1.9): what was asked for, else JSON when
    /// standard output is no terminal. Commands that write payload switch to
    /// JSON only when asked.
    pub(crate) fn choose(asked: Option<Format>, stdout_tty: bool, payload: bool) -> Self {
        match asked {
            Some(Format::Json) => Self::Json { explicit: true },
            Some(Format::Table) => Self::Table,
            None if stdout_tty || payload => Self::Table,
            None => Self::Json { explicit: false },
        }
    }
}

/// The values of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people
    Table,
    /// One JSON document
    Json,
}

/// The only code that writes to standard output and standard error.
#[derive(Debug)]
pub(crate) struct Printer {
    mode: Mode,
    terminal: Terminal,
}

impl Printer {
    pub(crate) fn new(mode: Mode, terminal: Terminal) -> Self {
        Self { mode, terminal }
    }

    /// Whether the result is a JSON document.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.mode, Mode::Json { .. })
    }

    /// What standard input, output and error are connected to.
    pub(crate) fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// Prints the result: the document in JSON mode, otherwise the text.
    pub(crate) fn result<T: Into<Text>>(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> T,
    ) -> Result<(), Failure> {
        if self.is_json() { self.document(document) } else { self.text(text()) }
    }

    /// Prints one JSON document: two spaces, newline at the end.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Failure::local(format!("cannot write the result as JSON: {error}")))?;
        write_stdout(&text)
    }

    /// Prints text for people on standard output. Nothing for an empty text.
    pub(crate) fn text(&self, text: impl Into<Text>) -> Result<(), Failure> {
        let Text(text) = text.into();
        if text.is_empty() { Ok(()) } else { write_stdout(&text) }
    }

    /// A table fitted to the terminal.
    pub(crate) fn table(&self, table: &Table) -> Text {
        Text::styled(table.render(self.terminal.width))
    }

    /// Text that is taken by programs as it is, such as a script or ids.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::stdout(&error))
    }

    /// A next step, for people only.
    pub(crate) fn hint(&self, text: &str) {
        if !self.is_json() {
            write_stderr(&style(printable(text)).for_stderr().dim().to_string());
        }
    }

    /// Something that worked but deserves attention.
    pub(crate) fn warn(&self, text: &str) {
        let word = style("warning:").for_stderr().yellow().bold();
        write_stderr(&format!("{word} {}", printable(text)));
    }

    /// What a person has to do now for the command to go on, whatever the form of
    /// its result.
    pub(crate) fn instruct(&self, text: &str) {
        write_stderr(&printable(text));
    }

    /// A line about what happens, for people only.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json() {
            write_stderr(&printable(text));
        }
    }

    /// Prints why the command failed: envelope, message, or both (cli.md 1.10).
    pub(crate) fn failure(&self, report: &Report) {
        if self.is_json() {
            // A closed pipe cannot be told anything any more.
            let _ = self.document(&envelope(report));
        }
        self.complain(report);
    }

    /// The message alone; silent when the user asked for a document.
    pub(crate) fn complain(&self, report: &Report) {
        if self.mode == (Mode::Json { explicit: true }) {
            return;
        }
        let word = style("error:").for_stderr().red().bold();
        let mut text = format!("{word} {}", printable(&report.message));
        if let Some(id) = &report.request_id {
            text.push_str(&format!(" (request id {})", printable(id)));
        }
        for line in report.hint.iter().flat_map(|hint| hint.lines()) {
            text.push_str(&format!("\n  {}", printable(line)));
        }
        if let Some(plane) = &report.control_plane {
            text.push_str(&format!("\n  control plane: {plane}"));
        }
        write_stderr(&text);
    }
}

/// The server's answer to a change under our curated keys, which win on a clash.
pub(crate) fn document(
    curated: &[(&str, Value)],
    answer: &impl Serialize,
) -> Result<Value, Failure> {
    let mut document = Map::new();
    for (key, value) in curated {
        document.insert((*key).to_owned(), value.clone());
    }
    if let Value::Object(fields) = to_value(answer)? {
        for (key, value) in fields {
            document.entry(key).or_insert(value);
        }
    }
    Ok(Value::Object(document))
}

/// One id per line, for `--quiet`.
pub(crate) fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.fold(String::new(), |text, id| text + id + "\n")
}

/// A result as JSON.
pub(crate) fn to_value(result: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result)
        .map_err(|error| Failure::local(format!("cannot write the result as JSON: {error}")))
}

/// Text for people that is safe to print: made from plain text, which loses
/// its control characters, or from parts that were made safe before they were coloured.
pub(crate) struct Text(String);

impl Text {
    /// Text that holds colours. Its parts went through [`printable`].
    pub(crate) fn styled(text: String) -> Self {
        Self(text)
    }

    /// The same with blanks before every line.
    pub(crate) fn indented(&self, by: usize) -> String {
        let lines: Vec<String> = self.0.lines().map(|line| format!("{:by$}{line}", "")).collect();
        lines.join("\n")
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(printable(&text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(printable(text))
    }
}

/// `{"error": {...}}`; absent parts are left out.
fn envelope(report: &Report) -> Value {
    let mut error = Map::new();
    error.insert("code".to_owned(), json!(report.class.code()));
    error.insert("message".to_owned(), json!(report.message));
    let rest = [
        ("hint", &report.hint),
        ("request_id", &report.request_id),
        ("control_plane", &report.control_plane),
    ];
    for (key, value) in rest {
        if let Some(value) = value {
            error.insert(key.to_owned(), json!(value));
        }
    }
    json!({ "error": error })
}

fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::stdout(&error))
}

/// Nobody is left to tell when standard error is closed.
fn write_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Server text cannot move the cursor or recolour the terminal.
pub(crate) fn printable(text: &str) -> String {
    let keep = |c: char| c == '\n' || c == '\t' || !c.is_control();
    text.chars().map(|c| if keep(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[test]
    fn the_mode_follows_the_contract() {
        let explicit = Mode::Json { explicit: true };
        let automatic = Mode::Json { explicit: false };
        let cases = [
            (None, true, false, Mode::Table),
            (None, false, false, automatic),
            (None, false, true, Mode::Table),
            (Some(Format::Json), true, false, explicit),
            (Some(Format::Json), false, true, explicit),
            (Some(Format::Table), false, false, Mode::Table),
        ];
        for (asked, tty, payload, mode) in cases {
            assert_eq!(Mode::choose(asked, tty, payload), mode, "{asked:?} {tty} {payload}");
        }
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc\td\r\x07"), "a\u{fffd}[31mb\nc\td\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_envelope_holds_only_what_is_known() {
        let Failure::Report(report) = Failure::new(Class::NotFound, "no such <box>").hint("look")
        else {
            panic!("a report");
        };
        let text = envelope(&report).to_string();
        assert_eq!(
            text,
            r#"{"error":{"code":"not_found","message":"no such <box>","hint":"look"}}"#
        );
    }
}
