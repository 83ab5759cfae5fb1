//! Connections to ports of a running sandbox: tunnels and visits through ingress.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use createos_sdk::SandboxId;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::slot::Life;
use super::{Core, CoreError};
use crate::relay::{Side, relay, reset};
use crate::runtime::RuntimeError;

/// A connection to a port of a sandbox.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) hold: Hold,
}

/// Held by a connection for as long as it lasts.
pub(crate) struct Hold {
    life: Life,
    _room: OwnedSemaphorePermit,
    visit: Option<Visit>,
}

/// What a connection of a visitor holds besides.
struct Visit {
    end_of_ingress: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// A running sandbox whose ports are open to visitors.
pub(crate) struct Published {
    live: Live,
    end_of_ingress: CancellationToken,
}

impl Hold {
    /// Completes when the connection must end: with the sandbox's life, and a visit also
    /// when ingress is turned off.
    pub(crate) async fn cut(&self) {
        let Some(visit) = &self.visit else { return self.life.cancelled().await };
        tokio::select! {
            () = self.life.cancelled() => {}
            () = visit.end_of_ingress.cancelled() => {}
        }
    }

    /// Carries bytes between an outer connection and one inside until both directions have
    /// ended, or it is cut.
    pub(crate) async fn carry(&self, outer: Side, inner: Side) {
        let carried = tokio::select! {
            carried = relay(&outer, &inner) => carried.is_ok(),
            () = self.cut() => false,
        };
        if !carried {
            reset(outer.stream);
            reset(inner.stream);
        }
    }
}

impl Core {
    /// The sandbox, if visitors may come. All others look alike: that one exists is nothing
    /// a visitor should learn.
    pub(crate) async fn published(&self, id: &SandboxId) -> Result<Published, CoreError> {
        let slot = self.inner.slots.get_existing(id).ok_or(CoreError::NoSandbox)?;
        let end_of_ingress = slot.end_of_ingress();
        match self.live(id).await {
            Ok(live) if live.sandbox.spec.ingress_enabled => Ok(Published { live, end_of_ingress }),
            Ok(_) | Err(CoreError::Conflict(_)) => Err(CoreError::NoSandbox),
            Err(error) => Err(error),
        }
    }

    /// Room for one more connection.
    fn room(&self) -> Result<OwnedSemaphorePermit, CoreError> {
        Arc::clone(&self.inner.room).try_acquire_owned().map_err(|_| {
            CoreError::NoCapacity(format!(
                "{} connections into sandboxes are open, and the engine has no file descriptors \
                 for more; close some, or raise its limit of open files (ulimit -n)",
                self.inner.tuning.max_connections
            ))
        })
    }
}

impl Live {
    /// Connects to a port of the sandbox's loopback.
    pub(crate) async fn tunnel(self, port: NonZeroU16) -> Result<Connection, CoreError> {
        let room = self.core.room()?;
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port.get()));
        let stream = match self.connect(v4).await {
            // Whatever is wrong with IPv6, what matters is that nothing listens.
            Err(closed @ CoreError::NoListener(_)) => self.connect(v6).await.map_err(|_| closed),
            outcome => outcome,
        }?;
        Ok(Connection { stream, hold: Hold { life: self.life, _room: room, visit: None } })
    }

    pub(super) async fn connect(&self, address: SocketAddr) -> Result<TcpStream, CoreError> {
        let core = &self.core.inner;
        let (port, limit) = (address.port(), core.tuning.connect_limit);
        let connecting = tokio::time::timeout(limit, core.runtime.connect(self.id(), address));
        let closed = |what: String| Err(CoreError::NoListener(what));
        match self.life.run_until_cancelled(connecting).await.ok_or_else(|| self.life.lost())? {
            Ok(Ok(stream)) => {
                // What comes is to go on at once, however little it is.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(RuntimeError::PortClosed)) => {
                closed(format!("nothing listens on port {port} inside the sandbox"))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => closed(format!(
                "port {port} inside the sandbox did not take the connection within {} s",
                limit.as_secs()
            )),
        }
    }
}

impl Published {
    /// Connects to a port of the sandbox's own address, where only services that mean to be
    /// reached from outside listen.
    pub(crate) async fn visit(self, port: NonZeroU16) -> Result<Connection, CoreError> {
        let Self { live, end_of_ingress } = self;
        let slot = live.core.inner.slots.get_existing(live.id());
        let slot = slot.ok_or_else(|| live.life.lost())?;
        let permit = Arc::clone(&slot.visits).try_acquire_owned().map_err(|_| {
            CoreError::NoCapacity("the sandbox has as many visitors as it may have".to_owned())
        })?;
        let room = live.core.room()?;
        let stream = live.connect((live.sandbox.ip, port.get()).into()).await?;
        let visit = Some(Visit { end_of_ingress, _permit: permit });
        Ok(Connection { stream, hold: Hold { life: live.life, _room: room, visit } })
    }
}
