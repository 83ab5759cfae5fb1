//! HTTP/1 requests of one connection, one after the other: each must be for an allowed host.
//!
//! A rule for a name would be worth little if only the first request had to keep to it: many
//! hosts answer at one address. So the requests are followed through their bodies, and what
//! cannot be followed for certain ends the connection.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::request::{HEADERS, LONGEST, host};
use crate::relay::{Toll, pump, readable, send};

/// The longest line between the pieces of a body.
const LONGEST_LINE: usize = 4096;
/// How much is read at once.
const PIECE: usize = 64 << 10;
/// How the first answer begins: with `HTTP/1.1 101` where the protocol changes.
const STATUS: usize = 12;

/// How the server's first answer begins, as far as it has come.
pub(super) struct Answer(watch::Sender<Vec<u8>>);

impl Default for Answer {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Answer {
    /// Takes note of what has come.
    pub(super) fn note(&self, bytes: &[u8]) {
        if self.0.borrow().len() < STATUS {
            self.0.send_modify(|known| {
                let missing = bytes.len().min(STATUS - known.len());
                known.extend_from_slice(&bytes[..missing]);
            });
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.note(&[b' '; STATUS]);
    }

    /// Whether the server speaks another protocol from now on.
    async fn changes_protocol(&self) -> bool {
        let mut known = self.0.subscribe();
        let is_known = known.wait_for(|known| known.len() == STATUS).await;
        is_known.is_ok_and(|known| known.starts_with(b"HTTP/1.") && known.ends_with(b" 101"))
    }
}

/// What comes next of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of a body, or of a piece of one.
    Body {
        left: u64,
        in_pieces: bool,
    },
    /// The end of a piece.
    PieceEnd,
    /// The length of a piece.
    Length,
    /// Fields after a body, up to an empty line.
    Trailer,
    /// Another protocol, if the server agrees.
    Offered,
}

/// Follows the requests of a connection.
pub(super) struct Requests<'a, F> {
    allowed: F,
    answer: &'a Answer,
    next: Next,
    is_first: bool,
}

fn refused() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

impl<'a, F: Fn(&str) -> bool> Requests<'a, F> {
    pub(super) fn new(allowed: F, answer: &'a Answer) -> Self {
        Self { allowed, answer, next: Next::Head, is_first: true }
    }

    /// Carries the client's direction to its end; `early` was read of it already.
    pub(super) async fn carry(
        mut self,
        early: Bytes,
        from: &TcpStream,
        to: &TcpStream,
        toll: &impl Toll,
    ) -> io::Result<()> {
        let mut held = BytesMut::from(early);
        loop {
            let known = self.follow(&held)?;
            send(to, &held[..known], toll).await?;
            held.advance(known);
            if self.next == Next::Offered {
                if self.answer.changes_protocol().await {
                    send(to, &held, toll).await?;
                    return pump(from, to, toll).await;
                }
                self.next = Next::Head;
                continue;
            }
            loop {
                readable(from, to).await?;
                held.reserve(PIECE);
                match from.try_read_buf(&mut held) {
                    Ok(0) if held.is_empty() => {
                        return Ok(rustix::net::shutdown(to, Shutdown::Write)?);
                    }
                    Ok(0) => return Err(refused()),
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            tokio::task::consume_budget().await;
        }
    }

    /// How many of these bytes may go on. The others are to be shown again, with more.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() && self.next != Next::Offered {
            let rest = &bytes[at..];
            let taken = match self.next {
                Next::Head => self.head(rest)?,
                Next::Body { left, in_pieces } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.next = match (left - taken as u64, in_pieces) {
                        (0, true) => Next::PieceEnd,
                        (0, false) => Next::Head,
                        (left, _) => Next::Body { left, in_pieces },
                    };
                    taken
                }
                Next::PieceEnd | Next::Length | Next::Trailer => self.line(rest)?,
                Next::Offered => 0,
            };
            if taken == 0 {
                break;
            }
            at += taken;
        }
        Ok(at)
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Ok(0),
            _ => return Err(refused()),
        };
        let name = host(&request).ok_or_else(refused)?;
        if !(self.allowed)(&name) {
            return Err(refused());
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        self.next = match after(&request).ok_or_else(refused)? {
            Next::Head if is_first && offers_web_socket(&request) => Next::Offered,
            next => next,
        };
        Ok(length)
    }

    fn line(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = line_end(bytes) else {
            return if bytes.len() < LONGEST_LINE { Ok(0) } else { Err(refused()) };
        };
        let line = bytes[..end].strip_suffix(b"\r").ok_or_else(refused)?;
        self.next = match self.next {
            Next::PieceEnd if line.is_empty() => Next::Length,
            Next::Length => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let digits = digits.trim_ascii_end();
                let is_plain = digits.iter().all(u8::is_ascii_hexdigit);
                let digits = std::str::from_utf8(digits).ok().filter(|_| is_plain);
                let length = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                match length.ok_or_else(refused)? {
                    0 => Next::Trailer,
                    left => Next::Body { left, in_pieces: true },
                }
            }
            Next::Trailer if line.is_empty() => Next::Head,
            Next::Trailer => Next::Trailer,
            _ => return Err(refused()),
        };
        Ok(end + 1)
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// What comes after a head. Nothing where two servers could read it in two ways.
fn after(request: &httparse::Request<'_, '_>) -> Option<Next> {
    let mut length = None;
    let mut in_pieces = false;
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()?;
            if length.replace(number).is_some_and(|other: u64| other != number) {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if in_pieces || !value.eq_ignore_ascii_case(b"chunked") || request.version != Some(1) {
                return None;
            }
            in_pieces = true;
        }
    }
    match (in_pieces, length) {
        (true, Some(_)) => None,
        (true, None) => Some(Next::Length),
        (false, None | Some(0)) => Some(Next::Head),
        (false, Some(left)) => Some(Next::Body { left, in_pieces: false }),
    }
}

/// Others, such as HTTP/2, could name hosts again.
fn offers_web_socket(request: &httparse::Request<'_, '_>) -> bool {
    let mut upgrades =
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
    let is_web_socket = |header: &httparse::Header<'_>| {
        header.value.trim_ascii().eq_ignore_ascii_case(b"websocket")
    };
    upgrades.next().is_some_and(is_web_socket) && upgrades.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const BAD: &str = "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";

    fn follow(text: &str) -> io::Result<usize> {
        let answer = Answer::default();
        Requests::new(|name: &str| name == "a.test", &answer).follow(text.as_bytes())
    }

    fn post(fields: &str, body: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
    }

    #[test]
    fn each_request_is_found_behind_the_body_of_the_one_before() {
        for first in [
            GET.to_owned(),
            post("Content-Length: 5\r\n", "hello"),
            post("Content-Length: 0\r\n", ""),
            post("Transfer-Encoding: Chunked\r\n", "5;x=y\r\nhello\r\n0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", "A\r\n0123456789\r\n0\r\nT: x\r\n\r\n"),
            // A body that looks like a request is a body.
            post(&format!("Content-Length: {}\r\n", BAD.len()), BAD),
        ] {
            assert_eq!(follow(&format!("{first}{GET}")).unwrap(), first.len() + GET.len());
            follow(&format!("{first}{BAD}")).expect_err(&first);
            // Whatever the pieces are in which it comes.
            let (text, answer) = (format!("{first}{BAD}"), Answer::default());
            let mut requests = Requests::new(|name: &str| name == "a.test", &answer);
            let (mut held, mut sent) = (Vec::new(), 0);
            let stopped = text.bytes().any(|byte| {
                held.push(byte);
                match requests.follow(&held) {
                    Ok(known) => {
                        sent += known;
                        held.drain(..known);
                        false
                    }
                    Err(_) => true,
                }
            });
            assert!(stopped && sent == first.len(), "{first}");
        }
        let cut = post("Content-Length: 5\r\n", "hel");
        assert_eq!(follow(&cut).unwrap(), cut.len());
        assert_eq!(follow(&GET[..20]).unwrap(), 0, "nothing goes before the host is known");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            post("Content-Length: +5\r\n", "hello"),
            post("Content-Length: 5, 5\r\n", "hello"),
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
            post("Transfer-Encoding: chunked\r\n", "x\r\n"),
            post("Transfer-Encoding: chunked\r\n", "-1\r\n"),
            post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n"),
            post("Transfer-Encoding: chunked\r\n", "2\r\nhello\r\n"),
            post("Transfer-Encoding: chunked\r\n", &"0".repeat(5000)),
            format!("{GET}nonsense\r\n\r\n"),
            format!("{GET}GET / HTTP/1.1\r\n\r\n"),
        ] {
            follow(&bad).expect_err(&bad);
        }
        let old = post("Transfer-Encoding: chunked\r\n", "").replace("HTTP/1.1", "HTTP/1.0");
        follow(&old).expect_err("HTTP/1.0 knows no pieces");
    }

    #[tokio::test]
    async fn only_a_web_socket_that_the_server_agrees_to_is_not_looked_into() {
        let offer = |what: &str| post(&format!("Upgrade: {what}\r\n"), "");
        let socket = offer("WebSocket");
        assert_eq!(follow(&format!("{socket}anything")).unwrap(), socket.len());
        for followed in [offer("h2c"), format!("{GET}{socket}")] {
            follow(&format!("{followed}{BAD}")).expect_err("it goes on as HTTP");
        }
        for (said, changes) in [
            (&["HTTP/1.1 101 Switching\r\n"][..], true),
            (&["HT", "TP/1.1 1", "01 "], true),
            (&["HTTP/1.1 200 OK\r\n"], false),
            (&["SSH-2.0-xyz 101"], false),
        ] {
            let answer = Answer::default();
            said.iter().for_each(|piece| answer.note(piece.as_bytes()));
            assert_eq!(answer.changes_protocol().await, changes, "{said:?}");
        }
    }
}
