//! Lines to private networks, and what members send to devices.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Inner, LONGEST, packet};
use crate::network_protocol::LINE_MTU;
use crate::runtime::Line;

/// Packets that one line may send in a row.
const IN_A_ROW: usize = 64;

/// A line that is in use. Dropping it ends it.
pub(super) struct Open {
    pub(super) line: Arc<AsyncFd<Line>>,
    _end: DropGuard,
}

pub(super) fn open(relay: &Arc<Inner>, network: &str, line: Line) -> io::Result<Open> {
    let line = Arc::new(AsyncFd::new(line)?);
    let end: CancellationToken = relay.end.child_token();
    let work = carry(Arc::downgrade(relay), network.to_owned(), Arc::clone(&line));
    let until = end.clone();
    tokio::spawn(async move { until.run_until_cancelled(work).await });
    Ok(Open { line, _end: end.drop_guard() })
}

/// Carries what comes over a line to devices. A relay that is gone has none.
async fn carry(relay: std::sync::Weak<Inner>, network: String, line: Arc<AsyncFd<Line>>) {
    let mut packet = vec![0; LINE_MTU as usize];
    let mut room = vec![0; LONGEST];
    loop {
        let Ok(mut ready) = line.readable().await else { return };
        let Some(relay) = relay.upgrade() else { return };
        for _ in 0..IN_A_ROW {
            match rustix::io::read(line.get_ref(), packet.as_mut_slice()) {
                Ok(length) => {
                    let packet = &packet[..length];
                    if !relay.give_to_device(&network, packet, &mut room).await
                        && let Some(refusal) = packet::unreachable(packet)
                    {
                        let _ = rustix::io::write(line.get_ref(), &refusal);
                    }
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::debug!(%network, %error, "a line to a private network has ended");
                    return;
                }
            }
        }
        tokio::task::consume_budget().await;
    }
}
