//! Private networks: for each, a network namespace that holds nothing but a router, and a
//! cable from there to every member.
//!
//! A member cannot speak for another: what comes out of its cable with an address that is
//! not its own, the router drops ("reverse path" filter); and with no other protocol than
//! IPv4 does it deal. A namespace lives as long as its descriptor here, and so does
//! everything in it. Making and removing cables takes the kernel up to tens of
//! milliseconds, so a child of the warden does that.

use crate::cable::{self, Cable, Change, Place};
use crate::failure::{Context, Result};
use crate::network_protocol::Link;
use crate::sandbox::Sandbox;
use crate::sys::{self, Forked};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};

pub(crate) struct Networks {
    /// Whether the engine runs as an ordinary user.
    single_id: bool,
    /// By the id of the network; those with members.
    places: HashMap<String, Place>,
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
        Self { single_id, places: HashMap::new(), next_port: 0, jobs: Vec::new() }
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
        let (kept, gone): (Vec<Cable>, Vec<Cable>) =
            sandbox.cables.iter().cloned().partition(|cable| links.contains(&cable.link));
        let is_fresh = |link: &Link| !kept.iter().any(|cable| cable.link == *link);
        let fresh: Vec<Cable> =
            links.into_iter().filter(is_fresh).map(|link| self.new_cable(link)).collect();
        for cable in &fresh {
            self.ready_place(&cable.link)?;
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
                let after = kept.iter().chain(&fresh).cloned().collect();
                let done = Done { ticket, boot: sandbox.boot, cables: Vec::new(), outcome: Ok(()) };
                self.jobs.push(Job { pid, told: told.into(), done, after, otherwise: kept });
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

    /// Ends networks that no sandbox is on.
    pub(crate) fn end_unused(&mut self, sandboxes: &[Sandbox]) {
        let jobs = &self.jobs;
        self.places.retain(|network, _| {
            let is_on = |cables: &[Cable]| cables.iter().any(|it| it.link.network == *network);
            jobs.iter().any(|job| is_on(&job.after))
                || sandboxes.iter().any(|sandbox| is_on(&sandbox.cables))
        });
    }

    fn new_cable(&mut self, link: Link) -> Cable {
        self.next_port += 1;
        Cable { link, port: format!("p{}", self.next_port) }
    }

    fn ready_place(&mut self, link: &Link) -> Result<()> {
        if !self.places.contains_key(&link.network) {
            let place = cable::reach(|| cable::make_router(link.subnet, self.single_id))?;
            self.places.insert(link.network.clone(), place);
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
