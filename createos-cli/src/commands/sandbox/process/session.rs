//! A process's terminal at ours: Ctrl-] leaves, Ctrl-N opens another shell, Ctrl-P changes.

use createos_sdk::{Process, ProcessEvent, ProcessExit};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::end;
use super::follow::{RECONNECTS, gone};
use super::target::Place;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Payload;
use crate::terminal::{Hold, Keys, Screen, Sizes, size};

const LEAVE: u8 = 0x1d;
const NEW: u8 = 0x0e;
const CHANGE: u8 = 0x10;
const PIECE: usize = 32 << 10;

/// Our terminal, and the sandbox whose processes are at it.
pub(super) struct At<'a> {
    pub(super) ctx: &'a Context,
    pub(super) place: Place,
    /// Every key is the process's.
    pub(super) raw: bool,
}

/// Why a process is no longer at the terminal.
enum Left {
    Ended(ProcessExit),
    /// By this key.
    Key(u8),
    /// The terminal is gone.
    Gone,
}

impl At<'_> {
    /// Until one of the processes ends, whose exit code counts, or the user leaves.
    pub(super) async fn process(&self, first: Process, after: u64) -> Result<Exit, Failure> {
        let (mut process, mut after) = (first, after);
        loop {
            let note = format!("it goes on: {}", self.place.attach_line(&process));
            let _note = self.ctx.if_interrupted(note);
            let left = self.one(&process, &mut after).await?;
            match left {
                Left::Ended(exit) => return Ok(end::exit(self.ctx, &exit)),
                Left::Key(NEW) => (process, after) = (self.new_shell().await?, 0),
                Left::Key(CHANGE) => {
                    let running = self.place.running(self.ctx).await?;
                    let terminals = running.into_iter().filter(has_terminal).collect();
                    let chosen = self.place.pick(self.ctx, terminals).await?;
                    if let Some(chosen) = chosen.filter(|chosen| chosen.id() != process.id()) {
                        (process, after) = (chosen, 0);
                    }
                }
                Left::Key(_) | Left::Gone => {
                    self.ctx.out.note(&format!(
                        "{} goes on: {}",
                        process.id(),
                        self.place.attach_line(&process)
                    ));
                    return Ok(Exit::Success);
                }
            }
        }
    }

    async fn new_shell(&self) -> Result<Process, Failure> {
        let (rows, cols) = size();
        let spawn = async || self.place.sandbox.spawn_shell(rows, cols).await;
        self.place.on_running(self.ctx, spawn).await
    }

    /// Both directions and the size; the terminal is as it was after.
    async fn one(&self, process: &Process, after: &mut u64) -> Result<Left, Failure> {
        let keys_of =
            if self.raw { "" } else { "; Ctrl-] leaves, Ctrl-N new shell, Ctrl-P change" };
        self.ctx.out.hint(&format!("at {}{keys_of}", process.id()));
        let cannot = |error| Failure::io("cannot use this terminal", &error);
        let keys = Keys::listen().map_err(cannot)?;
        let mut sizes = Sizes::listen().map_err(cannot)?;
        let _raw = Hold::raw().map_err(cannot)?;
        tokio::select! {
            left = self.output(process, after) => left,
            left = self.input(process, &keys) => left,
            failed = self.follow_size(process, &mut sizes) => Err(failed),
        }
    }

    async fn output(&self, process: &Process, after: &mut u64) -> Result<Left, Failure> {
        let attach = async || process.attach().after(*after).reconnects(RECONNECTS).await;
        let mut events = attach().await.map_err(|error| self.place.explain(error))?;
        let mut payload = Payload::new();
        let mut screen = Screen::new();
        while let Some(event) = events.next().await {
            let failed = |error: createos_sdk::Error| {
                self.place.explain(error).about("the connection was lost")
            };
            match event.map_err(failed)? {
                ProcessEvent::Output { seq, bytes, .. } => {
                    screen.shown(&bytes);
                    payload.stdout(&bytes).await?;
                    *after = seq;
                }
                // A line of ours would tear the screen of a program that has just been replayed.
                ProcessEvent::Gap { after: 0, .. } => {}
                ProcessEvent::Gap { after, next } => {
                    payload.stdout(format!("\r\n[{}]\r\n", gone(after, next)).as_bytes()).await?;
                }
                ProcessEvent::Exit(exit) => return Ok(Left::Ended(exit)),
                _ => {}
            }
        }
        Err(Failure::local("the output ended without the process"))
    }

    /// Ctrl+C and all other keys are for the terminal inside, which makes signals of them.
    async fn input(&self, process: &Process, keys: &Keys) -> Result<Left, Failure> {
        let mut writer = process.stdin();
        let mut typed = vec![0; PIECE];
        loop {
            let count = keys.read(&mut typed).await;
            let count = count.map_err(|error| Failure::io("cannot read the terminal", &error))?;
            if count == 0 {
                return Ok(Left::Gone);
            }
            let typed = &typed[..count];
            let ours = |key: &u8| !self.raw && matches!(*key, LEAVE | NEW | CHANGE);
            let at = typed.iter().position(ours);
            let through = &typed[..at.unwrap_or(count)];
            let sent = async {
                writer.write_all(through).await?;
                writer.flush().await
            };
            match (sent.await, at) {
                // The other direction tells how it ended.
                (Err(error), _) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return std::future::pending().await;
                }
                (Err(error), _) => return Err(Failure::io("cannot send what is typed", &error)),
                (Ok(()), Some(at)) => return Ok(Left::Key(typed[at])),
                (Ok(()), None) => {}
            }
        }
    }

    /// The size now, and whenever it changes. It comes back only when it cannot be set at all.
    async fn follow_size(&self, process: &Process, sizes: &mut Sizes) -> Failure {
        let (mut rows, mut cols) = size();
        loop {
            // A process that has just ended has no size; its exit follows.
            let _ = process.resize(rows, cols).await;
            (rows, cols) = sizes.next().await;
        }
    }
}

fn has_terminal(process: &Process) -> bool {
    use createos_sdk::wire::ProcessKind;
    process.view().is_some_and(|view| view.kind == ProcessKind::Pty)
}
