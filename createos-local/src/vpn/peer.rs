//! Devices that have a session.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use createos_sdk::{DeviceId, SessionId};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::{Ended, KEY_BYTES, NewSession, Reach, fill, lock};

/// Questions about names that one device may have open.
const QUESTIONS: usize = 64;
/// Of the numbers that datagrams carry, the lower bits count handshakes.
const INDEX_SHIFT: u32 = 8;

/// Where a device is.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) at: SocketAddr,
}

/// A device with a session.
pub(super) struct Peer {
    pub(super) device: DeviceId,
    pub(super) session: SessionId,
    pub(super) ip: Ipv4Addr,
    pub(super) questions: Arc<Semaphore>,
    key: [u8; KEY_BYTES],
    index: u32,
    tunnel: Mutex<Tunn>,
    reaches: Mutex<Vec<Reach>>,
    state: Mutex<State>,
}

struct State {
    remote: Option<Remote>,
    seen: Option<SystemTime>,
    /// When the session ends unless it is renewed. Once it was closed, that was in the past.
    end: Instant,
}

impl Peer {
    pub(super) fn tunnel(&self) -> MutexGuard<'_, Tunn> {
        lock(&self.tunnel)
    }

    pub(super) fn reaches(&self) -> MutexGuard<'_, Vec<Reach>> {
        lock(&self.reaches)
    }

    /// The network, of those that it reaches, on which an address is.
    pub(super) fn way_to(&self, address: Ipv4Addr) -> Option<String> {
        let reaches = self.reaches();
        let reach = reaches.iter().find(|reach| reach.subnet.contains(address))?;
        Some(reach.network.clone())
    }

    /// Whether it hears somebody with this address on this network.
    pub(super) fn is_reached_from(&self, network: &str, address: Ipv4Addr) -> bool {
        let reaches = self.reaches();
        let mut found = reaches.iter().filter(|reach| reach.network == network);
        found.any(|reach| reach.subnet.contains(address)) && !self.is_over()
    }

    pub(super) fn remote(&self) -> Option<Remote> {
        lock(&self.state).remote.clone()
    }

    /// It has proved that it is there.
    pub(super) fn heard(&self, remote: Remote) {
        let mut state = lock(&self.state);
        state.remote = Some(remote);
        state.seen = Some(SystemTime::now());
    }

    pub(super) fn seen(&self) -> Option<SystemTime> {
        lock(&self.state).seen
    }

    pub(super) fn renew(&self, life: Duration) {
        lock(&self.state).end = Instant::now() + life;
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.state).end <= Instant::now()
    }

    /// Sends what is due by the clock.
    pub(super) fn tick(&self) {
        let Some(remote) = self.remote().filter(|_| !self.is_over()) else { return };
        let mut room = [0; 256];
        if let TunnResult::WriteToNetwork(message) = self.tunnel().update_timers(&mut room) {
            super::send(&remote.socket, remote.at, message);
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Peers {
    of_device: HashMap<DeviceId, Arc<Peer>>,
    by_key: HashMap<[u8; KEY_BYTES], Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    by_ip: HashMap<Ipv4Addr, Arc<Peer>>,
}

impl Peers {
    pub(super) fn of(&self, device: &DeviceId) -> Option<Arc<Peer>> {
        self.of_device.get(device).cloned()
    }

    pub(super) fn by_key(&self, key: &[u8; KEY_BYTES]) -> Option<Arc<Peer>> {
        self.by_key.get(key).cloned()
    }

    /// By the number that a datagram carries.
    pub(super) fn by_index(&self, index: u32) -> Option<Arc<Peer>> {
        self.by_index.get(&(index >> INDEX_SHIFT)).cloned()
    }

    pub(super) fn by_ip(&self, ip: Ipv4Addr) -> Option<Arc<Peer>> {
        self.by_ip.get(&ip).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.of_device.values().cloned().collect()
    }

    /// Adds one whose device has no session.
    pub(super) fn insert(
        &mut self,
        new: NewSession,
        secret: &StaticSecret,
        limiter: &Arc<RateLimiter>,
    ) -> io::Result<()> {
        let index = self.free_index()?;
        let NewSession { session, device, ip, key, reaches, life } = new;
        let limiter = Some(Arc::clone(limiter));
        let tunnel = Tunn::new(secret.clone(), PublicKey::from(key), None, None, index, limiter);
        let end = Instant::now() + life;
        let peer = Arc::new(Peer {
            device: device.clone(),
            session,
            ip,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            key,
            index,
            tunnel: Mutex::new(tunnel),
            reaches: Mutex::new(reaches),
            state: Mutex::new(State { remote: None, seen: None, end }),
        });
        self.by_key.insert(key, Arc::clone(&peer));
        self.by_index.insert(index, Arc::clone(&peer));
        self.by_ip.insert(ip, Arc::clone(&peer));
        self.of_device.insert(device, peer);
        Ok(())
    }

    /// Removes the session of a device, if it is this one.
    pub(super) fn remove(
        &mut self,
        device: &DeviceId,
        session: Option<&SessionId>,
    ) -> Option<Ended> {
        let peer = self.of(device)?;
        if session.is_some_and(|session| peer.session != *session) {
            return None;
        }
        self.of_device.remove(device);
        self.by_key.remove(&peer.key);
        self.by_index.remove(&peer.index);
        self.by_ip.remove(&peer.ip);
        // Who has found it a moment ago finds it over.
        peer.renew(Duration::ZERO);
        Some(Ended { device: device.clone(), session: peer.session.clone(), seen: peer.seen() })
    }

    fn free_index(&self) -> io::Result<u32> {
        loop {
            let mut bytes = [0; 4];
            fill(&mut bytes)?;
            let index = u32::from_ne_bytes(bytes) >> INDEX_SHIFT;
            if !self.by_index.contains_key(&index) {
                return Ok(index);
            }
        }
    }
}
