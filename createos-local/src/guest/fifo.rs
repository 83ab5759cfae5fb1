//! A pipe with a name, on which a line does what a request to the signal port does
//! (api.md 5.11).

use crate::sys::{self, Forked, PollFd, Ready};
use crate::tree::{Children, Role};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Its name below `/run`.
pub(crate) const NAME: &str = "self";
const PATH: &str = "/run/self";
const SIGNALS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 1029);
const LIMIT: Duration = Duration::from_secs(5);
/// The longest line that is kept; nothing we know is as long.
const LINE: usize = 64;

/// What can be written to the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Park,
    Retire,
}

impl Word {
    fn parse(line: &[u8]) -> Option<Self> {
        match line.trim_ascii() {
            b"park" => Some(Self::Park),
            b"retire" => Some(Self::Retire),
            _ => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Park => "/self/pause",
            Self::Retire => "/self/delete",
        }
    }
}

/// The pipe, and the line that has begun. Without one, the port is still there.
pub(crate) struct Fifo(Option<(File, Vec<u8>)>);

impl Fifo {
    /// Makes it anew. Everybody inside may write to it, as everybody may reach the port.
    pub(crate) fn make() -> Self {
        let make = || {
            let path = Path::new(PATH);
            sys::make_fifo(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o622))?;
            // With a writer of our own, it does not end when those of others go.
            OpenOptions::new().read(true).write(true).custom_flags(sys::O_NONBLOCK).open(path)
        };
        Self(make().ok().map(|file: File| (file, Vec::new())))
    }

    pub(crate) fn interests(&self, poll: &mut Vec<PollFd>) {
        poll.extend(self.0.iter().map(|(file, _)| PollFd::new(file, sys::POLLIN)));
    }

    /// Reads what was written and passes a signal on, one at a time.
    pub(crate) fn advance(&mut self, ready: &Ready, children: &mut Children) {
        let Some((file, line)) = &mut self.0 else { return };
        if !ready.has(file) {
            return;
        }
        let mut buffer = [0; 512];
        let Ok(count) = file.read(&mut buffer) else { return };
        for byte in &buffer[..count] {
            if *byte != b'\n' {
                if line.len() < LINE {
                    line.push(*byte);
                }
                continue;
            }
            if let Some(word) = Word::parse(line).filter(|_| !children.has(Role::Signaller)) {
                pass_on(word, children);
            }
            line.clear();
        }
    }
}

/// In a process of its own: the engine may take its time to answer.
fn pass_on(word: Word, children: &mut Children) {
    if let Ok(Forked::Child) = children.fork(Role::Signaller) {
        let done = sys::close_all_but(&[]).and_then(|()| send(word));
        sys::exit_now(i32::from(done.is_err()));
    }
}

fn send(word: Word) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(SIGNALS), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let path = word.path();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:1029\r\nConnection: close\r\n\r\n")?;
    stream.read(&mut [0; 64]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_are_known() {
        assert_eq!(Word::parse(b"park").map(Word::path), Some("/self/pause"));
        assert_eq!(Word::parse(b" retire\r").map(Word::path), Some("/self/delete"));
        for other in [&b""[..], b"parked", b"PARK", b"park retire", b"\0park"] {
            assert_eq!(Word::parse(other), None);
        }
    }
}
