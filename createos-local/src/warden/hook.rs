//! What happens inside a sandbox while CRIU holds it still: CRIU runs the warden's program
//! for that at certain moments, and gives up where it fails.

use crate::codec::{Reader, Writer};
use crate::criu::{self, REFUSAL};
use crate::failure::{Context, Failure, Result};
use crate::inside;
use crate::probe::in_child;
use crate::sys::{self, Clock, Moment};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;

/// Set by CRIU: what it is at.
pub(crate) const MOMENT: &str = "CRTOOLS_SCRIPT_ACTION";
const INIT: &str = "CRTOOLS_INIT_PID";
const IMAGE: &str = "CRTOOLS_IMAGE_DIR";
/// Set by the warden: the sandbox's address.
pub(crate) const ADDRESS: &str = "CREATEOS_ADDRESS";
/// And, where sandboxes have one, that it has a way out.
pub(crate) const CAPTURE: &str = "CREATEOS_CAPTURE";
/// And the image itself, of which CRIU sees a view.
pub(crate) const SOURCE: &str = "CREATEOS_IMAGE";
/// Added to the name of an image that must not be used again.
pub(crate) const USED: &str = "used";

/// In the image: what is to be the same when the processes go on.
pub(crate) const MACHINE: &str = "machine";
const VERSION: u8 = 1;
/// Lines of a process's status that hold what keeps it inside.
const WALLS: [&str; 6] =
    ["CapInh:", "CapPrm:", "CapBnd:", "CapAmb:", "Seccomp:", "Seccomp_filters:"];

/// What the image says about the machine around the processes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    ip: [u8; 4],
    /// The clocks that only go forward, as the processes last saw them.
    pub(crate) monotonic: Moment,
    pub(crate) boottime: Moment,
    /// What keeps PID 1 inside.
    walls: String,
    /// The image's files, and how long they are.
    pub(crate) files: Vec<(String, u64)>,
}

impl Machine {
    fn to_bytes(&self) -> Vec<u8> {
        let moment = |writer: Writer, moment: Moment| {
            writer.u64(moment.seconds.cast_unsigned()).u32(moment.nanoseconds)
        };
        let writer = Writer::default().u8(VERSION).bytes(&self.ip);
        let writer = moment(moment(writer, self.monotonic), self.boottime).text(&self.walls);
        let writer = writer.u32(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        let files = self.files.iter();
        files.fold(writer, |writer, (name, size)| writer.text(name).u64(*size)).finish()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err("it is of another version of the engine".into());
        }
        let ip = reader.bytes()?.try_into().map_err(|_| "no address")?;
        let moment = |reader: &mut Reader<'_>| -> Result<Moment> {
            Ok(Moment::new(reader.u64()?.cast_signed(), reader.u32()?))
        };
        let (monotonic, boottime) = (moment(&mut reader)?, moment(&mut reader)?);
        let walls = reader.text()?.to_owned();
        let count = reader.u32()?;
        let mut file = || -> Result<_> { Ok((reader.text()?.to_owned(), reader.u64()?)) };
        let files = (0..count).map(|_| file()).collect::<Result<_>>()?;
        reader.finish()?;
        Ok(Self { ip, monotonic, boottime, walls, files })
    }

    /// Of the image in this directory.
    pub(crate) fn read(image: &Path) -> Result<Self> {
        let damaged = |error: Failure| Failure::from(format!("the image is damaged: {error}"));
        let bytes = fs::read(image.join(MACHINE)).context("read it").map_err(damaged)?;
        Self::parse(&bytes).map_err(damaged)
    }
}

/// The program's life as a hook; the exit code is CRIU's business.
pub(crate) fn run(moment: &str) -> i32 {
    let Ok(image) = std::env::var(IMAGE) else { return 1 };
    let image = Path::new(&image);
    let init = || -> Result<i32> {
        let init = std::env::var(INIT).ok().and_then(|init| init.parse().ok());
        init.ok_or("CRIU did not tell the process".into())
    };
    let done = match moment {
        // Nothing inside moves any more; what is to be saved has not been looked at yet.
        // CRIU will bind the agent's socket again where it was.
        // The way out is made anew, so that no image has to hold it.
        "network-lock" => init().and_then(|init| {
            protect_agent_socket(init, false)?;
            within(init, &["net"], || {
                sys::close_capture();
                Ok(())
            })
        }),
        "post-dump" => init().and_then(|init| describe(init, image)),
        // Also comes when a dump has failed, right before everything runs on.
        "network-unlock" => init().and_then(seal),
        "setup-namespaces" => init().and_then(|init| {
            fs::write(image.join(criu::INIT), init.to_string()).context("tell the process")
        }),
        "post-restore" => init().and_then(|init| settle(init, image)),
        "pre-resume" => init().and_then(|init| release(init, image)),
        _ => Ok(()),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = fs::write(image.join(REFUSAL), error.to_string());
            1
        }
    }
}

/// The image is complete, and still nothing inside moves.
fn describe(init: i32, image: &Path) -> Result<()> {
    let doing = "list the image";
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
    };
    let files = fs::read_dir(image).context(doing)?.map(file);
    let files = files.collect::<std::io::Result<Vec<_>>>().context(doing)?;
    let machine = Machine {
        ip: address()?.octets(),
        monotonic: sys::now(Clock::Monotonic),
        boottime: sys::now(Clock::Boottime),
        walls: walls_of(init)?,
        files: files.into_iter().filter(|(name, _)| name.ends_with(".img")).collect(),
    };
    fs::write(image.join(MACHINE), machine.to_bytes()).context("describe the image")
}

/// Back to what a running sandbox has.
fn seal(init: i32) -> Result<()> {
    protect_agent_socket(init, true)?;
    let own = address()?;
    within(init, &["net"], || open_network(own))
}

fn open_network(own: Ipv4Addr) -> Result<()> {
    inside::open_loopback(own.octets())?;
    match std::env::var_os(CAPTURE) {
        Some(_) => inside::open_capture(own.octets()),
        None => Ok(()),
    }
}

/// The machine is as it was when it was saved; now it becomes this sandbox's own.
fn settle(init: i32, image: &Path) -> Result<()> {
    let (old, own) = (Ipv4Addr::from(Machine::read(image)?.ip), address()?);
    protect_agent_socket(init, true)?;
    within(init, &["net", "mnt", "user"], || {
        if old != own {
            sys::remove_loopback_address(old).context("take the old address away")?;
        }
        open_network(own)?;
        // No more rights than a guest has: the files are its own.
        sys::become_namespace_root(true).context("become root inside")?;
        inside::rename_machine();
        Ok(())
    })
}

/// The last look: whatever is not as it was must not run. And what runs, changes files: from
/// then on the image does not go with them any more.
fn release(init: i32, image: &Path) -> Result<()> {
    let released = look_again(init, image).and_then(|()| {
        let source = std::env::var_os(SOURCE).ok_or("the warden did not tell the image")?;
        let source = Path::new(&source);
        fs::rename(source, source.with_extension(USED)).context("put the image aside")
    });
    if released.is_err() {
        // At this moment, CRIU no longer listens.
        let _ = sys::send_signal(init, sys::SIGKILL);
    }
    released
}

fn look_again(init: i32, image: &Path) -> Result<()> {
    // CRIU and what it brings back are children of the warden, and end with it. Had that
    // happened before the kernel knew, nothing would end this.
    if field(init, "PPid:")? != field(sys::parent(), "PPid:")? {
        return Err("the warden is gone".into());
    }
    if walls_of(init)? != Machine::read(image)?.walls {
        return Err("the processes came back with other rights than they had".into());
    }
    Ok(())
}

fn address() -> Result<Ipv4Addr> {
    let address = std::env::var(ADDRESS).ok().and_then(|address| address.parse().ok());
    address.ok_or("the warden did not tell the address".into())
}

/// Makes the agent's socket unchangeable, or lets it be changed.
fn protect_agent_socket(init: i32, protect: bool) -> Result<()> {
    within(init, &["mnt"], || inside::protect_agent_socket(protect))
}

/// Does something in namespaces of the sandbox; in a child, which cannot come back.
fn within(init: i32, namespaces: &[&str], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let open = |kind: &&str| {
        let namespace = File::open(format!("/proc/{init}/ns/{kind}"));
        namespace.context(&format!("open the sandbox's {kind} namespace"))
    };
    let namespaces: Vec<File> = namespaces.iter().map(open).collect::<Result<_>>()?;
    let reason = in_child(|| {
        namespaces
            .iter()
            .try_for_each(sys::enter_namespace)
            .context("enter the sandbox")
            .and_then(|()| work())
    })?;
    if reason.is_empty() { Ok(()) } else { Err(reason.into()) }
}

fn walls_of(init: i32) -> Result<String> {
    let lines = WALLS.iter().map(|name| Ok(format!("{name} {}\n", field(init, name)?)));
    lines.collect()
}

fn field(pid: i32, name: &str) -> Result<String> {
    let status = format!("/proc/{pid}/status");
    let status = fs::read_to_string(status).context("look at the sandbox's first process")?;
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    // Some lines are younger than the oldest kernel that will do.
    Ok(value.unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_round_trips_and_every_cut_is_noticed() {
        let (ip, moment) = ([10, 0, 0, 2], Moment::new(-3, 999_999_999));
        let walls = "Seccomp: 2\n".to_owned();
        let files = vec![("pages-1.img".to_owned(), 1 << 33), ("core-1.img".to_owned(), 0)];
        let machine = Machine { ip, monotonic: moment, boottime: moment, walls, files };
        let bytes = machine.to_bytes();
        assert_eq!(Machine::parse(&bytes).expect("whole"), machine);
        for length in 0..bytes.len() {
            assert!(Machine::parse(&bytes[..length]).is_err(), "cut at {length}");
        }
        let other = [&[VERSION + 1], &bytes[1..]].concat();
        assert!(Machine::parse(&other).expect_err("refused").to_string().contains("version"));
    }
}
