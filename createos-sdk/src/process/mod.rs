//! Managed processes (api.md 5.1 to 5.4): they run on when nobody is connected, and keep their
//! output.

mod attach;
mod guard;
mod quick;
mod spawn;
mod stdin;
mod wait;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;

use crate::check;
use crate::error::Error;
use crate::id::ProcessId;
use crate::operation::Operation;
use crate::sandbox::Sandbox;
use crate::transport::envelope;
use crate::transport::request::Call;
use crate::wire::{
    InputAccepted, ProcessInput, ProcessList, ProcessState, ProcessView, PtySize, SendSignal,
    Signal,
};

pub use self::attach::{Attach, ProcessEvent, ProcessStream};
pub use self::spawn::SpawnProcess;
pub use self::stdin::ProcessStdin;
pub use self::wait::{TerminateProcess, WaitProcess};

/// How a managed process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessExit {
    /// By itself, with this code.
    Code(i32),
    /// Killed by this signal, such as `SIGKILL`.
    Signal(String),
    /// The server does not say how; it may never have been started.
    Unknown,
}

impl ProcessExit {
    fn new(code: Option<i32>, signal: Option<String>) -> Self {
        match (signal.filter(|name| !name.is_empty()), code) {
            (Some(name), _) => Self::Signal(name),
            (None, Some(code)) => Self::Code(code),
            (None, None) => Self::Unknown,
        }
    }

    fn of(view: &ProcessView) -> Self {
        Self::new(view.exit_code, view.signal.clone())
    }

    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// The exit code, unless a signal killed it.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "killed by {name}"),
            Self::Unknown => f.write_str("ended, nobody knows how"),
        }
    }
}

/// A managed process of a sandbox. Made with [`Sandbox::spawn`], [`Sandbox::processes`] or
/// [`Sandbox::process`].
///
/// Cheap to clone; clones share the last-seen view. It is an id and a sandbox: dropping it, or
/// anything made from it but a [`Guard`](crate::Guard), never ends the process. It runs until
/// it ends by itself or is [terminated](Self::terminate).
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// use createos_sdk::ProcessEvent;
/// use futures::TryStreamExt;
///
/// let server = sandbox.spawn("python3").args(["-m", "http.server"]).cwd("/srv").await?;
/// let mut events = server.attach().await?;
/// while let Some(event) = events.try_next().await? {
///     match event {
///         ProcessEvent::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
///         ProcessEvent::Gap { after, next } => println!("[lost: {after} to {next}]"),
///         ProcessEvent::Exit(exit) => println!("{exit}"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Process(Arc<Shared>);

struct Shared {
    sandbox: Sandbox,
    id: ProcessId,
    view: RwLock<Option<Arc<ProcessView>>>,
}

impl Process {
    pub(crate) fn new(sandbox: Sandbox, id: ProcessId) -> Self {
        Self(Arc::new(Shared { sandbox, id, view: RwLock::new(None) }))
    }

    fn seen(sandbox: Sandbox, view: ProcessView) -> Self {
        let this = Self::new(sandbox, view.process_id.clone());
        this.saw(Arc::new(view));
        this
    }

    fn saw(&self, view: Arc<ProcessView>) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    pub(crate) fn list(sandbox: Sandbox) -> Operation<Vec<Self>> {
        let call = sandbox.call("process.list", Method::GET, &["processes"]);
        Operation::new(sandbox.client().clone(), call, move |reply| {
            let list: ProcessList = envelope::data(&reply)?;
            Ok(list.processes.into_iter().map(|view| Self::seen(sandbox.clone(), view)).collect())
        })
    }

    /// Its id.
    pub fn id(&self) -> &ProcessId {
        &self.0.id
    }

    /// The sandbox it runs in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.0.sandbox
    }

    /// What the server last said about it. It may be out of date; `None` on a handle made from
    /// an id, until [`refresh`](Self::refresh).
    pub fn view(&self) -> Option<Arc<ProcessView>> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn call(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        let mut path = vec!["processes", self.id().as_str()];
        path.extend(segments);
        self.sandbox().call(operation, method, &path)
    }

    fn acknowledged(&self, call: Call) -> Operation<()> {
        Operation::acknowledged(self.sandbox().client().clone(), call)
    }

    /// Asks the server how it is (api.md 5.1).
    pub fn refresh(&self) -> Operation<Arc<ProcessView>> {
        let this = self.clone();
        let call = self.call("process.get", Method::GET, &[]);
        Operation::new(self.sandbox().client().clone(), call, move |reply| {
            let view: Arc<ProcessView> = Arc::new(envelope::data(&reply)?);
            this.saw(view.clone());
            Ok(view)
        })
    }

    /// Follows its output, from the oldest that is kept. See [`Attach`].
    pub fn attach(&self) -> Attach {
        Attach::new(self.clone())
    }

    /// A writer into its standard input. See [`ProcessStdin`].
    pub fn stdin(&self) -> ProcessStdin {
        ProcessStdin::new(self.clone())
    }

    /// Writes to its standard input, in one request (api.md 5.3). Gives the server's number of
    /// this input.
    ///
    /// # Errors
    ///
    /// `Conflict`: its input was closed, or it has ended. Input is never sent twice unless the
    /// first cannot have arrived.
    pub fn input(&self, bytes: impl AsRef<[u8]>) -> Operation<u64> {
        let call = self.call("process.input", Method::POST, &["input"]);
        Operation::data(self.sandbox().client().clone(), call)
            .json(&ProcessInput::new(bytes.as_ref()))
            .map(|answer: InputAccepted| answer.input_seq)
    }

    /// Ends its standard input (api.md 5.3). A terminal has no end to give: send it the byte 4
    /// (Ctrl-D) instead.
    pub fn close_stdin(&self) -> Operation<()> {
        self.acknowledged(self.call("process.close_stdin", Method::POST, &["stdin", "close"]))
    }

    /// Sends a signal to its process group, or to the foreground group of its terminal (api.md
    /// 5.3). A [`Signal::Unknown`] is refused before any traffic.
    pub fn signal(&self, signal: Signal) -> Operation<()> {
        let checked = match &signal {
            Signal::Unknown(name) => {
                Err(Error::invalid_argument("signal", format!("{name:?} cannot be sent")))
            }
            _ => Ok(()),
        };
        let call = self.call("process.signal", Method::POST, &["signal"]);
        self.acknowledged(call).checked(checked).json(&SendSignal::new(signal))
    }

    /// Sets the size of its terminal in characters (api.md 5.3). Only for a process that has
    /// one.
    pub fn resize(&self, rows: u16, cols: u16) -> Operation<()> {
        let call = self.call("process.resize", Method::POST, &["resize"]);
        self.acknowledged(call)
            .checked(check::terminal_size(rows, cols))
            .json(&PtySize::new(rows, cols))
    }

    /// Waits until it has ended. See [`WaitProcess`].
    pub fn wait(&self) -> WaitProcess {
        WaitProcess::new(self.clone())
    }

    /// Ends it and everything it started. See [`TerminateProcess`].
    pub fn terminate(&self) -> TerminateProcess {
        TerminateProcess::new(self.clone())
    }
}

/// Whether nothing more can happen to the command itself.
fn leader_ended(view: &ProcessView) -> bool {
    view.leader_exited || view.tree_exited || view.state == ProcessState::Failed
}

fn tree_ended(view: &ProcessView) -> bool {
    view.tree_exited || view.state == ProcessState::Failed
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        f.debug_struct("Process")
            .field("sandbox", self.sandbox().id())
            .field("id", self.id())
            .field("last_state", &view.as_ref().map(|view| view.state.as_str()))
            .finish_non_exhaustive()
    }
}
