//! What the engine asks a socket maker for: one packet is one request, answered by one
//! packet, with the socket attached when there is one.

// The engine and the warden include this file and use their own part.
#![allow(dead_code)]

/// Length of every request and answer.
pub(crate) const LENGTH: usize = 8;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A TCP socket for IPv4, not connected.
    V4,
    /// A TCP socket for IPv6, not connected.
    V6,
    /// A TCP socket that listens on this port of 127.0.0.1.
    Listener(u16),
    /// One of the sockets that what leaves the sandbox comes to. Each is one and the same
    /// for as long as the maker lives.
    Capture(Capture),
}

/// The sockets that what leaves a sandbox comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Listens for TCP connections.
    Connections = 0,
    /// Receives UDP datagrams.
    Datagrams = 1,
    /// Sends packets back in.
    Answers = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Comes back with the answer. Not 0.
    pub(crate) ticket: u32,
    pub(crate) wanted: Wanted,
}

impl Request {
    pub(crate) fn to_packet(self) -> [u8; LENGTH] {
        let [a, b, c, d] = self.ticket.to_le_bytes();
        let (kind, port) = match self.wanted {
            Wanted::V4 => (0, 0),
            Wanted::V6 => (1, 0),
            Wanted::Listener(port) => (2, port),
            Wanted::Capture(which) => (3, which as u16),
        };
        let [low, high] = port.to_le_bytes();
        [a, b, c, d, kind, 0, low, high]
    }

    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let &[a, b, c, d, kind, 0, low, high] = packet else { return None };
        let wanted = match (kind, u16::from_le_bytes([low, high])) {
            (0, 0) => Wanted::V4,
            (1, 0) => Wanted::V6,
            (2, port) => Wanted::Listener(port),
            (3, 0) => Wanted::Capture(Capture::Connections),
            (3, 1) => Wanted::Capture(Capture::Datagrams),
            (3, 2) => Wanted::Capture(Capture::Answers),
            _ => return None,
        };
        Some(Self { ticket: u32::from_le_bytes([a, b, c, d]), wanted })
    }
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the request; 0 when the maker never got ready.
    pub(crate) ticket: u32,
    /// The kernel's number of the error; 0 when the socket is attached.
    pub(crate) errno: i32,
}

impl Answer {
    pub(crate) fn to_packet(self) -> [u8; LENGTH] {
        let ([a, b, c, d], [e, f, g, h]) = (self.ticket.to_le_bytes(), self.errno.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h] = packet else { return None };
        let (ticket, errno) = ([a, b, c, d], [e, f, g, h]);
        Some(Self { ticket: u32::from_le_bytes(ticket), errno: i32::from_le_bytes(errno) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_round_trip_and_nothing_else_is_read() {
        let captures = [Capture::Connections, Capture::Datagrams, Capture::Answers];
        let captures = captures.map(Wanted::Capture);
        for wanted in [Wanted::V4, Wanted::V6, Wanted::Listener(1029)].into_iter().chain(captures) {
            let request = Request { ticket: 70_000, wanted };
            let packet = request.to_packet();
            assert_eq!(Request::parse(&packet), Some(request));
            assert_eq!(Request::parse(&packet[..7]), None);
        }
        let answer = Answer { ticket: 9, errno: 98 };
        assert_eq!(Answer::parse(&answer.to_packet()), Some(answer));
        assert_eq!(Answer::parse(&[0; 9]), None);
        for bad in [
            [0, 0, 0, 0, 3, 0, 3, 0],
            [0, 0, 0, 0, 4, 0, 0, 0],
            [0, 0, 0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 1, 0],
        ] {
            assert_eq!(Request::parse(&bad), None);
        }
    }
}
