//! The one error type of the command line: what is printed, and the exit code.

use std::fmt;
use std::io;

use crate::prompt;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell the user.
    Report(Box<Report>),
    /// The reader of our standard output went away: stop without a word.
    BrokenPipe,
    /// The user left a question: nothing was changed, and that is no error.
    Left,
}

/// A failure as the user sees it.
#[derive(Debug)]
pub(crate) struct Report {
    /// The class, which is the `code` of the JSON envelope.
    pub(crate) class: Class,
    /// What failed: plain words, lower case start, no trailing stop.
    pub(crate) message: String,
    /// The one thing that helps next.
    pub(crate) hint: Option<String>,
    /// The server's name for the request, for a support question.
    pub(crate) request_id: Option<String>,
    /// Whether a control plane refused, or could not be reached.
    pub(crate) from_plane: bool,
    /// The control plane that was asked.
    pub(crate) control_plane: Option<String>,
    /// The process exit code.
    pub(crate) exit: u8,
}

/// The classes of cli.md 1.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    Conflict,
    RateLimited,
    ServerError,
    ApiError,
    Local,
    Usage,
    Network,
    Timeout,
    Cancelled,
}

impl Class {
    /// The class of an HTTP status that is not a success.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::RateLimited,
            500.. => Self::ServerError,
            _ => Self::ApiError,
        }
    }

    /// The text of `error.code` in the JSON envelope.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::ApiError => "api_error",
            Self::Local => "error",
            Self::Usage => "usage",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Failure {
    /// A failure of the given class.
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        let exit = if class == Class::Usage { 2 } else { 1 };
        Self::Report(Box::new(Report {
            class,
            message: message.into(),
            hint: None,
            request_id: None,
            from_plane: false,
            control_plane: None,
            exit,
        }))
    }

    /// Something on this machine failed.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::new(Class::Local, message)
    }

    /// The line that was typed cannot be run; exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    /// A local input or output error, with what was being done.
    ///
    /// A broken pipe keeps its meaning wherever it surfaces.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::local(format!("{what}: {}", plain(error)))
    }

    /// Writing to standard output failed.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::io("cannot write to standard output", error)
    }

    /// A signal ended the command.
    pub(crate) fn interrupted(exit: u8) -> Self {
        let mut failure = Self::new(Class::Cancelled, "interrupted");
        if let Self::Report(report) = &mut failure {
            report.exit = exit;
        }
        failure
    }

    /// Adds the one thing that helps; an earlier hint is replaced.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Report(report) = &mut self {
            report.hint = Some(hint.into());
        }
        self
    }

    /// A line that cannot be run is followed by the usage line of its command.
    pub(crate) fn with_usage(mut self, usage: impl FnOnce() -> String) -> Self {
        if let Self::Report(report) = &mut self
            && report.class == Class::Usage
        {
            let lines = report.hint.take().into_iter().chain([usage()]);
            report.hint = Some(lines.collect::<Vec<_>>().join("\n"));
        }
        self
    }

    /// Puts another message in place; class, request id and control plane stay.
    pub(crate) fn saying(mut self, message: String) -> Self {
        if let Self::Report(report) = &mut self {
            report.message = message;
        }
        self
    }

    /// Names the sandbox that the message is about.
    pub(crate) fn about(self, label: &str) -> Self {
        let message = format!("{label}: {}", self.message());
        self.saying(message)
    }

    /// What helps, if something is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        match self {
            Self::Report(report) => report.hint.as_deref(),
            Self::BrokenPipe | Self::Left => None,
        }
    }

    /// The class, unless this is no error.
    pub(crate) fn class(&self) -> Option<Class> {
        match self {
            Self::Report(report) => Some(report.class),
            Self::BrokenPipe | Self::Left => None,
        }
    }

    /// The message on one line, for results that report several failures.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Report(report) => &report.message,
            Self::BrokenPipe => "standard output is closed",
            Self::Left => prompt::NOTHING,
        }
    }
}

impl From<createos_sdk::Error> for Failure {
    /// The server's words are passed on unchanged: scripts look for parts of them.
    fn from(error: createos_sdk::Error) -> Self {
        use createos_sdk::ErrorKind;
        let class = match (error.status(), error.kind()) {
            (Some(status), _) if status >= 400 => Class::of_status(status),
            (_, ErrorKind::NotAuthenticated) => Class::Unauthorized,
            (_, ErrorKind::Timeout) => Class::Timeout,
            (_, ErrorKind::Connection | ErrorKind::StreamLost | ErrorKind::Protocol) => {
                Class::Network
            }
            (_, ErrorKind::InvalidArgument) => Class::BadRequest,
            _ => Class::Local,
        };
        let message = match (error.message(), error.status()) {
            ("", Some(status)) => format!("request failed with status {status}"),
            ("", None) => error.kind().to_string(),
            (message, _) => message.to_owned(),
        };
        let mut failure = Self::new(class, message);
        if let Self::Report(report) = &mut failure {
            report.hint = hint_for(class).map(str::to_owned);
            report.request_id = error.request_id().map(str::to_owned);
            report.from_plane = error.attempts() > 0 || error.status().is_some();
        }
        failure
    }
}

fn hint_for(class: Class) -> Option<&'static str> {
    match class {
        Class::BadRequest => Some("check the value"),
        Class::Unauthorized | Class::Forbidden => Some("sign in again: createos login"),
        Class::NotFound => Some("check the name, and see what exists: createos sandbox list"),
        Class::RateLimited => Some("wait a moment, then repeat"),
        Class::Network => Some("check the connection and the address"),
        _ => None,
    }
}

/// The operating system's words without Rust's "(os error 2)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_the_documented_codes() {
        let codes = [
            (400, "bad_request"),
            (401, "unauthorized"),
            (402, "api_error"),
            (403, "forbidden"),
            (404, "not_found"),
            (409, "conflict"),
            (413, "api_error"),
            (429, "rate_limited"),
            (500, "server_error"),
            (503, "server_error"),
        ];
        for (status, code) in codes {
            assert_eq!(Class::of_status(status).code(), code, "status {status}");
        }
    }

    #[test]
    fn system_errors_lose_their_number_and_capital() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(
            Failure::io("cannot open x", &error).message(),
            "cannot open x: no such file or directory"
        );
    }

    #[test]
    fn a_closed_reader_is_not_an_error_message() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::stdout(&error), Failure::BrokenPipe));
    }
}
