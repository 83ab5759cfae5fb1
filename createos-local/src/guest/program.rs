//! Starting a program: what it is, what it talks through, why it did not start.

use crate::protocol::{Failure, Place, Reply};
use crate::sys;
use crate::users::Identity;
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
    pub(crate) place: Place,
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
    /// There is no such user, or this process may not become it.
    User(i32),
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
        let identity = self.place.user.as_deref().map(Identity::find).transpose();
        let identity = identity.map_err(|error| NotStarted::User(errno(&error)))?;
        let home = identity.as_ref().map_or(HOME, |identity| &identity.home);
        command.current_dir(self.working_directory(home).map_err(NotStarted::Directory)?);
        if let Some(identity) = &identity {
            self.add_names(&mut command, identity);
        }
        let in_terminal = standard.is_terminal();
        let child = standard.give_to(&mut command).and_then(|()| {
            let command = sys::in_new_session(&mut command, in_terminal);
            match identity {
                Some(Identity { uid, gid, groups, .. }) => {
                    sys::as_user(command, uid, gid, groups).spawn()
                }
                None => command.spawn(),
            }
        });
        child
            .map(|child| child.id().cast_signed())
            .map_err(|error| NotStarted::Program(errno(&error)))
    }

    /// What programs expect to be told of the user they run as, unless it was declared.
    fn add_names(&self, command: &mut Command, identity: &Identity) {
        let known = |name: &str| {
            self.env.iter().any(|entry| entry.split_once('=').is_some_and(|(key, _)| key == name))
        };
        for (name, value) in [("HOME", &identity.home), ("USER", &identity.name)] {
            if !known(name) {
                command.env(name, value);
            }
        }
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

    fn working_directory<'a>(&'a self, home: &'a str) -> Result<&'a str, i32> {
        let Some(directory) = &self.place.directory else {
            return Ok(if Path::new(home).is_dir() { home } else { "/" });
        };
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => Ok(directory),
            Ok(_) => Err(errno(&io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(errno(&error)),
        }
    }

    /// The reply for a program that did not start.
    pub(crate) fn failure(&self, why: NotStarted) -> Reply {
        let (NotStarted::Directory(errno) | NotStarted::Program(errno) | NotStarted::User(errno)) =
            why;
        let error = io::Error::from_raw_os_error(errno);
        if let (NotStarted::Directory(_), Some(directory)) = (why, &self.place.directory) {
            let message = format!("cannot enter {directory:?}: {error}");
            return Reply::Failed { kind: Failure::BadPath, message };
        }
        if let (NotStarted::User(_), Some(user)) = (why, &self.place.user) {
            let message = match error.kind() {
                io::ErrorKind::NotFound => format!("there is no user or group {user:?} inside"),
                _ => format!("cannot become {user:?}: {error}"),
            };
            return Reply::Failed { kind: Failure::CommandNotRunnable, message };
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
        let place = Place { directory: Some("/d".into()), user: Some("web".into()) };
        let program = Program { argv: vec!["x".into()], env: vec![], place };
        let kind = |why| match program.failure(why) {
            Reply::Failed { kind, message } => (kind, message),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(NotStarted::Program(2)).0, Failure::CommandNotFound);
        assert_eq!(kind(NotStarted::Program(13)).0, Failure::CommandNotRunnable);
        assert_eq!(kind(NotStarted::Program(11)).0, Failure::Refused);
        let (why, message) = kind(NotStarted::Directory(2));
        assert!(why == Failure::BadPath && message.contains("\"/d\""), "{message}");
        let (why, message) = kind(NotStarted::User(2));
        assert!(why == Failure::CommandNotRunnable && message.contains("web"), "{message}");
    }
}
