//! The engine's end of socket makers: connections to ports of a sandbox, and listeners there.
//!
//! The warden starts a maker for a sandbox when the first socket is wanted, and again when
//! the last one is gone. See the warden's `sockets` for what a maker is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use createos_sdk::SandboxId;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Namespaces;
use super::packets;
use crate::runtime::{Outlet, RuntimeError};
use crate::socket_protocol::{Answer, Capture, LENGTH, Request, Wanted};

/// How long a maker may take for a socket; it does nothing slow.
const ANSWER: Duration = Duration::from_secs(10);

/// A running socket maker. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Maker {
    socket: AsyncFd<OwnedFd>,
    last_ticket: u32,
}

/// Why there is no socket.
enum Failure {
    /// The maker is gone or in disorder; another one may do.
    Maker(String),
    Final(RuntimeError),
}

impl Maker {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: AsyncFd::new(socket)?, last_ticket: 0 })
    }

    async fn make(&mut self, wanted: Wanted) -> Result<OwnedFd, Failure> {
        let lost = |error: io::Error| Failure::Maker(error.to_string());
        self.last_ticket = self.last_ticket.wrapping_add(1).max(1);
        let ticket = self.last_ticket;
        let packet = Request { ticket, wanted }.to_packet();
        let send = |socket: &OwnedFd| Ok(rustix::net::send(socket, &packet, SendFlags::NOSIGNAL)?);
        self.socket.async_io(Interest::WRITABLE, send).await.map_err(lost)?;
        loop {
            let (answer, fd) = self.receive().await.map_err(lost)?;
            match answer {
                Answer { ticket: 0, errno } => {
                    return Err(lost(io::Error::from_raw_os_error(errno)));
                }
                // For somebody who stopped waiting.
                answer if answer.ticket != ticket => {}
                Answer { errno: 0, .. } => return fd.ok_or_else(no_descriptor),
                Answer { errno, .. } => return Err(refused(wanted, errno)),
            }
        }
    }

    async fn receive(&self) -> io::Result<(Answer, Option<OwnedFd>)> {
        let mut packet = [0; LENGTH];
        let received = self.socket.async_io(Interest::READABLE, |socket| {
            let (length, fd) = packets::receive(socket, &mut packet)?;
            Ok((Answer::parse(&packet[..length]), fd))
        });
        match received.await? {
            (Some(answer), fd) => Ok((answer, fd)),
            (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn no_descriptor() -> Failure {
    let message = "the engine has no file descriptor left; close some connections, or raise its \
                   limit of open files (ulimit -n)";
    Failure::Final(RuntimeError::Exhausted(message.to_owned()))
}

fn refused(wanted: Wanted, errno: i32) -> Failure {
    let source = io::Error::from_raw_os_error(errno);
    if matches!(wanted, Wanted::Capture(_)) {
        // It makes them once, at its start, when those of another one may still have been there.
        return Failure::Maker(source.to_string());
    }
    Failure::Final(match Errno::from_io_error(&source) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            RuntimeError::Exhausted(format!(
                "this machine has no room for another socket: {source}"
            ))
        }
        _ => failed("cannot make a socket in the sandbox", source),
    })
}

fn failed(context: &str, source: io::Error) -> RuntimeError {
    RuntimeError::Io { context: context.to_owned(), source }
}

impl Namespaces {
    /// Connects to an address inside.
    pub(super) async fn connect_inside(
        &self,
        id: &SandboxId,
        address: SocketAddr,
    ) -> Result<TcpStream, RuntimeError> {
        let wanted = if address.is_ipv4() { Wanted::V4 } else { Wanted::V6 };
        let socket = self.socket(id, wanted).await?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => RuntimeError::PortClosed,
            io::ErrorKind::AddrNotAvailable => RuntimeError::Exhausted(
                "every local port of the sandbox is in use by another connection".to_owned(),
            ),
            _ => failed(&format!("cannot connect to port {}", address.port()), error),
        })
    }

    /// Listens on a port of the sandbox's 127.0.0.1.
    pub(super) async fn listen_inside(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<TcpListener, RuntimeError> {
        let socket = self.socket(id, Wanted::Listener(port)).await?;
        let listener = TcpListener::from_std(socket.into());
        listener.map_err(|error| failed("cannot listen in the sandbox", error))
    }

    /// What leaves the sandbox comes to these.
    pub(super) async fn outlet_of(&self, id: &SandboxId) -> Result<Outlet, RuntimeError> {
        let connections = self.socket(id, Wanted::Capture(Capture::Connections)).await?;
        let connections = TcpListener::from_std(connections.into());
        Ok(Outlet {
            connections: connections.map_err(|error| failed("cannot listen", error))?,
            datagrams: self.socket(id, Wanted::Capture(Capture::Datagrams)).await?,
            answers: self.socket(id, Wanted::Capture(Capture::Answers)).await?,
        })
    }

    async fn socket(&self, id: &SandboxId, wanted: Wanted) -> Result<OwnedFd, RuntimeError> {
        let init = self.init_of(id)?;
        let mut maker = init.maker.lock().await;
        // One that was there may have ended unseen; a fresh one has no such excuse.
        let tries = if maker.is_some() { 2 } else { 1 };
        let mut why = String::new();
        for _ in 0..tries {
            let living = match &mut *maker {
                Some(living) => living,
                none => none.insert(self.start_maker(id).await?),
            };
            why = match timeout(ANSWER, living.make(wanted)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(Failure::Final(error))) => return Err(error),
                Ok(Err(Failure::Maker(reason))) => reason,
                Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
            };
            *maker = None;
        }
        Err(RuntimeError::Unreachable(format!("the sandbox's network cannot be entered: {why}")))
    }

    async fn start_maker(&self, id: &SandboxId) -> Result<Maker, RuntimeError> {
        let socket = self.warden().await?.make_sockets(id.as_str()).await?;
        Maker::new(socket).map_err(|error| failed("cannot use a socket maker", error))
    }
}
