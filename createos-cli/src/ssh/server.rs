//! The SSH server in the sandbox.

use createos_sdk::{ErrorKind, Ssh};

use crate::failure::Failure;
use crate::resolve::Found;

/// Starts it unless it runs (cli.md 3.5).
pub(crate) async fn start(ssh: &Ssh, found: &Found) -> Result<(), Failure> {
    ssh.start().await.map_err(|error| {
        let missing = error.kind() == ErrorKind::Unsupported;
        let failure = found.explain(error);
        match missing {
            true => failure.hint(
                "the image devbox:1 has one: createos sandbox create --rootfs devbox:1 …\n\
                 a shell without SSH needs none: createos sandbox shell",
            ),
            false => failure,
        }
    })
}
