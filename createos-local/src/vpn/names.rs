//! Names for devices: what they ask at the resolver's address, the engine answers.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::TunnResult;

use super::packet::{Header, UDP, seal};
use super::peer::Peer;
use super::{Inner, LONGEST, RESOLVER, send};
use crate::net::dns::{self, Asker};
use crate::net::{Names, datagram};

/// Who is known on private networks.
pub(crate) trait Directory: Send + Sync {
    /// The addresses that a name, in lower case, means to who is on these networks: none where
    /// there is no such name, and nothing where it is asked for elsewhere.
    fn find(&self, networks: &[String], name: &str) -> Option<Option<Vec<IpAddr>>>;
}

struct Device {
    names: Names,
    directory: Arc<dyn Directory>,
    networks: Vec<String>,
}

impl Asker for Device {
    fn names(&self) -> &Names {
        &self.names
    }

    fn own(&self, name: &str) -> Option<Option<Vec<IpAddr>>> {
        self.directory.find(&self.networks, name)
    }

    fn learn(&self, _: &str, _: IpAddr, _: Duration) {}
}

/// A device has sent something to the resolver.
pub(super) fn ask(relay: &Inner, peer: &Arc<Peer>, header: &Header, packet: &[u8]) {
    const HEAD: usize = 8;
    if header.protocol != UDP || header.is_part {
        return;
    }
    let Some((head, question)) = packet[header.content..].split_first_chunk::<HEAD>() else {
        return;
    };
    let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    if port(2) != dns::PORT {
        return;
    }
    let Ok(place) = Arc::clone(&peer.questions).try_acquire_owned() else { return };
    let back = SocketAddrV4::new(header.source, port(0));
    let asker = Device {
        names: relay.names.clone(),
        directory: Arc::clone(&relay.directory),
        networks: peer.reaches().iter().map(|reach| reach.network.clone()).collect(),
    };
    let (peer, question, end) = (Arc::clone(peer), question.to_vec(), relay.end.clone());
    let work = async move {
        if let Some(message) = dns::reply(&asker, &question, Some(dns::FITS_TUNNEL)).await {
            answer(&peer, back, &message);
        }
        drop(place);
    };
    tokio::spawn(async move { end.run_until_cancelled(work).await });
}

fn answer(peer: &Peer, to: SocketAddrV4, message: &[u8]) {
    let from = SocketAddrV4::new(RESOLVER, dns::PORT);
    let Some(mut packet) = datagram(from, to, message) else { return };
    seal(&mut packet);
    let Some(remote) = peer.remote().filter(|_| !peer.is_over()) else { return };
    let mut room = vec![0; LONGEST];
    if let TunnResult::WriteToNetwork(message) = peer.tunnel().encapsulate(&packet, &mut room) {
        send(&remote.socket, remote.at, message);
    }
}
