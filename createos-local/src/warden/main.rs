//! The warden: the one process of the engine that uses privilege.
//!
//! It has a single thread, its own mount namespace, and one socket to the engine,
//! at descriptor 0. It boots and ends sandboxes and reports what becomes of them.
//! When the engine goes, however it goes, the socket ends; the warden then ends
//! every sandbox and itself, so that nothing outlives the engine.

mod cable;
mod cgroup;
#[path = "../codec.rs"]
mod codec;
mod criu;
mod disk;
mod disks;
mod failure;
mod freeze;
mod hook;
mod image;
mod inside;
mod launcher;
mod layers;
mod network_protocol;
mod networks;
mod probe;
mod protocol;
mod ranges;
mod root;
mod sandbox;
mod snapshot;
mod socket_protocol;
mod sockets;
#[path = "../sys/mod.rs"]
mod sys;
#[path = "../tree.rs"]
mod tree;
mod volumes;

use criu::Run;
use disks::{Demand, Disks};
use failure::{Context, Result};
use network_protocol::{Link, Subnet};
use networks::{Done, Networks};
use protocol::{Boot, Command, Facts, MAX_PACKET, Memory, Report};
use sandbox::{After, Sandbox, Saving, State};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::{POLLIN, PollFd};
use volumes::Volumes;

fn main() {
    if let Ok(moment) = std::env::var(hook::MOMENT) {
        std::process::exit(hook::run(&moment));
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(first), second) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: createos-warden DATA_DIRECTORY | createos-warden probe DIRECTORY");
        std::process::exit(2);
    };
    if let Some(directory) = second {
        return probe::run(Path::new(&directory));
    }
    let socket = sys::inherited(0);
    let heeded = sys::heed_signals().context("heed signals");
    let started = heeded.and_then(|()| Warden::start(&socket, PathBuf::from(first)));
    let outcome = started.and_then(|mut warden| {
        let served = warden.serve();
        warden.end_everything();
        served
    });
    if let Err(error) = outcome {
        eprintln!("createos-warden: {error}");
        std::process::exit(1);
    }
}

struct Warden<'a> {
    socket: &'a OwnedFd,
    signals: OwnedFd,
    host: launcher::Host,
    sandboxes: Vec<Sandbox>,
    /// Ended sandboxes whose groups are not gone yet.
    draining: Vec<Draining>,
    /// Boots of sandboxes whose last life is still on its way out, or whose disks are not
    /// open yet.
    queued: Vec<Boot>,
    networks: Networks,
    volumes: Volumes,
    _lock: File,
}

/// Waits until the warden of an engine that was killed has cleared everything away:
/// both use the same names. The engine bounds the wait.
fn sole_warden() -> Result<File> {
    let lock = File::create("warden.lock").context("create the warden's lock")?;
    lock.lock().context("wait for the last warden's end")?;
    Ok(lock)
}

struct Draining {
    sandbox: Sandbox,
    /// To be sent when it is done.
    reports: Vec<Report>,
    deadline: Instant,
}

/// How long killed processes may take to leave a group.
const DRAIN: Duration = Duration::from_secs(5);
/// How often to look whether they have.
const DRAIN_STEP_MS: u32 = 2;
/// How often to look whether CRIU gets on.
const RUN_STEP_MS: u32 = 100;
/// How soon a disk that is open for nobody is closed after it was removed.
const IDLE_STEP_MS: u32 = 5000;

impl<'a> Warden<'a> {
    /// Waits for the configuration, prepares the machine and reports what it found.
    fn start(socket: &'a OwnedFd, data_dir: PathBuf) -> Result<Self> {
        std::env::set_current_dir(&data_dir).context("enter the data directory")?;
        // A service manager may signal every process of the service. Only the engine
        // ends the warden, by closing the socket.
        let watched = [sys::SIGCHLD, sys::SIGHUP, sys::SIGINT, sys::SIGTERM];
        let signals = sys::signal_descriptor(&watched).context("watch signals")?;

        let mut buffer = vec![0; MAX_PACKET];
        let length = sys::receive_packet(socket, &mut buffer)
            .context("receive the configuration")?
            .ok_or("the engine went away")?;
        let Command::Configure(configure) = Command::parse(&buffer[..length])? else {
            return Err("the first command must configure".into());
        };
        let mut facts = Facts::default();
        let prepared = sole_warden()
            .and_then(|lock| Ok((lock, launcher::Host::prepare(data_dir, configure, &mut facts)?)));
        let (lock, host) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                send(socket, &Report::Failed { ticket: 0, message: error.to_string() }, None);
                return Err(error);
            }
        };
        send(socket, &Report::Configured(facts), None);
        let (sandboxes, draining, queued) = (Vec::new(), Vec::new(), Vec::new());
        let networks = Networks::new(host.single_id());
        let volumes = Volumes::default();
        Ok(Self {
            socket,
            signals,
            host,
            sandboxes,
            draining,
            queued,
            networks,
            volumes,
            _lock: lock,
        })
    }

    fn serve(&mut self) -> Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let mut poll =
                vec![PollFd::new(self.socket, POLLIN), PollFd::new(&self.signals, POLLIN)];
            let statuses = self.sandboxes.iter().filter_map(Sandbox::launch_status);
            poll.extend(statuses.map(|pipe| PollFd::new(pipe, POLLIN)));
            let timeout = self.patience();
            sys::poll_fds(&mut poll, timeout).context("wait for work")?;

            self.advance_launches();
            if poll[1].is_readable() {
                sys::drain_signals(&self.signals);
                self.reap();
            }
            self.drain();
            self.advance_freezes();
            self.volumes.watch();
            if self.host.disks.as_ref().is_some_and(Disks::has_idle) {
                self.close_unused();
            }
            self.sandboxes.iter_mut().filter_map(Sandbox::run_mut).for_each(Run::watch);
            if poll[0].is_readable() {
                match sys::receive_packet(self.socket, &mut buffer).context("receive a command")? {
                    Some(length) => self.obey(Command::parse(&buffer[..length])?),
                    None => return Ok(()),
                }
            }
        }
    }

    /// How long to wait for work at most, in milliseconds.
    fn patience(&self) -> Option<u32> {
        let is_freezing = self.sandboxes.iter().any(Sandbox::is_freezing);
        if !self.draining.is_empty() || is_freezing {
            return Some(DRAIN_STEP_MS);
        }
        let is_waiting = self.sandboxes.iter().any(|sandbox| sandbox.run().is_some());
        if is_waiting || self.volumes.is_busy() {
            return Some(RUN_STEP_MS);
        }
        let has_idle = self.host.disks.as_ref().is_some_and(Disks::has_idle);
        has_idle.then_some(IDLE_STEP_MS)
    }

    fn obey(&mut self, command: Command) {
        match command {
            // A second configuration would change the ground under living sandboxes.
            Command::Configure(_) => {}
            Command::Boot(boot) => self.boot(boot),
            Command::Freeze { ticket, id } => {
                if let Some(report) = self.of(ticket, &id, |sandbox| sandbox.freeze(ticket)) {
                    self.report(&report);
                }
            }
            Command::Thaw { ticket, id } => {
                if let Some(report) = self.of(ticket, &id, |sandbox| Some(sandbox.thaw(ticket))) {
                    self.report(&report);
                }
            }
            Command::Stop { ticket, id, directory, discard } => {
                self.stop(ticket, &id, &directory, discard);
            }
            Command::Grow { ticket, directory, mib } => {
                self.on_disks(ticket, |disks| disks.grow(&directory, mib, ticket));
            }
            Command::CopyDisk { ticket, from, to } => {
                self.on_disks(ticket, |disks| disks.copy(&from, &to, ticket));
            }
            Command::Dump { ticket, id, pid, memory } => {
                if let Err(error) = self.dump(ticket, &id, pid, &memory) {
                    self.report(&Report::Failed { ticket, message: error.to_string() });
                }
            }
            Command::Abandon { boot } => {
                self.queued.retain(|queued| queued.ticket != boot);
                if let Some(sandbox) = self.sandboxes.iter_mut().find(|s| s.boot == boot) {
                    sandbox.stop(None);
                }
                self.close_unused();
            }
            Command::MakeSockets { ticket, id } => self.make_sockets(ticket, &id),
            Command::SetLinks { ticket, id, links, keep_addresses } => {
                if let Err(error) = self.set_links(ticket, &id, links, keep_addresses) {
                    self.networks.end_unused(&self.sandboxes);
                    self.report(&Report::Failed { ticket, message: error.to_string() });
                }
            }
            Command::OpenLine { ticket, network, subnet } => {
                self.open_line(ticket, &network, subnet);
            }
            Command::CloseLine { line } => {
                self.networks.close_line(line);
                self.networks.end_unused(&self.sandboxes);
            }
            Command::MountVolume { ticket, id, path } => {
                if let Err(error) = self.mount_volume(ticket, &id, &path) {
                    self.report(&Report::Failed { ticket, message: error.to_string() });
                }
            }
            Command::UnmountVolume { ticket, volume, force } => {
                if let Some(report) = self.volumes.unmount(volume, force, ticket) {
                    self.report(&report);
                }
            }
        }
    }

    fn set_links(
        &mut self,
        ticket: u64,
        id: &str,
        links: Vec<Link>,
        keep_addresses: bool,
    ) -> Result<()> {
        let is_it = |sandbox: &&Sandbox| sandbox.id == id && sandbox.is_running();
        let sandbox = self.sandboxes.iter().find(is_it).ok_or("the sandbox is not running")?;
        self.networks.begin(ticket, sandbox, links, keep_addresses)
    }

    fn links_set(&mut self, done: Done) {
        let Done { ticket, boot, cables, outcome } = done;
        // Of one that has ended meanwhile, the cables end with its own namespace.
        if let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.boot == boot) {
            sandbox.cables = cables;
        }
        self.networks.end_unused(&self.sandboxes);
        self.report(&match outcome {
            Ok(()) => Report::Done { ticket },
            Err(error) => Report::Failed { ticket, message: error.to_string() },
        });
    }

    fn open_line(&mut self, ticket: u64, network: &str, subnet: Subnet) {
        let opened = self.networks.open_line(ticket, network, subnet);
        match opened {
            Ok(line) => send(self.socket, &Report::LineOpened { ticket }, Some(line.as_fd())),
            Err(error) => {
                self.networks.end_unused(&self.sandboxes);
                self.report(&Report::Failed { ticket, message: error.to_string() });
            }
        }
    }

    fn make_sockets(&self, ticket: u64, id: &str) {
        let is_it = |sandbox: &&Sandbox| sandbox.id == id && sandbox.is_running();
        let sandbox = self.sandboxes.iter().find(is_it);
        let started = match sandbox {
            Some(sandbox) => self.host.start_socket_maker(sandbox),
            None => Err("the sandbox is not running".into()),
        };
        match started {
            Ok(end) => send(self.socket, &Report::MakesSockets { ticket }, Some(end.as_fd())),
            Err(error) => self.report(&Report::Failed { ticket, message: error.to_string() }),
        }
    }

    fn mount_volume(&mut self, ticket: u64, id: &str, path: &str) -> Result<()> {
        let is_it = |sandbox: &&Sandbox| sandbox.id == id && sandbox.is_running();
        let sandbox = self.sandboxes.iter().find(is_it).ok_or("the sandbox is not running")?;
        let owner = self.host.root_of(sandbox);
        self.volumes.mount(self.socket, sandbox, path, owner, ticket)
    }

    /// What there is to report after this was done to a sandbox.
    fn of(
        &mut self,
        ticket: u64,
        id: &str,
        work: impl FnOnce(&mut Sandbox) -> Option<Report>,
    ) -> Option<Report> {
        match self.sandboxes.iter_mut().find(|sandbox| sandbox.id == id) {
            Some(sandbox) => work(sandbox),
            None => {
                let message = "the sandbox is not running".to_owned();
                Some(Report::Failed { ticket, message })
            }
        }
    }

    fn advance_freezes(&mut self) {
        for sandbox in &mut self.sandboxes {
            if let Some(report) = sandbox.advance_freeze() {
                send(self.socket, &report, None);
            }
        }
    }

    fn boot(&mut self, boot: Boot) {
        let ticket = boot.ticket;
        let is_draining = self.draining.iter().any(|draining| draining.sandbox.id == boot.id);
        let launched = match self.sandboxes.iter().find(|sandbox| sandbox.id == boot.id) {
            None if !is_draining => match self.host.demand(&boot) {
                Demand::Met => self.host.launch(boot),
                Demand::Waiting => return self.queued.push(boot),
                Demand::Failed(message) => Err(message.into()),
            },
            Some(sandbox) if !sandbox.is_leaving() => Err("the sandbox is already running".into()),
            _ => return self.queued.push(boot),
        };
        match launched {
            Ok(sandbox) => self.sandboxes.push(sandbox),
            Err(error) => self.report(&Report::Failed { ticket, message: error.to_string() }),
        }
    }

    fn dump(&mut self, ticket: u64, id: &str, pid: i32, memory: &Memory) -> Result<()> {
        let is_it = |sandbox: &&mut Sandbox| sandbox.id == id && sandbox.pid == pid;
        match self.sandboxes.iter_mut().find(is_it) {
            Some(sandbox) if sandbox.is_running() && sandbox.freeze.is_none() => {
                let run = self.host.dump(sandbox, memory)?;
                sandbox.state = State::Saving(Saving { ticket, run, ended: None });
                Ok(())
            }
            _ => Err("the sandbox is not running".into()),
        }
    }

    fn stop(&mut self, ticket: u64, id: &str, directory: &str, discard: bool) {
        for boot in self.queued.extract_if(.., |boot| boot.id == id) {
            let message = "the sandbox was stopped before it was booted".to_owned();
            send(self.socket, &Report::Failed { ticket: boot.ticket, message }, None);
        }
        if let Some(sandbox) = self.sandboxes.iter_mut().find(|sandbox| sandbox.id == id) {
            sandbox.discard |= discard;
            if let Some(report) = sandbox.stop(Some(ticket)) {
                self.report(&report);
            }
        } else if let Some(draining) = self.draining.iter_mut().find(|d| d.sandbox.id == id) {
            draining.sandbox.discard |= discard;
            draining.reports.push(Report::Done { ticket });
        } else {
            self.settle(directory, discard, vec![Report::Done { ticket }]);
        }
        self.close_unused();
    }

    fn on_disks(&mut self, ticket: u64, work: impl FnOnce(&mut Disks) -> Result<()>) {
        let no_disks = || Err("this machine cannot have disks".into());
        let begun = self.host.disks.as_mut().map_or_else(no_disks, work);
        if let Err(error) = begun {
            self.report(&Report::Failed { ticket, message: error.to_string() });
        }
    }

    /// Reports the end of a sandbox, as far as it does not have to wait for its disk.
    fn settle(&mut self, directory: &str, discard: bool, reports: Vec<Report>) {
        for report in reports {
            let report = match &mut self.host.disks {
                Some(disks) if discard => disks.discard(directory, report),
                Some(disks) if matches!(report, Report::Done { .. }) => {
                    disks.when_closed(directory, report)
                }
                _ => Some(report),
            };
            if let Some(report) = report {
                self.report(&report);
            }
        }
    }

    /// Closes disks that no sandbox uses or waits for.
    fn close_unused(&mut self) {
        let Some(disks) = &mut self.host.disks else { return };
        let (sandboxes, draining, queued) = (&self.sandboxes, &self.draining, &self.queued);
        disks.close_unused(|directory, awaited| {
            sandboxes.iter().any(|sandbox| sandbox.uses(directory))
                || draining.iter().any(|draining| draining.sandbox.uses(directory))
                || !awaited && queued.iter().any(|boot| boot.uses(directory))
        });
    }

    /// Looks at every launch under way: each status pipe ends with the launcher's exec.
    fn advance_launches(&mut self) {
        for sandbox in &mut self.sandboxes {
            if let Some(report) = sandbox.advance_launch() {
                send(self.socket, &report, Some(sandbox.pidfd.as_fd()));
            }
        }
    }

    fn reap(&mut self) {
        // A launcher that failed has written why before it ended.
        self.advance_launches();
        while let Some((pid, status)) = sys::reap_one() {
            if let Some(reports) = self.host.disks.as_mut().and_then(|disks| disks.finish(pid)) {
                reports.iter().for_each(|report| self.report(report));
                self.try_queued();
                continue;
            }
            if let Some(done) = self.networks.finish(pid, status) {
                self.links_set(done);
                continue;
            }
            if let Some(told) = self.volumes.finish(pid) {
                if let Some((report, fd)) = told {
                    send(self.socket, &report, fd.as_ref().map(AsFd::as_fd));
                }
                continue;
            }
            let Some(index) = self.sandboxes.iter().position(|sandbox| sandbox.owns(pid)) else {
                continue;
            };
            let sandbox = &mut self.sandboxes[index];
            let status = match sandbox.process_ended(pid, status, &self.host) {
                After::Gone(status) => status,
                After::Stays(Some(report)) => {
                    let pidfd = matches!(report, Report::Booted { .. });
                    let pidfd = pidfd.then(|| sandbox.pidfd.as_fd());
                    send(self.socket, &report, pidfd);
                    continue;
                }
                After::Stays(None) => continue,
            };
            let sandbox = self.sandboxes.swap_remove(index);
            self.networks.end_unused(&self.sandboxes);
            let reports = sandbox.last_reports(status);
            self.host.release(sandbox.range);
            self.volumes.release(&sandbox.id);
            let deadline = Instant::now() + DRAIN;
            self.draining.push(Draining { sandbox, reports, deadline });
        }
    }

    /// Removes the groups of ended sandboxes, reports their end, and lets boots go on
    /// that waited for it.
    fn drain(&mut self) {
        let now = Instant::now();
        let is_over = |draining: &mut Draining| {
            draining.sandbox.group.try_remove() || now >= draining.deadline
        };
        let over: Vec<Draining> = self.draining.extract_if(.., is_over).collect();
        if over.is_empty() {
            return;
        }
        for Draining { sandbox, reports, .. } in over {
            self.settle(&sandbox.directory, sandbox.discard, reports);
        }
        self.try_queued();
    }

    /// Lets boots go on whose hindrance may be gone.
    fn try_queued(&mut self) {
        for boot in std::mem::take(&mut self.queued) {
            self.boot(boot);
        }
        self.close_unused();
    }

    fn report(&self, report: &Report) {
        send(self.socket, report, None);
    }

    fn end_everything(&mut self) {
        self.volumes.end();
        for sandbox in &mut self.sandboxes {
            sandbox.run().inspect(|run| run.kill());
            sandbox.kill();
        }
        let deadline = Instant::now() + DRAIN;
        for sandbox in self.sandboxes.drain(..) {
            let _ = sys::wait_for(sandbox.pid);
            sandbox.group.remove(deadline);
        }
        for draining in self.draining.drain(..) {
            draining.sandbox.group.remove(deadline);
        }
        if let Some(disks) = &mut self.host.disks {
            disks.end();
        }
        self.host.groups.remove_all();
    }
}

/// An engine that is gone cannot be told; the next receive notices.
fn send(socket: &OwnedFd, report: &Report, fd: Option<BorrowedFd<'_>>) {
    let _ = sys::send_packet(socket, &report.to_packet(), fd);
}
