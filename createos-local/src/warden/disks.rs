//! The disks of all sandboxes: which are open, a few that wait ready-made, and the work
//! on them.
//!
//! Mounting takes tens of milliseconds, and unmounting may. The warden has one thread, so
//! each such piece of work runs in a child that shares the warden's mounts and ends with
//! the work.

use crate::disk::{self, Access, IMAGE, Maker};
use crate::failure::{Context, Failure, Result};
use crate::protocol::{Boot, Report};
use crate::sys::{self, Forked};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Pieces of work that run at once.
const MOST_JOBS: usize = 4;
/// How many empty disks wait, open, for the next sandboxes: at first, and once a boot
/// found none.
const FEW_READY: usize = 2;
const MANY_READY: usize = 8;
/// Shared disks that stay open after their last use, for the next sandbox of the same
/// template.
const MOST_IDLE: usize = 8;

pub(crate) struct Disks {
    data_dir: PathBuf,
    maker: Maker,
    /// By the directory that holds the image, relative to the data directory.
    disks: HashMap<String, Disk>,
    ready: Vec<Mounted>,
    wanted_ready: usize,
    next_slot: u32,
    queue: VecDeque<Job>,
    running: Vec<(i32, File, Job)>,
}

/// Where an image is mounted.
#[derive(Clone, Copy)]
struct Mounted {
    slot: u32,
    device: u32,
}

struct Disk {
    slot: u32,
    access: Access,
    state: State,
    /// Since when it is open for nobody.
    idle: Option<Instant>,
    /// To be sent when it is closed.
    waiting: Vec<Report>,
    /// Its sandbox is gone for good.
    unwanted: bool,
}

enum State {
    Opening,
    Open { device: u32 },
    Closing,
    Failed { message: String },
}

/// A piece of work, and what it is for.
enum Job {
    /// Mounts an image, made first where it is missing.
    Open {
        directory: String,
        slot: u32,
        access: Access,
        mib: u64,
    },
    Close {
        directory: String,
        slot: u32,
    },
    Grow {
        directory: String,
        mounted: Mounted,
        mib: u64,
        ticket: u64,
    },
    /// Copies an image, which may be mounted.
    Copy {
        from: String,
        slot: Option<u32>,
        to: String,
        ticket: u64,
    },
    MakeReady {
        slot: u32,
    },
    /// Makes a used disk a ready one, where one more is of use, or throws it away.
    Clean {
        mounted: Mounted,
        keep: bool,
    },
}

/// Whether a boot can go on.
pub(crate) enum Demand {
    Met,
    /// Later, when [`Disks::finish`] has been called.
    Waiting,
    Failed(String),
}

impl Disks {
    /// Finds out, by opening a disk, whether this machine can have them.
    pub(crate) fn prepare(data_dir: &Path, usual_mib: u64) -> Result<Self> {
        let ready = data_dir.join("ready");
        let _ = fs::remove_dir_all(&ready);
        fs::create_dir_all(&ready).context("create the directory of ready disks")?;
        let mut disks = Self {
            data_dir: data_dir.to_owned(),
            maker: Maker::prepare(data_dir, usual_mib)?,
            disks: HashMap::new(),
            ready: Vec::new(),
            wanted_ready: FEW_READY,
            next_slot: 0,
            queue: VecDeque::new(),
            running: Vec::new(),
        };
        let slot = disks.take_slot();
        let device = disks.make_ready(slot)?;
        disks.ready.push(Mounted { slot, device });
        Ok(disks)
    }

    fn take_slot(&mut self) -> u32 {
        self.next_slot += 1;
        self.next_slot
    }

    fn image(&self, directory: &str) -> PathBuf {
        self.data_dir.join(directory).join(IMAGE)
    }

    fn ready_image(&self, slot: u32) -> PathBuf {
        self.data_dir.join(format!("ready/{slot}.img"))
    }

    /// Where a directory's disk is mounted, if it is one and open.
    pub(crate) fn mount_of(&self, directory: &str) -> Option<PathBuf> {
        let disk = self.disks.get(directory)?;
        matches!(disk.state, State::Open { .. }).then(|| target(disk.slot))
    }

    /// Opens what a boot needs. Call it again after each [`Disks::finish`] until it does
    /// not wait any more.
    pub(crate) fn demand(&mut self, boot: &Boot) -> Demand {
        let mut waiting = false;
        if boot.disk_mib > 0 {
            match self.demand_one(&boot.directory, Access::Private, boot.disk_mib) {
                Demand::Met => {}
                Demand::Waiting => waiting = true,
                failed @ Demand::Failed(_) => return failed,
            }
        }
        for layer in &boot.layers {
            if !self.image(layer).exists() {
                continue;
            }
            match self.demand_one(layer, Access::Shared, 0) {
                Demand::Met => {}
                Demand::Waiting => waiting = true,
                failed @ Demand::Failed(_) => return failed,
            }
        }
        if waiting { Demand::Waiting } else { Demand::Met }
    }

    fn demand_one(&mut self, directory: &str, access: Access, mib: u64) -> Demand {
        match self.disks.get(directory).map(|disk| &disk.state) {
            Some(State::Open { .. }) => return Demand::Met,
            Some(State::Opening | State::Closing) => return Demand::Waiting,
            Some(State::Failed { message }) => {
                let message = message.clone();
                self.disks.remove(directory);
                return Demand::Failed(message);
            }
            None => {}
        }
        if access == Access::Private
            && mib == self.maker.usual_mib()
            && !self.image(directory).exists()
        {
            if let Some(mounted) = self.take_ready(directory) {
                let state = State::Open { device: mounted.device };
                self.insert(directory, mounted.slot, access, state);
                return Demand::Met;
            }
            self.wanted_ready = MANY_READY;
        }
        let slot = self.take_slot();
        self.insert(directory, slot, access, State::Opening);
        // Somebody waits for it, which cannot be said of cleaning up.
        self.queue.push_front(Job::Open { directory: directory.to_owned(), slot, access, mib });
        self.start_jobs();
        Demand::Waiting
    }

    fn insert(&mut self, directory: &str, slot: u32, access: Access, state: State) {
        let disk = Disk { slot, access, state, idle: None, waiting: Vec::new(), unwanted: false };
        self.disks.insert(directory.to_owned(), disk);
    }

    fn take_ready(&mut self, directory: &str) -> Option<Mounted> {
        let mounted = self.ready.pop()?;
        match fs::rename(self.ready_image(mounted.slot), self.image(directory)) {
            Ok(()) => Some(mounted),
            Err(_) => {
                self.queue.push_back(Job::Clean { mounted, keep: false });
                None
            }
        }
    }

    /// Closes every disk that is open and of no use; of the shared ones, which others may soon
    /// begin with, a few stay open. `is_used` tells of a directory whether a sandbox uses it;
    /// and, unless somebody waits for its end, whether one is about to.
    pub(crate) fn close_unused(&mut self, is_used: impl Fn(&str, bool) -> bool) {
        let mut idle = Vec::new();
        for (directory, disk) in &mut self.disks {
            let awaited = !disk.waiting.is_empty();
            if !matches!(disk.state, State::Open { .. }) || is_used(directory, awaited) {
                disk.idle = None;
                continue;
            }
            let stays = disk.access == Access::Shared
                && !awaited
                && self.data_dir.join(directory).join(IMAGE).exists();
            // One that is removed goes first.
            let since = stays.then(|| *disk.idle.get_or_insert_with(Instant::now));
            idle.push((since, directory.clone()));
        }
        idle.sort_unstable();
        let stay = idle.iter().filter(|(since, _)| since.is_some()).count().min(MOST_IDLE);
        idle.truncate(idle.len() - stay);
        for (_, directory) in idle {
            let Some(disk) = self.disks.get_mut(&directory) else { continue };
            disk.state = State::Closing;
            self.queue.push_back(Job::Close { directory, slot: disk.slot });
        }
        self.start_jobs();
    }

    /// Whether disks are open for nobody, and are to be closed once they are removed.
    pub(crate) fn has_idle(&self) -> bool {
        self.disks.values().any(|disk| disk.idle.is_some())
    }

    /// Sends `report` back, through [`Disks::finish`], when the disk is closed; returns it
    /// when there is nothing to wait for.
    pub(crate) fn when_closed(&mut self, directory: &str, report: Report) -> Option<Report> {
        match self.disks.get_mut(directory) {
            Some(disk) if !matches!(disk.state, State::Failed { .. }) => {
                disk.waiting.push(report);
                None
            }
            _ => Some(report),
        }
    }

    /// Gives up the disk of a sandbox that is being removed. `report` comes back at once,
    /// or through [`Disks::finish`] when the directory is in use until then.
    pub(crate) fn discard(&mut self, directory: &str, report: Report) -> Option<Report> {
        let disk = match self.disks.get_mut(directory) {
            None => return Some(report),
            Some(disk) => disk,
        };
        match disk.state {
            State::Open { device } => {
                let mounted = Mounted { slot: disk.slot, device };
                self.disks.remove(directory);
                // Out of the directory, which the engine removes next.
                let _ = fs::rename(self.image(directory), self.ready_image(mounted.slot));
                let keep = self.ready.len() + self.coming() < MANY_READY;
                self.queue.push_back(Job::Clean { mounted, keep });
                self.start_jobs();
                Some(report)
            }
            State::Opening | State::Closing => {
                disk.unwanted = true;
                disk.waiting.push(report);
                None
            }
            State::Failed { .. } => {
                self.disks.remove(directory);
                Some(report)
            }
        }
    }

    /// Makes an open disk larger. Answered through [`Disks::finish`].
    pub(crate) fn grow(&mut self, directory: &str, mib: u64, ticket: u64) -> Result<()> {
        let Some(Disk { slot, state: State::Open { device }, .. }) = self.disks.get(directory)
        else {
            return Err("the sandbox has no disk of its own that is in use".into());
        };
        let mounted = Mounted { slot: *slot, device: *device };
        let directory = directory.to_owned();
        self.queue.push_back(Job::Grow { directory, mounted, mib, ticket });
        self.start_jobs();
        Ok(())
    }

    /// Copies the disk in one directory to another, also while it is in use. Answered through
    /// [`Disks::finish`].
    pub(crate) fn copy(&mut self, from: &str, to: &str, ticket: u64) -> Result<()> {
        let slot = match self.disks.get(from) {
            None => None,
            Some(Disk { slot, state: State::Open { .. }, .. }) => Some(*slot),
            Some(_) => return Err("the sandbox's disk is being opened or closed".into()),
        };
        self.queue.push_back(Job::Copy { from: from.to_owned(), slot, to: to.to_owned(), ticket });
        self.start_jobs();
        Ok(())
    }

    /// Stops all work; whatever is mounted goes with the last process that sees it.
    pub(crate) fn end(&mut self) {
        for (pid, _, job) in self.running.drain(..) {
            let _ = sys::send_signal(pid, sys::SIGKILL);
            let _ = sys::wait_for(pid);
            if let Job::Copy { slot: Some(slot), .. } = job {
                // The kernel keeps a filesystem whose writers are held back, mounted or not.
                let _ = sys::release_writers(&target(slot));
            }
        }
    }

    fn start_jobs(&mut self) {
        while self.running.len() < MOST_JOBS {
            let Some(job) = self.queue.pop_front() else { break };
            match in_child(|| self.work(&job)) {
                Ok((pid, told)) => self.running.push((pid, told, job)),
                Err(_) => {
                    // No process to be had: another one's end is the next occasion.
                    self.queue.push_front(job);
                    break;
                }
            }
        }
        self.fill_up();
    }

    /// Keeps disks ready, when there is nothing better to do.
    fn fill_up(&mut self) {
        let idle = self.queue.is_empty() && self.running.len() < MOST_JOBS / 2;
        if idle && self.ready.len() + self.coming() < self.wanted_ready {
            let slot = self.take_slot();
            let job = Job::MakeReady { slot };
            if let Ok((pid, told)) = in_child(|| self.work(&job)) {
                self.running.push((pid, told, job));
            }
        }
    }

    /// Disks that will be ready.
    fn coming(&self) -> usize {
        let jobs = self.running.iter().map(|(.., job)| job).chain(&self.queue);
        jobs.filter(|job| matches!(job, Job::MakeReady { .. } | Job::Clean { keep: true, .. }))
            .count()
    }

    fn work(&self, job: &Job) -> Result<Option<u32>> {
        match job {
            Job::Open { directory, slot, access, mib } => {
                let image = self.image(directory);
                if *access == Access::Private && !image.exists() {
                    self.maker.make(&image, *mib)?;
                }
                disk::open(&image, &target(*slot), *access).map(Some)
            }
            Job::Close { directory, slot } => {
                disk::close(&self.image(directory), &target(*slot)).map(|()| None)
            }
            Job::Grow { directory, mounted, mib, .. } => {
                let image = self.image(directory);
                disk::grow(&image, &target(mounted.slot), mounted.device, *mib).map(|()| None)
            }
            Job::Copy { from, slot, to, .. } => {
                let mounted = slot.map(target);
                disk::copy(&self.image(from), mounted.as_deref(), &self.image(to)).map(|()| None)
            }
            Job::MakeReady { slot } => self.make_ready(*slot).map(Some),
            Job::Clean { mounted, keep } => {
                let image = self.ready_image(mounted.slot);
                let usual = keep.then(|| self.maker.usual_mib());
                disk::clean(&image, &target(mounted.slot), usual).map(|()| None)
            }
        }
    }

    fn make_ready(&self, slot: u32) -> Result<u32> {
        let image = self.ready_image(slot);
        self.maker.make(&image, self.maker.usual_mib())?;
        let opened = disk::open(&image, &target(slot), Access::Private);
        if opened.is_err() {
            let _ = fs::remove_file(&image);
        }
        opened
    }

    /// Takes note of an ended child. `None` when it was none of ours; otherwise what is to
    /// be reported.
    pub(crate) fn finish(&mut self, pid: i32) -> Option<Vec<Report>> {
        let index = self.running.iter().position(|(running, ..)| *running == pid)?;
        let (_, told, job) = self.running.swap_remove(index);
        let reports = self.conclude(job, outcome(told));
        self.start_jobs();
        Some(reports)
    }

    fn conclude(&mut self, job: Job, outcome: Result<Option<u32>>) -> Vec<Report> {
        match (job, outcome) {
            (Job::Open { directory, .. }, outcome) => self.opened(&directory, outcome),
            (Job::Close { directory, .. }, _) => {
                // One that stays in use will be refused by the next who opens it.
                self.disks.remove(&directory).map_or_else(Vec::new, |disk| disk.waiting)
            }
            (Job::Grow { ticket, .. } | Job::Copy { ticket, .. }, Ok(_)) => {
                vec![Report::Done { ticket }]
            }
            (Job::Grow { ticket, .. } | Job::Copy { ticket, .. }, Err(error)) => {
                vec![Report::Failed { ticket, message: error.to_string() }]
            }
            (Job::MakeReady { slot }, Ok(Some(device))) => {
                self.ready.push(Mounted { slot, device });
                Vec::new()
            }
            (Job::MakeReady { .. }, _) => {
                // A full disk, perhaps. Boots will say so; until then there is no point.
                self.wanted_ready = 0;
                Vec::new()
            }
            (Job::Clean { mounted, .. }, Ok(_)) => {
                self.ready.push(mounted);
                Vec::new()
            }
            (Job::Clean { .. }, Err(_)) => Vec::new(),
        }
    }

    fn opened(&mut self, directory: &str, outcome: Result<Option<u32>>) -> Vec<Report> {
        let Some(disk) = self.disks.get_mut(directory) else { return Vec::new() };
        let waiting = std::mem::take(&mut disk.waiting);
        match outcome {
            Ok(device) => {
                disk.state = State::Open { device: device.unwrap_or_default() };
                self.wanted_ready = self.wanted_ready.max(FEW_READY);
            }
            Err(error) => disk.state = State::Failed { message: error.to_string() },
        }
        if disk.unwanted {
            return waiting
                .into_iter()
                .filter_map(|report| self.discard(directory, report))
                .collect();
        }
        if let State::Failed { .. } = disk.state {
            return waiting;
        }
        disk.waiting = waiting;
        Vec::new()
    }
}

/// Mount points of disks, below the current directory.
fn target(slot: u32) -> PathBuf {
    PathBuf::from(format!("disks/{slot}"))
}

/// Starts a child that works and then tells: a number, or why it could not.
fn in_child(work: impl FnOnce() -> Result<Option<u32>>) -> Result<(i32, File)> {
    let (told, telling) = sys::pipe().context("make a pipe")?;
    match sys::fork_process().context("start a process")? {
        Forked::Parent { pid } => Ok((pid, told.into())),
        Forked::Child => {
            drop(told);
            let text = match work() {
                Ok(number) => format!("+{}", number.unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            let _ = File::from(telling).write_all(text.as_bytes());
            sys::exit_now(0);
        }
    }
}

/// What an ended child told.
fn outcome(mut told: File) -> Result<Option<u32>> {
    let mut text = String::new();
    told.read_to_string(&mut text).context("hear of the work on a disk")?;
    match text.strip_prefix('+') {
        Some(number) => Ok(number.parse().ok()),
        None if text.is_empty() => Err(Failure::from("the work on a disk was cut short")),
        None => Err(text.into()),
    }
}
