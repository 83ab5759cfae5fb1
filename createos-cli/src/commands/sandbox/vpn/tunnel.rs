//! The interface of a session, made and removed by `wg-quick`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use createos_sdk::Secret;
use tempfile::TempDir;
use tokio::process::Command;

use crate::failure::Failure;

/// What the interface is called.
pub(super) const INTERFACE: &str = "cosvpn";

/// Its configuration, in a directory that is for nobody else and ends with this value.
pub(super) struct Tunnel {
    _directory: TempDir,
    config: PathBuf,
}

/// Whether there is an interface of this name, by whomever.
pub(super) fn is_there() -> bool {
    // Of this process's network, whatever /sys shows.
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names = interfaces.lines().filter_map(|line| line.split_once(':'));
    names.any(|(name, _)| name.trim() == INTERFACE)
}

impl Tunnel {
    pub(super) fn new(config: &Secret) -> Result<Self, Failure> {
        let write = || -> io::Result<Self> {
            let mut builder = tempfile::Builder::new();
            builder.prefix("createos-vpn-");
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
            let directory = builder.tempdir()?;
            let path = directory.path().join(format!("{INTERFACE}.conf"));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path)?.write_all(config.expose().as_bytes())?;
            Ok(Self { _directory: directory, config: path })
        };
        write().map_err(|error| Failure::io("cannot write the tunnel's configuration", &error))
    }

    /// Brings the interface up, with its addresses and routes.
    pub(super) async fn up(&self) -> Result<(), Failure> {
        let output = self.run("up").await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let failure = Failure::local(format!("wg-quick failed: {}", last_line(&said)));
        Err(match said.contains("wireguard-go: command not found") {
            true => failure.hint(
                "this kernel has no WireGuard; install it for user space (Debian, Ubuntu): \
                 apt install wireguard-go",
            ),
            false => failure,
        })
    }

    /// Takes the interface down, if it is there.
    pub(super) async fn down(&self) -> Result<(), Failure> {
        if !is_there() && cfg!(target_os = "linux") {
            return Ok(());
        }
        let output = self.run("down").await?;
        if output.status.success() || (!is_there() && cfg!(target_os = "linux")) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::local(format!("the interface {INTERFACE} stays: {}", last_line(&said)))
            .hint(format!("remove it: sudo ip link delete {INTERFACE}")))
    }

    /// It asks for administrator rights by itself, at the terminal.
    async fn run(&self, what: &str) -> Result<Output, Failure> {
        let mut command = Command::new("wg-quick");
        command.arg(what).arg(&self.config).stdin(Stdio::inherit());
        // A Ctrl+C in the terminal is ours to handle.
        #[cfg(unix)]
        if rustix::process::geteuid().is_root() {
            command.process_group(0).stdin(Stdio::null());
        }
        command.output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::local("WireGuard's tools are not installed: no wg-quick")
                    .hint("install them (Debian, Ubuntu): apt install wireguard-tools")
            }
            _ => Failure::io("cannot run wg-quick", &error),
        })
    }
}

/// What it said last, without its own marks.
fn last_line(text: &str) -> &str {
    let lines = text.lines().rev().map(str::trim);
    lines
        .filter(|line| !line.starts_with("[#]"))
        .find(|line| !line.is_empty())
        .unwrap_or("no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_private_and_goes_with_the_tunnel() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::path::Path;
        let tunnel = Tunnel::new(&"[Interface]\n".into()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = tunnel.config.clone();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[Interface]\n");
        drop(tunnel);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn the_reason_is_what_was_said_last() {
        let said =
            "[#] ip link add\nRTNETLINK answers: Operation not permitted\n[#] ip link del\n\n";
        assert_eq!(last_line(said), "RTNETLINK answers: Operation not permitted");
        assert_eq!(last_line(""), "no reason");
    }
}
