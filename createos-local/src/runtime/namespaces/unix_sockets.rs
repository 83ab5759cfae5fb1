//! Connections to sockets that lie in a sandbox's files.
//!
//! The path is the guest's to change: it is resolved with the sandbox's root as the root of
//! everything, so that no link leads out, and what it names is held before it is used.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::warden::Init;
use crate::runtime::RuntimeError;

/// How long finding and connecting may take; neither waits for anybody but the disk.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) async fn connect(init: Arc<Init>, path: &str) -> Result<UnixStream, RuntimeError> {
    let failed = |source| RuntimeError::Io { context: format!("cannot connect to {path}"), source };
    let (wanted, shown) = (path.to_owned(), path);
    let finding = tokio::task::spawn_blocking(move || find(&init, &wanted));
    let silent = || RuntimeError::Unreachable(format!("{shown} in the sandbox cannot be reached"));
    let found = timeout(ANSWER, finding).await.map_err(|_| silent())?;
    let socket = found.map_err(|error| failed(io::Error::other(error)))??;
    let connecting = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()));
    match timeout(ANSWER, connecting).await.map_err(|_| silent())? {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(RuntimeError::PortClosed)
        }
        // Nobody takes the connections that wait there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(silent()),
        Err(error) => Err(failed(error)),
    }
}

fn find(init: &Init, path: &str) -> Result<OwnedFd, RuntimeError> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
            RuntimeError::NoSuchFile(path.to_owned())
        }
        errno => {
            RuntimeError::Io { context: format!("cannot look for {path}"), source: errno.into() }
        }
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = format!("/proc/{}/root", init.pid);
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    // The number could name a later process; the handle cannot.
    if !init.is_alive() {
        return Err(RuntimeError::Unreachable("the sandbox is not running".to_owned()));
    }
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.trim_start_matches('/');
    let found =
        rustix::fs::openat2(root, relative, flags, Mode::empty(), inside).map_err(failed)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).map_err(failed)?.st_mode);
    if kind != FileType::Socket {
        return Err(RuntimeError::BadPath(format!("{path} is no socket")));
    }
    Ok(found)
}
