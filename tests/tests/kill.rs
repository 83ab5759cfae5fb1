//! The engine's process is killed at random moments of a mixed load. Whatever it had
//! acknowledged is so afterwards, or is cleanly in error, and nothing is left behind.
//!
//! `CREATEOS_TEST_KILLS=50 cargo test -p createos-tests --test kill -- --nocapture` for more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use createos_sdk::wire::SandboxStatus::{self, Destroyed, Error, Failed, Paused, Running};
use createos_sdk::{Client, ErrorKind, Sandbox, SandboxId};
use createos_tests::EngineProcess;

const SHAPE: &str = "s-1vcpu-256mb";
const WORKERS: usize = 4;
/// What a worker has at most.
const CROWD: usize = 3;

fn start(data_dir: &Path) -> EngineProcess {
    EngineProcess::start(Command::new(env!("CARGO_BIN_EXE_createos-tests-engine")).arg(data_dir))
}

/// What is known of a sandbox: the last acknowledged state, and what was asked since.
#[derive(Debug, Clone)]
struct Known {
    worker: usize,
    marker: String,
    state: SandboxStatus,
    asked: Option<SandboxStatus>,
}

impl Known {
    /// The states it may be in once another engine has taken over. What ran has ended.
    fn allowed(&self) -> Vec<SandboxStatus> {
        let mut allowed = match &self.state {
            Running | Error => vec![Error],
            Paused => vec![Paused, Error],
            other => vec![other.clone()],
        };
        match &self.asked {
            Some(Paused) => allowed.extend([Paused, Error]),
            Some(Running) => allowed.push(Error),
            Some(Destroyed) => allowed.push(Destroyed),
            _ => {}
        }
        allowed
    }
}

#[derive(Default)]
struct Book(Mutex<HashMap<SandboxId, Known>>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Known>> {
        self.0.lock().expect("the book")
    }

    fn of(&self, worker: usize) -> Vec<(SandboxId, Known)> {
        let known = self.lock();
        let own = known.iter().filter(|(_, known)| known.worker == worker);
        own.map(|(id, known)| (id.clone(), known.clone())).collect()
    }

    fn ask(&self, id: &SandboxId, state: SandboxStatus) {
        self.lock().get_mut(id).expect("a known sandbox").asked = Some(state);
    }

    fn acknowledge(&self, id: &SandboxId, state: SandboxStatus) {
        let mut known = self.lock();
        if state == Destroyed {
            known.remove(id);
        } else if let Some(known) = known.get_mut(id) {
            (known.state, known.asked) = (state, None);
        }
    }
}

async fn mark(sandbox: &Sandbox, marker: &str) -> createos_sdk::Result<()> {
    sandbox.files().write("/root/marker", marker.to_owned()).await
}

async fn marker(sandbox: &Sandbox) -> createos_sdk::Result<String> {
    sandbox.files().read_string("/root/marker").await
}

/// One thing that a user might do next.
async fn step(client: &Client, book: &Book, worker: usize) -> createos_sdk::Result<()> {
    let own = book.of(worker);
    if own.len() < CROWD && (own.is_empty() || fastrand::u8(..4) == 0) {
        let sandbox = client.create_sandbox(SHAPE).await?;
        let marker = sandbox.id().to_string();
        // Without its marker it is not in the book: a death in between says nothing.
        mark(&sandbox, &marker).await?;
        let known = Known { worker, marker, state: Running, asked: None };
        book.lock().insert(sandbox.id().clone(), known);
        return Ok(());
    }
    let (id, known) = own[fastrand::usize(..own.len())].clone();
    let sandbox = client.sandbox(id.clone());
    if fastrand::u8(..10) == 0 {
        book.ask(&id, Destroyed);
        sandbox.destroy().await?;
        sandbox.wait_until(Destroyed).await?;
        book.acknowledge(&id, Destroyed);
        return Ok(());
    }
    match known.state {
        Running if fastrand::bool() => {
            let script = "nohup sleep 1000 >/dev/null 2>&1 </dev/null & cat /root/marker";
            let output = sandbox.command("sh").args(["-c", script]).output().await?;
            assert_eq!(output.stdout_str()?, known.marker);
        }
        Running => {
            book.ask(&id, Paused);
            sandbox.pause().await?;
            book.acknowledge(&id, Paused);
        }
        Paused if own.len() < CROWD && fastrand::bool() => {
            let fork =
                if fastrand::bool() { sandbox.fork() } else { sandbox.fork().start_paused() };
            let child = fork.await?;
            let state = child.refresh().await?.status.clone();
            let known = Known { worker, marker: known.marker, state, asked: None };
            book.lock().insert(child.id().clone(), known);
        }
        _ => {
            book.ask(&id, Running);
            sandbox.resume().await?;
            book.acknowledge(&id, Running);
            assert_eq!(marker(&sandbox).await?, known.marker);
        }
    }
    Ok(())
}

/// Works for ever; while the engine lives, nothing goes wrong.
async fn work(client: &Client, book: &Book, worker: usize, steps: &AtomicUsize) {
    loop {
        if let Err(error) = step(client, book, worker).await {
            panic!("worker {worker}: {error}");
        }
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Compares what the new engine says with what the old one had acknowledged.
async fn compare(client: &Client, book: &Book) {
    let listed = client.sandboxes().await.expect("list");
    let mut found = HashMap::new();
    for sandbox in &listed {
        let view = sandbox.view().expect("a view");
        let ended = [Paused, Error, Destroyed, Failed];
        assert!(ended.contains(&view.status), "{view:?}");
        found.insert(view.id.clone(), view.status.clone());
    }
    let known: Vec<_> = book.lock().clone().into_iter().collect();
    for (id, known) in known {
        let state = found.remove(&id).unwrap_or(Destroyed);
        assert!(known.allowed().contains(&state), "{id} is {state}: {known:?}");
        book.acknowledge(&id, state);
    }
    // What nobody heard of is of no use to anybody.
    for id in found.into_iter().filter(|(_, state)| *state != Destroyed).map(|(id, _)| id) {
        client.sandbox(id).destroy().await.expect("destroy");
    }
}

/// What an engine leaves in the kernel and on disk, apart from records.
struct Traces {
    data_dir: PathBuf,
    group: String,
}

impl Traces {
    fn of(data_dir: &Path) -> Self {
        let instance = std::fs::read_to_string(data_dir.join("instance")).expect("its name");
        Self { data_dir: data_dir.to_owned(), group: format!("createos-{}", instance.trim()) }
    }

    /// Waits until nothing but `living` is there, and a few ready-made disks.
    async fn settle(&self, living: &[SandboxId]) {
        self.settle_to(|| self.find(living)).await;
    }

    /// Waits until nothing is there at all, because no engine is.
    async fn settle_for_good(&self) {
        let find = || {
            let mut left = self.find(&[]);
            left.extend(self.loop_devices());
            left.extend(
                entries(&self.data_dir.join("layers"))
                    .iter()
                    .map(|layer| format!("layer {}", layer.display())),
            );
            left
        };
        self.settle_to(find).await;
    }

    async fn settle_to(&self, find: impl Fn() -> Vec<String>) {
        let mut left = Vec::new();
        for _ in 0..100 {
            left = find();
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("left behind: {left:#?}");
    }

    /// Images of this engine that are shown as devices.
    fn loop_devices(&self) -> Vec<String> {
        let data_dir = self.data_dir.display().to_string();
        let devices = entries(Path::new("/sys/block")).into_iter().filter_map(|device| {
            let file = std::fs::read_to_string(device.join("loop/backing_file")).ok()?;
            file.contains(&data_dir).then(|| format!("{}: {}", device.display(), file.trim()))
        });
        devices.collect()
    }

    fn find(&self, living: &[SandboxId]) -> Vec<String> {
        let mut left = Vec::new();
        let data_dir = self.data_dir.display().to_string();
        for process in entries(Path::new("/proc")) {
            let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
            // The engine and its warden are in no group of their own.
            if read("cgroup").contains(&format!("{}/sb-", self.group)) {
                left.push(format!("process {}: {}", process.display(), read("comm")));
            }
        }
        for directory in entries(&self.data_dir.join("sandboxes")) {
            if !living.iter().any(|id| directory.ends_with(id.as_str())) {
                left.push(format!("directory {}", directory.display()));
            }
        }
        for tree in entries(Path::new("/sys/fs/cgroup")) {
            left.extend(groups_below(&tree, &self.group, 5));
        }
        left.extend(self.loop_devices().into_iter().filter(|device| !device.contains("/ready/")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(mounts.lines().filter(|line| line.contains(&data_dir)).map(str::to_owned));
        left
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Groups of sandboxes in the engine's group, wherever that is.
fn groups_below(directory: &Path, group: &str, depth: u8) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries(directory).into_iter().filter(|entry| entry.is_dir()) {
        if entry.ends_with(group) {
            let inner = entries(&entry).into_iter().filter(|inner| inner.is_dir());
            found.extend(inner.map(|inner| format!("control group {}", inner.display())));
        } else if depth > 0 {
            found.extend(groups_below(&entry, group, depth - 1));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_can_be_killed_at_any_moment() {
    let kills = std::env::var("CREATEOS_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: usize = kills.unwrap_or(8);
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    println!("seed {seed}, {kills} kills");
    let home = tempfile::tempdir().expect("directory");
    let data_dir = home.path().join("data");
    let book = Book::default();
    let steps = AtomicUsize::new(0);
    for kill in 0..kills {
        let server = start(&data_dir);
        compare(&server.client, &book).await;
        let living: Vec<_> = book.lock().keys().cloned().collect();
        Traces::of(&data_dir).settle(&living).await;
        let delay = Duration::from_millis(fastrand::u64(1..800));
        let client = server.client.clone();
        let before = steps.load(Ordering::Relaxed);
        let work = (0..WORKERS).map(|worker| work(&client, &book, worker, &steps));
        tokio::select! {
            biased;
            () = tokio::time::sleep(delay) => server.kill(),
            _ = futures::future::join_all(work) => {}
        }
        let done = steps.load(Ordering::Relaxed) - before;
        println!("kill {kill} after {delay:?}, {done} steps, {} known", book.lock().len());
    }
    let steps = steps.into_inner();
    assert!(steps > kills, "hardly anything was done: {steps} steps");

    let server = start(&data_dir);
    compare(&server.client, &book).await;
    let known: Vec<_> = book.lock().clone().into_iter().collect();
    for (id, known) in &known {
        // Whatever it was in, its files are there.
        let sandbox = server.client.sandbox(id.clone());
        sandbox.resume().await.expect("resume");
        assert_eq!(marker(&sandbox).await.expect("the marker"), known.marker);
        sandbox.destroy().await.expect("destroy");
        sandbox.wait_until(Destroyed).await.expect("destroyed");
        let exec = sandbox.command("true").output().await.expect_err("destroyed");
        assert_eq!(exec.kind(), ErrorKind::Conflict);
    }
    let traces = Traces::of(&data_dir);
    traces.settle(&[]).await;
    server.end();
    traces.settle_for_good().await;
    println!("{steps} steps, {} sandboxes at the end, nothing left", known.len());
}
