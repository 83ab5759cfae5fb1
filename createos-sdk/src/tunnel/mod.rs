//! Connections to ports of a sandbox (api.md 4.19).

mod http;
mod listener;
mod open;
mod relay;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::Method;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, lookup_host};

use crate::error::{Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::request::{Call, Effect};
use crate::transport::send;
use crate::transport::upgrade::Upgrade;

pub use self::http::{GuestHttp, GuestRequest, GuestResponse};
pub use self::listener::{TunnelEvent, TunnelListener};
pub use self::open::WaitUntilOpen;
use self::relay::Broken;
pub use self::stream::TunnelStream;

type Observer = Arc<dyn Fn(TunnelEvent) + Send + Sync>;

/// A way to a TCP port of a sandbox. Made with [`Sandbox::tunnel`].
///
/// The port is reached from inside the sandbox, so a service that listens on `127.0.0.1` there
/// is reached too, and nothing has to be open to the outside.
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// // One connection …
/// let mut redis = sandbox.tunnel(6379).connect().await?;
/// redis.write_all(b"PING\r\n").await?;
/// let mut answer = [0; 7];
/// redis.read_exact(&mut answer).await?;
///
/// // … or a port of this machine that leads there.
/// let web = sandbox.tunnel(8000).listen("127.0.0.1:0").await?;
/// println!("http://{}", web.local_addr());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing is sent until connect, pipe, listen or wait_until_open is awaited"]
pub struct Tunnel {
    sandbox: Sandbox,
    port: u16,
    observer: Option<Observer>,
    options: RequestOptions,
}

impl Tunnel {
    pub(crate) fn new(sandbox: Sandbox, port: u16) -> Self {
        Self { sandbox, port, observer: None, options: RequestOptions::new() }
    }

    /// Sets options of opening a connection. They do not limit its life: an open tunnel may be
    /// silent for as long as it likes.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Calls this for everything that happens to the connections of a listener. It runs
    /// between their transfers, so it must be quick.
    pub fn on_event(mut self, observe: impl Fn(TunnelEvent) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observe));
        self
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: port 0. `Conflict`: the sandbox is not running. `NotFound`: there is
    /// no such sandbox. `Server` with status 502: nothing listens on the port; other servers
    /// open the connection and close it at once. Opening leaves nothing behind, so every
    /// failure is safe to repeat: [`wait_until_open`](Self::wait_until_open) does that.
    pub fn connect(&self) -> Pending<TunnelStream> {
        let this = self.clone();
        Pending::new(async move { this.open().await })
    }

    /// Opens a connection and joins it to a reader and a writer, such as the standard streams
    /// of a program that `ssh` runs as its `ProxyCommand`. The end of the reader is passed on;
    /// the pipe ends when the guest has ended its side and all of it is written.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect). Then `Connection`: the connection broke; `Io`: the reader
    /// or the writer failed, with its [`std::io::Error`] as the source.
    pub fn pipe<R, W>(&self, reader: R, writer: W) -> Pending<()>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let this = self.clone();
        Pending::new(async move {
            let guest = this.open().await?;
            let (kind, error) = match relay::pipe(reader, writer, guest).await {
                Ok(()) => return Ok(()),
                Err(Broken::Here(error)) => (ErrorKind::Io, error),
                Err(Broken::Guest(error)) => (ErrorKind::Connection, error),
            };
            let message = format!("the connection broke: {error}");
            Err(Error::new(kind, message).with_source(error).in_operation("sandbox.tunnel"))
        })
    }

    /// Waits until something listens on the port. See [`WaitUntilOpen`].
    pub fn wait_until_open(&self) -> WaitUntilOpen {
        WaitUntilOpen::new(self.clone())
    }

    async fn open(&self) -> Result<TunnelStream> {
        let operation = "sandbox.tunnel";
        if self.port == 0 {
            let error = Error::invalid_argument("port", "must be from 1 to 65535");
            return Err(error.in_operation(operation));
        }
        let port = self.port.to_string();
        let call = Call {
            upgrade: Some(Upgrade::Tcp),
            // A connection that nobody holds is closed, and then nothing has changed.
            effect: Effect::Reads,
            options: self.options.clone(),
            ..self.sandbox.call(operation, Method::POST, &["tunnel", &port])
        };
        send::upgrade(self.sandbox.client().inner(), &call).await.map(TunnelStream::new)
    }

    /// Listens on an address of this machine, such as `127.0.0.1:0` for a free port, and opens
    /// a connection of its own for everyone who connects there. See [`TunnelListener`].
    ///
    /// Who can reach the address can reach the port: nobody is asked for a key. Prefer
    /// `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: port 0 of the sandbox, or an address that cannot be read. `Io`: it
    /// cannot be listened on. Nothing is sent: whether the sandbox can be reached shows at the
    /// first connection, in [`on_event`](Self::on_event).
    pub fn listen(self, address: impl ToString) -> Pending<TunnelListener> {
        let address = address.to_string();
        Pending::new(async move {
            let (listener, address) = self.bind(&address).await?;
            Ok(TunnelListener::start(self, listener, address))
        })
    }

    async fn bind(&self, address: &str) -> Result<(TcpListener, SocketAddr)> {
        let operation = "sandbox.tunnel.listen";
        if self.port == 0 {
            let error = Error::invalid_argument("port", "must be from 1 to 65535");
            return Err(error.in_operation(operation));
        }
        let found = lookup_host(address).await.map_err(|error| {
            let why = format!("{address:?} is not an address such as 127.0.0.1:0: {error}");
            Error::invalid_argument("address", why).in_operation(operation)
        })?;
        let found: Vec<_> = found.collect();
        let bound = async {
            let listener = TcpListener::bind(&*found).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        bound.await.map_err(|error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("cannot listen on {address}: {error}"))
                .with_source(error)
                .in_operation(operation)
        })
    }

    fn tell(&self, event: TunnelEvent) {
        if let Some(observe) = &self.observer {
            observe(event);
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("sandbox", self.sandbox.id())
            .field("port", &self.port)
            .field("options", &self.options)
            .finish()
    }
}
