//! The UDP sockets of devices, beside those of the API: the same addresses, and the same
//! numbers where nobody else has them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::OnceCell;

use super::{Inner, LONGEST};

/// What the kernel may keep for us, as far as it allows that much.
const BUFFER: usize = 4 << 20;

/// Open from the first session on.
pub(super) struct Sockets {
    beside: Vec<SocketAddr>,
    open: OnceCell<Vec<Socket>>,
}

struct Socket {
    /// The address of the API that it is beside.
    beside: SocketAddr,
    addr: SocketAddr,
}

impl Sockets {
    pub(super) fn new(beside: Vec<SocketAddr>) -> Self {
        Self { beside, open: OnceCell::new() }
    }

    /// Where a device finds us that found the API at this address, or else at the first.
    pub(super) async fn endpoint(
        &self,
        relay: &Arc<Inner>,
        arrival: Option<SocketAddr>,
    ) -> io::Result<SocketAddr> {
        let open = self.open.get_or_try_init(|| open(&self.beside, relay)).await?;
        let arrival = arrival.map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
        let is_it = |socket: &&Socket| {
            arrival.is_some_and(|arrival| {
                let (ip, at) = (socket.beside.ip(), arrival.ip());
                socket.beside.port() == arrival.port() && (ip == at || ip.is_unspecified())
            })
        };
        let exact = open.iter().find(|socket| Some(socket.beside) == arrival);
        match exact.or_else(|| open.iter().find(is_it)).zip(arrival) {
            Some((socket, arrival)) => Ok(SocketAddr::new(arrival.ip(), socket.addr.port())),
            None => open.first().map(|socket| socket.addr).ok_or(io::ErrorKind::NotFound.into()),
        }
    }
}

async fn open(beside: &[SocketAddr], relay: &Arc<Inner>) -> io::Result<Vec<Socket>> {
    let mut open = Vec::new();
    for beside in beside.iter().copied() {
        let socket = match UdpSocket::bind(beside).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                UdpSocket::bind((beside.ip(), 0)).await?
            }
            bound => bound?,
        };
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        let addr = socket.local_addr()?;
        let work = listen(Arc::downgrade(relay), Arc::new(socket));
        let end = relay.end.clone();
        tokio::spawn(async move { end.run_until_cancelled(work).await });
        open.push(Socket { beside, addr });
    }
    Ok(open)
}

async fn listen(relay: Weak<Inner>, socket: Arc<UdpSocket>) {
    let (mut datagram, mut room) = (vec![0; LONGEST], vec![0; LONGEST]);
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((length, from)) => {
                let Some(relay) = relay.upgrade() else { return };
                relay.receive(&socket, from, &datagram[..length], &mut room);
            }
            Err(error) => {
                tracing::debug!(%error, "a datagram of a device was not received");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // A flood from one leaves the others their turn.
        tokio::task::consume_budget().await;
    }
}
