//! Managed processes and terminals of the scripted machine.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::wire::{OutputStream, PtySize};
use createos_sdk::{ProcessId, SandboxId};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, sink, stream};
use tokio::sync::{mpsc, watch};

use super::fake::Fake;
use crate::runtime::{
    Control, ExitReason, Kept, Place, ProcessEvent, ProcessEvents, ProcessSpec, ProcessStatus,
    Processes, RuntimeError, Terminal, Typed, When,
};

/// The processes of all sandboxes, oldest first.
#[derive(Default)]
pub(crate) struct Table(Mutex<Vec<(SandboxId, Arc<Process>)>>);

struct Process {
    spec: ProcessSpec,
    state: watch::Sender<State>,
}

#[derive(Clone, Default)]
struct State {
    output: Vec<u8>,
    inputs: u64,
    input_closed: bool,
    exit: Option<ExitReason>,
    tree_ended: bool,
    size: Option<PtySize>,
}

impl Process {
    fn program(&self) -> &str {
        self.spec.argv.first().map_or("shell", String::as_str)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    fn status(&self) -> ProcessStatus {
        let state = self.state.borrow();
        let bytes = state.output.len() as u64;
        ProcessStatus {
            id: self.spec.id.clone(),
            has_terminal: self.spec.terminal.is_some(),
            pid: 7,
            exit: state.exit,
            tree_ended: state.tree_ended,
            terminating: false,
            created: 1_700_000_000_000,
            finished: state.tree_ended.then_some(1_700_000_001_500),
            argv: self.spec.argv.clone(),
            directory: self.spec.directory.clone(),
            foreground: (self.program() == "shell").then(|| (9, vec!["vi".into(), "x".into()])),
            output: Kept { oldest: bytes.min(1), newest: bytes, bytes },
        }
    }

    async fn until(&self, done: impl FnMut(&State) -> bool) {
        let _ = self.state.subscribe().wait_for(done).await;
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Vec<(SandboxId, Arc<Process>)>> {
        self.0.lock().unwrap()
    }

    fn find(&self, sandbox: &SandboxId, id: &ProcessId) -> Result<Arc<Process>, RuntimeError> {
        let table = self.lock();
        let mut own = table.iter().filter(|(owner, _)| owner == sandbox);
        let found = own.find(|(_, process)| process.spec.id == *id);
        found.map(|(_, process)| Arc::clone(process)).ok_or(RuntimeError::NoSuchProcess)
    }
}

/// What each program does. `sleep` runs until it is ended, `cat` repeats its input, `deaf`
/// reads none, `stubborn` leaves its tree behind.
fn begin(spec: ProcessSpec) -> Result<Process, RuntimeError> {
    let mut state = State { size: spec.terminal, ..State::default() };
    match spec.argv.first().map_or("shell", String::as_str) {
        "echo" => {
            state.output = spec.argv[1..].join(" ").into_bytes();
            state.exit = Some(ExitReason::Code(0));
            state.tree_ended = true;
        }
        "env" => {
            let lines = spec.env.iter().map(|(key, value)| format!("{key}={value}\n"));
            state.output = lines.collect::<String>().into_bytes();
        }
        "stubborn" => state.exit = Some(ExitReason::Code(3)),
        "sleep" | "cat" | "deaf" | "flood" | "shell" => {}
        "crowded" => return Err(RuntimeError::Refused("too many processes".to_owned())),
        name => {
            let message = format!("{name}: no such program");
            return Err(RuntimeError::NotStarted { message, exit_code: 127 });
        }
    }
    if spec.directory.as_deref() == Some("/missing") {
        return Err(RuntimeError::BadPath("/missing: no such directory".to_owned()));
    }
    Ok(Process { spec, state: watch::channel(state).0 })
}

impl Processes for Arc<Fake> {
    fn spawn<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ProcessSpec,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>> {
        async move {
            self.check_alive(id)?;
            let process = Arc::new(begin(spec)?);
            let status = process.status();
            self.processes.lock().push((id.clone(), process));
            Ok(status)
        }
        .boxed()
    }

    fn processes<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, Result<Vec<ProcessStatus>, RuntimeError>> {
        async move {
            let table = self.processes.lock();
            let own = table.iter().filter(|(owner, _)| owner == id);
            Ok(own.map(|(_, process)| process.status()).collect())
        }
        .boxed()
    }

    fn status<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        when: When,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>> {
        async move {
            let process = self.processes.find(id, process)?;
            match when {
                When::Now => {}
                When::LeaderEnded => process.until(|state| state.exit.is_some()).await,
                When::TreeEnded => process.until(|state| state.tree_ended).await,
                When::Terminated { grace } => process.change(|state| {
                    let signal = if grace.is_zero() { 9 } else { 15 };
                    state.exit.get_or_insert(ExitReason::Signal(signal));
                    state.tree_ended = true;
                }),
            }
            Ok(process.status())
        }
        .boxed()
    }

    fn control<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        control: Control,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let process = self.processes.find(id, process)?;
            if process.state.borrow().tree_ended {
                return Err(RuntimeError::WrongState("the process has ended".to_owned()));
            }
            process.change(|state| match control {
                Control::CloseInput => state.input_closed = true,
                Control::Resize(size) => state.size = Some(size),
                Control::Signal(signal) => state.exit = Some(ExitReason::Signal(signal)),
            });
            Ok(())
        }
        .boxed()
    }

    fn feed<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        bytes: Bytes,
        _patience: Duration,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>> {
        async move {
            let process = self.processes.find(id, process)?;
            if process.state.borrow().input_closed {
                return Err(RuntimeError::WrongState("the input is closed".to_owned()));
            }
            if process.program() == "deaf" {
                return Err(RuntimeError::Full("it does not read".to_owned()));
            }
            process.change(|state| {
                state.inputs += 1;
                state.output.extend_from_slice(&bytes);
            });
            let number = process.state.borrow().inputs;
            Ok(number)
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        after: u64,
    ) -> BoxFuture<'a, Result<ProcessEvents, RuntimeError>> {
        async move {
            let process = self.processes.find(id, process)?;
            if process.program() == "flood" {
                return Ok(stream::iter([Ok(ProcessEvent::Expired { oldest: 41 })]).boxed());
            }
            let start = (Some(after), process);
            Ok(stream::unfold(start, |(place, process)| async move {
                let place = place?;
                process
                    .until(|state| state.output.len() as u64 > place || state.exit.is_some())
                    .await;
                let state = process.state.borrow().clone();
                let end = state.output.len() as u64;
                let event = match state.output.get(place as usize..) {
                    Some(rest) if !rest.is_empty() => ProcessEvent::Output {
                        place: end,
                        stream: OutputStream::Stdout,
                        bytes: Bytes::copy_from_slice(rest),
                    },
                    _ => ProcessEvent::Exited { place: end + 1, reason: state.exit? },
                };
                let next = matches!(event, ProcessEvent::Output { .. }).then_some(end);
                Some((Ok(event), (next, process)))
            })
            .boxed())
        }
        .boxed()
    }

    /// Repeats what is typed and says its size; `exit` ends it.
    fn terminal<'a>(
        &'a self,
        id: &'a SandboxId,
        _env: BTreeMap<String, String>,
        _place: Place,
    ) -> BoxFuture<'a, Result<Terminal, RuntimeError>> {
        async move {
            self.check_alive(id)?;
            let (sender, receiver) = mpsc::channel(16);
            self.terminals.fetch_add(1, Ordering::SeqCst);
            let open = Arc::clone(&self.terminals);
            let held = scopeguard::guard(open, |open| {
                open.fetch_sub(1, Ordering::SeqCst);
            });
            let input = sink::unfold((sender, held), |(sender, held), typed| async {
                let _ = sender.send(typed).await;
                Ok::<_, RuntimeError>((sender, held))
            });
            let output = stream::unfold(receiver, |mut receiver| async move {
                let shown = match receiver.recv().await? {
                    Typed::Bytes(bytes) if bytes == "exit" => return None,
                    Typed::Bytes(bytes) => bytes,
                    Typed::Resize(size) => format!("{}x{}\n", size.rows, size.cols).into(),
                    Typed::End => "end\n".into(),
                };
                Some((Ok(shown), receiver))
            });
            Ok(Terminal { input: Box::pin(input), output: output.boxed() })
        }
        .boxed()
    }
}
