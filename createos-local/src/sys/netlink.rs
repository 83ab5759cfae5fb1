//! Messages to the kernel's tables: interfaces and routes, and packet filters.

use super::{check, owned};
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const AF_NETLINK: c_int = 16;
const SOCK_RAW: c_int = 3;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const MSG_TRUNC: c_int = 0x20;
const MSG_DONTWAIT: c_int = 0x40;

pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
pub(super) const HEADER: usize = 16;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const DUMP: u16 = 0x300;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// The kernel's `sockaddr_nl`; the kernel itself is port 0.
#[repr(C)]
struct Address {
    family: u16,
    padding: u16,
    port: u32,
    groups: u32,
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn sendto(
        fd: c_int,
        buffer: *const c_void,
        len: usize,
        flags: c_int,
        address: *const Address,
        address_len: u32,
    ) -> isize;
    fn recv(fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize;
}

/// Which tables.
#[derive(Clone, Copy)]
pub(super) enum Family {
    Route = 0,
    Netfilter = 12,
}

/// One message after the other, each with its length in front.
#[derive(Default)]
pub(super) struct Messages(Vec<u8>);

impl Messages {
    /// Adds a message of this kind; `body` writes what follows its header.
    pub(super) fn add(mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Body)) -> Self {
        let mut content = Body::default();
        body(&mut content);
        let length = u32::try_from(HEADER + content.0.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(&flags.to_ne_bytes());
        // No sequence number: whatever is refused refuses the whole.
        self.0.extend_from_slice(&[0; 8]);
        self.0.extend_from_slice(&content.0);
        self
    }

    pub(super) fn join(mut self, others: Self) -> Self {
        self.0.extend_from_slice(&others.0);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Sends all of them. The kernel has done them, or refused one, when this returns.
    pub(super) fn send(&self, family: Family) -> io::Result<()> {
        let socket = open(family)?;
        self.send_over(&socket)?;
        let mut buffer = [0u8; 8192];
        loop {
            match receive(&socket, &mut buffer, Wait::No) {
                Ok(answer) => results(answer)?,
                // Answers are there when the call that asks returns.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends them over a socket, whose namespace need not be ours: the kernel looks at the
    /// rights of whoever sends a message that names its receiver.
    pub(super) fn send_over(&self, socket: &OwnedFd) -> io::Result<()> {
        let kernel = Address { family: AF_NETLINK as u16, padding: 0, port: 0, groups: 0 };
        let length = size_of::<Address>() as u32;
        // SAFETY: messages and address are passed with their sizes and outlive the call.
        let sent = unsafe {
            let (bytes, size) = (self.0.as_ptr().cast(), self.0.len());
            sendto(socket.as_raw_fd(), bytes, size, 0, &kernel, length)
        };
        check(sent as i64).map(drop)
    }
}

/// A socket for messages about the namespace that this process is in.
pub(super) fn open(family: Family) -> io::Result<OwnedFd> {
    // SAFETY: integer arguments only.
    owned(unsafe { socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family as c_int) }.into())
}

/// Whether to wait for an answer that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

/// One packet of answers. One that the buffer does not hold is an error.
pub(super) fn receive<'a>(
    socket: &OwnedFd,
    buffer: &'a mut [u8],
    wait: Wait,
) -> io::Result<&'a [u8]> {
    let flags = if wait == Wait::Yes { MSG_TRUNC } else { MSG_TRUNC | MSG_DONTWAIT };
    // SAFETY: the buffer is valid for its length. MSG_TRUNC returns the true length.
    let length =
        unsafe { recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    let length = check(length as i64)? as usize;
    buffer.get(..length).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a message holds: fixed fields, then attributes.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Every part begins at a multiple of four.
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.bytes(value);
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    /// Packet filters count in network order.
    pub(super) fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        const NESTED: u16 = 0x8000;
        let mut content = Self::default();
        inside(&mut content);
        self.attribute(kind | NESTED, &content.0);
    }
}

/// The messages of a packet: their kinds and what follows their headers.
pub(super) fn messages(packet: &[u8]) -> Received<'_> {
    Received(packet)
}

/// What is left of a packet. A message that is cut off or has no header is not read.
pub(super) struct Received<'a>(&'a [u8]);

impl<'a> Iterator for Received<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(self.0.get(4..6)?.try_into().ok()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// Looks through acknowledgements, of which none may be broken.
fn results(packet: &[u8]) -> io::Result<()> {
    /// A length and a kind.
    const BEGUN: usize = 6;
    let mut received = messages(packet);
    for (_, body) in received.by_ref().filter(|(kind, _)| *kind == ERROR) {
        acknowledged(body)?;
    }
    if received.0.len() >= BEGUN { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
}

/// What an acknowledgement says: nothing, or a negated error number.
pub(super) fn acknowledged(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code.ok_or(io::ErrorKind::InvalidData)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
