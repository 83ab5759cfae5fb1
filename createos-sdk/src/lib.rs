//! Strongly typed async client for CreateOS sandboxes.
//!
//! A sandbox is a small isolated Linux machine that is there in milliseconds: run commands in
//! it, move files in and out, throw it away. The same code talks to the hosted control plane
//! and to the engine embedded in this machine.
//!
//! ```no_run
//! # async fn run() -> createos_sdk::Result<()> {
//! use createos_sdk::Client;
//!
//! let client = Client::from_env()?;
//! let sandbox = client.create_sandbox("s-1vcpu-1gb").name("demo").env("STAGE", "ci").await?;
//!
//! let out = sandbox.command("python3").args(["-c", "print(6*7)"]).output().await?;
//! assert_eq!(out.stdout_str()?, "42\n");
//!
//! sandbox.files().write("/work/data.csv", "a,b\n1,2\n").await?;
//! sandbox.files().download_to("/work/data.csv", "data.csv").await?;
//! sandbox.destroy().await?;
//! # Ok(()) }
//! ```
//!
//! # Connecting
//!
//! [`Client::from_env`] reads `CREATEOS_API_KEY` (or `CREATEOS_SANDBOX_API_KEY`) and
//! `CREATEOS_SANDBOX_BASE_URL`; [`Client::builder`] sets the same and more by hand, and wins.
//! Without an address it is the hosted control plane. Plain `http` is for this machine only.
//! [`Client::is_configured_by_env`] says whether the environment names anything. A client is
//! cheap to clone, and its clones share connections.
//!
//! # Calls
//!
//! Every call is a builder: required arguments first, options as methods, `.await` sends it.
//! Nothing happens before. Each takes `.with(`[`RequestOptions`]`)`: a timeout, a deadline, a
//! retry policy, headers. Dropping a call or a stream at any point is safe and frees
//! everything it held on this side.
//!
//! | to | see |
//! |---|---|
//! | create, find, list sandboxes | [`Client::create_sandbox`], [`Client::get_sandbox`], [`Client::sandboxes`] |
//! | run a command, whole or streamed | [`Sandbox::command`], [`Command::output`], [`Command::stream`] |
//! | move files and directories, list, rename, remove | [`Sandbox::files`] |
//! | keep a directory the same here and there | [`Sandbox::sync`], [`sync`] |
//! | run something that outlives the connection | [`Sandbox::spawn`], [`Process::attach`], [`Process::stdin`] |
//! | sit at a shell | [`Sandbox::terminal`] |
//! | reach a port inside | [`Sandbox::tunnel`], [`Sandbox::http`] |
//! | pause, resume, copy, wait, destroy | [`Sandbox::pause`], [`Sandbox::resume`], [`Sandbox::fork`], [`Sandbox::wait_until`], [`Sandbox::destroy`] |
//! | change what it may do | [`Sandbox::set_ingress`], [`Sandbox::set_auto_pause`], [`Sandbox::set_egress`], [`Sandbox::resize`] |
//! | connect sandboxes and machines | [`network`], [`device`] |
//! | mount S3 buckets | [`disk`] |
//! | build root filesystems | [`template`] |
//! | use a desktop | [`computer`] |
//! | delegate one sandbox | [`Sandbox::access_token`], [`Sandbox::with_token`] |
//! | signal from inside a sandbox | [`local`] |
//! | never leave anything behind: sandboxes, networks, disks, templates, processes | [`CreateSandbox::guarded`], [`SpawnProcess::guarded`], [`Guard`] |
//! | never make a sandbox twice | [`CreateSandbox::adopt`] |
//! | wait until it can be used | [`Tunnel::wait_until_open`], [`Sandbox::wait_until_joined`], [`Sandbox::wait_until_mounted`] |
//! | show a model no more than so much | [`Command::limit_output`], [`Output::stdout_marked`], [`Files::read_excerpt`] |
//! | see what can be ordered | [`Client::shapes`], [`Client::rootfs`] |
//! | ask the server how it is | [`Client::health`], [`Client::readiness`], [`Client::whoami`] |
//!
//! # Streams
//!
//! ```no_run
//! # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
//! use createos_sdk::ExecEvent;
//! use futures::TryStreamExt;
//!
//! let mut events = sandbox.command("make").arg("test").stream().await?;
//! while let Some(event) = events.try_next().await? {
//!     if let ExecEvent::Stdout(bytes) = event {
//!         print!("{}", String::from_utf8_lossy(&bytes));
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Streams ([`ExecStream`], [`Download`], [`Items`]) implement [`futures::Stream`]. Output and
//! files are bytes; text is a view that says when it is not exact. A stream that ends without
//! its proper end is an error, never a short success.
//!
//! # Time
//!
//! - The *connect timeout* limits reaching the server.
//! - The *timeout* limits one attempt of an ordinary call. It does not limit a running
//!   command, and of streams and downloads only the time until they begin.
//! - The *stall timeout* limits silence on streams and transfers; any byte, also a heartbeat,
//!   starts it anew. There is no total limit on them.
//! - The *deadline* limits a whole call with all its attempts, if you set one.
//!
//! # Errors and repeats
//!
//! There is one [`Error`]. [`Error::kind`] says what it is; its `Display` is one line for a
//! person. What fails for a passing reason is tried again, but only where that is harmless:
//!
//! | the attempt ended with | reads, writes of files, destroy | create, commands, resume |
//! |---|---|---|
//! | no connection (name, TCP, TLS) | again | again |
//! | 429 | again | again |
//! | 408, 500, 502, 503, 504 | again | no |
//! | a broken connection or a time limit | again | no |
//! | anything else | no | no |
//!
//! Uploads from a reader or stream, and streams once they began, are never repeated. Waits
//! between attempts are random, grow, honour `Retry-After` up to [`RetryPolicy::max_delay`],
//! and draw on a quota that all clones of a client share, so that an outage is not answered
//! with a flood.
//!
//! When a call that changes something fails, [`Error::may_have_acted`] says whether the server
//! could have done it anyway. A command is never run twice.
//!
//! # Secrets
//!
//! Keys, tokens, environment values, standard input and header values show in no `Debug` and
//! in no error. Redirects are not followed, so that a key is sent to no one else.
//!
//! # Features
//!
//! - `rustls` (default): TLS in Rust, trusting the system's certificates.
//! - `oauth`: signing a person in at an OpenID provider.
//! - `native-tls`: TLS of the operating system.
//! - `blocking`: the same calls for programs without a runtime.
//! - `reqwest012`: an HTTP client of your own, made with `reqwest` 0.12.
//! - `tracing`: a span `createos` per operation and an event per attempt, at level debug;
//!   repeats at level info. [`ClientBuilder::observe`] sees the same without it.

mod background;
#[cfg(feature = "blocking")]
pub mod blocking;
mod check;
mod client;
pub mod computer;
mod config;
pub mod device;
mod device_config;
pub mod disk;
mod error;
mod excerpt;
mod exec;
mod files;
mod guard;
mod handle;
mod http;
mod id;
pub mod local;
mod metrics;
pub mod network;
#[cfg(feature = "oauth")]
pub mod oauth;
mod observe;
mod operation;
mod options;
mod page;
mod pending;
mod poll;
mod process;
mod sandbox;
mod secret;
mod signer;
mod ssh;
#[cfg(unix)]
pub mod sync;
pub mod template;
mod terminal;
mod time;
pub mod token;
mod transport;
mod tunnel;
mod wait;
pub mod wire;

pub use self::client::{Client, ClientBuilder};
pub use self::computer::Computer;
pub use self::device::Device;
pub use self::disk::Disk;
pub use self::error::{Error, ErrorKind, Result};
pub use self::excerpt::{Excerpt, Gap};
pub use self::exec::{Command, ExecEvent, ExecStream, ExitStatus, Output};
pub use self::files::{
    DirEntry, DirectorySummary, Download, DownloadDir, DownloadFile, DownloadPaths, DownloadTo,
    FetchedPaths, FileInfo, FileKind, FileOperation, Files, LocalTree, MAX_FILE_BYTES, Progress,
    ReadExcerpt, ReadFile, ReadText, SelectTree, TreeSource, Upload, UploadDir, WriteFile,
};
pub use self::guard::{Guard, Guardable, Guarded};
#[cfg(feature = "reqwest012")]
pub use self::http::HttpClient;
pub use self::id::{
    DeviceId, DiskId, NetworkId, ProcessId, SandboxId, ScreenId, SessionId, TemplateId, WindowId,
};
pub use self::network::Network;
pub use self::observe::{Event, EventKind};
pub use self::operation::Operation;
pub use self::options::{RequestOptions, RetryPolicy};
pub use self::page::{Items, List};
pub use self::pending::Pending;
pub use self::process::{
    Attach, Process, ProcessEvent, ProcessExit, ProcessStdin, ProcessStream, SpawnProcess,
    TerminateProcess, WaitProcess,
};
pub use self::sandbox::{ChangeState, CreateSandbox, ForkSandbox, Sandbox, WaitUntil};
pub use self::secret::Secret;
pub use self::ssh::{Ssh, SshPublicKey};
pub use self::template::Template;
pub use self::terminal::{OpenTerminal, Terminal, TerminalReader, TerminalResizer, TerminalWriter};
pub use self::time::Timestamp;
pub use self::tunnel::{
    GuestHttp, GuestRequest, GuestResponse, Tunnel, TunnelEvent, TunnelListener, TunnelStream,
    WaitUntilOpen,
};
pub use self::wait::Condition;

/// Mistakes that do not compile.
///
/// An id of one kind where another belongs:
///
/// ```compile_fail,E0277
/// # fn run(client: createos_sdk::Client, disk: createos_sdk::DiskId) {
/// client.sandbox(disk);
/// # }
/// ```
///
/// A secret that is printed:
///
/// ```compile_fail,E0277
/// println!("{}", createos_sdk::Secret::from("k"));
/// ```
///
/// A guard that is closed twice, or used after it gave the sandbox away:
///
/// ```compile_fail,E0382
/// # async fn run(guard: createos_sdk::Guard<createos_sdk::Sandbox>) {
/// let sandbox = guard.keep();
/// guard.close().await;
/// # }
/// ```
///
/// A call that is forgotten:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// fn run(sandbox: createos_sdk::Sandbox) {
///     sandbox.destroy();
/// }
/// ```
///
/// An error kind matched as if no other could come:
///
/// ```compile_fail,E0004
/// # fn run(kind: createos_sdk::EventKind<'_>) {
/// match kind {
///     createos_sdk::EventKind::Request => {}
/// }
/// # }
/// ```
#[cfg(doctest)]
struct Misuse;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
