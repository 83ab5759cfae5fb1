//! The engine's end of the warden: starting it, asking it, noticing its end.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType,
};
use scopeguard::ScopeGuard;
use tokio::sync::{mpsc, oneshot};

use crate::runtime::RuntimeError;
use crate::warden_protocol::{Boot, Command, Configure, Facts, MAX_PACKET, Report};

/// What the warden tells without being asked.
#[derive(Debug)]
pub(crate) enum Event {
    Ended {
        id: String,
        reason: String,
    },
    /// The warden itself is gone, and every sandbox with it.
    Gone,
}

/// PID 1 of a sandbox, and a handle that names this process and no later one.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: i32,
    pidfd: OwnedFd,
}

impl Init {
    pub(crate) fn is_alive(&self) -> bool {
        !self.ends_within(Duration::ZERO)
    }

    /// Whether the process has ended, or does so in time. Blocks.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).ok();
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut ended, timeout.as_ref()) != Ok(0)
    }
}

type Answer = Result<Option<Init>, RuntimeError>;

/// A running warden. Dropping the last handle ends it and every sandbox.
pub(crate) struct Warden {
    shared: Arc<Shared>,
    next_ticket: AtomicU64,
    pub(crate) facts: Facts,
}

struct Shared {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    gone: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: &Command) -> io::Result<()> {
        let packet = command.to_packet();
        rustix::net::send(&self.socket, &packet, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Warden {
    /// Starts the program and configures it. Blocks for some milliseconds.
    pub(crate) fn start(
        program: &Path,
        data_dir: &Path,
        configure: Configure,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, RuntimeError> {
        let context = |what: &str| {
            let context = format!("cannot {what} {}", program.display());
            move |source: io::Error| RuntimeError::Io { context, source }
        };
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| context("make a socket for")(error.into()))?;
        let child = Program::new(program)
            .arg(data_dir)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // Its own group: a Ctrl+C in the terminal is the engine's to handle.
            .process_group(0)
            .spawn()
            .map_err(context("start"))?;
        let shared = Arc::new(Shared { socket: ours, waiting: Mutex::default() });
        let facts = shared
            .send(&Command::Configure(configure))
            .and_then(|()| receive(&shared.socket))
            .map_err(context("talk to"));
        let facts = match facts {
            Ok(Some((Report::Configured(facts), _))) => facts,
            other => return Err(refused(other, child)),
        };
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("createos-warden".to_owned())
            .spawn(move || listen(&for_thread, child, &events))
            .map_err(context("listen to"))?;
        Ok(Self { shared, next_ticket: AtomicU64::new(1), facts })
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.shared.waiting().gone
    }

    pub(crate) async fn boot(&self, boot: Boot) -> Result<Init, RuntimeError> {
        let id = boot.id.clone();
        // A boot that nobody waits for any more must not stay running.
        let abandoned = scopeguard::guard((), |()| {
            let _ = self.shared.send(&Command::Stop { ticket: 0, id });
        });
        let answer = self.ask(|ticket| Command::Boot(Boot { ticket, ..boot })).await;
        ScopeGuard::into_inner(abandoned);
        answer?.ok_or_else(|| RuntimeError::Unreachable("the warden sent no process".to_owned()))
    }

    /// Returns when the sandbox's last process is gone.
    pub(crate) async fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        let id = id.to_owned();
        match self.ask(|ticket| Command::Stop { ticket, id }).await {
            // With the warden, all its sandboxes ended.
            _ if self.is_gone() => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn ask(&self, command: impl FnOnce(u64) -> Command) -> Answer {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.gone {
                return Err(gone());
            }
            waiting.answers.insert(ticket, sender);
        }
        if self.shared.send(&command(ticket)).is_err() {
            self.shared.waiting().answers.remove(&ticket);
            return Err(gone());
        }
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends the warden and every sandbox.
    pub(crate) fn end(&self) {
        // The warden sees the end of its socket; our thread sees it close and stops.
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Write);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.end();
    }
}

fn gone() -> RuntimeError {
    RuntimeError::Unreachable("the engine's warden process has ended".to_owned())
}

fn refused(
    outcome: Result<Option<(Report, Option<OwnedFd>)>, RuntimeError>,
    mut child: Child,
) -> RuntimeError {
    let error = match outcome {
        Ok(Some((Report::Failed { message, .. }, _))) => RuntimeError::Unsupported(message),
        Ok(_) => gone(),
        Err(error) => error,
    };
    // Its socket is closed by now, so it ends by itself.
    let _ = child.kill();
    let _ = child.wait();
    error
}

/// Hands reports to whom they concern, until the warden closes its end.
fn listen(shared: &Shared, mut child: Child, events: &mpsc::UnboundedSender<Event>) {
    while let Ok(Some((report, fd))) = receive(&shared.socket) {
        let (ticket, answer) = match report {
            Report::Booted { ticket, pid } => (ticket, Ok(fd.map(|pidfd| Init { pid, pidfd }))),
            Report::Stopped { ticket } => (ticket, Ok(None)),
            Report::Failed { ticket, message } => (ticket, Err(RuntimeError::Unsupported(message))),
            Report::Ended { id, reason } => {
                let _ = events.send(Event::Ended { id, reason });
                continue;
            }
            Report::Configured(_) => continue,
        };
        if let Some(waiting) = shared.waiting().answers.remove(&ticket) {
            let _ = waiting.send(answer);
        }
    }
    let mut waiting = shared.waiting();
    waiting.gone = true;
    waiting.answers.clear();
    drop(waiting);
    let _ = child.wait();
    let _ = events.send(Event::Gone);
}

/// One packet and the descriptor that came with it; `None` at the end.
fn receive(socket: &OwnedFd) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        match rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let report = Report::parse(&buffer[..received.bytes])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Some((report, fd)))
}
