//! A directory for this sync alone, which goes with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use createos_sdk::SandboxId;
use tokio::sync::OnceCell;

use super::daemon::Daemon;
use super::find::on_search_path;
use crate::failure::Failure;
use crate::ssh::client::Client;
use crate::ssh::key::KeyPair;
use crate::store::Paths;

/// Open to nobody else, and removed when dropped.
pub(super) struct Private {
    dir: tempfile::TempDir,
    daemon: OnceCell<Daemon>,
}

impl Private {
    pub(super) fn new() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("createos-sync-").tempdir();
        let dir = dir.map_err(|error| Failure::io("cannot make a temporary directory", &error))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(dir.path(), mode)
                .map_err(|error| Failure::io("cannot close a temporary directory", &error))?;
        }
        Ok(Self { dir, daemon: OnceCell::new() })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that only this user may read.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, Failure> {
        self.write_with(name, content, 0o600)
    }

    pub(super) fn write_program(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        self.write_with(name, text.as_bytes(), 0o700)
    }

    fn write_with(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf, Failure> {
        let path = self.dir.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let written =
            options.open(&path).and_then(|mut file| std::io::Write::write_all(&mut file, content));
        written.map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
        Ok(path)
    }

    /// `ssh` and `scp` that use this key alone, and the host keys of this sandbox.
    pub(super) fn write_wrappers(
        &self,
        paths: &Paths,
        id: &SandboxId,
        key: &KeyPair,
    ) -> Result<(), Failure> {
        let client = Client::new(paths, id, key)?;
        let bin = self.dir.path().join("bin");
        std::fs::create_dir_all(&bin)
            .map_err(|error| Failure::io(format!("cannot make {}", bin.display()), &error))?;
        for name in ["ssh", "scp"] {
            let program = on_search_path(name).ok_or_else(|| {
                Failure::local(format!("there is no program called {name}")).hint(
                    "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)\n\
                     or do without SSH: --engine builtin",
                )
            })?;
            let mut words: Vec<OsString> = vec![program.into()];
            words.extend(client.options().iter().cloned());
            let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
            let line = words.and_then(|words| shlex::try_join(words).ok());
            let line = line.ok_or_else(|| Failure::local("the path of the SSH key is not text"))?;
            self.write_program(
                &format!("bin/{name}"),
                &format!("#!/bin/sh\nexec {line} \"$@\"\n"),
            )?;
        }
        Ok(())
    }

    /// Starts the daemon; it is ended with this whatever happens meanwhile.
    pub(super) async fn start(&self, daemon: Daemon) -> Result<&Daemon, Failure> {
        let daemon = self.daemon.get_or_init(async || daemon).await;
        daemon.start().await?;
        Ok(daemon)
    }

    /// The daemon, once it was to be started.
    pub(super) fn daemon(&self) -> Option<&Daemon> {
        self.daemon.get()
    }
}
