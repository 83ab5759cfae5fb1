//! What the core asks of a machine: boot, stop, run, read and write.
//!
//! The core knows sandboxes as records and states; a [`Runtime`] knows them as
//! processes and files. Nothing here knows HTTP.

mod desktop;
mod disks;
mod image;
mod line;
mod namespaces;
mod process;

pub(crate) use self::desktop::{DESKTOP_REMEDY, desktop_programs};
pub(crate) use self::disks::*;
pub(crate) use self::image::*;
pub(crate) use self::line::Line;
pub(crate) use self::namespaces::{
    CRIU_REMEDY, LINES_REMEDY, NETWORKS_REMEDY, NO_DISK_LIMIT, NO_FUSE, NO_NESTING, NO_WAY_OUT,
    Namespaces, PATH, chain,
};
pub(crate) use self::process::*;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::SandboxId;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::network_protocol::{Link, Subnet};

/// The root filesystem that every machine has: its own `/usr` and a curated `/etc`.
pub(crate) const HOST_ROOTFS: &str = "devbox:1";
/// The same where it has the programs of a desktop, which starts in its sandboxes.
pub(crate) const DESKTOP_ROOTFS: &str = "desktop:1";

/// Everything a runtime must know to boot a sandbox, first time or again.
#[derive(Debug, Clone)]
pub(crate) struct BootSpec {
    pub(crate) id: SandboxId,
    /// Becomes the hostname.
    pub(crate) name: String,
    /// The sandbox's own address.
    pub(crate) ip: Ipv4Addr,
    pub(crate) limits: Limits,
    /// Whether it may hold containers of its own.
    pub(crate) nesting: bool,
}

/// Resource limits of a shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    /// Hundredths of a CPU: 100 is one whole CPU.
    pub(crate) cpu_percent: u32,
    pub(crate) max_processes: u32,
    /// Size of the filesystem that holds what the sandbox writes.
    pub(crate) disk_mib: u64,
}

/// A booted sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BootInfo {
    /// From the request to the first answer of the agent inside.
    pub(crate) spawn: Duration,
}

/// How a paused sandbox is kept until it is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Saved {
    /// Its memory and processes are on disk: nothing runs, and nothing can get lost.
    Memory,
    /// Its processes stand still in this machine's memory. They end with the engine.
    Frozen,
    /// Nothing ran that would have been worth keeping, so it was ended; its files are all.
    Files,
}

impl Saved {
    const ALL: [Self; 3] = [Self::Memory, Self::Frozen, Self::Files];

    /// The word in the store.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Frozen => "frozen",
            Self::Files => "files",
        }
    }

    /// Reads the word of [`Saved::as_str`].
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|saved| saved.as_str() == word)
    }
}

/// One command to run in a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct ExecSpec {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// Declared variables; the runtime adds PATH, HOME and the like below them.
    pub(crate) env: BTreeMap<String, String>,
    /// The whole standard input; `None` is an empty one.
    pub(crate) stdin: Option<Bytes>,
    pub(crate) place: Place,
}

/// What a running command tells, in order. The last event is always `Exited`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The command has ended and its output pipes are closed.
    Exited(ExitReason),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Code(i32),
    /// Killed by this signal number.
    Signal(i32),
}

impl ExitReason {
    /// The shell's convention: the code, or 128 plus the signal.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Output of a running command. Dropping it kills the command and everything it started.
pub(crate) type ExecEvents = BoxStream<'static, Result<ExecEvent, RuntimeError>>;

/// An open file of a sandbox.
pub(crate) struct FileRead {
    pub(crate) size: u64,
    /// Ends after `size` bytes, or with an error when the file could not be read to its end.
    pub(crate) chunks: BoxStream<'static, Result<Bytes, RuntimeError>>,
}

/// A file being written. Dropped before `commit`, it leaves the old file untouched.
pub(crate) trait FileWrite: Send {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), RuntimeError>>;
    /// Puts the new content in place atomically and returns its size.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<u64, RuntimeError>>;
}

/// Where everything arrives that leaves a sandbox.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// Connections; the local address of each one is where it was meant to go.
    pub(crate) connections: TcpListener,
    /// Datagrams, of which each says where it was meant to go.
    pub(crate) datagrams: OwnedFd,
    /// Sends whole IPv4 packets into the sandbox.
    pub(crate) answers: OwnedFd,
}

/// What a sandbox has used and uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time of everything that ran in this life of the sandbox.
    pub(crate) cpu: Duration,
    pub(crate) memory_bytes: u64,
}

/// A sandbox whose machine ended without being asked to.
#[derive(Debug, Clone)]
pub(crate) struct Died {
    pub(crate) id: SandboxId,
    pub(crate) reason: String,
}

/// The machine under the core. One implementation per way of isolating.
pub(crate) trait Runtime: Disks + Images + Processes + Send + Sync + 'static {
    /// Boots a sandbox; its files are created when it has none yet and kept when it has. One
    /// that was not begun with an image has this machine's own root filesystem.
    /// On an error nothing of this boot is left running; files of an earlier boot stay.
    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<BootInfo, RuntimeError>>;

    /// Ends every process of a sandbox and keeps its files. Idempotent.
    fn stop<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Ends every process of a sandbox and removes its files. Idempotent.
    fn remove<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Makes a running sandbox stand still and says how it is kept. On an error it runs on as
    /// before, or its end is told as that of any other.
    fn pause<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Saved, RuntimeError>>;

    /// Lets a paused sandbox run on. On an error it does not run; its files stay.
    fn resume(&self, spec: BootSpec, saved: Saved)
    -> BoxFuture<'_, Result<BootInfo, RuntimeError>>;

    /// Gives a new sandbox what a paused one has, as of the pause, and says how the new one
    /// is kept: it can be resumed from then on. Nobody resumes or removes the source
    /// meanwhile. After an error it can be tried again.
    fn fork<'a>(
        &'a self,
        source: &'a SandboxId,
        saved: Saved,
        child: BootSpec,
    ) -> BoxFuture<'a, Result<Saved, RuntimeError>>;

    /// Starts a command. A program that cannot be started is `RuntimeError::NotStarted`.
    fn exec<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ExecSpec,
    ) -> BoxFuture<'a, Result<ExecEvents, RuntimeError>>;

    /// Opens an absolute path for reading; symlinks resolve inside the sandbox.
    fn read_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<FileRead, RuntimeError>>;

    /// Begins writing an absolute path; parents are created, symlinks resolve inside.
    fn write_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<Box<dyn FileWrite>, RuntimeError>>;

    /// What a running sandbox uses.
    fn usage<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Usage, RuntimeError>>;

    /// Connects to a TCP address as a program inside would. The socket is the engine's
    /// alone. Where nothing listens it is `RuntimeError::PortClosed`.
    fn connect<'a>(
        &'a self,
        id: &'a SandboxId,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<TcpStream, RuntimeError>>;

    /// Connects to a socket that lies at an absolute path inside, and to nothing outside.
    /// Where none is it is `RuntimeError::NoSuchFile`, and where nobody listens any more
    /// `RuntimeError::PortClosed`.
    fn connect_unix<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<UnixStream, RuntimeError>>;

    /// Listens on a port of the sandbox's 127.0.0.1.
    fn listen<'a>(
        &'a self,
        id: &'a SandboxId,
        port: u16,
    ) -> BoxFuture<'a, Result<TcpListener, RuntimeError>>;

    /// Puts a running sandbox, which may stand still, on these private networks and takes it off
    /// all others, also off those that the memory it began with was on.
    fn set_links<'a>(
        &'a self,
        id: &'a SandboxId,
        links: Vec<Link>,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Makes a line to a private network, which need not have members. One network has one at
    /// a time.
    fn open_line<'a>(
        &'a self,
        network: &'a str,
        subnet: Subnet,
    ) -> BoxFuture<'a, Result<Line, RuntimeError>>;

    /// The sockets that what leaves a running sandbox comes to. They are the same for a whole
    /// life of it, and whoever has them must give them up before it pauses.
    fn outlet<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Outlet, RuntimeError>>;

    /// Why sandboxes have no way out here, and what would change that; `Ok` where they have.
    fn can_reach_out(&self) -> Result<(), String>;

    /// Why the size of disks is not enforced here, and what would change that; `Ok` where
    /// it is.
    fn disk_limit(&self) -> Result<(), String>;

    /// Makes the disk of a running sandbox larger while it is in use. One that has the size
    /// already stays as it is.
    fn resize<'a>(
        &'a self,
        id: &'a SandboxId,
        disk_mib: u64,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Sandbox directories on disk: start-up compares them with the store.
    fn on_disk(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, RuntimeError>>;

    /// Sandboxes that ended by themselves, as it happens. Taken once, by the core.
    fn deaths(&self) -> Option<tokio::sync::mpsc::UnboundedReceiver<Died>>;

    /// Ends every sandbox and the helper processes.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Why a runtime could not do what the core asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RuntimeError {
    /// The program could not be started; the text is for people.
    #[error("{message}")]
    NotStarted { message: String, exit_code: i32 },
    #[error("no such file: {0}")]
    NoSuchFile(String),
    /// A directory, device, socket or FIFO where a regular file is needed, or a bad path.
    #[error("{0}")]
    BadPath(String),
    /// The sandbox refused: no space, too many processes, permission.
    #[error("{0}")]
    Refused(String),
    /// Nothing listens on the port.
    #[error("nothing listens on this port inside the sandbox")]
    PortClosed,
    /// The engine or the machine has no room: file descriptors, ports, memory.
    #[error("{0}")]
    Exhausted(String),
    #[error("no such process")]
    NoSuchProcess,
    /// The process has ended, or is not of the kind for this.
    #[error("{0}")]
    WrongState(String),
    /// The process does not read its input; nothing of it was written.
    #[error("{0}")]
    Full(String),
    /// The sandbox's agent is gone or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The processes could not be saved, and run on. Another way to pause may work.
    #[error("cannot save the sandbox's memory: {0}")]
    NotSaved(String),
    /// The processes could not be brought back from what was saved, which is as it was.
    #[error("cannot bring the sandbox's memory back: {0}")]
    NotRestored(String),
    /// This machine lacks something; the text names the cause and the remedy.
    #[error("{0}")]
    Unsupported(String),
    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
}
