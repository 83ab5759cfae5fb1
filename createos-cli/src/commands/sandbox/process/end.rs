//! How a process ended, as an exit code of ours (cli.md 1.8).

use createos_sdk::ProcessExit;
use createos_sdk::wire::Signal;

use crate::commands::Exit;
use crate::context::Context;

/// The program's code; 128 and its number for a signal; 1 for what cannot be passed on.
pub(super) fn exit(ctx: &Context, ended: &ProcessExit) -> Exit {
    let code = match ended {
        ProcessExit::Code(code) => u8::try_from(*code).ok(),
        ProcessExit::Signal(name) => number(name).map(|number| 128 + number),
        _ => None,
    };
    match code {
        Some(0) => Exit::Success,
        Some(code) => Exit::Code(code),
        None => {
            ctx.out.warn(&format!("the process ended: {ended}; reported as 1"));
            Exit::Code(1)
        }
    }
}

/// The numbers of Linux, which is what runs inside, whatever runs here.
fn number(name: &str) -> Option<u8> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let at = NAMES.iter().position(|known| *known == bare)?;
    u8::try_from(at + 1).ok()
}

/// What the API takes (api.md 5.3).
const SENDABLE: [&str; 8] =
    ["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH"];

/// A signal that can be sent, in any spelling: `TERM`, `sigterm`, `15`.
pub(super) fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let is_meant = |name: &&&str| {
        name.strip_prefix("SIG") == Some(bare)
            || number(name).is_some_and(|number| number.to_string() == bare)
    };
    match SENDABLE.iter().find(is_meant) {
        Some(name) => Ok(Signal::from(*name)),
        None => Err(format!("it can be {}", SENDABLE.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_numbers() {
        for (name, wanted) in [
            ("SIGHUP", 1),
            ("SIGINT", 2),
            ("KILL", 9),
            ("SIGSEGV", 11),
            ("SIGTERM", 15),
            ("SIGSYS", 31),
        ] {
            assert_eq!(number(name), Some(wanted), "{name}");
        }
        assert_eq!(number("SIGNOTHING"), None);
    }

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["SIGTERM", "term", "15", " Term "] {
            assert_eq!(signal(text).as_ref(), Ok(&Signal::Terminate), "{text}");
        }
        assert!(signal("STOP").unwrap_err().contains("SIGKILL"));
        assert!(signal("").is_err() && signal("0").is_err());
    }
}
