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
#[path = "../sys/mod.rs"]
mod sys;

use connection::Connection;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use sys::{POLLIN, PollFd};

const LISTENER: i32 = 3;
/// More at once would only help a flood.
const MAX_CONNECTIONS: usize = 4096;

fn main() -> io::Result<()> {
    let listener = UnixListener::from(sys::inherited(LISTENER));
    listener.set_nonblocking(true)?;
    sys::set_close_on_exec(&listener)?;
    let signals = sys::signal_descriptor(&[sys::SIGCHLD])?;
    Agent { listener, signals, connections: Vec::new() }.serve()
}

struct Agent {
    listener: UnixListener,
    signals: OwnedFd,
    connections: Vec<Connection>,
}

impl Agent {
    fn serve(mut self) -> io::Result<()> {
        let mut poll = Vec::new();
        loop {
            poll.clear();
            poll.push(PollFd::new(&self.signals, POLLIN));
            poll.push(PollFd::new(&self.listener, POLLIN));
            for connection in &self.connections {
                connection.interests(&mut poll);
            }
            sys::poll_fds(&mut poll, None)?;

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
        // An accept that fails (out of descriptors, say) is tried again when the
        // loop comes round; the connections that exist go on.
        while let Ok((socket, _)) = self.listener.accept() {
            if self.connections.len() < MAX_CONNECTIONS && socket.set_nonblocking(true).is_ok() {
                self.connections.push(Connection::new(socket));
            }
        }
    }
}
