//! Messages to the kernel's tables: interfaces and routes, and packet filters.

use super::{check, owned};
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;

const AF_NETLINK: c_int = 16;
const SOCK_RAW: c_int = 3;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const MSG_DONTWAIT: c_int = 0x40;
const NLMSG_ERROR: u16 = 2;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn send(fd: c_int, buffer: *const c_void, len: usize, flags: c_int) -> isize;
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
        let length = u32::try_from(16 + content.0.len()).unwrap_or(u32::MAX);
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

    /// Sends all of them. The kernel has done them, or refused one, when this returns.
    pub(super) fn send(&self, family: Family) -> io::Result<()> {
        let mut answer = [0u8; 8192];
        // SAFETY: the message is passed with its length and outlives the call.
        let socket = unsafe {
            let kind = SOCK_RAW | SOCK_CLOEXEC;
            let socket = owned(i64::from(socket(AF_NETLINK, kind, family as c_int)))?;
            check(send(socket.as_raw_fd(), self.0.as_ptr().cast(), self.0.len(), 0) as i64)?;
            socket
        };
        loop {
            // SAFETY: the buffer is passed with its length and outlives the call.
            let received = check(unsafe {
                let buffer = answer.as_mut_ptr().cast();
                recv(socket.as_raw_fd(), buffer, answer.len(), MSG_DONTWAIT) as i64
            });
            match received {
                Ok(length) => results(&answer[..length as usize])?,
                // Answers are there when the call that asks returns.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
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

/// Looks through acknowledgements: 0 is success, otherwise a negated error number.
fn results(mut answer: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    while let Some(header) = answer.first_chunk::<6>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = answer.get(..length).filter(|message| message.len() >= 16);
        let message = message.ok_or_else(invalid)?;
        if u16::from_ne_bytes([header[4], header[5]]) == NLMSG_ERROR {
            let code = message.get(16..20).ok_or_else(invalid)?;
            match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
                0 => {}
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}
