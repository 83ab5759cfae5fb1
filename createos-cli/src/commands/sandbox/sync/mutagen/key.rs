//! The key that Mutagen logs in with (cli.md 3.6).

use std::path::{Path, PathBuf};
use std::process::Stdio;

use createos_sdk::{SandboxId, Ssh};
use tokio::process::Command;

use super::private::Private;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::ssh::key::{self, KeyPair};

/// Where the program that answers for the passphrase finds it: not in the list of processes.
const PASSPHRASE: &str = "CREATEOS_PASSPHRASE";

/// A key without a passphrase, as Mutagen's daemon has nobody to ask.
pub(super) struct Key {
    pair: KeyPair,
    /// Made for this sandbox by us.
    generated: Option<PathBuf>,
}

impl Key {
    pub(super) async fn choose(
        ctx: &Context,
        id: &SandboxId,
        private: &Private,
        named: Option<&Path>,
    ) -> Result<Self, Failure> {
        if named.is_some() {
            let pair = key::choose(&ctx.paths, named)?;
            if !is_encrypted(&pair.private).await? {
                return Ok(Self { pair, generated: None });
            }
            return Ok(Self { pair: decrypted(ctx, private, pair).await?, generated: None });
        }
        if let Some(pair) = key::find(&ctx.paths)?
            && !is_encrypted(&pair.private).await?
        {
            return Ok(Self { pair, generated: None });
        }
        let path = ctx.paths.private_dir("keys")?.join(id.as_str());
        if !path.exists() {
            let mut make = keygen();
            make.args(["-q", "-t", "ed25519", "-N", "", "-C"]);
            make.arg(format!("createos sync of {id}")).arg("-f").arg(&path);
            let made = run(make).await?;
            if !made.0 {
                return Err(Failure::local(format!("cannot make an SSH key: {}", made.1)));
            }
        }
        Ok(Self { pair: key::open(&path)?, generated: Some(path) })
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(super) fn is_generated(&self) -> bool {
        self.generated.is_some()
    }

    /// A key that was made for this is gone again, here and in the sandbox.
    pub(super) async fn forget(&self, ssh: &Ssh) {
        let Some(path) = &self.generated else { return };
        // A sandbox that is gone has no keys.
        drop(ssh.revoke(&self.pair.public).await);
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_file(&self.pair.file);
    }
}

fn keygen() -> Command {
    let mut command = Command::new("ssh-keygen");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Whether it succeeded, and what it said.
async fn run(mut command: Command) -> Result<(bool, String), Failure> {
    let output = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::local("there is no program called ssh-keygen")
            .hint(
                "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)\n\
                 or do without SSH: --engine builtin",
            ),
        _ => Failure::io("cannot run ssh-keygen", &error),
    })?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.success(), said))
}

/// Whether a passphrase protects it.
async fn is_encrypted(private: &Path) -> Result<bool, Failure> {
    let mut show = keygen();
    show.args(["-y", "-P", "", "-f"]).arg(private);
    let (opened, said) = run(show).await?;
    match opened {
        true => Ok(false),
        false if said.contains("passphrase") => Ok(true),
        false => Err(Failure::local(format!("{} is no SSH key: {said}", private.display()))),
    }
}

/// A copy of the key without its passphrase, in the private directory that goes with the sync.
async fn decrypted(ctx: &Context, private: &Private, pair: KeyPair) -> Result<KeyPair, Failure> {
    let shown = pair.private.display();
    if !ctx.interactive() {
        return Err(Failure::local(format!("{shown} has a passphrase, and nobody can be asked"))
            .hint("name a key without one: -i <key>\nor do without SSH: --engine builtin"));
    }
    let passphrase = prompt::secret(format!("passphrase of {shown}")).await?;
    let copy = private.write(
        "key",
        &std::fs::read(&pair.private)
            .map_err(|error| Failure::io(format!("cannot read the SSH key {shown}"), &error))?,
    )?;
    let answer = private
        .write_program("answer", &format!("#!/bin/sh\nprintf '%s\\n' \"${PASSPHRASE}\"\n"))?;
    let mut open = keygen();
    open.args(["-q", "-p", "-N", "", "-f"]).arg(&copy);
    open.env("SSH_ASKPASS", &answer).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
    open.env(PASSPHRASE, passphrase);
    let (opened, _) = run(open).await?;
    let _ = std::fs::remove_file(&answer);
    if !opened {
        return Err(Failure::local(format!("this is not the passphrase of {shown}")));
    }
    Ok(KeyPair { private: copy, ..pair })
}
