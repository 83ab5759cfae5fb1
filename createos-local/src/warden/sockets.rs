//! Socket makers: how the engine gets sockets that live in a sandbox's network.
//!
//! A maker is a child of the warden in the sandbox's network namespace. All it can do is
//! to make sockets and hand them to the engine, which connects them itself: nothing inside
//! ever shares the open file, so nothing inside can make the engine wait on it. It lives
//! among the host's processes, where the guest neither sees nor counts it, and ends with
//! the sandbox, with the warden, or when the engine closes its end.

use crate::failure::{Context, Result};
use crate::ranges::Range;
use crate::socket_protocol::{Answer, Capture, LENGTH, Request, Wanted};
use crate::sys::{self, Forked, POLLIN, PollFd};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

/// Descriptors of a maker; it has no others.
const ENGINE: i32 = 0;
const SANDBOX: i32 = 1;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// And those that lead outside; the kernel's own limit may be lower.
const CAPTURE_BACKLOG: i32 = 4096;

/// The sockets that take a right to make, which a maker has only at its start.
struct Captures([io::Result<OwnedFd>; 3]);

impl Captures {
    fn make() -> Self {
        Self([
            sys::capturing_listener(sys::CAPTURE_PORT, CAPTURE_BACKLOG),
            sys::capturing_datagrams(sys::CAPTURE_PORT),
            sys::packet_sender(),
        ])
    }

    fn get(&self, which: Capture) -> io::Result<OwnedFd> {
        match &self.0[which as usize] {
            Ok(socket) => socket.try_clone(),
            Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(-1))),
        }
    }
}

/// Starts a maker in the sandbox that `pidfd` names, and returns the engine's end. Of host
/// root, `range` says whose ids it takes; an ordinary user's sandbox must be entered to
/// have any right there.
pub(crate) fn start(pidfd: &OwnedFd, range: Option<&Range>, filter: &[u8]) -> Result<OwnedFd> {
    let (engine, own) = sys::packet_pair().context("make a socket pair")?;
    match sys::fork_process().context("start a socket maker")? {
        Forked::Parent { .. } => Ok(engine),
        Forked::Child => {
            let Ok(pidfd) = pidfd.try_clone() else { sys::exit_now(1) };
            run(own, pidfd, range, filter)
        }
    }
}

fn run(own: OwnedFd, pidfd: OwnedFd, range: Option<&Range>, filter: &[u8]) -> ! {
    // Descriptor 0 is the warden's own socket: whoever holds it keeps the engine waiting.
    let (own, pidfd) = (sys::move_above_standard(own), sys::move_above_standard(pidfd));
    let placed = sys::place_at(own, ENGINE).and_then(|()| sys::place_at(pidfd, SANDBOX));
    if placed.and_then(|()| sys::close_from(2)).is_err() {
        sys::exit_now(1);
    }
    let (engine, sandbox) = (sys::inherited(ENGINE), sys::inherited(SANDBOX));
    let outcome = enter(&sandbox, range)
        .and_then(|captures| sys::install_seccomp_filter(filter).map(|()| captures))
        .and_then(|captures| serve(&engine, &sandbox, &captures));
    if let Err(error) = outcome {
        let errno = error.raw_os_error().unwrap_or(-1);
        let _ = sys::send_packet(&engine, &Answer { ticket: 0, errno }.to_packet(), None);
    }
    sys::exit_now(0)
}

fn enter(sandbox: &OwnedFd, range: Option<&Range>) -> io::Result<Captures> {
    let namespaces = match range {
        Some(_) => sys::NEW_NET,
        None => sys::NEW_USER | sys::NEW_NET,
    };
    sys::join_namespaces(sandbox, namespaces)?;
    let captures = Captures::make();
    if let Some(range) = range {
        // Where that id does not exist, as in some containers, it stays root, of nothing.
        let _ = sys::become_user(range.owner());
    }
    sys::renounce_privilege()?;
    sys::refuse_tracing()?;
    // Last: a change of ids would undo it.
    sys::die_with_parent()?;
    Ok(captures)
}

/// Answers until the engine or the sandbox is gone.
fn serve(engine: &OwnedFd, sandbox: &OwnedFd, captures: &Captures) -> io::Result<()> {
    loop {
        let mut poll = [PollFd::new(engine, POLLIN), PollFd::new(sandbox, POLLIN)];
        sys::poll_fds(&mut poll, None)?;
        if poll[1].is_readable() {
            return Ok(());
        }
        if poll[0].is_readable() {
            let mut packet = [0; LENGTH];
            let Some(length) = sys::receive_packet(engine, &mut packet)? else { return Ok(()) };
            let request = Request::parse(&packet[..length]);
            answer(engine, captures, request.ok_or(io::ErrorKind::InvalidData)?)?;
        }
    }
}

fn answer(
    engine: &OwnedFd,
    captures: &Captures,
    Request { ticket, wanted }: Request,
) -> io::Result<()> {
    let made = match wanted {
        Wanted::V4 => sys::stream_socket(false),
        Wanted::V6 => sys::stream_socket(true),
        Wanted::Listener(port) => {
            sys::listening_socket(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), BACKLOG)
        }
        Wanted::Capture(which) => captures.get(which),
    };
    let errno = made.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    let socket = made.as_ref().ok().map(AsFd::as_fd);
    sys::send_packet(engine, &Answer { ticket, errno }.to_packet(), socket)
}
