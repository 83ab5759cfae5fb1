//! What the engine and the warden say to each other: one packet is one message.
//!
//! Paths are relative to the data directory, which is the warden's own argument.

// The engine and the warden include this file and use their own part.
#![allow(dead_code)]

use crate::codec::{Malformed, Reader, Writer};
use crate::network_protocol::{Link, Subnet};

/// Longest packet; both sides refuse longer ones.
pub(crate) const MAX_PACKET: usize = 128 << 10;

/// Engine to warden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Once, first.
    Configure(Configure),
    Boot(Boot),
    /// Ends every process of a sandbox; answered when the last one is gone and its disk
    /// is closed.
    Stop {
        ticket: u64,
        id: String,
        /// As in the boot.
        directory: String,
        /// Whether the sandbox will never be booted again. Its disk is taken out of the
        /// directory, which can then be removed.
        discard: bool,
    },
    /// Makes the disk of a running sandbox larger.
    Grow {
        ticket: u64,
        directory: String,
        mib: u64,
    },
    /// Copies the disk in one directory to another, also while it is in use.
    CopyDisk {
        ticket: u64,
        from: String,
        to: String,
    },
    /// Makes every process of a sandbox stand still; answered when they do.
    Freeze {
        ticket: u64,
        id: String,
    },
    /// Lets them go on.
    Thaw {
        ticket: u64,
        id: String,
    },
    /// Saves the processes of a running sandbox and ends them. Where that fails, they
    /// run on.
    Dump {
        ticket: u64,
        id: String,
        /// Of its PID 1: nobody means another life of it.
        pid: i32,
        memory: Memory,
    },
    /// Ends the sandbox that the boot with this ticket made, if it did. Not answered.
    Abandon {
        boot: u64,
    },
    /// Puts a running sandbox on these private networks, and takes it off all others.
    SetLinks {
        ticket: u64,
        id: String,
        links: Vec<Link>,
        /// Whether the addresses stay its own that it had on those.
        keep_addresses: bool,
    },
    /// Makes a line from the engine to the router of a private network, over which the devices
    /// that are attached to it speak.
    OpenLine {
        ticket: u64,
        network: String,
        subnet: Subnet,
    },
    /// Says that the engine has closed the line that was asked for so. Not answered.
    CloseLine {
        line: u64,
    },
    /// Mounts a filesystem that the engine serves in a running sandbox.
    MountVolume {
        ticket: u64,
        id: String,
        path: String,
    },
    /// Unmounts it; unless forced, only if nobody uses it.
    UnmountVolume {
        ticket: u64,
        volume: u32,
        force: bool,
    },
    /// Starts a socket maker in a running sandbox's network.
    MakeSockets {
        ticket: u64,
        id: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configure {
    /// Name of this engine's directory in each control group tree.
    pub(crate) cgroup: String,
    /// Directory that holds `.cos/agent`.
    pub(crate) agent_layer: String,
    /// The size that most disks have.
    pub(crate) disk_mib: u64,
    /// Compiled filters, loaded in this order.
    pub(crate) seccomp: Vec<Vec<u8>>,
    /// Those of sandboxes that may nest.
    pub(crate) nesting_seccomp: Vec<Vec<u8>>,
    /// The compiled filter of socket makers.
    pub(crate) socket_filter: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) ticket: u64,
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) ip: [u8; 4],
    /// Directory of the base's files.
    pub(crate) base: String,
    /// Whether the base has no `/usr` of its own and shows the host's.
    pub(crate) host_usr: bool,
    /// What belongs to this sandbox alone: a directory with `root/{upper,work}` and, for
    /// `host_usr`, `usr/{upper,work}`; or with a disk image on which those are.
    pub(crate) directory: String,
    /// Size of the disk, which is made if it is missing. 0: no disk, plain directories.
    pub(crate) disk_mib: u64,
    /// What lies between that and the base, topmost first: directories of the same kind
    /// that once were private, with or without an image.
    pub(crate) layers: Vec<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_percent: u32,
    pub(crate) max_processes: u32,
    /// Whether it may hold containers of its own: all capabilities within its user
    /// namespace, mounts, a control group tree of its own.
    pub(crate) nesting: bool,
    /// The saved processes that it goes on with; otherwise it starts afresh.
    pub(crate) memory: Option<Memory>,
}

/// Where the processes of a sandbox are saved, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Directory of the image, relative to the data directory. It exists.
    pub(crate) images: String,
    /// Absolute path of the CRIU program.
    pub(crate) criu: String,
}

/// Warden to engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Configured(Facts),
    /// Comes with a descriptor: the pidfd of the sandbox's PID 1.
    Booted {
        ticket: u64,
        pid: i32,
    },
    Failed {
        ticket: u64,
        message: String,
    },
    /// A stop, a growth or a copy has come to its end.
    Done {
        ticket: u64,
    },
    Frozen {
        ticket: u64,
    },
    Thawed {
        ticket: u64,
    },
    /// Comes with a descriptor: the engine's end of a socket maker.
    MakesSockets {
        ticket: u64,
    },
    /// Comes with a descriptor: each packet that is read from or written to it goes over the
    /// line.
    LineOpened {
        ticket: u64,
    },
    /// Comes with a descriptor: what the filesystem is served through. Its files are shown
    /// as root's where they have this id.
    VolumeMounted {
        ticket: u64,
        volume: u32,
        owner: u32,
    },
    /// Somebody uses what was to be unmounted.
    VolumeBusy {
        ticket: u64,
    },
    /// A sandbox ended without being asked to.
    Ended {
        id: String,
        pid: i32,
        reason: String,
    },
}

/// What the warden found this machine able to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Host root with mapped ids; otherwise an ordinary user.
    pub(crate) privileged: bool,
    /// Ids that exist inside: 65536, or 1.
    pub(crate) ids: u32,
    /// Where each limit is enforced; a missing one is advisory.
    pub(crate) memory: Option<String>,
    pub(crate) cpu: Option<String>,
    pub(crate) processes: Option<String>,
    /// Whether sandboxes may hold containers of their own.
    pub(crate) nesting: bool,
    /// Why disks have no limit; nothing where they have.
    pub(crate) no_disks: Option<String>,
    /// Why sandboxes have no way out; nothing where they have.
    pub(crate) no_capture: Option<String>,
    /// What went wrong on the way, one sentence each.
    pub(crate) notes: Vec<String>,
}

impl Memory {
    fn write(writer: Writer, memory: &Self) -> Writer {
        writer.text(&memory.images).text(&memory.criu)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { images: reader.text()?.to_owned(), criu: reader.text()?.to_owned() })
    }
}

fn texts(values: &[String]) -> impl ExactSizeIterator<Item = &str> {
    values.iter().map(String::as_str)
}

fn optional<T: ?Sized>(
    writer: Writer,
    value: Option<&T>,
    write: fn(Writer, &T) -> Writer,
) -> Writer {
    match value {
        Some(value) => write(writer.u8(1), value),
        None => writer.u8(0),
    }
}

fn read_optional<T>(
    reader: &mut Reader<'_>,
    read: fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        _ => Err(Malformed),
    }
}

fn read_place(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    reader.text().map(str::to_owned)
}

impl Boot {
    /// Whether this is one of the directories that the sandbox is layered from.
    pub(crate) fn uses(&self, directory: &str) -> bool {
        self.directory == directory || self.layers.iter().any(|layer| layer == directory)
    }
}

impl Command {
    pub(crate) fn to_packet(&self) -> Vec<u8> {
        let writer = Writer::default();
        match self {
            Self::Configure(configure) => {
                let writer = writer.u8(0).text(&configure.cgroup).text(&configure.agent_layer);
                let writer = writer.u64(configure.disk_mib);
                let writer = writer.byte_strings(&configure.seccomp);
                let writer = writer.byte_strings(&configure.nesting_seccomp);
                writer.bytes(&configure.socket_filter).finish()
            }
            Self::Boot(boot) => {
                let writer = writer
                    .u8(1)
                    .u64(boot.ticket)
                    .text(&boot.id)
                    .text(&boot.hostname)
                    .bytes(&boot.ip)
                    .text(&boot.base)
                    .u8(u8::from(boot.host_usr))
                    .text(&boot.directory)
                    .u64(boot.disk_mib)
                    .texts(texts(&boot.layers))
                    .u64(boot.memory_bytes)
                    .u32(boot.cpu_percent)
                    .u32(boot.max_processes)
                    .u8(u8::from(boot.nesting));
                optional(writer, boot.memory.as_ref(), Memory::write).finish()
            }
            Self::Stop { ticket, id, directory, discard } => {
                let writer = writer.u8(2).u64(*ticket).text(id).text(directory);
                writer.u8(u8::from(*discard)).finish()
            }
            Self::Abandon { boot } => writer.u8(3).u64(*boot).finish(),
            Self::MakeSockets { ticket, id } => writer.u8(4).u64(*ticket).text(id).finish(),
            Self::SetLinks { ticket, id, links, keep_addresses } => {
                let writer = writer.u8(60).u64(*ticket).text(id).u8(u8::from(*keep_addresses));
                let writer = writer.u32(u32::try_from(links.len()).unwrap_or(u32::MAX));
                links.iter().fold(writer, Link::write).finish()
            }
            Self::OpenLine { ticket, network, subnet } => {
                subnet.write(writer.u8(61).u64(*ticket).text(network)).finish()
            }
            Self::CloseLine { line } => writer.u8(62).u64(*line).finish(),
            Self::MountVolume { ticket, id, path } => {
                writer.u8(50).u64(*ticket).text(id).text(path).finish()
            }
            Self::UnmountVolume { ticket, volume, force } => {
                writer.u8(51).u64(*ticket).u32(*volume).u8(u8::from(*force)).finish()
            }
            Self::Freeze { ticket, id } => writer.u8(32).u64(*ticket).text(id).finish(),
            Self::Thaw { ticket, id } => writer.u8(33).u64(*ticket).text(id).finish(),
            Self::CopyDisk { ticket, from, to } => {
                writer.u8(6).u64(*ticket).text(from).text(to).finish()
            }
            Self::Grow { ticket, directory, mib } => {
                writer.u8(5).u64(*ticket).text(directory).u64(*mib).finish()
            }
            Self::Dump { ticket, id, pid, memory } => {
                Memory::write(writer.u8(40).u64(*ticket).text(id).i32(*pid), memory).finish()
            }
        }
    }

    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(packet);
        let command = match reader.u8()? {
            0 => Self::Configure(Configure {
                cgroup: reader.text()?.to_owned(),
                agent_layer: reader.text()?.to_owned(),
                disk_mib: reader.u64()?,
                seccomp: reader.byte_strings()?,
                nesting_seccomp: reader.byte_strings()?,
                socket_filter: reader.bytes()?.to_vec(),
            }),
            1 => Self::Boot(Boot {
                ticket: reader.u64()?,
                id: reader.text()?.to_owned(),
                hostname: reader.text()?.to_owned(),
                ip: reader.bytes()?.try_into().map_err(|_| Malformed)?,
                base: reader.text()?.to_owned(),
                host_usr: reader.u8()? != 0,
                directory: reader.text()?.to_owned(),
                disk_mib: reader.u64()?,
                layers: reader.texts()?.into_iter().map(str::to_owned).collect(),
                memory_bytes: reader.u64()?,
                cpu_percent: reader.u32()?,
                max_processes: reader.u32()?,
                nesting: reader.u8()? != 0,
                memory: read_optional(&mut reader, Memory::read)?,
            }),
            2 => Self::Stop {
                ticket: reader.u64()?,
                id: reader.text()?.to_owned(),
                directory: reader.text()?.to_owned(),
                discard: reader.u8()? != 0,
            },
            3 => Self::Abandon { boot: reader.u64()? },
            4 => Self::MakeSockets { ticket: reader.u64()?, id: reader.text()?.to_owned() },
            60 => Self::SetLinks {
                ticket: reader.u64()?,
                id: reader.text()?.to_owned(),
                keep_addresses: reader.u8()? != 0,
                links: (0..reader.u32()?)
                    .map(|_| Link::read(&mut reader))
                    .collect::<Result<_, _>>()?,
            },
            61 => Self::OpenLine {
                ticket: reader.u64()?,
                network: reader.text()?.to_owned(),
                subnet: Subnet::read(&mut reader)?,
            },
            62 => Self::CloseLine { line: reader.u64()? },
            50 => Self::MountVolume {
                ticket: reader.u64()?,
                id: reader.text()?.to_owned(),
                path: reader.text()?.to_owned(),
            },
            51 => Self::UnmountVolume {
                ticket: reader.u64()?,
                volume: reader.u32()?,
                force: reader.u8()? != 0,
            },
            32 => Self::Freeze { ticket: reader.u64()?, id: reader.text()?.to_owned() },
            33 => Self::Thaw { ticket: reader.u64()?, id: reader.text()?.to_owned() },
            6 => Self::CopyDisk {
                ticket: reader.u64()?,
                from: reader.text()?.to_owned(),
                to: reader.text()?.to_owned(),
            },
            5 => Self::Grow {
                ticket: reader.u64()?,
                directory: reader.text()?.to_owned(),
                mib: reader.u64()?,
            },
            40 => Self::Dump {
                ticket: reader.u64()?,
                id: reader.text()?.to_owned(),
                pid: reader.i32()?,
                memory: Memory::read(&mut reader)?,
            },
            _ => return Err(Malformed),
        };
        reader.finish().map(|()| command)
    }
}

impl Report {
    pub(crate) fn to_packet(&self) -> Vec<u8> {
        let writer = Writer::default();
        match self {
            Self::Configured(facts) => {
                let writer = writer.u8(0).u8(u8::from(facts.privileged)).u32(facts.ids);
                let writer = optional(writer, facts.memory.as_deref(), Writer::text);
                let writer = optional(writer, facts.cpu.as_deref(), Writer::text);
                let writer = optional(writer, facts.processes.as_deref(), Writer::text);
                let writer = writer.u8(u8::from(facts.nesting));
                let writer = optional(writer, facts.no_disks.as_deref(), Writer::text);
                let writer = optional(writer, facts.no_capture.as_deref(), Writer::text);
                writer.texts(texts(&facts.notes)).finish()
            }
            Self::Booted { ticket, pid } => writer.u8(1).u64(*ticket).i32(*pid).finish(),
            Self::Failed { ticket, message } => writer.u8(2).u64(*ticket).text(message).finish(),
            Self::Frozen { ticket } => writer.u8(32).u64(*ticket).finish(),
            Self::Thawed { ticket } => writer.u8(33).u64(*ticket).finish(),
            Self::Done { ticket } => writer.u8(3).u64(*ticket).finish(),
            Self::Ended { id, pid, reason } => {
                writer.u8(4).text(id).i32(*pid).text(reason).finish()
            }
            Self::MakesSockets { ticket } => writer.u8(5).u64(*ticket).finish(),
            Self::LineOpened { ticket } => writer.u8(61).u64(*ticket).finish(),
            Self::VolumeMounted { ticket, volume, owner } => {
                writer.u8(50).u64(*ticket).u32(*volume).u32(*owner).finish()
            }
            Self::VolumeBusy { ticket } => writer.u8(51).u64(*ticket).finish(),
        }
    }

    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(packet);
        let report = match reader.u8()? {
            0 => Self::Configured(Facts {
                privileged: reader.u8()? != 0,
                ids: reader.u32()?,
                memory: read_optional(&mut reader, read_place)?,
                cpu: read_optional(&mut reader, read_place)?,
                processes: read_optional(&mut reader, read_place)?,
                nesting: reader.u8()? != 0,
                no_disks: read_optional(&mut reader, read_place)?,
                no_capture: read_optional(&mut reader, read_place)?,
                notes: reader.texts()?.into_iter().map(str::to_owned).collect(),
            }),
            1 => Self::Booted { ticket: reader.u64()?, pid: reader.i32()? },
            2 => Self::Failed { ticket: reader.u64()?, message: reader.text()?.to_owned() },
            32 => Self::Frozen { ticket: reader.u64()? },
            33 => Self::Thawed { ticket: reader.u64()? },
            3 => Self::Done { ticket: reader.u64()? },
            4 => Self::Ended {
                id: reader.text()?.to_owned(),
                pid: reader.i32()?,
                reason: reader.text()?.to_owned(),
            },
            5 => Self::MakesSockets { ticket: reader.u64()? },
            61 => Self::LineOpened { ticket: reader.u64()? },
            50 => Self::VolumeMounted {
                ticket: reader.u64()?,
                volume: reader.u32()?,
                owner: reader.u32()?,
            },
            51 => Self::VolumeBusy { ticket: reader.u64()? },
            _ => return Err(Malformed),
        };
        reader.finish().map(|()| report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_round_trip() {
        let memory = Memory { images: "sandboxes/x/images/1".into(), criu: "/c".into() };
        for command in [
            Command::Configure(Configure {
                cgroup: "c".into(),
                agent_layer: "a".into(),
                disk_mib: 10240,
                seccomp: vec![vec![1; 8], vec![]],
                nesting_seccomp: vec![vec![2; 8]],
                socket_filter: vec![2; 16],
            }),
            Command::Boot(Boot {
                ticket: 7,
                id: "sb-1".into(),
                hostname: "calm-heron".into(),
                ip: [10, 0, 0, 2],
                base: "bases/x".into(),
                host_usr: true,
                directory: "sandboxes/sb-1".into(),
                disk_mib: 512,
                layers: vec!["layers/a".into(), "layers/b".into()],
                memory_bytes: 1 << 30,
                cpu_percent: 25,
                max_processes: 512,
                nesting: true,
                memory: Some(memory.clone()),
            }),
            Command::Dump { ticket: 9, id: "sb-1".into(), pid: 42, memory },
            Command::Stop {
                ticket: 8,
                id: "sb-1".into(),
                directory: "sandboxes/sb-1".into(),
                discard: true,
            },
            Command::Grow { ticket: 9, directory: "sandboxes/sb-1".into(), mib: 20480 },
            Command::CopyDisk { ticket: 9, from: "a".into(), to: "b".into() },
            Command::Abandon { boot: 7 },
            Command::MakeSockets { ticket: 9, id: "sb-1".into() },
            Command::SetLinks {
                ticket: 9,
                id: "sb-1".into(),
                keep_addresses: true,
                links: vec![Link {
                    network: "net-1".into(),
                    subnet: Subnet::new([10, 64, 0, 0], 22),
                    address: [10, 64, 0, 2].into(),
                    interface: "net0".into(),
                    devices: vec![[100, 64, 0, 2].into(), [100, 64, 0, 3].into()],
                }],
            },
            Command::OpenLine {
                ticket: 9,
                network: "net-1".into(),
                subnet: Subnet::new([10, 64, 0, 0], 22),
            },
            Command::CloseLine { line: 9 },
            Command::MountVolume { ticket: 9, id: "sb-1".into(), path: "/mnt".into() },
            Command::UnmountVolume { ticket: 9, volume: 3, force: true },
            Command::Freeze { ticket: 9, id: "sb-1".into() },
            Command::Thaw { ticket: 10, id: "sb-1".into() },
        ] {
            let packet = command.to_packet();
            for length in 0..packet.len() {
                assert!(Command::parse(&packet[..length]).is_err(), "cut at {length}");
            }
            assert_eq!(Command::parse(&packet), Ok(command));
        }
    }

    #[test]
    fn reports_round_trip() {
        for report in [
            Report::Configured(Facts {
                privileged: true,
                ids: 65536,
                memory: Some("/sys/fs/cgroup/memory".into()),
                no_disks: Some("why".into()),
                no_capture: Some("because".into()),
                notes: vec!["n".into()],
                ..Facts::default()
            }),
            Report::Booted { ticket: 1, pid: 42 },
            Report::Failed { ticket: 2, message: "no".into() },
            Report::MakesSockets { ticket: 4 },
            Report::LineOpened { ticket: 4 },
            Report::VolumeMounted { ticket: 4, volume: 3, owner: 7 },
            Report::VolumeBusy { ticket: 4 },
            Report::Frozen { ticket: 4 },
            Report::Thawed { ticket: 5 },
            Report::Done { ticket: 3 },
            Report::Ended { id: "sb".into(), pid: 42, reason: "killed".into() },
        ] {
            let packet = report.to_packet();
            for length in 0..packet.len() {
                assert!(Report::parse(&packet[..length]).is_err(), "cut at {length}");
            }
            assert_eq!(Report::parse(&packet), Ok(report));
        }
    }
}
