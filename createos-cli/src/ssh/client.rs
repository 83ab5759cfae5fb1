//! Calling the system's `ssh`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use createos_sdk::SandboxId;
use tokio::process::{Child, Command};

use crate::failure::Failure;
use crate::store::Paths;
use crate::terminal::Hold;

use super::gateway::Gateway;
use super::key::KeyPair;

/// How long ssh may take to put the terminal back when we are ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// How `ssh` is called: with this key alone, host keys of this sandbox alone, and nothing of
/// the user's configuration, which may name other keys and ways.
#[derive(Debug)]
pub(crate) struct Client {
    options: Vec<OsString>,
    key: PathBuf,
    hosts: PathBuf,
    /// What the sandbox's host keys are filed under.
    name: String,
    target: Vec<OsString>,
    host: String,
}

impl Client {
    pub(crate) fn new(paths: &Paths, id: &SandboxId, key: &KeyPair) -> Result<Self, Failure> {
        let hosts = paths.private_dir("known_hosts")?;
        let options = options(&key.private, &hosts.join(id.as_str()), id.as_str())?;
        Ok(Self {
            options,
            key: key.private.clone(),
            hosts,
            name: id.to_string(),
            target: Vec::new(),
            host: id.to_string(),
        })
    }

    /// The options that every call has.
    pub(crate) fn options(&self) -> &[OsString] {
        &self.options
    }

    /// Reaches the server at an address of this machine.
    pub(crate) fn at(mut self, address: SocketAddr) -> Self {
        self.host = address.ip().to_string();
        self.target = vec!["-p".into(), address.port().to_string().into()];
        self
    }

    /// Reaches the server through a gateway that lets the same key in, as a user with the
    /// sandbox's id.
    pub(crate) fn through(mut self, gateway: &Gateway) -> Result<Self, Failure> {
        // Sandbox ids hold no `gateway-`, so this is nobody's.
        let file = self.hosts.join(format!("gateway-{}-{}", gateway.host, gateway.port));
        let mut words = vec![OsString::from("ssh")];
        words.extend(options(&self.key, &file, &format!("[{}]:{}", gateway.host, gateway.port))?);
        words.extend(["-p".into(), gateway.port.to_string().into()]);
        words.extend(["-W".into(), "127.0.0.1:22".into(), "-l".into(), self.name.clone().into()]);
        words.extend(["--".into(), gateway.host.clone().into()]);
        let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
        let line = words.and_then(|words| shlex::try_join(words).ok());
        let line = line.ok_or_else(|| Failure::local("the path of the SSH key is not text"))?;
        // ssh replaces what stands behind a per cent sign.
        self.target = vec!["-o".into(), format!("ProxyCommand={}", line.replace('%', "%%")).into()];
        Ok(self)
    }

    /// The call that opens a shell.
    pub(crate) fn login(&self, user: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.options()).args(&self.target).args(["-t", "-l", user, "--", &self.host]);
        command
    }
}

fn options(key: &Path, hosts: &Path, alias: &str) -> Result<Vec<OsString>, Failure> {
    let mut options: Vec<OsString> = ["-F", "none"].map(OsString::from).to_vec();
    for option in [
        &format!("IdentityFile={}", quoted(key)?),
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "StrictHostKeyChecking=accept-new",
        "GlobalKnownHostsFile=none",
        &format!("UserKnownHostsFile={}", quoted(hosts)?),
        &format!("HostKeyAlias={alias}"),
        "CheckHostIP=no",
        "UpdateHostKeys=no",
        "ControlPath=none",
        "ServerAliveInterval=30",
        "LogLevel=ERROR",
    ] {
        options.extend([OsStr::new("-o").to_owned(), option.into()]);
    }
    Ok(options)
}

/// A path in an option, where blanks end it and a per cent sign begins something else.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|path| !path.contains(['"', '\\']));
    let text =
        text.ok_or_else(|| Failure::local(format!("ssh cannot take the path {}", path.display())))?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// A running `ssh`. Dropping it ends it, and puts the terminal back if it does not do so itself.
pub(crate) struct Running {
    child: Child,
    _terminal: Hold,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let terminal = Hold::keep();
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::local("there is no program called ssh").hint(
                "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)\n\
                 or do without SSH: createos sandbox shell",
            ),
            _ => Failure::io("cannot run ssh", &error),
        })?;
        Ok(Self { child, _terminal: terminal })
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().await.map_err(|error| Failure::io("cannot wait for ssh", &error))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has been waited for.
        let Some(_pid) = self.child.id() else { return };
        #[cfg(unix)]
        if let Some(pid) = i32::try_from(_pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let until = Instant::now() + FAREWELL;
            while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.start_kill();
    }
}
