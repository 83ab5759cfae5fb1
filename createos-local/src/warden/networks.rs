//! Private networks: for each, a network namespace that holds nothing but a router, and a
//! cable from there to every member.
//!
//! A member cannot speak for another: what comes out of its cable with an address that is
//! not its own, the router drops ("reverse path" filter); and with no other protocol than
//! IPv4 does it deal. A namespace lives as long as its descriptor here, and so does
//! everything in it. Devices of the user's are reached over a line from there to the engine,
//! which is a tunnel device of the namespace. Making and removing cables takes the kernel up to tens of
//! milliseconds, so a child of the warden does that.

use crate::cable::{self, Cable, Change, Kept, Place};
use crate::failure::{Context, Result};
use crate::network_protocol::{Link, Subnet};
use crate::probe::in_child;
use crate::sandbox::Sandbox;
use crate::sys::{self, Forked};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) struct Networks {
    /// Whether the engine runs as an ordinary user.
    single_id: bool,
    /// By the id of the network; those with members or a line.
    places: HashMap<String, Place>,
    /// By what the engine calls them: the networks that lines lead to.
    lines: HashMap<u64, String>,
    next_port: u32,
    jobs: Vec<Job>,
}

/// A change of one sandbox's cables, under way.
struct Job {
    pid: i32,
    told: File,
    done: Done,
    after: Vec<Cable>,
    otherwise: Vec<Cable>,
}

/// For whom a change was made, and how it went.
pub(crate) struct Done {
    pub(crate) ticket: u64,
    /// Of the boot that made the sandbox.
    pub(crate) boot: u64,
    /// What it has now.
    pub(crate) cables: Vec<Cable>,
    pub(crate) outcome: Result<()>,
}

impl Networks {
    pub(crate) fn new(single_id: bool) -> Self {
        let (places, lines, jobs) = Default::default();
        Self { single_id, places, lines, next_port: 0, jobs }
    }

    /// Begins to give a running sandbox these links and no others. Its addresses on networks
    /// that it leaves stay its own if `keep_addresses` says so: its processes are to be saved.
    pub(crate) fn begin(
        &mut self,
        ticket: u64,
        sandbox: &Sandbox,
        links: Vec<Link>,
        keep_addresses: bool,
    ) -> Result<()> {
        if self.jobs.iter().any(|job| job.done.boot == sandbox.boot) {
            return Err("its networks are being changed already".into());
        }
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for cable in sandbox.cables.iter().cloned() {
            match links.iter().find(|link| link.is_place_of(&cable.link)) {
                Some(link) => {
                    let (port, devices) = (cable.port, cable.link.devices);
                    kept.push(Kept { cable: Cable { link: link.clone(), port }, devices });
                }
                None => gone.push(cable),
            }
        }
        let is_fresh = |link: &Link| !kept.iter().any(|kept| kept.cable.link.is_place_of(link));
        let fresh: Vec<Cable> =
            links.into_iter().filter(is_fresh).map(|link| self.new_cable(link)).collect();
        for Cable { link, .. } in &fresh {
            self.ready_place(&link.network, link.subnet)?;
        }
        let (told, telling) = sys::pipe().context("make a pipe")?;
        match sys::fork_process().context("start a change of networks")? {
            Forked::Child => {
                let change =
                    Change { places: &self.places, gone: &gone, kept: &kept, fresh: &fresh };
                let made = || {
                    let is_member = !(kept.is_empty() && fresh.is_empty());
                    let enter = || cable::enter(&sandbox.pidfd, self.single_id, is_member);
                    let inside = cable::reach(enter)?;
                    let _turn = take_turn()?;
                    change.apply(&inside, keep_addresses.then_some(sandbox.pid))
                };
                if let Err(error) = made() {
                    let _ = File::from(telling).write_all(error.to_string().as_bytes());
                }
                sys::exit_now(0);
            }
            Forked::Parent { pid } => {
                // Where it fails, devices may be led to or not: all of them are tried again.
                let otherwise = kept.iter().map(Kept::before).collect();
                let after = kept.into_iter().map(|kept| kept.cable).chain(fresh).collect();
                let done = Done { ticket, boot: sandbox.boot, cables: Vec::new(), outcome: Ok(()) };
                self.jobs.push(Job { pid, told: told.into(), done, after, otherwise });
                Ok(())
            }
        }
    }

    /// The change that this child has made, if it was one of ours.
    pub(crate) fn finish(&mut self, pid: i32, status: i32) -> Option<Done> {
        let index = self.jobs.iter().position(|job| job.pid == pid)?;
        let Job { mut told, mut done, after, otherwise, .. } = self.jobs.swap_remove(index);
        let mut reason = String::new();
        let read = told.read_to_string(&mut reason).context("hear of a change of networks");
        done.outcome = match (read, sys::exit_status(status)) {
            (Err(error), _) => Err(error),
            (Ok(_), Ok(0)) if reason.is_empty() => Ok(()),
            (Ok(_), Ok(0)) => Err(reason.into()),
            (Ok(_), _) => Err("changing networks was interrupted".into()),
        };
        done.cables = if done.outcome.is_ok() { after } else { otherwise };
        Some(done)
    }

    /// Makes a line from the engine to the router of a network.
    pub(crate) fn open_line(
        &mut self,
        number: u64,
        network: &str,
        subnet: Subnet,
    ) -> Result<OwnedFd> {
        self.ready_place(network, subnet)?;
        let (Some(router), single_id) = (self.places.get(network), self.single_id) else {
            return Err("the network has no router".into());
        };
        let (ours, theirs) = sys::packet_pair().context("make a pair of sockets")?;
        let reason = in_child(|| {
            let line = cable::open_line(router, number, single_id)?;
            sys::send_packet(&theirs, &[0], Some(line.as_fd())).context("hand a line over")
        })?;
        drop(theirs);
        if !reason.is_empty() {
            return Err(reason.into());
        }
        let line = sys::receive_descriptor(&ours).context("fetch a line")?;
        self.lines.insert(number, network.to_owned());
        Ok(line.ok_or("no line came back from a network")?)
    }

    pub(crate) fn close_line(&mut self, number: u64) {
        self.lines.remove(&number);
    }

    /// Ends networks that no sandbox is on and no line leads to.
    pub(crate) fn end_unused(&mut self, sandboxes: &[Sandbox]) {
        let (jobs, lines) = (&self.jobs, &self.lines);
        self.places.retain(|network, _| {
            let is_on = |cables: &[Cable]| cables.iter().any(|it| it.link.network == *network);
            lines.values().any(|other| other == network)
                || jobs.iter().any(|job| is_on(&job.after))
                || sandboxes.iter().any(|sandbox| is_on(&sandbox.cables))
        });
    }

    fn new_cable(&mut self, link: Link) -> Cable {
        self.next_port += 1;
        Cable { link, port: format!("p{}", self.next_port) }
    }

    fn ready_place(&mut self, network: &str, subnet: Subnet) -> Result<()> {
        if !self.places.contains_key(network) {
            let place = cable::reach(|| cable::make_router(subnet, self.single_id))?;
            self.places.insert(network.to_owned(), place);
        }
        Ok(())
    }
}

/// Waits until nobody else talks to a router: who asks must hear the answer. Ends with the
/// file, or with this process.
fn take_turn() -> Result<File> {
    let doing = "wait for other changes of networks";
    let lock = File::create("networks.lock").context(doing)?;
    lock.lock().context(doing)?;
    Ok(lock)
}
