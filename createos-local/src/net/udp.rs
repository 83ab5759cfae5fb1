//! Datagrams that sandboxes send, and what comes back.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::account::{Flow, Reason, Way};
use super::uplink::Shared;
use super::{dns, packet};

/// Pairs of addresses that one sandbox may keep open.
const MOST: usize = 512;
/// A pair between which nothing goes for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// The sockets that datagrams come by, and answers go by.
pub(super) struct Datagrams {
    incoming: AsyncFd<OwnedFd>,
    answers: Arc<OwnedFd>,
}

/// A datagram that a sandbox sent.
struct Sent {
    from: SocketAddrV4,
    to: SocketAddrV4,
    length: usize,
}

impl Datagrams {
    pub(super) fn new(incoming: OwnedFd, answers: OwnedFd) -> io::Result<Self> {
        // Neither may make the engine wait, whoever made them.
        rustix::io::ioctl_fionbio(&incoming, true)?;
        rustix::io::ioctl_fionbio(&answers, true)?;
        Ok(Self { incoming: AsyncFd::new(incoming)?, answers: Arc::new(answers) })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Sent>> {
        self.incoming.async_io(Interest::READABLE, |socket| receive(socket, buffer)).await
    }
}

/// Nothing where the kernel did not say where it was meant to go.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Sent>> {
    let mut space = nix::cmsg_space!(nix::libc::sockaddr_in);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => Some(SocketAddrV4::from(SockaddrIn::from(to))),
        _ => None,
    });
    let from = received.address.map(SocketAddrV4::from);
    Ok(from.zip(to).map(|(from, to)| Sent { from, to, length: received.bytes }))
}

/// Sends an answer into the sandbox. Like any datagram, it may get lost.
fn answer(answers: &OwnedFd, from: SocketAddrV4, to: SocketAddrV4, content: &[u8]) {
    if let Some(packet) = packet::datagram(from, to, content) {
        let to = SocketAddrV4::new(*to.ip(), 0);
        let _ = rustix::net::sendto(answers, &packet, SendFlags::NOSIGNAL, &to);
    }
}

type Pair = (SocketAddrV4, SocketAddrV4);

type Open = Arc<Mutex<HashMap<Pair, Arc<Pipe>>>>;

/// A pair that is open.
struct Pipe {
    /// Stands for the sandbox outside.
    outer: UdpSocket,
    last: Mutex<Instant>,
}

impl Pipe {
    fn touch(&self) {
        *lock(&self.last) = Instant::now();
    }

    fn idle(&self) -> Duration {
        lock(&self.last).elapsed()
    }
}

pub(super) async fn serve(shared: Shared, datagrams: Datagrams) {
    let open = Open::default();
    let mut buffer = vec![0; 65_535];
    loop {
        let sent = match datagrams.receive(&mut buffer).await {
            Ok(Some(sent)) => sent,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(sandbox = %shared.id, %error, "a datagram was not received");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let content = &buffer[..sent.length];
        if sent.to.port() == dns::PORT {
            resolve(&shared, &datagrams, &sent, content);
        } else {
            pass_on(&shared, &datagrams, &open, &sent, content).await;
        }
        // A flood from one sandbox leaves the others their turn.
        tokio::task::consume_budget().await;
    }
}

fn resolve(shared: &Shared, datagrams: &Datagrams, sent: &Sent, content: &[u8]) {
    let Ok(place) = Arc::clone(&shared.questions).try_acquire_owned() else { return };
    let (own, question, answers) =
        (shared.clone(), content.to_vec(), Arc::clone(&datagrams.answers));
    let (from, to) = (sent.from, sent.to);
    shared.spawn(async move {
        if let Some(message) = dns::answer(&own, &question, dns::Transport::Datagram).await {
            answer(&answers, to, from, &message);
        }
        drop(place);
    });
}

async fn pass_on(shared: &Shared, datagrams: &Datagrams, open: &Open, sent: &Sent, content: &[u8]) {
    let meter = &shared.account.meter;
    if meter.is_capped() {
        return;
    }
    let pair = (sent.from, sent.to);
    let known = lock(open).get(&pair).cloned();
    let pipe = match known {
        Some(pipe) => pipe,
        None => match begin(shared, datagrams, open, pair, content).await {
            Some(pipe) => pipe,
            None => return,
        },
    };
    pipe.touch();
    // Where the network is full, it is lost, as everywhere.
    if pipe.outer.try_send(content).is_ok() {
        meter.count_sent(content.len());
    }
}

async fn begin(
    shared: &Shared,
    datagrams: &Datagrams,
    open: &Open,
    pair: Pair,
    content: &[u8],
) -> Option<Arc<Pipe>> {
    let (account, to) = (&shared.account, pair.1.into());
    let reason = match account.way(to, &shared.outside.api) {
        Way::Direct => Reason::Address,
        // The name that is meant is encrypted there.
        Way::ByName if to.port() != 443 && !is_quic(content) && account.knows(to) => Reason::Known,
        Way::ByName | Way::None => return None,
    };
    if lock(open).len() >= MOST {
        return None;
    }
    let room = Arc::clone(&shared.outside.room).try_acquire_owned().ok()?;
    let outer = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    outer.connect(to).await.ok()?;
    // It always is; but what is tried before it is known is not sent.
    outer.writable().await.ok()?;
    let pipe = Arc::new(Pipe { outer, last: Mutex::new(Instant::now()) });
    lock(open).insert(pair, Arc::clone(&pipe));
    let (own, open, answers) = (shared.clone(), Arc::clone(open), Arc::clone(&datagrams.answers));
    let (flow, opened) = (Flow { to, reason }, Arc::clone(&pipe));
    shared.spawn(async move {
        tokio::select! {
            () = bring_back(&own, &opened, &answers, pair) => {}
            () = own.account.forbidden(&flow) => {}
        }
        lock(&open).remove(&pair);
        drop(room);
    });
    Some(pipe)
}

/// Returns when nothing has gone either way for long.
async fn bring_back(shared: &Shared, pipe: &Pipe, answers: &OwnedFd, (from, to): Pair) {
    let meter = &shared.account.meter;
    loop {
        let left = IDLE.saturating_sub(pipe.idle());
        match tokio::time::timeout(left, pipe.outer.readable()).await {
            Err(_) if pipe.idle() >= IDLE => return,
            // It has sent something meanwhile.
            Err(_) => continue,
            Ok(_) => pipe.touch(),
        }
        // Only while something comes: idle pairs need no memory.
        let mut buffer = vec![0; packet::LONGEST];
        loop {
            match pipe.outer.try_recv(&mut buffer) {
                Ok(length) => {
                    meter.room().await;
                    meter.count_received(length);
                    answer(answers, to, from, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Nobody is there at the moment: there may be later.
                Err(_) => {}
            }
            tokio::task::consume_budget().await;
        }
    }
}

/// The first packet of a QUIC connection, by its version.
fn is_quic(content: &[u8]) -> bool {
    const VERSIONS: [u32; 2] = [1, 0x6b33_43cf];
    match content.first_chunk::<5>() {
        Some([first, version @ ..]) => {
            first & 0xc0 == 0xc0 && VERSIONS.contains(&u32::from_be_bytes(*version))
        }
        None => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
