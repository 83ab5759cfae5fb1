//! Interactive shells (api.md 4.20, 4.21).

mod pump;
mod web_socket;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use reqwest::Method;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex, split};
use tokio::sync::{oneshot, watch};

use self::pump::Sink;
use crate::check;
use crate::error::Result;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::request::{Call, Effect};
use crate::transport::send;
use crate::transport::upgrade::Upgrade;
use crate::wire::PtySize;

/// Typed bytes that may wait for a slow connection.
const BUFFER: usize = 64 << 10;

type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Opens an interactive shell: the login shell of the sandbox in a terminal. Made with
/// [`Sandbox::terminal`].
///
/// It lives as long as its connection. For a shell that outlives it see
/// [`Sandbox::spawn_shell`].
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let mut shell = sandbox.terminal().size(40, 120).open().await?;
/// shell.write_all(b"uname -a; exit\r").await?;
/// let mut screen = Vec::new();
/// shell.read_to_end(&mut screen).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// `Conflict`: the sandbox is not running. `NotFound`: there is no such sandbox. An unopened
/// shell leaves nothing behind, so every failure is safe to repeat.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until open is awaited"]
pub struct OpenTerminal {
    sandbox: Sandbox,
    size: PtySize,
    options: RequestOptions,
}

impl OpenTerminal {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox, size: PtySize::new(24, 80), options: RequestOptions::new() }
    }

    /// Sets the size in characters. Default 24 rows of 80.
    pub fn size(mut self, rows: u16, cols: u16) -> Self {
        self.size = PtySize::new(rows, cols);
        self
    }

    /// Sets options of opening it. They do not limit its life.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Opens it.
    pub fn open(self) -> Pending<Terminal> {
        Pending::new(async move {
            let call = self.call("sandbox.shell", Method::POST, "shell", Upgrade::Tcp)?;
            let io = send::upgrade(self.sandbox.client().inner(), &call).await?;
            let (read, write) = split(io);
            Ok(Terminal::new(Box::pin(read), Sink::Plain(write), self.size))
        })
    }

    /// Opens it over a WebSocket, for networks that let nothing else through.
    ///
    /// Unofficial: no public source says what the messages look like (api.md 9.12). This is the
    /// form of the embedded engine, and other servers may not understand it. A WebSocket has no
    /// half-closed state, so the end of the input ends the shell.
    pub fn open_web_socket(self) -> Pending<Terminal> {
        Pending::new(async move {
            let upgrade = Upgrade::WebSocket { key: web_socket::key() };
            let call = self.call("sandbox.shell_ws", Method::GET, "shell-ws", upgrade)?;
            let io = send::upgrade(self.sandbox.client().inner(), &call).await?;
            let (output, sink) = web_socket::over(io).await;
            Ok(Terminal::new(output, Sink::WebSocket(sink), self.size))
        })
    }

    fn call(
        &self,
        operation: &'static str,
        method: Method,
        route: &str,
        upgrade: Upgrade,
    ) -> Result<Call> {
        check::terminal_size(self.size.rows, self.size.cols)
            .map_err(|error| error.in_operation(operation))?;
        Ok(Call {
            upgrade: Some(upgrade),
            // A shell that nobody holds ends, and then nothing has changed.
            effect: Effect::Reads,
            options: self.options.clone(),
            ..self.sandbox.call(operation, method, &[route])
        })
    }
}

/// Tells the pump that nobody holds the terminal any more, by being dropped.
#[derive(Debug)]
struct Held(#[expect(dead_code, reason = "dropping it is the message")] oneshot::Sender<()>);

/// An interactive shell: read what is on the screen, write what is typed.
///
/// The read side ends when the shell does; no exit code is told. Shutting the write side down
/// says that nothing more will be typed and leaves the read side open. Dropping it closes the
/// connection, and with it the shell.
#[derive(Debug)]
pub struct Terminal {
    reader: TerminalReader,
    writer: TerminalWriter,
    resizer: TerminalResizer,
}

impl Terminal {
    fn new(output: Output, sink: Sink, size: PtySize) -> Self {
        let (near, far) = duplex(BUFFER);
        let (sizes, sized) = watch::channel(size);
        let (held, dropped) = oneshot::channel();
        tokio::spawn(pump::run(far, sized, sink, dropped));
        let held = Arc::new(Held(held));
        Self {
            reader: TerminalReader { output, _held: held.clone() },
            writer: TerminalWriter { input: near, _held: held },
            resizer: TerminalResizer(Arc::new(sizes)),
        }
    }

    /// Sets the size in characters. The newest counts: one that could not be sent before the
    /// next is left out.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: a size of 0. On a shell that has ended it does nothing.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        self.resizer.resize(rows, cols)
    }

    /// A handle that sets the size. Dropping it has no effect.
    pub fn resizer(&self) -> TerminalResizer {
        self.resizer.clone()
    }

    /// The parts, to be used at the same time. The connection lives as long as the reader or
    /// the writer; dropping the writer is shutting it down.
    pub fn into_parts(self) -> (TerminalReader, TerminalWriter, TerminalResizer) {
        (self.reader, self.writer, self.resizer)
    }
}

/// What is on the screen of a [`Terminal`], as raw bytes.
pub struct TerminalReader {
    output: Output,
    _held: Arc<Held>,
}

/// What is typed into a [`Terminal`], as raw bytes.
///
/// Bytes are taken into a small buffer and sent in the background, in order; flushing does not
/// wait for them. When the connection is gone, writing fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub struct TerminalWriter {
    input: DuplexStream,
    _held: Arc<Held>,
}

/// Sets the size of a [`Terminal`]. Cheap to clone; dropping it has no effect.
#[derive(Debug, Clone)]
pub struct TerminalResizer(Arc<watch::Sender<PtySize>>);

impl TerminalResizer {
    /// As [`Terminal::resize`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: a size of 0.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        check::terminal_size(rows, cols).map_err(|error| error.in_operation("sandbox.shell"))?;
        self.0.send_replace(PtySize::new(rows, cols));
        Ok(())
    }
}

impl AsyncRead for TerminalReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.output.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for TerminalWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl fmt::Debug for TerminalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminalReader")
    }
}

// What waits to be sent was typed.
impl fmt::Debug for TerminalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminalWriter")
    }
}
