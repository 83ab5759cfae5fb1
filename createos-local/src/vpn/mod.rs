//! Sessions of devices: WireGuard in this process, and no part of it in the kernel (api.md 5.9).
//!
//! A device sends its packets, encrypted, to a UDP socket beside the API's. What one has sent
//! goes over a [line](crate::runtime::Line) to the private network that its destination is on,
//! if the device is attached to that; and what a member sends to a device comes back the same
//! way. Whoever is not known by its key is not answered, nobody can speak with another's
//! address, and from one moment to the next a session has ended.
//!
//! The keys of the engine are as young as itself: sessions end with it.

mod config;
mod lines;
mod names;
mod packet;
mod peer;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use createos_sdk::{DeviceId, SessionId};
use rustix::rand::GetRandomFlags;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

pub(crate) use self::names::Directory;
use self::peer::{Peer, Peers, Remote};
use self::sockets::Sockets;
use crate::net::Names;
use crate::network_protocol::Subnet;
use crate::runtime::Line;

/// Length of a WireGuard key.
pub(crate) const KEY_BYTES: usize = 32;
/// Where devices ask for names. No device has this address.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// Handshakes in a second beyond which whoever wants one proves first that it is where it says.
/// Each is counted twice.
const HANDSHAKES: u64 = 200;
/// The longest datagram and what an answer to it may add.
const LONGEST: usize = 65_535 + 256;

/// Whether this can be the key of a device: some points make every secret the same.
pub(crate) fn is_usable(key: [u8; KEY_BYTES]) -> bool {
    StaticSecret::from([7; KEY_BYTES]).diffie_hellman(&PublicKey::from(key)).was_contributory()
}

/// A private network that a device reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) network: String,
    pub(crate) subnet: Subnet,
}

/// A session to be opened.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) session: SessionId,
    pub(crate) device: DeviceId,
    pub(crate) ip: Ipv4Addr,
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) reaches: Vec<Reach>,
    pub(crate) life: Duration,
}

/// The end of a session, and when something was last heard of its device.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) device: DeviceId,
    pub(crate) session: SessionId,
    pub(crate) seen: Option<SystemTime>,
}

/// Everything that devices speak through. Clones share it.
#[derive(Clone)]
pub(crate) struct Relay(Arc<Inner>);

struct Inner {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    peers: RwLock<Peers>,
    lines: RwLock<HashMap<String, lines::Open>>,
    sockets: Sockets,
    names: Names,
    directory: Arc<dyn Directory>,
    end: CancellationToken,
}

impl Relay {
    /// Nothing is open yet. `beside` are the addresses of the API, next to which it will
    /// listen.
    pub(crate) fn new(
        beside: Vec<SocketAddr>,
        names: Names,
        directory: Arc<dyn Directory>,
        end: CancellationToken,
    ) -> io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        fill(&mut bytes)?;
        let secret = StaticSecret::from(bytes);
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES));
        Ok(Self(Arc::new(Inner {
            secret,
            public,
            limiter,
            peers: RwLock::default(),
            lines: RwLock::default(),
            sockets: Sockets::new(beside),
            names,
            directory,
            end,
        })))
    }

    /// Opens a session, ends the one that its device had, and returns the configuration for the
    /// device. `arrival` is the address at which the API was asked for it.
    pub(crate) async fn open(
        &self,
        new: NewSession,
        arrival: Option<SocketAddr>,
    ) -> io::Result<(String, Option<Ended>)> {
        let endpoint = self.0.sockets.endpoint(&self.0, arrival).await?;
        let config = config::client_config(&new, self.0.public.as_bytes(), endpoint);
        let before = self.close(&new.device, None);
        self.0.peers().insert(new, &self.0.secret, &self.0.limiter)?;
        Ok((config, before))
    }

    /// Moves the end of a session; false where there is none such.
    pub(crate) fn renew(&self, device: &DeviceId, session: &SessionId, life: Duration) -> bool {
        let peer = self.0.peers().of(device);
        peer.filter(|peer| peer.session == *session).inspect(|peer| peer.renew(life)).is_some()
    }

    /// Ends a session of a device, or whichever it has.
    pub(crate) fn close(&self, device: &DeviceId, session: Option<&SessionId>) -> Option<Ended> {
        self.0.peers().remove(device, session)
    }

    /// From now on, a device with a session reaches these networks and no others.
    pub(crate) fn set_reaches(&self, device: &DeviceId, reaches: Vec<Reach>) {
        if let Some(peer) = self.0.peers().of(device) {
            *peer.reaches() = reaches;
        }
    }

    /// No device reaches this network any more.
    pub(crate) fn forget_network(&self, network: &str) {
        for peer in self.0.peers().all() {
            peer.reaches().retain(|reach| reach.network != network);
        }
    }

    /// When something was last heard of a device in its session.
    pub(crate) fn seen(&self, device: &DeviceId) -> Option<SystemTime> {
        self.0.peers().of(device)?.seen()
    }

    /// Networks that devices with sessions reach and to which no line leads, or a dead one.
    pub(crate) fn missing_lines(&self) -> Vec<Reach> {
        let mut wanted: Vec<Reach> = Vec::new();
        for peer in self.0.peers().all() {
            for reach in peer.reaches().iter().filter(|reach| !self.0.leads_to(&reach.network)) {
                if !wanted.contains(reach) {
                    wanted.push(reach.clone());
                }
            }
        }
        wanted
    }

    /// Whether a line leads to this network.
    pub(crate) fn leads_to(&self, network: &str) -> bool {
        self.0.leads_to(network)
    }

    /// Carries what devices send to a network over this line, and back. The one before ends.
    pub(crate) fn add_line(&self, network: &str, line: Line) -> io::Result<()> {
        let open = lines::open(&self.0, network, line)?;
        lock_write(&self.0.lines).insert(network.to_owned(), open);
        Ok(())
    }

    /// Ends lines that no device with a session needs.
    pub(crate) fn end_unused_lines(&self) {
        let peers = self.0.peers().all();
        let is_needed = |network: &str| {
            peers.iter().any(|peer| peer.reaches().iter().any(|reach| reach.network == network))
        };
        lock_write(&self.0.lines).retain(|network, _| is_needed(network));
    }

    /// Sends what is due by the clock, and ends sessions that were not renewed. To be called
    /// several times a second.
    pub(crate) fn tick(&self) -> Vec<Ended> {
        self.0.limiter.reset_count();
        let peers = self.0.peers().all();
        let over = peers.iter().filter(|peer| peer.is_over());
        let ended = over.filter_map(|peer| self.close(&peer.device, Some(&peer.session)));
        let ended = ended.collect();
        peers.iter().for_each(|peer| peer.tick());
        ended
    }
}

impl Inner {
    fn peers(&self) -> PeersGuard<'_> {
        PeersGuard(&self.peers)
    }

    fn leads_to(&self, network: &str) -> bool {
        lock_read(&self.lines).get(network).is_some_and(|open| !open.line.get_ref().is_dead())
    }

    /// A datagram came by one of our sockets, from whomever.
    fn receive(&self, socket: &Arc<UdpSocket>, from: SocketAddr, datagram: &[u8], room: &mut [u8]) {
        let mut cookie = [0; 64];
        let packet = match self.limiter.verify_packet(Some(from.ip()), datagram, &mut cookie) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => return send(socket, from, cookie),
            Err(_) => return,
        };
        let is_data = matches!(packet, Packet::PacketData(_));
        let is_answer = matches!(packet, Packet::HandshakeResponse(_));
        let Some(peer) = self.whose(packet) else { return };
        let mut tunnel = peer.tunnel();
        match tunnel.decapsulate(Some(from.ip()), datagram, room) {
            TunnResult::WriteToNetwork(message) => send(socket, from, message),
            TunnResult::WriteToTunnelV4(packet, _) => {
                drop(tunnel);
                peer.heard(Remote { socket: Arc::clone(socket), at: from });
                return self.take_from_device(&peer, packet);
            }
            TunnResult::Done | TunnResult::WriteToTunnelV6(..) => {}
            TunnResult::Err(_) => return,
        }
        // What begins a session may be a copy, sent by somebody else from elsewhere. Whoever
        // can speak in it is who has the key.
        if is_data || is_answer {
            peer.heard(Remote { socket: Arc::clone(socket), at: from });
            while let TunnResult::WriteToNetwork(message) = tunnel.decapsulate(None, &[], room) {
                send(socket, from, message);
            }
        }
    }

    fn whose(&self, packet: Packet<'_>) -> Option<Arc<Peer>> {
        let index = match packet {
            Packet::HandshakeInit(begin) => {
                let half = parse_handshake_anon(&self.secret, &self.public, &begin).ok()?;
                return self.peers().by_key(&half.peer_static_public);
            }
            Packet::HandshakeResponse(answer) => answer.receiver_idx,
            Packet::PacketCookieReply(reply) => reply.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        self.peers().by_index(index)
    }

    /// A device has sent this, and nobody else has.
    fn take_from_device(&self, peer: &Arc<Peer>, packet: &[u8]) {
        let Some(header) = packet::Header::parse(packet) else { return };
        if header.source != peer.ip || peer.is_over() {
            return;
        }
        if header.destination == RESOLVER {
            return names::ask(self, peer, &header, packet);
        }
        let Some(network) = peer.way_to(header.destination) else { return };
        if let Some(open) = lock_read(&self.lines).get(&network) {
            // Where the network is full, it is lost, as everywhere.
            let _ = rustix::io::write(open.line.get_ref(), packet);
        }
    }

    /// A member of a network has sent this to a device; false where it reaches none.
    async fn give_to_device(&self, network: &str, packet: &[u8], room: &mut [u8]) -> bool {
        let Some(header) = packet::Header::parse(packet) else { return true };
        let Some(peer) = self.peers().by_ip(header.destination) else { return false };
        if !peer.is_reached_from(network, header.source) {
            return false;
        }
        let Some(remote) = peer.remote() else { return false };
        self.encapsulate(&peer, &remote, packet, room).await;
        true
    }

    async fn encapsulate(&self, peer: &Peer, remote: &Remote, packet: &[u8], room: &mut [u8]) {
        let length = match peer.tunnel().encapsulate(packet, room) {
            TunnResult::WriteToNetwork(message) => message.len(),
            _ => return,
        };
        let _ = remote.socket.send_to(&room[..length], remote.at).await;
    }
}

/// The known devices, locked for as short as each question takes.
struct PeersGuard<'a>(&'a RwLock<Peers>);

impl PeersGuard<'_> {
    fn of(&self, device: &DeviceId) -> Option<Arc<Peer>> {
        lock_read(self.0).of(device)
    }

    fn by_key(&self, key: &[u8; KEY_BYTES]) -> Option<Arc<Peer>> {
        lock_read(self.0).by_key(key)
    }

    fn by_index(&self, index: u32) -> Option<Arc<Peer>> {
        lock_read(self.0).by_index(index)
    }

    fn by_ip(&self, ip: Ipv4Addr) -> Option<Arc<Peer>> {
        lock_read(self.0).by_ip(ip)
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        lock_read(self.0).all()
    }

    fn insert(
        &self,
        new: NewSession,
        secret: &StaticSecret,
        limiter: &Arc<RateLimiter>,
    ) -> io::Result<()> {
        lock_write(self.0).insert(new, secret, limiter)
    }

    fn remove(&self, device: &DeviceId, session: Option<&SessionId>) -> Option<Ended> {
        lock_write(self.0).remove(device, session)
    }
}

/// Datagrams may get lost.
fn send(socket: &UdpSocket, to: SocketAddr, message: &[u8]) {
    let _ = socket.try_send_to(message, to);
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    rustix::rand::getrandom(bytes, GetRandomFlags::empty())?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock_write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
