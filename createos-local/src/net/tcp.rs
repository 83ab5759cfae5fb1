//! Connections that sandboxes make.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::account::{Flow, Reason, Way};
use super::hello::{self, Hello};
use super::request::{self, Request};
use super::requests::{Answer, Requests};
use super::uplink::Shared;
use super::{Meter, dns};
use crate::relay::{Toll, pump, reset, send};

/// How long a client may take to say which name it means.
const FIRST_WORDS: Duration = Duration::from_secs(15);
/// How long who is meant may take to answer.
const DIAL: Duration = Duration::from_secs(30);
/// Between attempts to take a connection, when this process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(shared: Shared, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(shared.outside.most));
    loop {
        // More wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let own = shared.clone();
        shared.spawn(async move {
            let room = Arc::clone(&own.outside.room).try_acquire_owned();
            match (stream.local_addr(), room) {
                (Ok(to), Ok(_room)) if to.port() == dns::PORT => {
                    dns::serve_stream(&own, stream).await;
                }
                (Ok(to), Ok(_room)) => connect(&own, stream, to).await,
                _ => reset(stream),
            }
            drop(place);
        });
    }
}

/// A stream that is reset when it is dropped, with its task for example: only one that has
/// come to its end is closed as if it had.
struct Abrupt(Option<TcpStream>);

impl Abrupt {
    fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self(Some(stream))
    }

    fn close(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Abrupt {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            reset(stream);
        }
    }
}

async fn connect(shared: &Shared, stream: TcpStream, to: SocketAddr) {
    let account = &shared.account;
    let mut inner = Abrupt::new(stream);
    if account.meter.is_capped() {
        return;
    }
    let Some(stream) = &mut inner.0 else { return };
    let Some(Admitted { flow, early, guard }) = admit(shared, stream, to).await else {
        tracing::debug!(sandbox = %shared.id, %to, "an outbound connection was refused");
        return;
    };
    let Ok(Ok(dialled)) = timeout(DIAL, TcpStream::connect(to)).await else { return };
    let outer = Abrupt::new(dialled);
    let (Some(near), Some(far)) = (&inner.0, &outer.0) else { return };
    let carried = tokio::select! {
        carried = carry(shared, near, far, early, guard) => carried.is_ok(),
        () = account.forbidden(&flow) => false,
    };
    if carried {
        inner.close();
        outer.close();
    }
}

/// A connection that may go on.
struct Admitted {
    flow: Flow,
    /// What was read of it already.
    early: Bytes,
    guard: Guard,
}

/// What is still to be looked at.
#[derive(Clone, Copy)]
enum Guard {
    Nothing,
    /// It was let go for what its address is known as, and nothing it said was looked at.
    FirstWords,
    /// It says in clear text which host each request is for.
    Requests,
}

async fn admit(shared: &Shared, stream: &mut TcpStream, to: SocketAddr) -> Option<Admitted> {
    let account = &shared.account;
    let admitted =
        |reason, early, guard| Some(Admitted { flow: Flow { to, reason }, early, guard });
    match account.way(to, &shared.outside.api) {
        Way::None => None,
        Way::Direct => admitted(Reason::Address, Bytes::new(), Guard::Nothing),
        // Who speaks first is unknown here, so the client is not waited for.
        Way::ByName if !is_web(to.port()) && account.knows(to) => {
            admitted(Reason::Known, Bytes::new(), Guard::FirstWords)
        }
        Way::ByName => {
            let (early, words) =
                timeout(FIRST_WORDS, first_words(stream, to.port())).await.ok()??;
            let Words::Name(name) = words else { return None };
            let known = account.rules().permit_name(&name, to.port())
                && (account.knows_as(to.ip(), &name)
                    || shared.outside.names.has(&shared.id, &name, to.ip()).await);
            let guard = guard_after(&early);
            if known { admitted(Reason::Asked(name), early, guard) } else { None }
        }
    }
}

/// What is still to be looked at of a client that has named a host.
fn guard_after(early: &[u8]) -> Guard {
    if hello::looks_like_tls(early) { Guard::Nothing } else { Guard::Requests }
}

/// Ports on which the client speaks first, and says which name it means.
fn is_web(port: u16) -> bool {
    matches!(port, 80 | 443)
}

/// What a client says first.
enum Words {
    Name(String),
    /// A protocol that names no host.
    Other,
    /// One that must name a host, and does not.
    Nameless,
}

/// Reads until it is clear which host is meant. Nothing where the connection ends before.
async fn first_words(stream: &mut TcpStream, port: u16) -> Option<(Bytes, Words)> {
    let mut bytes = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(words) = judge(&bytes, port) {
            return Some((bytes.freeze(), words));
        }
    }
}

/// What these bytes say; nothing while more are to come.
fn judge(bytes: &[u8], port: u16) -> Option<Words> {
    Some(match () {
        () if hello::looks_like_tls(bytes) => match hello::read(bytes) {
            Hello::Unfinished => return None,
            Hello::Name(name) => Words::Name(name),
            Hello::Nameless | Hello::Malformed => Words::Nameless,
        },
        // Where TLS is spoken, nothing else is.
        () if port == 443 => Words::Nameless,
        () if port == 80 || request::looks_like_http(bytes) => match request::read(bytes) {
            Request::Unfinished => return None,
            Request::Host(name) => Words::Name(name),
            Request::Malformed => Words::Nameless,
        },
        () => Words::Other,
    })
}

async fn carry(
    shared: &Shared,
    inner: &TcpStream,
    outer: &TcpStream,
    early: Bytes,
    guard: Guard,
) -> io::Result<()> {
    let meter = &shared.account.meter;
    let port = inner.local_addr()?.port();
    let allowed = |name: &str| shared.account.rules().permit_name(name, port);
    let (toll, answer) = (Sent(meter), Answer::default());
    let there = async {
        let (early, guard) = match guard {
            // Once it says which host it means, that must be an allowed one, too.
            Guard::FirstWords => spoken(inner, port, allowed).await?,
            guard => (early, guard),
        };
        match guard {
            Guard::Requests => {
                Requests::new(allowed, &answer).carry(early, inner, outer, &toll).await
            }
            _ => {
                send(outer, &early, &toll).await?;
                pump(inner, outer, &toll).await
            }
        }
    };
    let back = async {
        let ended = pump(outer, inner, &Received(meter, &answer)).await;
        answer.end();
        ended
    };
    tokio::try_join!(there, back).map(drop)
}

/// The first words of a client, if they name no host or an allowed one.
async fn spoken(
    stream: &TcpStream,
    port: u16,
    allowed: impl Fn(&str) -> bool,
) -> io::Result<(Bytes, Guard)> {
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let mut bytes = BytesMut::with_capacity(4096);
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return Ok((bytes.freeze(), Guard::Nothing)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match judge(&bytes, port) {
            None => {}
            Some(Words::Other) => return Ok((bytes.freeze(), Guard::Nothing)),
            Some(Words::Name(name)) if allowed(&name) => {
                let guard = guard_after(&bytes);
                return Ok((bytes.freeze(), guard));
            }
            Some(_) => return Err(refused()),
        }
    }
}

struct Sent<'a>(&'a Meter);
struct Received<'a>(&'a Meter, &'a Answer);

impl Toll for Sent<'_> {
    async fn pass(&self, bytes: &[u8]) -> usize {
        self.0.send(bytes.len()).await
    }
}

impl Toll for Received<'_> {
    async fn pass(&self, bytes: &[u8]) -> usize {
        // What was sent is not even acknowledged while nothing may be sent.
        self.0.room().await;
        self.0.count_received(bytes.len());
        self.1.note(bytes);
        bytes.len()
    }
}
