//! The agent: PID 1 of a sandbox.
//!
//! It owns every process, pipe and terminal inside, reaps what ends, and moves files. It
//! is one thread over `poll`: commands are events of the loop, file transfers are
//! forked workers, because a read from a stalled disk must not stop the rest.
//! The launcher leaves the listening socket at descriptor 3.
//!
//! Below PID 1 there are only these workers and one supervisor for each program that was
//! asked for, and everything else is below a supervisor. The state of managed processes
//! is here alone, so it comes and goes with the sandbox's memory; connections of the
//! engine may break at any time.

#[path = "../codec.rs"]
mod codec;
mod connection;
mod fifo;
mod files;
mod job;
mod managed;
mod program;
mod protocol;
mod rest;
mod ring;
mod supervisor;
#[path = "../sys/mod.rs"]
mod sys;
mod tree;
mod users;
mod work;

use connection::Connection;
use fifo::Fifo;
use managed::Table;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use sys::{POLLIN, PollFd, Ready, Reaped};
use tree::{Children, Ended};

const LISTENER: i32 = 3;
/// More at once would only help a flood.
const MAX_CONNECTIONS: usize = 4096;
/// How long to leave alone what fails for want of resources.
const PAUSE_MS: u32 = 100;

fn main() -> io::Result<()> {
    // Commands have the same ids and capabilities as we: without this, they could
    // take PID 1 over.
    sys::stay_apart()?;
    // Programs may be allowed to mount something over it; where we are, it stays in sight.
    std::env::set_current_dir("/proc")?;
    let listener = UnixListener::from(sys::inherited(LISTENER));
    listener.set_nonblocking(true)?;
    sys::set_close_on_exec(&listener)?;
    let signals = sys::signal_descriptor(&[sys::SIGCHLD])?;
    let (fifo, world) = (Fifo::make(), World::default());
    Agent { listener, signals, fifo, connections: Vec::new(), world, is_deaf: false }.serve()
}

struct Agent {
    listener: UnixListener,
    signals: OwnedFd,
    fifo: Fifo,
    connections: Vec<Connection>,
    world: World,
    /// Nobody can be accepted for now: a listener that stays ready would make the
    /// loop spin.
    is_deaf: bool,
}

/// What connections have in common.
#[derive(Default)]
struct World {
    children: Children,
    processes: Table,
    /// A call may have changed what another connection waits for.
    is_changed: bool,
}

impl Agent {
    fn serve(mut self) -> ! {
        let mut poll = Vec::new();
        loop {
            poll.clear();
            poll.push(PollFd::new(&self.signals, POLLIN));
            poll.push(PollFd::new(&self.listener, if self.is_deaf { 0 } else { POLLIN }));
            self.fifo.interests(&mut poll);
            self.world.processes.interests(&mut poll);
            for connection in &self.connections {
                connection.interests(&mut poll);
            }
            if sys::poll_fds(&mut poll, self.patience()).is_err() {
                // Out of memory, or of descriptors that may be waited for. PID 1 must not
                // end over it: with it, everything would.
                std::thread::sleep(Duration::from_millis(PAUSE_MS.into()));
                continue;
            }
            self.is_deaf = false;
            self.world.is_changed = false;

            let ready = Ready::of(&poll);
            if ready.has(&self.signals) {
                sys::drain_signals(&self.signals);
                self.reap();
            }
            self.fifo.advance(&ready, &mut self.world.children);
            self.world.processes.advance(&ready);
            for connection in &mut self.connections {
                connection.advance(&ready, &mut self.world);
            }
            if self.connections.iter().any(Connection::is_detaching) {
                let is_clear = self.world.children.end_workers();
                for connection in &mut self.connections {
                    connection.detach(is_clear, &mut self.world);
                }
            }
            if ready.has(&self.listener) {
                self.accept();
            }
            self.connections.retain(|connection| !connection.is_over());
        }
    }

    /// How long to wait when nothing is ready.
    fn patience(&self) -> Option<u32> {
        let is_busy = self.world.is_changed
            || self.world.processes.is_draining()
            || self.connections.iter().any(Connection::is_draining);
        if is_busy { Some(0) } else { self.is_deaf.then_some(PAUSE_MS) }
    }

    fn reap(&mut self) {
        loop {
            match sys::reap_or_notice_stop() {
                Reaped::Ended { pid, status } => {
                    let ended = self.world.children.ended(pid, status);
                    self.tell(ended);
                }
                Reaped::Stopped { pid } => self.world.children.stopped(pid),
                Reaped::Living | Reaped::NoChildren => break,
            }
        }
        let ended = self.world.children.sweep();
        self.tell(ended);
    }

    fn tell(&mut self, ended: Ended) {
        let Ended::Trees(supervisors) = ended else { return };
        for pid in supervisors {
            self.world.processes.supervisor_ended(pid);
            for connection in &mut self.connections {
                connection.supervisor_ended(pid);
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
