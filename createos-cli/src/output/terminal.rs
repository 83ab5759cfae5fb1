//! What the three standard streams are connected to (cli.md 1.4).

use std::io::IsTerminal;

use console::Term;

/// A snapshot taken once at start.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Columns of standard output when it is a terminal.
    pub(crate) width: Option<usize>,
}

impl Terminal {
    /// Looks at the process's own streams.
    pub(crate) fn detect() -> Self {
        let stdout = std::io::stdout().is_terminal();
        let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Self {
            stdin: std::io::stdin().is_terminal(),
            stdout,
            stderr: std::io::stderr().is_terminal(),
            width: width.filter(|columns| stdout && *columns > 0),
        }
    }

    /// Whether a person can be asked: input and output are both a terminal.
    pub(crate) fn interactive(&self) -> bool {
        self.stdin && self.stdout
    }

    /// Whether bars and spinners may move: a terminal, and not a build log.
    pub(crate) fn animated(&self) -> bool {
        self.stderr && !set("CI")
    }

    /// `NO_COLOR` and `TERM=dumb` turn colour off; so does a stream that is no terminal.
    pub(crate) fn apply_colors(&self) {
        let wanted = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        console::set_colors_enabled(wanted && self.stdout);
        console::set_colors_enabled_stderr(wanted && self.stderr);
    }
}

/// Whether the user's locale has more letters than ASCII; otherwise marks and
/// bars are drawn with what it has.
pub(crate) fn unicode() -> bool {
    if cfg!(not(target_os = "linux")) {
        return true;
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name));
    let locale = locale.and_then(std::env::var_os).unwrap_or_default().to_ascii_lowercase();
    let locale = locale.to_string_lossy();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}
