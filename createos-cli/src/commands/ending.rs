//! How a program inside ended, as our own exit code (cli.md 1.8).

use createos_sdk::ProcessExit;

use crate::context::Context;

/// The signals of Linux that end a program.
const SIGNALS: [(&str, u8); 19] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGSYS", 31),
];

/// The program's code, or 128 and the signal; what fits neither is 1, with a note.
pub(crate) fn code(ctx: &Context, exit: &ProcessExit) -> u8 {
    match known(exit) {
        Some(code) => code,
        None => {
            ctx.out.warn(&format!("the command's end ({exit}) is no exit code; reported as 1"));
            1
        }
    }
}

fn known(exit: &ProcessExit) -> Option<u8> {
    match exit {
        ProcessExit::Code(code) => u8::try_from(*code).ok(),
        ProcessExit::Signal(name) => {
            let signal = SIGNALS.iter().find(|(signal, _)| signal == name);
            signal.map(|(_, number)| 128 + number)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals_pass_through() {
        assert_eq!(known(&ProcessExit::Code(0)), Some(0));
        assert_eq!(known(&ProcessExit::Code(255)), Some(255));
        assert_eq!(known(&ProcessExit::Code(-1)), None);
        assert_eq!(known(&ProcessExit::Code(256)), None);
        assert_eq!(known(&ProcessExit::Signal("SIGKILL".to_owned())), Some(137));
        assert_eq!(known(&ProcessExit::Signal("SIGWHAT".to_owned())), None);
        assert_eq!(known(&ProcessExit::Unknown), None);
    }
}
