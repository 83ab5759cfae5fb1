//! A home with the real engine in it.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// An id that owns nothing; also fine where it is no account.
const ORDINARY_USER: u32 = 54_321;

/// A home of its own, so that nothing of the machine's user is seen or changed.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    /// Runs commands as this user instead of ours.
    user: Option<u32>,
    program: PathBuf,
    /// Address and key of an engine that the commands do not know by themselves.
    target: RefCell<Option<(String, String)>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_createos"));
        Self { dir, user: None, program, target: RefCell::default() }
    }

    /// A home for an ordinary user, with the program where they can reach it.
    pub(crate) fn of_ordinary_user() -> Self {
        let mut home = Self::new();
        if rustix::process::geteuid().is_root() {
            let program = home.dir.path().join("createos");
            fs::copy(&home.program, &program).expect("copy the program");
            fs::set_permissions(home.dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
            chown(home.dir.path(), Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("owner");
            home.program = program;
            home.user = Some(ORDINARY_USER);
        }
        home
    }

    /// A home whose commands run in the network of another process.
    pub(crate) fn in_network_of(process: u32) -> Self {
        let mut home = Self::new();
        let program = home.dir.path().join("createos");
        let real = home.program.display();
        let script = format!("#!/bin/sh\nexec nsenter -t {process} --net {real} \"$@\"\n");
        fs::write(&program, script).expect("write");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
        home.program = program;
        home
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        if let Some((url, key)) = &*self.target.borrow() {
            command.env("CREATEOS_SANDBOX_URL", url).env("CREATEOS_API_KEY", key);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Runs what must succeed and returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{arguments:?}: {stderr}{stdout}");
        stdout
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[&["--output", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Address and key of the engine that [`serve`](Self::serve) started.
    pub(crate) fn target(&self) -> Option<(String, String)> {
        self.target.borrow().clone()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join(".local/share/createos/local")
    }

    /// Serves in the foreground, and points the other commands there.
    pub(crate) fn serve(&self) -> Served {
        let mut child = self
            .command(&["local", "serve", "--output", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let text = |name: &str| ready[name].as_str().expect("a text").to_owned();
        self.target.replace(Some((text("url"), text("api_key"))));
        Served(child)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // After a test that failed half-way; otherwise nothing is there to stop.
        let _ = self.command(&["local", "stop"]).output();
    }
}

/// An engine in the foreground; a test that fails must not leave it behind.
pub(crate) struct Served(pub(crate) Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
