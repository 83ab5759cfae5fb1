//! A machine that the tests script: files in memory, commands by name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::SandboxId;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::fake_processes::Table;
use crate::network_protocol::{Link, Subnet};
use crate::runtime::{
    BootInfo, BootSpec, Died, DiskMount, Disks, ExecEvent, ExecEvents, ExecSpec, ExitReason,
    FileRead, FileWrite, Line, MountState, Outlet, Runtime, RuntimeError, Saved, Usage,
};
use crate::s3::Access;

type Disk = HashMap<SandboxId, BTreeMap<String, Bytes>>;

/// The scripted machine. It survives the engines that the tests start on it, like a disk.
pub(crate) struct Fake {
    pub(crate) disk: Mutex<Disk>,
    pub(crate) alive: Mutex<HashSet<SandboxId>>,
    pub(crate) boots: Mutex<Vec<BootSpec>>,
    /// While set, boots fail with this text.
    pub(crate) boot_error: Mutex<Option<String>>,
    /// Sandboxes that stand still.
    pub(crate) frozen: Mutex<HashSet<SandboxId>>,
    /// How pauses keep a sandbox.
    pub(crate) saves_as: Mutex<Saved>,
    /// While set, pauses, resumes of paused ones, and forks fail with this text.
    pub(crate) pause_error: Mutex<Option<String>>,
    pub(crate) resume_error: Mutex<Option<String>>,
    pub(crate) fork_error: Mutex<Option<String>>,
    /// Whether sizes of disks are enforced.
    pub(crate) disks_limited: Mutex<bool>,
    /// Whether the engine starts with the root filesystem of a desktop.
    pub(crate) has_desktop: std::sync::atomic::AtomicBool,
    /// Whether sandboxes have a way out.
    pub(crate) reaches_out: Mutex<bool>,
    /// Sizes that disks were grown to.
    pub(crate) resized: Mutex<Vec<u64>>,
    /// While set, removals fail.
    pub(crate) remove_error: Mutex<bool>,
    /// Boots, pauses, resumes, forks and removals take a permit each; tests hold them back
    /// with `hold`.
    gate: Semaphore,
    /// Commands that were dropped before they ended.
    pub(crate) killed: Arc<AtomicUsize>,
    /// Uploads that were dropped before they were committed.
    pub(crate) abandoned: Arc<AtomicUsize>,
    usages: AtomicUsize,
    died: Mutex<Option<mpsc::UnboundedSender<Died>>>,
    /// What connecting to an address inside leads to; anything else is closed.
    pub(crate) ports: Mutex<HashMap<SocketAddr, Port>>,
    /// What connecting to a socket inside leads to: one of the test's.
    pub(crate) sockets: Mutex<HashMap<String, std::path::PathBuf>>,
    /// Where the engine's listeners inside really are.
    pub(crate) listening: Mutex<HashMap<(SandboxId, u16), SocketAddr>>,
    /// The private networks that each was put on.
    pub(crate) links: Mutex<HashMap<SandboxId, Vec<Link>>>,
    /// While set, changes of those fail with this text.
    pub(crate) link_error: Mutex<Option<String>>,
    /// Lines to networks that are open: the other ends of them.
    pub(crate) lines: Arc<Mutex<HashMap<String, UnixDatagram>>>,
    /// While set, lines cannot be opened, and this text says why.
    pub(crate) line_error: Mutex<Option<String>>,
    pub(crate) processes: Table,
    /// While set, buckets cannot be used, or disks not be mounted, and this text says why.
    pub(crate) bucket_error: Mutex<Option<String>>,
    pub(crate) mount_error: Mutex<Option<String>>,
    /// What is mounted where.
    pub(crate) mounts: Mutex<HashMap<(SandboxId, String), DiskMount>>,
    /// Terminals that are open.
    pub(crate) terminals: Arc<AtomicUsize>,
    pub(crate) images: super::fake_images::Shelf,
}

/// A port of every scripted sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    /// Leads to this server of the test.
    Open(SocketAddr),
    /// Does not answer.
    Silent,
    /// The machine has no room for a connection.
    Exhausted,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            disk: Mutex::default(),
            alive: Mutex::default(),
            boots: Mutex::default(),
            boot_error: Mutex::default(),
            frozen: Mutex::default(),
            saves_as: Mutex::new(Saved::Files),
            pause_error: Mutex::default(),
            resume_error: Mutex::default(),
            fork_error: Mutex::default(),
            disks_limited: Mutex::new(true),
            has_desktop: std::sync::atomic::AtomicBool::new(false),
            reaches_out: Mutex::new(true),
            resized: Mutex::default(),
            remove_error: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            killed: Arc::default(),
            abandoned: Arc::default(),
            usages: AtomicUsize::new(0),
            died: Mutex::default(),
            ports: Mutex::default(),
            sockets: Mutex::default(),
            listening: Mutex::default(),
            links: Mutex::default(),
            link_error: Mutex::default(),
            lines: Arc::default(),
            line_error: Mutex::default(),
            processes: Table::default(),
            bucket_error: Mutex::default(),
            mount_error: Mutex::default(),
            mounts: Mutex::default(),
            terminals: Arc::default(),
            images: Default::default(),
        })
    }

    /// What takes a permit waits from now on, until `release`.
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(1000);
    }

    /// Nothing of it runs any more, and nobody is told.
    pub(crate) fn end(&self, id: &SandboxId) {
        self.alive.lock().unwrap().remove(id);
        self.links.lock().unwrap().remove(id);
        self.frozen.lock().unwrap().remove(id);
        self.mounts.lock().unwrap().retain(|(sandbox, _), _| sandbox != id);
    }

    async fn pass(&self, error: &Mutex<Option<String>>) -> Result<(), RuntimeError> {
        self.gate.acquire().await.unwrap().forget();
        let text = error.lock().unwrap().clone();
        text.map_or(Ok(()), |text| Err(RuntimeError::Unsupported(text)))
    }

    /// A sandbox ends by itself.
    pub(crate) fn die(&self, id: &SandboxId, reason: &str) {
        self.end(id);
        let died = Died { id: id.clone(), reason: reason.to_owned() };
        self.died.lock().unwrap().as_ref().unwrap().send(died).unwrap();
    }

    pub(crate) fn file(&self, id: &SandboxId, path: &str) -> Option<Bytes> {
        self.disk.lock().unwrap().get(id)?.get(path).cloned()
    }

    pub(crate) fn count(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }

    pub(super) fn check_alive(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        if self.alive.lock().unwrap().contains(id) {
            return Ok(());
        }
        Err(RuntimeError::Unreachable("the sandbox does not run".to_owned()))
    }
}

impl Disks for Arc<Fake> {
    fn check_bucket<'a>(&'a self, _: &'a Access) -> BoxFuture<'a, Result<(), String>> {
        let error = self.bucket_error.lock().unwrap().clone();
        Box::pin(async { error.map_or(Ok(()), Err) })
    }

    fn mount_disk<'a>(&'a self, id: &'a SandboxId, mount: DiskMount) -> BoxFuture<'a, ()> {
        self.mounts.lock().unwrap().insert((id.clone(), mount.path.clone()), mount);
        Box::pin(async {})
    }

    fn mount_state(&self, id: &SandboxId, path: &str) -> MountState {
        match self.mounts.lock().unwrap().get(&(id.clone(), path.to_owned())) {
            None => MountState::Pending,
            Some(DiskMount { access: Err(why), .. }) => MountState::Failed(why.clone()),
            Some(_) => {
                let error = self.mount_error.lock().unwrap().clone();
                error.map_or(MountState::Mounted, MountState::Failed)
            }
        }
    }

    fn unmount_disk<'a>(&'a self, id: &'a SandboxId, path: &'a str) -> BoxFuture<'a, ()> {
        self.mounts.lock().unwrap().remove(&(id.clone(), path.to_owned()));
        Box::pin(async {})
    }
}

impl Runtime for Arc<Fake> {
    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<BootInfo, RuntimeError>> {
        Box::pin(async move {
            self.disk.lock().unwrap().entry(spec.id.clone()).or_default();
            self.pass(&self.boot_error).await?;
            self.alive.lock().unwrap().insert(spec.id.clone());
            self.boots.lock().unwrap().push(spec);
            Ok(BootInfo { spawn: Duration::from_micros(12_345) })
        })
    }

    fn stop<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            self.end(id);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            self.end(id);
            self.gate.acquire().await.unwrap().forget();
            if *self.remove_error.lock().unwrap() {
                return Err(RuntimeError::Unreachable("the disk is stuck".to_owned()));
            }
            self.disk.lock().unwrap().remove(id);
            Ok(())
        })
    }

    fn pause<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Saved, RuntimeError>> {
        Box::pin(async move {
            self.pass(&self.pause_error).await?;
            self.check_alive(id)?;
            let saved = *self.saves_as.lock().unwrap();
            if saved == Saved::Frozen {
                self.frozen.lock().unwrap().insert(id.clone());
            } else {
                self.end(id);
            }
            Ok(saved)
        })
    }

    fn resume(
        &self,
        spec: BootSpec,
        saved: Saved,
    ) -> BoxFuture<'_, Result<BootInfo, RuntimeError>> {
        Box::pin(async move {
            self.pass(&self.resume_error).await?;
            if saved == Saved::Frozen {
                self.check_alive(&spec.id)?;
                assert!(self.frozen.lock().unwrap().remove(&spec.id), "{} is frozen", spec.id);
                return Ok(BootInfo { spawn: Duration::from_micros(100) });
            }
            assert!(self.disk.lock().unwrap().contains_key(&spec.id), "{} has files", spec.id);
            assert!(self.alive.lock().unwrap().insert(spec.id.clone()), "{} runs not", spec.id);
            self.boots.lock().unwrap().push(spec);
            Ok(BootInfo { spawn: Duration::from_micros(12_345) })
        })
    }

    /// An error comes half-way, with a file already copied.
    fn fork<'a>(
        &'a self,
        source: &'a SandboxId,
        saved: Saved,
        child: BootSpec,
    ) -> BoxFuture<'a, Result<Saved, RuntimeError>> {
        Box::pin(async move {
            let half = BTreeMap::from([("/half".to_owned(), Bytes::new())]);
            self.disk.lock().unwrap().insert(child.id.clone(), half);
            self.pass(&self.fork_error).await?;
            let mut disk = self.disk.lock().unwrap();
            let files = disk.get(source).cloned().expect("the source is there");
            disk.insert(child.id, files);
            Ok(if saved == Saved::Frozen { Saved::Files } else { saved })
        })
    }

    fn exec<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ExecSpec,
    ) -> BoxFuture<'a, Result<ExecEvents, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let events = script(spec)?;
            let mut watch = Watch { killed: Arc::clone(&self.killed), ended: false };
            let events = events.inspect(move |event| {
                let watch = &mut watch;
                watch.ended |= !matches!(event, Ok(ExecEvent::Stdout(_) | ExecEvent::Stderr(_)));
            });
            Ok(events.boxed())
        })
    }

    fn read_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<FileRead, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let path = &*String::from_utf8_lossy(path);
            check_target(path)?;
            if path == "/torn" {
                let chunks = [Ok(Bytes::from("half")), Err(lost())];
                return Ok(FileRead { size: 8, chunks: stream::iter(chunks).boxed() });
            }
            let no_such = || RuntimeError::NoSuchFile(path.to_owned());
            let content = self.file(id, path).ok_or_else(no_such)?;
            let size = content.len() as u64;
            let chunks: Vec<_> =
                content.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            Ok(FileRead { size, chunks: stream::iter(chunks).boxed() })
        })
    }

    fn write_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<Box<dyn FileWrite>, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let path = &*String::from_utf8_lossy(path);
            check_target(path)?;
            let file: Box<dyn FileWrite> = Box::new(Writing {
                fake: Arc::clone(self),
                id: id.clone(),
                path: path.to_owned(),
                content: Vec::new(),
                committed: false,
            });
            Ok(file)
        })
    }

    /// A tenth of a CPU second more each time.
    fn usage<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Usage, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let asked = self.usages.fetch_add(1, Ordering::SeqCst) as u64;
            Ok(Usage { cpu: Duration::from_millis(asked * 100), memory_bytes: 7 << 20 })
        })
    }

    fn connect<'a>(
        &'a self,
        id: &'a SandboxId,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<TcpStream, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let port = self.ports.lock().unwrap().get(&address).copied();
            match port.ok_or(RuntimeError::PortClosed)? {
                Port::Open(real) => Ok(TcpStream::connect(real).await.unwrap()),
                Port::Silent => std::future::pending().await,
                Port::Exhausted => Err(RuntimeError::Exhausted("no descriptor left".to_owned())),
            }
        })
    }

    fn connect_unix<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<UnixStream, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let real = self.sockets.lock().unwrap().get(path).cloned();
            let real = real.ok_or_else(|| RuntimeError::NoSuchFile(path.to_owned()))?;
            UnixStream::connect(real).await.map_err(|_| RuntimeError::PortClosed)
        })
    }

    fn listen<'a>(
        &'a self,
        id: &'a SandboxId,
        port: u16,
    ) -> BoxFuture<'a, Result<TcpListener, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            self.listening.lock().unwrap().insert((id.clone(), port), address);
            Ok(listener)
        })
    }

    fn set_links<'a>(
        &'a self,
        id: &'a SandboxId,
        links: Vec<Link>,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            self.pass(&self.link_error).await?;
            self.links.lock().unwrap().insert(id.clone(), links);
            Ok(())
        })
    }

    fn open_line<'a>(
        &'a self,
        network: &'a str,
        _: Subnet,
    ) -> BoxFuture<'a, Result<Line, RuntimeError>> {
        Box::pin(async move {
            if let Some(why) = self.line_error.lock().unwrap().clone() {
                return Err(RuntimeError::Unsupported(why));
            }
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (lines, closed) = (Arc::clone(&self.lines), network.to_owned());
            self.lines.lock().unwrap().insert(network.to_owned(), theirs);
            let close = move || {
                lines.lock().unwrap().remove(&closed);
            };
            Ok(Line::new(ours.into(), || false, close))
        })
    }

    /// Nothing ever leaves a scripted sandbox.
    fn outlet<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Outlet, RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            let socket = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
            Ok(Outlet {
                connections: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                datagrams: socket(),
                answers: socket(),
            })
        })
    }

    fn can_reach_out(&self) -> Result<(), String> {
        let can = *self.reaches_out.lock().unwrap();
        if can { Ok(()) } else { Err("the kernel is too small; get another".to_owned()) }
    }

    fn disk_limit(&self) -> Result<(), String> {
        let limited = *self.disks_limited.lock().unwrap();
        if limited { Ok(()) } else { Err("this machine has no disks; get some".to_owned()) }
    }

    fn resize<'a>(
        &'a self,
        id: &'a SandboxId,
        disk_mib: u64,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            self.check_alive(id)?;
            self.resized.lock().unwrap().push(disk_mib);
            Ok(())
        })
    }

    fn on_disk(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, RuntimeError>> {
        Box::pin(async { Ok(self.disk.lock().unwrap().keys().cloned().collect()) })
    }

    fn deaths(&self) -> Option<mpsc::UnboundedReceiver<Died>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.died.lock().unwrap() = Some(sender);
        Some(receiver)
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.alive.lock().unwrap().clear();
            self.frozen.lock().unwrap().clear();
        })
    }
}

/// `/dir` is a directory, `/full` has no space left.
fn check_target(path: &str) -> Result<(), RuntimeError> {
    match path {
        "/dir" | "/" => Err(RuntimeError::BadPath("is a directory".to_owned())),
        "/full" => Err(RuntimeError::Refused("no space left on device".to_owned())),
        _ => Ok(()),
    }
}

fn lost() -> RuntimeError {
    RuntimeError::Unreachable("the agent went away".to_owned())
}

struct Watch {
    killed: Arc<AtomicUsize>,
    ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            self.killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What each command does.
fn script(
    spec: ExecSpec,
) -> Result<BoxStream<'static, Result<ExecEvent, RuntimeError>>, RuntimeError> {
    let out = |bytes: Vec<u8>| Ok(ExecEvent::Stdout(bytes.into()));
    let err = |bytes: Vec<u8>| Ok(ExecEvent::Stderr(bytes.into()));
    let exit = |code| Ok(ExecEvent::Exited(ExitReason::Code(code)));
    let number = || spec.args.first().and_then(|arg| arg.parse().ok()).unwrap_or(0);
    let forever = stream::pending();
    Ok(match spec.program.as_str() {
        "echo" => stream::iter([out(spec.args.join(" ").into_bytes()), exit(0)]).boxed(),
        "complain" => stream::iter([err(spec.args.join(" ").into_bytes()), exit(1)]).boxed(),
        "env" => {
            let lines: Vec<_> = spec.env.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
            stream::iter([out(lines.concat().into_bytes()), exit(0)]).boxed()
        }
        "cat" => stream::iter([out(spec.stdin.unwrap_or_default().to_vec()), exit(0)]).boxed(),
        // A shell that only notes what it is told, and a program that makes nothing.
        "/bin/sh" => {
            stream::iter([out(format!("{:?}\n", spec.args).into_bytes()), exit(0)]).boxed()
        }
        "mkdir" => stream::iter([exit(0)]).boxed(),
        "exit" => stream::iter([exit(number())]).boxed(),
        "signal" => stream::iter([Ok(ExecEvent::Exited(ExitReason::Signal(number())))]).boxed(),
        // Each argument is a chunk of output, given in hexadecimal.
        "bytes" => {
            let chunks: Vec<_> = spec.args.iter().map(|hex| out(unhex(hex))).collect();
            stream::iter(chunks).chain(stream::iter([exit(0)])).boxed()
        }
        "hang" => stream::iter([out(b"begun\n".to_vec())]).chain(forever).boxed(),
        "flood" => stream::repeat_with(move || out(vec![b'x'; 64 << 10])).boxed(),
        "lose" => stream::iter([out(b"part".to_vec()), Err(lost())]).boxed(),
        "vanish" => stream::iter([out(b"part".to_vec())]).boxed(),
        // The session of a desktop, which comes up by itself here.
        "bash" => stream::iter([exit(0)]).boxed(),
        "crowded" => return Err(RuntimeError::Refused("too many processes".to_owned())),
        name => {
            let message = format!("{name}: no such program");
            return Err(RuntimeError::NotStarted { message, exit_code: 127 });
        }
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

struct Writing {
    fake: Arc<Fake>,
    id: SandboxId,
    path: String,
    content: Vec<u8>,
    committed: bool,
}

impl FileWrite for Writing {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.content.extend_from_slice(&chunk);
        Box::pin(async { Ok(()) })
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<u64, RuntimeError>> {
        Box::pin(async move {
            self.committed = true;
            let content = Bytes::from(std::mem::take(&mut self.content));
            let size = content.len() as u64;
            let mut disk = self.fake.disk.lock().unwrap();
            disk.entry(self.id.clone()).or_default().insert(self.path.clone(), content);
            drop(disk);
            Ok(size)
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.committed {
            self.fake.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}
