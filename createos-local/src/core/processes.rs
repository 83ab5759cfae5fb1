//! Managed processes and terminals of a running sandbox.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::ProcessId;
use createos_sdk::wire::{CreateProcess, PtySize, Signal};
use futures::{Sink, SinkExt as _, StreamExt as _};
use ulid::Ulid;

use super::error::Fields;
use super::live::Live;
use super::slot::Life;
use super::{CoreError, validate};
use crate::runtime::{
    Control, MAX_COMMAND, MAX_INPUT, ProcessEvent, ProcessEvents, ProcessSpec, ProcessStatus,
    RuntimeError, Terminal, Typed, When,
};
use crate::store::Sandbox;

/// How long input waits for a process to read what came before.
const PATIENCE: Duration = Duration::from_secs(30);
/// The size of a terminal for which none was given.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Output of a process on its way to a client. Dropping it leaves the process alone.
pub(crate) struct Following {
    events: ProcessEvents,
    life: Life,
}

/// An open terminal. Dropping it ends the shell and everything that it started.
pub(crate) struct Session {
    terminal: Terminal,
    life: Life,
}

/// Both directions of a [`Session`].
pub(crate) struct Keyboard(Pin<Box<dyn Sink<Typed, Error = RuntimeError> + Send>>);

pub(crate) struct Screen {
    output: futures::stream::BoxStream<'static, Result<Bytes, RuntimeError>>,
    life: Life,
}

impl Live {
    /// Does something with the machine, unless the sandbox ends before it is done.
    async fn with<T>(
        &self,
        work: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, CoreError> {
        let done = self.life.run_until_cancelled(work).await;
        Ok(done.ok_or_else(|| self.life.lost())??)
    }

    /// Starts a process.
    pub(crate) async fn spawn(&self, request: CreateProcess) -> Result<ProcessStatus, CoreError> {
        let spec = process_spec(request, self.sandbox())?;
        let spawned = self.life.run_until_cancelled(self.runtime().spawn(self.id(), spec)).await;
        match spawned.ok_or_else(|| self.life.lost())? {
            Ok(status) => Ok(status),
            Err(RuntimeError::NotStarted { message, .. }) => Err(CoreError::field("cmd", message)),
            Err(RuntimeError::BadPath(message)) => Err(CoreError::field("cwd", message)),
            Err(error) => Err(error.into()),
        }
    }

    /// Those that run, and those that have ended and are still kept.
    pub(crate) async fn processes(&self) -> Result<Vec<ProcessStatus>, CoreError> {
        self.with(self.runtime().processes(self.id())).await
    }

    pub(crate) async fn process(&self, process: &ProcessId) -> Result<ProcessStatus, CoreError> {
        self.with(self.runtime().status(self.id(), process, When::Now)).await
    }

    /// How a process is when it has got so far, or when the time is up.
    pub(crate) async fn wait(
        &self,
        process: &ProcessId,
        when: When,
        limit: Duration,
    ) -> Result<ProcessStatus, CoreError> {
        let waiting = self.with(self.runtime().status(self.id(), process, when));
        match tokio::time::timeout(limit, waiting).await {
            Ok(status) => status,
            Err(_) => self.process(process).await,
        }
    }

    /// Ends a process and everything it started; how it is then.
    pub(crate) async fn terminate(
        &self,
        process: &ProcessId,
        grace: Duration,
    ) -> Result<ProcessStatus, CoreError> {
        self.with(self.runtime().status(self.id(), process, When::Terminated { grace })).await
    }

    /// Writes to the standard input of a process; the number of this input.
    pub(crate) async fn feed(&self, process: &ProcessId, bytes: Bytes) -> Result<u64, CoreError> {
        if bytes.len() > MAX_INPUT {
            return Err(CoreError::TooLarge(format!(
                "{} bytes are more than the {MAX_INPUT} of one input; send it in pieces",
                bytes.len()
            )));
        }
        self.with(self.runtime().feed(self.id(), process, bytes, PATIENCE)).await
    }

    pub(crate) async fn close_input(&self, process: &ProcessId) -> Result<(), CoreError> {
        self.with(self.runtime().control(self.id(), process, Control::CloseInput)).await
    }

    pub(crate) async fn resize(&self, process: &ProcessId, size: PtySize) -> Result<(), CoreError> {
        let sides = [("rows", size.rows), ("cols", size.cols)];
        let wrong = sides.into_iter().filter(|(_, side)| *side == 0);
        CoreError::check(
            wrong
                .map(|(name, _)| (name.to_owned(), "must be from 1 to 65535".to_owned()))
                .collect(),
        )?;
        self.with(self.runtime().control(self.id(), process, Control::Resize(size))).await
    }

    pub(crate) async fn signal(
        &self,
        process: &ProcessId,
        signal: &Signal,
    ) -> Result<(), CoreError> {
        let number = signal_number(signal).ok_or_else(|| {
            let name = validate::shown(signal.as_str());
            CoreError::field("signal", format!("{name:?} cannot be sent; {SIGNALS} can"))
        })?;
        self.with(self.runtime().control(self.id(), process, Control::Signal(number))).await
    }

    /// Output of a process behind a place, then as it comes.
    pub(crate) async fn follow(
        self,
        process: &ProcessId,
        after: u64,
    ) -> Result<Following, CoreError> {
        let events = self.with(self.runtime().follow(self.id(), process, after)).await?;
        Ok(Following { events, life: self.life })
    }

    /// Opens a terminal, whose shell starts when it has its first size.
    pub(crate) async fn terminal(self) -> Result<Session, CoreError> {
        let env = declared(self.sandbox());
        let place = self.sandbox().spec.image.place();
        let terminal = self.with(self.runtime().terminal(self.id(), env, place)).await?;
        Ok(Session { terminal, life: self.life })
    }
}

impl Following {
    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<ProcessEvent, CoreError>> {
        tokio::select! {
            biased;
            event = self.events.next() => Some(event?.map_err(CoreError::from)),
            () = self.life.cancelled() => Some(Err(self.life.lost())),
        }
    }
}

impl Session {
    pub(crate) fn split(self) -> (Keyboard, Screen) {
        let Terminal { input, output } = self.terminal;
        (Keyboard(input), Screen { output, life: self.life })
    }
}

impl Keyboard {
    pub(crate) async fn send(&mut self, typed: Typed) -> Result<(), CoreError> {
        let typed = match typed {
            Typed::Resize(size) => Typed::Resize(usual_where_none(size)),
            other => other,
        };
        Ok(self.0.send(typed).await?)
    }
}

impl Screen {
    /// What the shell shows next; `None` when it has ended.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, CoreError>> {
        tokio::select! {
            biased;
            output = self.output.next() => Some(output?.map_err(CoreError::from)),
            () = self.life.cancelled() => Some(Err(self.life.lost())),
        }
    }
}

/// The variables of the sandbox's image, and above them those declared when it was created.
pub(super) fn declared(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut all = sandbox.spec.image.env.clone();
    let envs = sandbox.spec.envs.iter();
    all.extend(envs.map(|(key, value)| (key.clone(), value.expose().to_owned())));
    all
}

fn process_spec(request: CreateProcess, sandbox: &Sandbox) -> Result<ProcessSpec, CoreError> {
    CoreError::check(faults(&request))?;
    let mut env = declared(sandbox);
    env.extend(request.env.into_iter().map(|(key, value)| (key, value.expose().to_owned())));
    let id = format!("prc-{}", Ulid::new().to_string().to_lowercase());
    let id = ProcessId::try_from(id).map_err(|error| CoreError::Internal(error.to_string()))?;
    Ok(ProcessSpec {
        id,
        argv: request.cmd.into_iter().chain(request.args).collect(),
        env,
        directory: request.cwd.or_else(|| sandbox.spec.image.directory.clone()),
        terminal: request.pty.map(usual_where_none),
        user: sandbox.spec.image.user.clone(),
    })
}

fn faults(request: &CreateProcess) -> Fields {
    let mut wrong = Fields::new();
    let mut fault = |field: &str, why: &str| {
        wrong.insert(field.to_owned(), why.to_owned());
    };
    match &request.cmd {
        Some(program) if program.is_empty() => fault("cmd", "is empty; name a program"),
        Some(program) if program.contains('\0') => fault("cmd", "must not contain a NUL character"),
        None if request.pty.is_none() => fault("cmd", "is missing; only a terminal has a default"),
        None if !request.args.is_empty() => fault("args", "are of no use without `cmd`"),
        _ => {}
    }
    if request.args.iter().any(|arg| arg.contains('\0')) {
        fault("args", "must not contain a NUL character");
    }
    let words = request.cmd.iter().chain(&request.args);
    if words.map(String::len).sum::<usize>() > MAX_COMMAND {
        fault("args", &format!("are too long; with `cmd` they may have {MAX_COMMAND} bytes"));
    }
    if let Some(Err(why)) = request.cwd.as_deref().map(directory) {
        fault("cwd", &why);
    }
    let env = request.env.iter().map(|(key, value)| (key.as_str(), value.expose()));
    if let Err(why) = validate::envs(env) {
        fault("env", &why);
    }
    wrong
}

/// Unlike the path of a transfer, it may go up: nothing is written there.
fn directory(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must be absolute, starting with `/`".to_owned());
    }
    if path.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    Ok(())
}

fn usual_where_none(size: PtySize) -> PtySize {
    let or = |side: u16, usual| if side == 0 { usual } else { side };
    PtySize::new(or(size.rows, USUAL_SIZE.0), or(size.cols, USUAL_SIZE.1))
}

const SIGNALS: &str = "SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH";

/// The same on every architecture this engine runs on.
fn signal_number(signal: &Signal) -> Option<i32> {
    Some(match signal {
        Signal::Hangup => 1,
        Signal::Interrupt => 2,
        Signal::Quit => 3,
        Signal::Kill => 9,
        Signal::User1 => 10,
        Signal::User2 => 12,
        Signal::Terminate => 15,
        Signal::WindowChanged => 28,
        _ => return None,
    })
}

/// The name of a signal that ended a process.
pub(crate) fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
    match NAMES.get(index) {
        Some(name) => format!("SIG{name}"),
        None => format!("SIGRTMIN+{}", number - 34),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names_and_numbers() {
        for name in SIGNALS.split(", ") {
            let signal: Signal = serde_json::from_value(name.into()).unwrap();
            assert_eq!(signal_name(signal_number(&signal).unwrap()), name);
        }
        assert_eq!(signal_number(&Signal::Unknown("SIGSTOP".into())), None);
        assert_eq!((signal_name(11), signal_name(31)), ("SIGSEGV".into(), "SIGSYS".into()));
        assert_eq!(signal_name(36), "SIGRTMIN+2");
    }
}
