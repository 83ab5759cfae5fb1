//! SSH keys where an SSH server inside looks for them. The hosted plane checks them at its
//! gateway; here the way in is a tunnel to the sandbox's own server.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Core, CoreError};
use crate::runtime::RuntimeError;
use crate::store::Sandbox;

const AUTHORIZED_KEYS: &str = "/root/.ssh/authorized_keys";
/// More than this in that file is nothing an SSH server reads.
const MAX_FILE: u64 = 1 << 20;

impl Core {
    /// Adds the sandbox's keys that are not in the file yet. What else is in it stays.
    pub(super) async fn install_ssh_pubkeys(&self, sandbox: &Sandbox) -> Result<(), CoreError> {
        if sandbox.spec.ssh_pubkeys.is_empty() {
            return Ok(());
        }
        let found = self.authorized_keys(sandbox).await?;
        let Some(wanted) = with_keys(&found, &sandbox.spec.ssh_pubkeys) else { return Ok(()) };
        let runtime = &self.inner.runtime;
        let mut file = runtime.write_file(sandbox.id(), AUTHORIZED_KEYS.as_bytes()).await?;
        file.write(Bytes::from(wanted)).await?;
        file.commit().await?;
        Ok(())
    }

    /// A guest that made this file impossible is still a sandbox.
    pub(super) async fn try_install_ssh_pubkeys(&self, sandbox: &Sandbox) {
        if let Err(error) = self.install_ssh_pubkeys(sandbox).await {
            tracing::warn!(sandbox = %sandbox.id(), %error, "SSH keys could not be put in place");
        }
    }

    async fn authorized_keys(&self, sandbox: &Sandbox) -> Result<Vec<u8>, CoreError> {
        let file =
            match self.inner.runtime.read_file(sandbox.id(), AUTHORIZED_KEYS.as_bytes()).await {
                Ok(file) if file.size > MAX_FILE => {
                    return Err(CoreError::Refused(format!(
                        "{AUTHORIZED_KEYS} is too large for keys to be added to it"
                    )));
                }
                Ok(file) => file,
                Err(RuntimeError::NoSuchFile(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
        let chunks: Vec<Bytes> = file.chunks.try_collect().await?;
        Ok(chunks.concat())
    }
}

/// The file with the missing keys at its end; `None` when none is missing.
fn with_keys(found: &[u8], keys: &[String]) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = found.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let missing: Vec<&String> =
        keys.iter().filter(|key| !lines.contains(&key.as_bytes())).collect();
    if missing.is_empty() {
        return None;
    }
    let mut file = found.to_vec();
    if !file.is_empty() && !file.ends_with(b"\n") {
        file.push(b'\n');
    }
    for key in missing {
        file.extend_from_slice(key.as_bytes());
        file.push(b'\n');
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_once_and_nothing_else_changes() {
        let keys = ["ssh-ed25519 A me".to_owned(), "ssh-ed25519 B".to_owned()];
        let fresh = with_keys(b"", &keys).unwrap();
        assert_eq!(fresh, b"ssh-ed25519 A me\nssh-ed25519 B\n");
        assert_eq!(with_keys(&fresh, &keys), None);
        let mixed = with_keys(b"# mine\n  ssh-ed25519 B  \r\nssh-rsa C", &keys).unwrap();
        assert_eq!(mixed, b"# mine\n  ssh-ed25519 B  \r\nssh-rsa C\nssh-ed25519 A me\n");
    }
}
