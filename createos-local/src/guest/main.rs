//! The agent: PID 1 of a sandbox.
//!
//! It owns every process and pipe inside, reaps what ends, and moves files. It is
//! one thread over `poll`: commands are events of the loop, file transfers are
//! forked workers, because a read from a stalled disk must not stop the rest.
//! The launcher leaves the listening socket at descriptor 3.

#[path = "../codec.rs"]
mod codec;
mod connection;
mod exec;
mod files;
mod protocol;
mod rest;
#[path = "../sys/mod.rs"]
mod sys;

use connection::Connection;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use sys::{POLLIN, PollFd};

const LISTENER: i32 = 3;
/// More at once would only help a flood.
const MAX_CONNECTIONS: usize = 4096;
/// How long to leave alone what fails for want of resources.
const PAUSE_MS: u32 = 100;

fn main() -> io::Result<()> {
    // Commands have the same ids and capabilities as we: without this, they could
    // take PID 1 over.
    sys::refuse_tracing()?;
    let listener = UnixListener::from(sys::inherited(LISTENER));
    listener.set_nonblocking(true)?;
    sys::set_close_on_exec(&listener)?;
    let signals = sys::signal_descriptor(&[sys::SIGCHLD])?;
    Agent { listener, signals, connections: Vec::new(), is_deaf: false }.serve()
}

struct Agent {
    listener: UnixListener,
    signals: OwnedFd,
    connections: Vec<Connection>,
    /// Nobody can be accepted for now: a listener that stays ready would make the
    /// loop spin.
    is_deaf: bool,
}

impl Agent {
    fn serve(mut self) -> ! {
        let mut poll = Vec::new();
        loop {
            poll.clear();
            poll.push(PollFd::new(&self.signals, POLLIN));
            poll.push(PollFd::new(&self.listener, if self.is_deaf { 0 } else { POLLIN }));
            for connection in &self.connections {
                connection.interests(&mut poll);
            }
            if sys::poll_fds(&mut poll, self.is_deaf.then_some(PAUSE_MS)).is_err() {
                // Out of memory, or of descriptors that may be waited for. PID 1 must not
                // end over it: with it, everything would.
                std::thread::sleep(Duration::from_millis(PAUSE_MS.into()));
                continue;
            }
            self.is_deaf = false;

            let mut ready = poll[2..].iter();
            for connection in &mut self.connections {
                connection.advance(&mut ready);
            }
            if poll[0].is_readable() {
                sys::drain_signals(&self.signals);
                self.reap();
            }
            if poll[1].is_readable() {
                self.accept();
            }
            self.connections.retain(|connection| !connection.is_over());
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap_one() {
            for connection in &mut self.connections {
                connection.child_ended(pid, status);
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let room = self.connections.len() < MAX_CONNECTIONS;
                    if room && socket.set_nonblocking(true).is_ok() {
                        self.connections.push(Connection::new(socket));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_deaf = true;
                    return;
                }
            }
        }
    }
}
