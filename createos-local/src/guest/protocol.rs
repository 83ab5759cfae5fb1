//! What the engine and the agent inside a sandbox say to each other.
//!
//! One connection is one operation. Each side sends frames: a 4-byte little-endian
//! length, one byte of kind, the payload. The engine's first frame is a
//! [`Request`]; afterwards it sends [`Input`] and the agent sends [`Reply`].
//! Closing the connection ends the operation: a command is killed, an
//! unfinished upload is thrown away.

// The engine and the agent include this file and use their own part.
#![allow(dead_code)]

#[path = "process_protocol.rs"]
mod processes;

pub(crate) use self::processes::*;

use crate::codec::{Malformed, Reader, Writer};

/// Version that both sides must share; the engine asks for it when a sandbox boots.
pub(crate) const VERSION: u32 = 2;
/// Longest payload of a frame. Larger ones are a protocol error.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;
/// Payload size that both sides use for data.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes in front of a payload: its length and kind.
pub(crate) const HEADER: usize = 5;

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Ping,
    /// Asks whether anything would be lost if the machine ended.
    Look,
    Exec {
        /// Program and arguments; never empty.
        argv: Vec<String>,
        /// `KEY=VALUE` entries, the whole environment.
        env: Vec<String>,
        place: Place,
    },
    ReadFile {
        path: Vec<u8>,
    },
    WriteFile {
        path: Vec<u8>,
    },
    /// A process that outlives its connections.
    Spawn(Spawn),
    /// How every managed process is.
    ListProcesses,
    Process {
        id: String,
        call: Call,
    },
    /// A login shell in a terminal, which ends with the connection. It starts with the
    /// first [`Input::Resize`].
    Shell {
        /// `KEY=VALUE` entries, the whole environment.
        env: Vec<String>,
        place: Place,
    },
    /// Ends whatever goes on over other connections, and answers [`Reply::Ready`] when
    /// nothing inside holds one: what leads outside cannot be saved with the sandbox.
    Detach,
}

/// Where a program starts, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The home directory unless given.
    pub(crate) directory: Option<String>,
    /// `user`, `user:group`, by name or number; root unless given.
    pub(crate) user: Option<String>,
}

impl Place {
    /// Written only where it says something, so that agents which do not know of it
    /// understand the rest.
    fn write(&self, writer: Writer) -> Writer {
        if *self == Self::default() {
            return writer;
        }
        let writer = writer.text(self.directory.as_deref().unwrap_or_default());
        writer.text(self.user.as_deref().unwrap_or_default())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.is_at_end() {
            return Ok(Self::default());
        }
        let mut text = || Ok(Some(reader.text()?.to_owned()).filter(|text| !text.is_empty()));
        Ok(Self { directory: text()?, user: text()? })
    }
}

/// Later frames of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Standard input of a command, or content of a file.
    Data(Vec<u8>),
    /// The end: closes standard input, or puts the file in place.
    End,
    /// The size of a shell's terminal.
    Resize(Size),
}

/// Frames of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Pong {
        version: u32,
    },
    /// No process runs but the agent, and there is nothing in memory that files do not hold.
    AtRest(bool),
    /// The command runs, or the file is ready to be written.
    Ready,
    /// Size of the file that follows.
    Size(u64),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// Content of a file.
    Data(Vec<u8>),
    /// The command ended by itself, and its output is closed.
    Exited(i32),
    /// The command was killed by a signal, and its output is closed.
    Signaled(i32),
    /// The file is complete; its size.
    Done(u64),
    Failed {
        kind: Failure,
        message: String,
    },
    /// How a managed process is.
    Process(Box<Status>),
    /// The input was taken; its number.
    Taken(u64),
    /// Output of a managed process, and the place of its last byte.
    Output {
        place: u64,
        channel: Channel,
        bytes: Vec<u8>,
    },
    /// The command of a managed process has ended, and its output with it.
    Ended {
        place: u64,
        exit: Exit,
    },
    /// The output asked for is no longer kept; the oldest place that is.
    Expired {
        oldest: u64,
    },
}

/// Why the agent refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    NoSuchFile,
    /// Not a regular file, or a path that cannot be one.
    BadPath,
    /// The program was not found (a shell would say 127).
    CommandNotFound,
    /// The program is there and cannot be run (a shell would say 126).
    CommandNotRunnable,
    /// No space, no permission, too many processes, and the like.
    Refused,
    NoSuchProcess,
    /// The process is not in the state for this.
    WrongState,
    /// The process does not read its input.
    Full,
}

/// A complete frame around a payload.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

/// Payload length and kind from a frame's first bytes.
pub(crate) fn parse_header(header: [u8; HEADER]) -> Result<(usize, u8), Malformed> {
    let [a, b, c, d, kind] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_PAYLOAD { Err(Malformed) } else { Ok((length, kind)) }
}

fn texts(values: &[String]) -> impl ExactSizeIterator<Item = &str> {
    values.iter().map(String::as_str)
}

fn owned(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

impl Request {
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        let writer = Writer::default();
        match self {
            Self::Ping => frame(0, &[]),
            Self::Look => frame(32, &[]),
            Self::Exec { argv, env, place } => {
                frame(1, &place.write(writer.texts(texts(argv)).texts(texts(env))).finish())
            }
            Self::ReadFile { path } => frame(2, &writer.bytes(path).finish()),
            Self::WriteFile { path } => frame(3, &writer.bytes(path).finish()),
            Self::Spawn(spawn) => frame(4, &spawn.write(writer).finish()),
            Self::ListProcesses => frame(5, &[]),
            Self::Process { id, call } => frame(6, &call.write(writer.text(id)).finish()),
            Self::Shell { env, place } => frame(7, &place.write(writer.texts(texts(env))).finish()),
            Self::Detach => frame(40, &[]),
        }
    }

    pub(crate) fn parse(kind: u8, payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let request = match kind {
            0 => Self::Ping,
            32 => Self::Look,
            1 => {
                let argv = owned(reader.texts()?);
                if argv.is_empty() {
                    return Err(Malformed);
                }
                let env = owned(reader.texts()?);
                Self::Exec { argv, env, place: Place::read(&mut reader)? }
            }
            2 => Self::ReadFile { path: reader.bytes()?.to_owned() },
            3 => Self::WriteFile { path: reader.bytes()?.to_owned() },
            4 => Self::Spawn(Spawn::read(&mut reader)?),
            5 => Self::ListProcesses,
            6 => Self::Process { id: reader.text()?.to_owned(), call: Call::read(&mut reader)? },
            7 => {
                let env = owned(reader.texts()?);
                Self::Shell { env, place: Place::read(&mut reader)? }
            }
            40 => Self::Detach,
            _ => return Err(Malformed),
        };
        reader.finish().map(|()| request)
    }
}

impl Input {
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Data(bytes) => frame(0, bytes),
            Self::End => frame(1, &[]),
            Self::Resize(size) => frame(2, &size.write(Writer::default()).finish()),
        }
    }

    pub(crate) fn parse(kind: u8, payload: Vec<u8>) -> Result<Self, Malformed> {
        match kind {
            0 => Ok(Self::Data(payload)),
            1 if payload.is_empty() => Ok(Self::End),
            2 => {
                let mut reader = Reader::new(&payload);
                let size = Size::read(&mut reader)?;
                reader.finish().map(|()| Self::Resize(size))
            }
            _ => Err(Malformed),
        }
    }
}

impl Failure {
    fn code(self) -> u8 {
        match self {
            Self::NoSuchFile => 0,
            Self::BadPath => 1,
            Self::CommandNotFound => 2,
            Self::CommandNotRunnable => 3,
            Self::Refused => 4,
            Self::NoSuchProcess => 5,
            Self::WrongState => 6,
            Self::Full => 7,
        }
    }

    fn from_code(code: u8) -> Result<Self, Malformed> {
        Ok(match code {
            0 => Self::NoSuchFile,
            1 => Self::BadPath,
            2 => Self::CommandNotFound,
            3 => Self::CommandNotRunnable,
            4 => Self::Refused,
            5 => Self::NoSuchProcess,
            6 => Self::WrongState,
            7 => Self::Full,
            _ => return Err(Malformed),
        })
    }
}

impl Reply {
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        let writer = Writer::default();
        match self {
            Self::Pong { version } => frame(0, &writer.u32(*version).finish()),
            Self::AtRest(is_so) => frame(32, &writer.u32(u32::from(*is_so)).finish()),
            Self::Ready => frame(1, &[]),
            Self::Size(size) => frame(2, &writer.u64(*size).finish()),
            Self::Stdout(bytes) => frame(3, bytes),
            Self::Stderr(bytes) => frame(4, bytes),
            Self::Data(bytes) => frame(5, bytes),
            Self::Exited(code) => frame(6, &writer.i32(*code).finish()),
            Self::Signaled(signal) => frame(7, &writer.i32(*signal).finish()),
            Self::Done(size) => frame(8, &writer.u64(*size).finish()),
            Self::Failed { kind, message } => {
                frame(9, &writer.u8(kind.code()).text(message).finish())
            }
            Self::Process(status) => frame(10, &status.write(writer).finish()),
            Self::Taken(number) => frame(11, &writer.u64(*number).finish()),
            Self::Output { place, channel, bytes } => {
                frame(12, &writer.u64(*place).u8(channel.code()).bytes(bytes).finish())
            }
            Self::Ended { place, exit } => frame(13, &exit.write(writer.u64(*place)).finish()),
            Self::Expired { oldest } => frame(14, &writer.u64(*oldest).finish()),
        }
    }

    pub(crate) fn parse(kind: u8, payload: Vec<u8>) -> Result<Self, Malformed> {
        match kind {
            3 => return Ok(Self::Stdout(payload)),
            4 => return Ok(Self::Stderr(payload)),
            5 => return Ok(Self::Data(payload)),
            _ => {}
        }
        let mut reader = Reader::new(&payload);
        let reply = match kind {
            0 => Self::Pong { version: reader.u32()? },
            32 => Self::AtRest(match reader.u32()? {
                0 => false,
                1 => true,
                _ => return Err(Malformed),
            }),
            1 => Self::Ready,
            2 => Self::Size(reader.u64()?),
            6 => Self::Exited(reader.i32()?),
            7 => Self::Signaled(reader.i32()?),
            8 => Self::Done(reader.u64()?),
            9 => Self::Failed {
                kind: Failure::from_code(reader.u8()?)?,
                message: reader.text()?.to_owned(),
            },
            10 => Self::Process(Box::new(Status::read(&mut reader)?)),
            11 => Self::Taken(reader.u64()?),
            12 => Self::Output {
                place: reader.u64()?,
                channel: Channel::from_code(reader.u8()?)?,
                bytes: reader.bytes()?.to_vec(),
            },
            13 => Self::Ended { place: reader.u64()?, exit: Exit::read(&mut reader)? },
            14 => Self::Expired { oldest: reader.u64()? },
            _ => return Err(Malformed),
        };
        reader.finish().map(|()| reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(frame: &[u8]) -> (u8, Vec<u8>) {
        let header: [u8; HEADER] = frame[..HEADER].try_into().expect("header");
        let (length, kind) = parse_header(header).expect("valid header");
        assert_eq!(length, frame.len() - HEADER);
        (kind, frame[HEADER..].to_vec())
    }

    const SIZE: Size = Size { rows: 24, cols: u16::MAX };

    fn calls() -> impl Iterator<Item = Call> {
        [
            Call::Look,
            Call::Follow { after: u64::MAX },
            Call::Feed(vec![0, 255]),
            Call::CloseInput,
            Call::Resize(SIZE),
            Call::Signal(15),
            Call::Await { tree: true },
            Call::Terminate { grace_ms: 1000 },
        ]
        .into_iter()
    }

    fn status() -> Status {
        Status {
            id: "prc-1".into(),
            has_terminal: true,
            pid: 7,
            exit: None,
            tree_ended: false,
            terminating: true,
            created: 1 << 40,
            finished: None,
            argv: vec!["sh".into()],
            directory: None,
            foreground: Some(Foreground { pid: 9, argv: vec!["vi".into(), "x".into()] }),
            oldest: 1,
            newest: 2,
            kept: 2,
        }
    }

    #[test]
    fn requests_round_trip() {
        for request in [
            Request::Ping,
            Request::Look,
            Request::Exec {
                argv: vec!["ls".into(), "-l".into()],
                env: vec!["A=b".into()],
                place: Place::default(),
            },
            Request::Exec {
                argv: vec!["ls".into()],
                env: vec![],
                place: Place { directory: None, user: Some("web".into()) },
            },
            Request::ReadFile { path: "/etc/hosts".into() },
            Request::WriteFile { path: b"/tmp/\xff".into() },
            Request::Spawn(Spawn {
                id: "prc-1".into(),
                argv: vec!["sleep".into(), "1".into()],
                env: vec!["A=b".into()],
                directory: Some("/srv".into()),
                terminal: Some(SIZE),
                user: Some("web:log".into()),
            }),
            Request::Spawn(Spawn {
                id: "prc-2".into(),
                argv: vec![],
                env: vec![],
                directory: None,
                terminal: None,
                user: None,
            }),
            Request::ListProcesses,
            Request::Shell { env: vec!["TERM=xterm".into()], place: Place::default() },
            Request::Shell {
                env: vec![],
                place: Place { directory: Some("/srv".into()), user: None },
            },
            Request::Detach,
        ]
        .into_iter()
        .chain(calls().map(|call| Request::Process { id: "prc-1".into(), call }))
        {
            let (kind, payload) = split(&request.to_frame());
            assert_eq!(Request::parse(kind, &payload), Ok(request));
        }
    }

    #[test]
    fn replies_and_input_round_trip() {
        for reply in [
            Reply::Pong { version: 3 },
            Reply::AtRest(true),
            Reply::AtRest(false),
            Reply::Ready,
            Reply::Size(1 << 33),
            Reply::Stdout(vec![0, 255]),
            Reply::Stderr(vec![]),
            Reply::Data(vec![1]),
            Reply::Exited(255),
            Reply::Signaled(9),
            Reply::Done(0),
            Reply::Failed { kind: Failure::BadPath, message: "no".into() },
            Reply::Failed { kind: Failure::Full, message: "no".into() },
            Reply::Process(Box::new(status())),
            Reply::Process(Box::new(Status {
                exit: Some(Exit::Signal(9)),
                finished: Some(3),
                directory: Some(String::new()),
                foreground: None,
                ..status()
            })),
            Reply::Taken(3),
            Reply::Output { place: 9, channel: Channel::Stderr, bytes: vec![0, 1] },
            Reply::Ended { place: 10, exit: Exit::Code(-1) },
            Reply::Expired { oldest: 41 },
        ] {
            let (kind, payload) = split(&reply.to_frame());
            assert_eq!(Reply::parse(kind, payload), Ok(reply));
        }
        for input in [Input::Data(vec![0; 9]), Input::End, Input::Resize(SIZE)] {
            let (kind, payload) = split(&input.to_frame());
            assert_eq!(Input::parse(kind, payload), Ok(input));
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert!(parse_header([0xff, 0xff, 0xff, 0xff, 0]).is_err());
        for kind in 0..=u8::MAX {
            // No payload kind accepts trailing bytes or a cut integer by accident.
            for payload in [vec![1], vec![0xff; 7], vec![0; 64]] {
                if !(3..=5).contains(&kind) {
                    assert!(Reply::parse(kind, payload.clone()).is_err(), "reply {kind}");
                }
                assert!(Request::parse(kind, &payload).is_err(), "request {kind}");
            }
        }
        let no_program =
            Request::Exec { argv: vec![], env: vec![], place: Place::default() }.to_frame();
        assert!(Request::parse(1, &no_program[HEADER..]).is_err());
    }
}
