//! Debian systems, built from packages by `mmdebstrap`.

use std::collections::VecDeque;
use std::fmt;
use std::future::IntoFuture;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};

use super::shelf::Incoming;
use super::stream::{Bound, Hashed};
use super::unpack::{self, Unpacker, broken};
use super::{ImageError, ImageInfo, Images, Origin, archive, begin, checked, put};
use crate::runtime::ImageConfig;

const TOOL: &str = "mmdebstrap";
const SUITE: &str = "trixie";
/// What is kept of what the tool says, for the error: its first line, and the last ones.
const LAST_LINES: usize = 12;
const LONGEST_LINE: usize = 400;

type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

/// A Debian system that is about to be built; await it. Made by [`Images::build_debian`].
///
/// Dropped before its end, it stops the tool and leaves nothing.
#[must_use = "nothing is built until this is awaited"]
pub struct BuildDebian {
    images: Images,
    name: String,
    suite: String,
    packages: Vec<String>,
    mirrors: Vec<String>,
    options: Vec<String>,
    progress: OnLine,
}

impl fmt::Debug for BuildDebian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options and mirrors may hold passwords.
        f.debug_struct("BuildDebian").field("name", &self.name).field("suite", &self.suite).finish()
    }
}

impl BuildDebian {
    pub(super) fn new(images: Images, name: &str) -> Self {
        Self {
            images,
            name: name.to_owned(),
            suite: SUITE.to_owned(),
            packages: Vec::new(),
            mirrors: Vec::new(),
            options: Vec::new(),
            progress: Arc::new(|_| {}),
        }
    }

    /// Which release: `trixie`, unless given; `sid`, `bookworm`, `stable`.
    pub fn suite(mut self, suite: impl Into<String>) -> Self {
        self.suite = suite.into();
        self
    }

    /// A package to have besides the essential ones and apt, with what it depends on.
    pub fn package(mut self, package: impl Into<String>) -> Self {
        self.packages.push(package.into());
        self
    }

    /// Where packages come from, as `mmdebstrap` takes it: an address, a line of
    /// `sources.list`, or a file of those. Otherwise Debian's own servers.
    pub fn mirror(mut self, mirror: impl Into<String>) -> Self {
        self.mirrors.push(mirror.into());
        self
    }

    /// One more option for `mmdebstrap`, such as `--variant=apt`. It is not checked, and some
    /// run commands on this machine.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Calls this with each line that `mmdebstrap` says.
    pub fn progress(mut self, callback: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(callback);
        self
    }

    fn check(&self) -> Result<(), ImageError> {
        let fits = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._~:=/^".contains(c))
        };
        let wrong = |what: &str, text: &str| {
            let shown: String = text.chars().take(80).collect();
            Err(ImageError::Unsupported(format!("{shown:?} is no {what} of Debian")))
        };
        if !fits(&self.suite) {
            return wrong("release", &self.suite);
        }
        match self.packages.iter().find(|package| !fits(package)) {
            Some(package) => wrong("package", package),
            None => Ok(()),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(TOOL);
        command.args(["--variant=minbase", "--format=tar"]);
        if !self.packages.is_empty() {
            command.arg(format!("--include={}", self.packages.join(",")));
        }
        command.args(&self.options).args([&*self.suite, "-"]).args(&self.mirrors);
        command
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that it ends with all that it has started.
            .process_group(0);
        command
    }

    async fn run(self) -> Result<ImageInfo, ImageError> {
        let name = checked(&self.name)?;
        self.check()?;
        let images = self.images.clone();
        let tool = Tool::default();
        let _stops = scopeguard::guard(tool.clone(), |tool| tool.stop());
        images
            .blocking(move |shelf, given_up| {
                let incoming = begin(&shelf)?;
                let bound = given_up.bound(unpack::room(&incoming.files())?);
                let (size_bytes, config) = self.build(&tool, &incoming, &bound)?;
                let origin =
                    Origin { name, source: format!("debian {}", self.suite), digest: None };
                put(&shelf, incoming, origin, size_bytes, config, &bound)
            })
            .await
    }

    fn build(
        &self,
        tool: &Tool,
        incoming: &Incoming,
        bound: &Bound,
    ) -> Result<(u64, ImageConfig), ImageError> {
        let mut unpacker = Unpacker::new(&incoming.files(), bound.most)
            .map_err(ImageError::io("cannot prepare a place for the files"))?;
        let mut running = tool.start(self.command())?;
        let (Some(output), Some(errors)) = (running.stdout.take(), running.stderr.take()) else {
            return Err(ImageError::io("cannot hear the tool")(io::ErrorKind::BrokenPipe.into()));
        };
        let progress = Arc::clone(&self.progress);
        let said = thread::spawn(move || listen(errors, &*progress));
        let unpacked = take(&mut unpacker, output, bound);
        if unpacked.is_err() {
            tool.stop();
        }
        let status = tool.end(running).map_err(ImageError::io("cannot wait for mmdebstrap"))?;
        let said = said.join().unwrap_or_default();
        bound.given_up.check().map_err(ImageError::io("the image is not built"))?;
        // Where it has failed, what came of it is broken, too.
        match (status.success(), unpacked) {
            (false, Err(ImageError::TooLarge(why))) => Err(ImageError::TooLarge(why)),
            (false, _) => Err(ImageError::Build { status: status.to_string(), said }),
            (true, unpacked) => {
                unpacked?;
                archive::finish(unpacker, ImageConfig::default())
            }
        }
    }
}

impl IntoFuture for BuildDebian {
    type Output = Result<ImageInfo, ImageError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

fn take(unpacker: &mut Unpacker, output: impl Read, bound: &Bound) -> Result<(), ImageError> {
    let mut source = Hashed::new(BufReader::with_capacity(128 << 10, output), bound);
    unpacker.layer(&mut source, false)?;
    source.finish().map(drop).map_err(broken)
}

/// Passes on what the tool says; returns the end of it.
fn listen(errors: ChildStderr, progress: &(dyn Fn(&str) + Send + Sync)) -> String {
    let mut last = VecDeque::new();
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    while errors.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text: String =
            text.trim_end().chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect();
        line.clear();
        if text.is_empty() {
            continue;
        }
        progress(&text);
        if last.len() == LAST_LINES {
            // But for the first one: usage may follow what is wrong.
            last.remove(1);
        }
        last.push_back(text);
    }
    Vec::from(last).join("\n")
}

/// The running tool, if it runs.
#[derive(Debug, Clone, Default)]
struct Tool(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    group: Option<Pid>,
    is_stopped: bool,
}

impl Tool {
    fn start(&self, mut command: Command) -> Result<Child, ImageError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_stopped {
            let given_up = io::ErrorKind::Interrupted.into();
            return Err(ImageError::io("the image is not built")(given_up));
        }
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NoTool {
                tool: TOOL,
                remedy: "install it (Debian, Ubuntu: apt install mmdebstrap), or bring in a system \
                         that was built elsewhere",
            },
            _ => ImageError::io("mmdebstrap cannot be started")(error),
        })?;
        state.group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(child)
    }

    fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_stopped = true;
        if let Some(group) = state.group {
            // It cleans up after itself.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// Waits for its end. Nobody signals what another one may be called then.
    fn end(&self, mut child: Child) -> io::Result<std::process::ExitStatus> {
        let id = Pid::from_child(&child);
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        while let Err(error) = rustix::process::waitid(rustix::process::WaitId::Pid(id), options) {
            if error != rustix::io::Errno::INTR {
                break;
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).group = None;
        child.wait()
    }
}
