//! A port of this machine that leads to the SSH server of a sandbox.

use std::net::SocketAddr;
use std::time::Duration;

use createos_sdk::{Sandbox, TunnelListener};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Class, Failure};
use crate::resolve::Found;

const PORT: u16 = 22;
const BETWEEN: Duration = Duration::from_millis(200);

/// Open until it is dropped.
pub(super) struct Bridge {
    listener: TunnelListener,
}

impl Bridge {
    /// Opens it, and waits until an SSH server answers through it.
    pub(super) async fn open(
        sandbox: &Sandbox,
        found: &Found,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let listener = sandbox.tunnel(PORT).listen("127.0.0.1:0").await;
        let listener = listener.map_err(|error| found.explain(error))?;
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Ok(true) = timeout(left, greets(listener.local_addr())).await {
                return Ok(Self { listener });
            }
            if Instant::now() + BETWEEN >= until {
                let text = format!("the SSH server of {} does not answer", found.label());
                return Err(Failure::new(Class::Timeout, text)
                    .hint("wait longer: --sshd-wait 30s\nor do without SSH: --engine builtin"));
            }
            sleep(BETWEEN).await;
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().port()
    }
}

/// Whether what is there begins as an SSH server does.
async fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"SSH-"
}
