//! Starting a program: what it is, what it talks through, why it did not start.

use crate::protocol::{Failure, Reply};
use crate::sys;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const HOME: &str = "/root";
const FALLBACK_SHELL: &str = "/bin/sh";
const EINVAL: i32 = 22;

/// What to start.
pub(crate) struct Program {
    /// Program and arguments; empty for the login shell.
    pub(crate) argv: Vec<String>,
    /// `KEY=VALUE` entries, the whole environment.
    pub(crate) env: Vec<String>,
    /// The home directory unless given.
    pub(crate) directory: Option<String>,
}

/// The program's side of what it talks through.
pub(crate) enum Standard {
    Pipes([OwnedFd; 3]),
    Terminal(OwnedFd),
}

/// Why a program did not start, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// Its directory cannot be entered.
    Directory(i32),
    Program(i32),
}

impl Standard {
    pub(crate) fn descriptors(&self) -> Vec<&dyn AsRawFd> {
        match self {
            Self::Pipes(pipes) => pipes.iter().map(|pipe| pipe as &dyn AsRawFd).collect(),
            Self::Terminal(terminal) => vec![terminal],
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    fn give_to(self, command: &mut Command) -> io::Result<()> {
        let [stdin, stdout, stderr] = match self {
            Self::Pipes(pipes) => pipes,
            Self::Terminal(terminal) => [terminal.try_clone()?, terminal.try_clone()?, terminal],
        };
        command.stdin(stdin).stdout(stdout).stderr(Stdio::from(stderr));
        Ok(())
    }
}

impl Program {
    /// Starts it as the leader of a session of its own. May block.
    pub(crate) fn start(&self, standard: Standard) -> Result<i32, NotStarted> {
        let mut command = self.command();
        command.current_dir(self.working_directory().map_err(NotStarted::Directory)?);
        let in_terminal = standard.is_terminal();
        let child = standard
            .give_to(&mut command)
            .and_then(|()| sys::in_new_session(&mut command, in_terminal).spawn());
        child
            .map(|child| child.id().cast_signed())
            .map_err(|error| NotStarted::Program(errno(&error)))
    }

    fn command(&self) -> Command {
        let mut command = match self.argv.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => {
                let shell = login_shell();
                let mut command = Command::new(&shell);
                // The hyphen is what makes it a login shell.
                command.arg0(format!("-{}", shell.rsplit('/').next().unwrap_or("sh")));
                command
            }
        };
        command.env_clear().envs(self.env.iter().filter_map(|entry| entry.split_once('=')));
        command
    }

    fn working_directory(&self) -> Result<&str, i32> {
        let Some(directory) = &self.directory else {
            return Ok(if Path::new(HOME).is_dir() { HOME } else { "/" });
        };
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => Ok(directory),
            Ok(_) => Err(errno(&io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(errno(&error)),
        }
    }

    /// The reply for a program that did not start.
    pub(crate) fn failure(&self, why: NotStarted) -> Reply {
        let (NotStarted::Directory(errno) | NotStarted::Program(errno)) = why;
        let error = io::Error::from_raw_os_error(errno);
        if let (NotStarted::Directory(_), Some(directory)) = (why, &self.directory) {
            let message = format!("cannot enter {directory:?}: {error}");
            return Reply::Failed { kind: Failure::BadPath, message };
        }
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Failure::CommandNotFound,
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ArgumentListTooLong => Failure::CommandNotRunnable,
            _ => Failure::Refused,
        };
        let message = match self.argv.first() {
            Some(program) => format!("cannot start {program:?}: {error}"),
            None => format!("cannot start the login shell: {error}"),
        };
        Reply::Failed { kind, message }
    }
}

pub(crate) fn errno(error: &io::Error) -> i32 {
    const ENOTDIR: i32 = 20;
    match error.raw_os_error() {
        Some(errno) => errno,
        None if error.kind() == io::ErrorKind::NotADirectory => ENOTDIR,
        None => EINVAL,
    }
}

fn login_shell() -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let shell = shell_of_root(&users).filter(|shell| Path::new(shell).exists());
    shell.unwrap_or(FALLBACK_SHELL).to_owned()
}

fn shell_of_root(users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, _, "0", _, _, _, shell] => Some(shell),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_root_is_found_or_not() {
        let users = "daemon:x:1:1:d:/:/bin/false\nroot:x:0:0:root:/root:/bin/zsh\n";
        assert_eq!(shell_of_root(users), Some("/bin/zsh"));
        assert_eq!(shell_of_root("root:x:0:0:root:/root\n\n:::\n"), None);
        assert_eq!(shell_of_root(""), None);
    }

    #[test]
    fn why_it_did_not_start_is_told_as_a_shell_would() {
        let program = Program { argv: vec!["x".into()], env: vec![], directory: Some("/d".into()) };
        let kind = |why| match program.failure(why) {
            Reply::Failed { kind, message } => (kind, message),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(NotStarted::Program(2)).0, Failure::CommandNotFound);
        assert_eq!(kind(NotStarted::Program(13)).0, Failure::CommandNotRunnable);
        assert_eq!(kind(NotStarted::Program(11)).0, Failure::Refused);
        let (kind, message) = kind(NotStarted::Directory(2));
        assert!(kind == Failure::BadPath && message.contains("\"/d\""), "{message}");
    }
}
