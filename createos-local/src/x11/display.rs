//! A connection to an X server: requests, their answers, and what is wrong with them.

use std::borrow::Cow;
use std::collections::HashMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use x11rb_protocol::connect::Connect;
use x11rb_protocol::protocol::xproto::{
    Atom, GetInputFocusRequest, InternAtomRequest, QueryExtensionRequest, Setup,
};
use x11rb_protocol::x11_utils::{ReplyRequest, Request, TryParse, VoidRequest};

/// The length of every event and error, and of the head of every answer.
const PACKET: usize = 32;
/// The largest answer that is read: a picture of the largest screen.
const MAX_REPLY: u64 = 64 << 20;
/// More events and errors than this between two answers are no conversation.
const MAX_ASIDES: usize = 10_000;

/// Why an X server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XError {
    /// The server is gone, or talks nonsense.
    #[error("the X server {0}")]
    Lost(String),
    /// It refused a request, with this code of the X protocol.
    #[error("the X server refused it (X error {0})")]
    Refused(u8),
    /// The window has gone, or was never there.
    #[error("there is no such window")]
    NoWindow,
    /// What was asked does not fit to how the desktop is.
    #[error("{0}")]
    Unfit(String),
}

impl XError {
    pub(super) fn nonsense(what: &str) -> Self {
        Self::Lost(format!("answered with nonsense: {what}"))
    }
}

impl From<std::io::Error> for XError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(format!("went away: {error}"))
    }
}

/// An open connection.
pub(crate) struct Display {
    stream: UnixStream,
    setup: Setup,
    pub(super) root: u32,
    sequence: u16,
    extensions: HashMap<&'static str, u8>,
    atoms: HashMap<&'static str, Atom>,
    unsent: Vec<u8>,
    /// The first error of a request that has no answer.
    failed: Option<u8>,
}

impl Display {
    /// Greets a server over a fresh connection.
    pub(crate) async fn open(mut stream: UnixStream) -> Result<Self, XError> {
        let (mut connect, greeting) = Connect::with_authorization(Vec::new(), Vec::new());
        stream.write_all(&greeting).await?;
        loop {
            let read = stream.read(connect.buffer()).await?;
            if read == 0 {
                return Err(XError::Lost("closed the connection".to_owned()));
            }
            if connect.advance(read) {
                break;
            }
        }
        let setup = connect.into_setup().map_err(|_| XError::nonsense("its greeting"))?;
        let root = setup.roots.first().ok_or_else(|| XError::nonsense("it has no screen"))?.root;
        Ok(Self {
            stream,
            setup,
            root,
            sequence: 0,
            extensions: HashMap::new(),
            atoms: HashMap::new(),
            unsent: Vec::new(),
            failed: None,
        })
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Queues a request without an answer. What is wrong with it shows in [`Self::sync`].
    pub(super) async fn send<R: VoidRequest>(&mut self, request: R) -> Result<(), XError> {
        let opcode = self.opcode_of::<R>().await?;
        self.queue(&request.serialize(opcode).0);
        Ok(())
    }

    /// Asks something.
    pub(super) async fn ask<R: ReplyRequest>(&mut self, request: R) -> Result<R::Reply, XError> {
        let opcode = self.opcode_of::<R>().await?;
        self.queue(&request.serialize(opcode).0);
        self.answer().await
    }

    /// Writes what was queued.
    pub(super) async fn flush(&mut self) -> Result<(), XError> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Waits until the server has done everything, and tells what it refused.
    pub(super) async fn sync(&mut self) -> Result<(), XError> {
        self.queue(&Request::serialize(GetInputFocusRequest, 0).0);
        self.answer::<x11rb_protocol::protocol::xproto::GetInputFocusReply>().await?;
        self.failed.take().map_or(Ok(()), |code| Err(XError::Refused(code)))
    }

    /// The server's number for a name.
    pub(super) async fn atom(&mut self, name: &'static str) -> Result<Atom, XError> {
        if let Some(atom) = self.atoms.get(name) {
            return Ok(*atom);
        }
        let name_bytes = Cow::Borrowed(name.as_bytes());
        let atom = self.ask(InternAtomRequest { only_if_exists: false, name: name_bytes }).await?;
        self.atoms.insert(name, atom.atom);
        Ok(atom.atom)
    }

    async fn opcode_of<R: Request>(&mut self) -> Result<u8, XError> {
        let Some(name) = R::EXTENSION_NAME else { return Ok(0) };
        if let Some(opcode) = self.extensions.get(name) {
            return Ok(*opcode);
        }
        let request = QueryExtensionRequest { name: Cow::Borrowed(name.as_bytes()) };
        self.queue(&Request::serialize(request, 0).0);
        let found: x11rb_protocol::protocol::xproto::QueryExtensionReply = self.answer().await?;
        if !found.present {
            return Err(XError::Unfit(format!("the X server has no extension {name}")));
        }
        self.extensions.insert(name, found.major_opcode);
        Ok(found.major_opcode)
    }

    fn queue(&mut self, request: &[u8]) {
        self.unsent.extend_from_slice(request);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// The answer to the request queued last.
    async fn answer<T: TryParse>(&mut self) -> Result<T, XError> {
        self.flush().await?;
        for _ in 0..MAX_ASIDES {
            let packet = self.packet().await?;
            let sequence = u16::from_ne_bytes([packet[2], packet[3]]);
            match packet[0] {
                0 if sequence == self.sequence => return Err(XError::Refused(packet[1])),
                0 => drop(self.failed.get_or_insert(packet[1])),
                1 if sequence == self.sequence => {
                    let parsed = T::try_parse(&packet);
                    return parsed.map(|(reply, _)| reply).map_err(|_| XError::nonsense("a reply"));
                }
                1 => return Err(XError::nonsense("an answer to no question")),
                // An event; nothing here waits for any.
                _ => {}
            }
        }
        Err(XError::nonsense("events without end"))
    }

    async fn packet(&mut self) -> Result<Vec<u8>, XError> {
        const GENERIC_EVENT: u8 = 35;
        let mut packet = vec![0; PACKET];
        self.stream.read_exact(&mut packet).await?;
        if packet[0] == 1 || packet[0] & 0x7f == GENERIC_EVENT {
            let words = u32::from_ne_bytes([packet[4], packet[5], packet[6], packet[7]]);
            let rest = u64::from(words) * 4;
            if rest > MAX_REPLY {
                return Err(XError::nonsense("a reply that is too large"));
            }
            // It grows with what comes, not with what was announced.
            let read = (&mut self.stream).take(rest).read_to_end(&mut packet).await?;
            if read as u64 != rest {
                return Err(XError::Lost("went away in the middle of an answer".to_owned()));
            }
        }
        Ok(packet)
    }
}
