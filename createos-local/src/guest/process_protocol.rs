//! The part of the protocol that is about managed processes and terminals.

use super::MAX_PAYLOAD;
use crate::codec::{Malformed, Reader, Writer};

/// Longest program name and arguments of a managed process, in bytes: they are kept.
pub(crate) const MAX_COMMAND: usize = 128 << 10;
/// Most input of a managed process that waits to be read, and the longest single one.
pub(crate) const MAX_INPUT: usize = MAX_PAYLOAD / 2;

/// A process to start and keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spawn {
    /// The engine's name for it.
    pub(crate) id: String,
    /// Program and arguments; empty for the login shell.
    pub(crate) argv: Vec<String>,
    /// `KEY=VALUE` entries, the whole environment.
    pub(crate) env: Vec<String>,
    /// Where it starts; the home directory unless given.
    pub(crate) directory: Option<String>,
    /// Given, it gets a terminal.
    pub(crate) terminal: Option<Size>,
    /// `user`, `user:group`, by name or number; root unless given.
    pub(crate) user: Option<String>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

/// What to do with a managed process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Say how it is.
    Look,
    /// Send its output behind this place, then as it comes, then its end.
    Follow {
        after: u64,
    },
    /// Write to its input, once there is room. Any frame of the engine withdraws it.
    Feed(Vec<u8>),
    CloseInput,
    Resize(Size),
    /// To its process group, or to the one in the foreground of its terminal.
    Signal(i32),
    /// Say how it is once the command, or everything it started too, has ended.
    Await {
        tree: bool,
    },
    /// End it and everything it started: SIGTERM, and SIGKILL after the grace. Say how
    /// it is then.
    Terminate {
        grace_ms: u32,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Where output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
    Terminal,
}

/// How a managed process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) id: String,
    pub(crate) has_terminal: bool,
    pub(crate) pid: i32,
    pub(crate) exit: Option<Exit>,
    pub(crate) tree_ended: bool,
    pub(crate) terminating: bool,
    /// Milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) finished: Option<u64>,
    pub(crate) argv: Vec<String>,
    pub(crate) directory: Option<String>,
    pub(crate) foreground: Option<Foreground>,
    /// Place of the oldest byte that is kept.
    pub(crate) oldest: u64,
    /// Place of the newest byte, or of the end.
    pub(crate) newest: u64,
    /// Bytes that are kept.
    pub(crate) kept: u64,
}

/// A job in the foreground of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreground {
    pub(crate) pid: i32,
    pub(crate) argv: Vec<String>,
}

fn texts(writer: Writer, values: &[String]) -> Writer {
    writer.texts(values.iter().map(String::as_str))
}

fn read_texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    Ok(reader.texts()?.into_iter().map(str::to_owned).collect())
}

/// An absent text and an empty one are different things.
fn option<T>(writer: Writer, value: Option<T>, write: impl FnOnce(Writer, T) -> Writer) -> Writer {
    match value {
        None => writer.u8(0),
        Some(value) => write(writer.u8(1), value),
    }
}

fn read_option<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if read_flag(reader)? { read(reader).map(Some) } else { Ok(None) }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

impl Size {
    pub(super) fn write(self, writer: Writer) -> Writer {
        writer.u32(self.rows.into()).u32(self.cols.into())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut side = || u16::try_from(reader.u32()?).map_err(|_| Malformed);
        Ok(Self { rows: side()?, cols: side()? })
    }
}

impl Spawn {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        let writer = texts(texts(writer.text(&self.id), &self.argv), &self.env);
        let writer = option(writer, self.directory.as_deref(), Writer::text);
        let writer = option(writer, self.terminal, |writer, size| size.write(writer));
        // Only where it says something: agents that do not know of it understand the rest.
        match self.user.as_deref() {
            Some(user) => writer.text(user),
            None => writer,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.text()?.to_owned(),
            argv: read_texts(reader)?,
            env: read_texts(reader)?,
            directory: read_option(reader, |reader| reader.text().map(str::to_owned))?,
            terminal: read_option(reader, Size::read)?,
            user: match reader.is_at_end() {
                true => None,
                false => Some(reader.text()?.to_owned()),
            },
        })
    }
}

impl Call {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::Look => writer.u8(0),
            Self::Follow { after } => writer.u8(1).u64(*after),
            Self::Feed(bytes) => writer.u8(2).bytes(bytes),
            Self::CloseInput => writer.u8(3),
            Self::Resize(size) => size.write(writer.u8(4)),
            Self::Signal(signal) => writer.u8(5).i32(*signal),
            Self::Await { tree } => writer.u8(6).u8((*tree).into()),
            Self::Terminate { grace_ms } => writer.u8(7).u32(*grace_ms),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            0 => Self::Look,
            1 => Self::Follow { after: reader.u64()? },
            2 => Self::Feed(reader.bytes()?.to_vec()),
            3 => Self::CloseInput,
            4 => Self::Resize(Size::read(reader)?),
            5 => Self::Signal(reader.i32()?),
            6 => Self::Await { tree: read_flag(reader)? },
            7 => Self::Terminate { grace_ms: reader.u32()? },
            _ => return Err(Malformed),
        })
    }
}

impl Exit {
    pub(super) fn write(self, writer: Writer) -> Writer {
        match self {
            Self::Code(code) => writer.u8(0).i32(code),
            Self::Signal(signal) => writer.u8(1).i32(signal),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0 => Ok(Self::Code(reader.i32()?)),
            1 => Ok(Self::Signal(reader.i32()?)),
            _ => Err(Malformed),
        }
    }
}

impl Channel {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Terminal => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Result<Self, Malformed> {
        Ok(match code {
            0 => Self::Stdout,
            1 => Self::Stderr,
            2 => Self::Terminal,
            _ => return Err(Malformed),
        })
    }
}

impl Status {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        let writer = writer.text(&self.id).u8(self.has_terminal.into()).i32(self.pid);
        let writer = option(writer, self.exit, |writer, exit| exit.write(writer));
        let writer = writer.u8(self.tree_ended.into()).u8(self.terminating.into());
        let writer = option(writer.u64(self.created), self.finished, Writer::u64);
        let writer = texts(writer, &self.argv);
        let writer = option(writer, self.directory.as_deref(), Writer::text);
        let writer = option(writer, self.foreground.as_ref(), |writer, job| {
            texts(writer.i32(job.pid), &job.argv)
        });
        writer.u64(self.oldest).u64(self.newest).u64(self.kept)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.text()?.to_owned(),
            has_terminal: read_flag(reader)?,
            pid: reader.i32()?,
            exit: read_option(reader, Exit::read)?,
            tree_ended: read_flag(reader)?,
            terminating: read_flag(reader)?,
            created: reader.u64()?,
            finished: read_option(reader, Reader::u64)?,
            argv: read_texts(reader)?,
            directory: read_option(reader, |reader| reader.text().map(str::to_owned))?,
            foreground: read_option(reader, |reader| {
                Ok(Foreground { pid: reader.i32()?, argv: read_texts(reader)? })
            })?,
            oldest: reader.u64()?,
            newest: reader.u64()?,
            kept: reader.u64()?,
        })
    }
}
