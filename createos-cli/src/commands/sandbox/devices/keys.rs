//! A key pair of WireGuard, made by its own tools.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use createos_sdk::Secret;

use crate::failure::Failure;

/// The private key and the public one.
pub(super) fn new_pair() -> Result<(Secret, String), Failure> {
    let private = Secret::from(asked("genkey", None)?);
    let public = asked("pubkey", Some(&private))?;
    Ok((private, public))
}

/// What `wg` prints. A secret goes to its input: arguments are for all to see.
fn asked(what: &str, input: Option<&Secret>) -> Result<String, Failure> {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::local("WireGuard's tools are not installed: no wg")
            .hint("install them (Debian, Ubuntu): apt install wireguard-tools"),
        _ => Failure::io(format!("cannot run wg {what}"), error),
    };
    let run = || -> io::Result<Output> {
        let mut command = Command::new("wg");
        command.arg(what).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.expose().as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::local(format!("wg {what} failed: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
