//! The engine's end of the warden: starting it, asking it, noticing its end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};
use scopeguard::ScopeGuard;
use tokio::sync::{mpsc, oneshot};

use super::packets;
use super::sockets::Maker;
use crate::network_protocol::{Link, Subnet};
use crate::runtime::RuntimeError;
use crate::warden_protocol::{Boot, Command, Configure, Facts, MAX_PACKET, Memory, Report};

/// How long a warden may take to prepare the machine.
const START: Duration = Duration::from_secs(30);

/// What a warden tells without being asked.
#[derive(Debug)]
pub(crate) enum Event {
    Ended {
        id: String,
        pid: i32,
        reason: String,
    },
    /// The warden itself is gone, and every sandbox with it.
    Gone {
        generation: u64,
    },
}

/// PID 1 of a sandbox, the way to its agent, and a handle that names this process and
/// no later one.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: i32,
    /// Which warden made it.
    pub(crate) generation: u64,
    pidfd: OwnedFd,
    /// The agent's directory, opened before anything else ran inside. Paths are no way
    /// back to it: links inside could lead them anywhere.
    directory: OwnedFd,
    /// Makes sockets in its network, once one was wanted.
    pub(crate) maker: tokio::sync::Mutex<Option<Maker>>,
    /// The private networks that it is on, if it ever was on one.
    pub(crate) links: tokio::sync::Mutex<Option<Vec<Link>>>,
}

impl Init {
    fn new(pid: i32, generation: u64, pidfd: OwnedFd) -> io::Result<Self> {
        let path = format!("/proc/{pid}/root/.cos/run");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let (maker, links) = Default::default();
        Ok(Self { pid, generation, pidfd, directory, maker, links })
    }

    /// Where the agent listens. Good as long as this value lives.
    pub(crate) fn socket_path(&self) -> String {
        format!("/proc/self/fd/{}/sock", self.directory.as_raw_fd())
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.ends_within(Duration::ZERO)
    }

    /// Whether the process has ended, or does so in time. Blocks.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).ok();
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut ended, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                outcome => return outcome == Ok(1),
            }
        }
    }

    /// Kills the sandbox without the warden's help.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }
}

type Answer = Result<Given, RuntimeError>;

/// What comes with an answer.
enum Given {
    Nothing,
    Init(Init),
    SocketMaker(OwnedFd),
    Line(OwnedFd),
    Volume(Volume),
    Busy,
}

/// A filesystem that is mounted in a sandbox and waits for the engine to serve it.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) number: u32,
    /// The id that files must have to be root's inside.
    pub(crate) owner: u32,
    pub(crate) device: OwnedFd,
}

/// A running warden. Dropping the last handle ends it and every sandbox.
pub(crate) struct Warden {
    shared: Arc<Shared>,
    next_ticket: AtomicU64,
    pub(crate) facts: Facts,
}

struct Shared {
    socket: OwnedFd,
    generation: u64,
    /// To the thread that writes: a warden that is stopped must not stop anybody here.
    outgoing: std::sync::mpsc::Sender<Command>,
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
}

fn send(socket: &OwnedFd, command: &Command) -> io::Result<()> {
    rustix::net::send(socket, &command.to_packet(), SendFlags::NOSIGNAL)?;
    Ok(())
}

impl Warden {
    /// Starts the program and configures it. Blocks for some milliseconds.
    pub(crate) fn start(
        program: &Path,
        data_dir: &Path,
        configure: Configure,
        generation: u64,
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
        let facts = match configured(&ours, configure) {
            Ok(Some((Report::Configured(facts), _))) => facts,
            other => return Err(refused(other.map_err(context("talk to")), child)),
        };
        let (outgoing, commands) = std::sync::mpsc::channel();
        let waiting = Mutex::default();
        let shared = Arc::new(Shared { socket: ours, generation, outgoing, waiting });
        let thread = || std::thread::Builder::new().name("createos-warden".to_owned());
        let socket = shared.socket.try_clone().map_err(context("talk to"))?;
        thread()
            .spawn(move || while commands.recv().is_ok_and(|c| send(&socket, &c).is_ok()) {})
            .map_err(context("talk to"))?;
        let for_thread = Arc::clone(&shared);
        thread()
            .spawn(move || listen(&for_thread, child, &events))
            .map_err(context("listen to"))?;
        Ok(Self { shared, next_ticket: AtomicU64::new(1), facts })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.shared.waiting().gone
    }

    /// Boots a sandbox. A boot that nobody waits for any more does not stay running.
    pub(crate) async fn boot(&self, boot: Boot) -> Result<Init, RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let abandoned = scopeguard::guard((), |()| {
            let _ = self.shared.outgoing.send(Command::Abandon { boot: ticket });
        });
        let boot = Boot { ticket, ..boot };
        let Given::Init(init) = self.ask(ticket, Command::Boot(boot)).await? else {
            return Err(no_descriptor("sandbox"));
        };
        // Still under the guard: the agent must answer before anybody relies on it.
        super::agent::greet(&init).await?;
        ScopeGuard::into_inner(abandoned);
        Ok(init)
    }

    /// Returns when the sandbox's last process is gone and its disk is closed; or, where
    /// the disk is to be discarded, taken out of its directory.
    pub(crate) async fn stop(
        &self,
        id: &str,
        directory: String,
        discard: bool,
    ) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let stop = Command::Stop { ticket, id: id.to_owned(), directory, discard };
        match self.ask(ticket, stop).await {
            // With the warden, all its sandboxes ended.
            _ if self.is_gone() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Starts a socket maker in a running sandbox, and returns our end of it.
    pub(crate) async fn make_sockets(&self, id: &str) -> Result<OwnedFd, RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        match self.ask(ticket, Command::MakeSockets { ticket, id: id.to_owned() }).await? {
            Given::SocketMaker(socket) => Ok(socket),
            _ => Err(no_descriptor("socket maker")),
        }
    }

    /// Puts a running sandbox on these private networks, and takes it off all others.
    pub(crate) async fn set_links(
        &self,
        id: &str,
        links: Vec<Link>,
        keep_addresses: bool,
    ) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let set = Command::SetLinks { ticket, id: id.to_owned(), links, keep_addresses };
        self.ask(ticket, set).await.map(drop)
    }

    /// Makes a line to the router of a private network; returns its number and our end of it.
    /// A line that nobody waits for any more does not stay.
    pub(crate) async fn open_line(
        &self,
        network: &str,
        subnet: Subnet,
    ) -> Result<(u64, OwnedFd), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let network = network.to_owned();
        match self.ask(ticket, Command::OpenLine { ticket, network, subnet }).await? {
            Given::Line(line) => Ok((ticket, line)),
            _ => Err(no_descriptor("line")),
        }
    }

    /// Tells that such a line is closed.
    pub(crate) fn close_line(&self, line: u64) {
        let _ = self.shared.outgoing.send(Command::CloseLine { line });
    }

    /// Mounts a filesystem in a running sandbox. Whoever looks into it waits until it is
    /// served.
    pub(crate) async fn mount_volume(&self, id: &str, path: &str) -> Result<Volume, RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (id, path) = (id.to_owned(), path.to_owned());
        match self.ask(ticket, Command::MountVolume { ticket, id, path }).await? {
            Given::Volume(volume) => Ok(volume),
            _ => Err(no_descriptor("mount")),
        }
    }

    /// Unmounts it; `false` when somebody uses it, and it was not forced.
    pub(crate) async fn unmount_volume(
        &self,
        volume: u32,
        force: bool,
    ) -> Result<bool, RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let unmount = Command::UnmountVolume { ticket, volume, force };
        match self.ask(ticket, unmount).await {
            // With the warden, all its mounts ended.
            _ if self.is_gone() => Ok(true),
            answer => answer.map(|given| !matches!(given, Given::Busy)),
        }
    }

    /// Makes every process of a sandbox stand still.
    pub(crate) async fn freeze(&self, id: &str) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.ask(ticket, Command::Freeze { ticket, id: id.to_owned() }).await.map(drop)
    }

    /// Lets them go on. What does not stand still goes on as well.
    pub(crate) async fn thaw(&self, id: &str) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.ask(ticket, Command::Thaw { ticket, id: id.to_owned() }).await.map(drop)
    }

    /// Copies the disk in one directory to another, also while it is in use.
    pub(crate) async fn copy_disk(&self, from: String, to: String) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.ask(ticket, Command::CopyDisk { ticket, from, to }).await.map(drop)
    }

    /// Makes the disk of a running sandbox larger.
    pub(crate) async fn grow(&self, directory: String, mib: u64) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.ask(ticket, Command::Grow { ticket, directory, mib }).await.map(drop)
    }

    /// Saves the processes of a sandbox in this life, whose PID 1 is `pid`, and ends them;
    /// returns when the last one is gone. Where that fails, they run on.
    pub(crate) async fn dump(
        &self,
        id: &str,
        pid: i32,
        memory: Memory,
    ) -> Result<(), RuntimeError> {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let dump = Command::Dump { ticket, id: id.to_owned(), pid, memory };
        self.ask(ticket, dump).await.map(drop)
    }

    async fn ask(&self, ticket: u64, command: Command) -> Answer {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.gone {
                return Err(gone());
            }
            waiting.answers.insert(ticket, sender);
        }
        // Were the writer gone, so would be the warden, and `listen` would answer.
        let _ = self.shared.outgoing.send(command);
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends the warden and every sandbox.
    pub(crate) fn end(&self) {
        // The warden sees the end of its socket; our thread sees it close and stops.
        let _ = rustix::net::shutdown(&self.shared.socket, Shutdown::Write);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.end();
    }
}

fn configured(
    socket: &OwnedFd,
    configure: Configure,
) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let set_timeout = |time| rustix::net::sockopt::set_socket_timeout(socket, Timeout::Recv, time);
    set_timeout(Some(START))?;
    send(socket, &Command::Configure(configure))?;
    let answer = receive(socket);
    set_timeout(None)?;
    answer
}

fn no_descriptor(what: &str) -> RuntimeError {
    RuntimeError::Exhausted(format!("the engine has no file descriptor left for another {what}"))
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
    let generation = shared.generation;
    while let Ok(Some((report, fd))) = receive(&shared.socket) {
        let (ticket, answer) = match report {
            Report::Booted { ticket, pid } => (ticket, booted(pid, generation, fd)),
            Report::MakesSockets { ticket } => {
                (ticket, Ok(fd.map_or(Given::Nothing, Given::SocketMaker)))
            }
            Report::LineOpened { ticket } => (ticket, Ok(fd.map_or(Given::Nothing, Given::Line))),
            Report::VolumeMounted { ticket, volume, owner } => {
                let given =
                    fd.map(|device| Given::Volume(Volume { number: volume, owner, device }));
                (ticket, Ok(given.unwrap_or(Given::Nothing)))
            }
            Report::VolumeBusy { ticket } => (ticket, Ok(Given::Busy)),
            Report::Done { ticket } | Report::Frozen { ticket } | Report::Thawed { ticket } => {
                (ticket, Ok(Given::Nothing))
            }
            Report::Failed { ticket, message } => (ticket, Err(RuntimeError::Unsupported(message))),
            Report::Ended { id, pid, reason } => {
                let _ = events.send(Event::Ended { id, pid, reason });
                continue;
            }
            Report::Configured(_) => continue,
        };
        if let Some(waiting) = shared.waiting().answers.remove(&ticket) {
            let _ = waiting.send(answer);
        }
    }
    // Whyever we stopped listening, the warden must not go on alone.
    let _ = rustix::net::shutdown(&shared.socket, Shutdown::Both);
    let mut waiting = shared.waiting();
    waiting.gone = true;
    waiting.answers.clear();
    drop(waiting);
    let _ = child.wait();
    let _ = events.send(Event::Gone { generation });
}

fn booted(pid: i32, generation: u64, pidfd: Option<OwnedFd>) -> Answer {
    let Some(pidfd) = pidfd else { return Ok(Given::Nothing) };
    let init = Init::new(pid, generation, pidfd);
    let context = "cannot reach the sandbox".to_owned();
    init.map(Given::Init).map_err(|source| RuntimeError::Io { context, source })
}

/// One packet and the descriptor that came with it; `None` at the end.
fn receive(socket: &OwnedFd) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_PACKET];
    let (length, fd) = packets::receive(socket, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let report = Report::parse(&buffer[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Some((report, fd)))
}
