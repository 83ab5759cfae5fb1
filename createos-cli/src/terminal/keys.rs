//! Keys and size of a terminal in raw mode.

use std::io;

/// Rows and columns of a terminal that does not say.
const USUAL: (u16, u16) = (24, 80);

/// What is typed at the terminal on standard input.
///
/// Nothing reads ahead: a question that is asked after this was dropped gets the next key.
#[derive(Debug)]
pub(crate) struct Keys {
    #[cfg(unix)]
    input: tokio::io::unix::AsyncFd<rustix::fd::BorrowedFd<'static>>,
}

#[cfg(unix)]
impl Keys {
    /// Must be called within the runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let interest = tokio::io::Interest::READABLE;
        let input = tokio::io::unix::AsyncFd::with_interest(rustix::stdio::stdin(), interest)?;
        Ok(Self { input })
    }

    /// Waits for keys; 0 when the terminal is gone. Giving the wait up loses none.
    pub(crate) async fn read(&self, keys: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.input.readable().await?;
            if has_input()? {
                return match rustix::io::read(rustix::stdio::stdin(), &mut *keys) {
                    Err(rustix::io::Errno::IO) => Ok(0),
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                    read => Ok(read?),
                };
            }
            ready.clear_ready();
        }
    }
}

/// Whether a read would not wait: the runtime tells of new input only, not of what is left.
#[cfg(unix)]
fn has_input() -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut polled, Some(&at_once)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(unix))]
impl Keys {
    pub(crate) fn listen() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) async fn read(&self, _keys: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

/// Rows and columns of the terminal on standard input.
pub(crate) fn size() -> (u16, u16) {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin())
        && size.ws_row > 0
        && size.ws_col > 0
    {
        return (size.ws_row, size.ws_col);
    }
    USUAL
}

/// Changes of the size.
#[derive(Debug)]
pub(crate) struct Sizes {
    #[cfg(unix)]
    changed: tokio::signal::unix::Signal,
}

impl Sizes {
    /// Must be called within the runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { changed: signal(SignalKind::window_change())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for a change; rows and columns after it.
    pub(crate) async fn next(&mut self) -> (u16, u16) {
        #[cfg(unix)]
        if self.changed.recv().await.is_some() {
            return size();
        }
        std::future::pending().await
    }
}
