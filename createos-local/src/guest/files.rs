//! File transfers. Each runs in a worker process of its own, with blocking calls:
//! a disk that stalls, or a reader that stops, holds up nobody else.

use crate::protocol::{CHUNK, Failure, HEADER, Input, Reply, parse_header};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const O_NONBLOCK: i32 = 0o4000;
/// Links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;
/// Files of /proc and /sys do not say their true size. So what claims to be small is
/// read before its size is announced,
const MAX_WHOLE: u64 = 64 << 10;
/// up to this much.
const MAX_UNSIZED: u64 = 16 << 20;

/// Sends the size of a regular file, then its content.
pub(crate) fn read(mut socket: UnixStream, path: &[u8]) -> io::Result<()> {
    match open_for_reading(Path::new(OsStr::from_bytes(path))) {
        Ok((size, content)) => {
            socket.write_all(&Reply::Size(size).to_frame())?;
            send_content(socket, content, size)
        }
        Err(failure) => socket.write_all(&failure.to_frame()),
    }
}

fn open_for_reading(path: &Path) -> Result<(u64, Box<dyn Read>), Reply> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(|error| failure(path, &error))?;
    let metadata = file.metadata().map_err(|error| failure(path, &error))?;
    require_regular(path, &metadata)?;
    if metadata.len() > MAX_WHOLE {
        return Ok((metadata.len(), Box::new(file)));
    }
    let mut content = Vec::new();
    file.take(MAX_UNSIZED + 1).read_to_end(&mut content).map_err(|error| failure(path, &error))?;
    if content.len() as u64 > MAX_UNSIZED {
        let message =
            format!("{} does not say its size and is too large to find out", path.display());
        return Err(Reply::Failed { kind: Failure::Refused, message });
    }
    Ok((content.len() as u64, Box::new(io::Cursor::new(content))))
}

/// Sends exactly `size` bytes. A file that shrinks meanwhile is a failure, one
/// that grows is cut at the size that was announced.
fn send_content(mut socket: UnixStream, content: Box<dyn Read>, size: u64) -> io::Result<()> {
    let mut content = content.take(size);
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < size {
        match content.read(&mut chunk) {
            Ok(0) => {
                let message = format!("the file became shorter: {sent} of {size} bytes read");
                let reply = Reply::Failed { kind: Failure::Refused, message };
                return socket.write_all(&reply.to_frame());
            }
            Ok(count) => {
                sent += count as u64;
                socket.write_all(&Reply::Data(chunk[..count].to_vec()).to_frame())?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let reply = Reply::Failed { kind: Failure::Refused, message: error.to_string() };
                return socket.write_all(&reply.to_frame());
            }
        }
    }
    socket.write_all(&Reply::Done(size).to_frame())
}

/// Receives content beside the target and renames it into place at the end.
pub(crate) fn write(mut socket: UnixStream, path: &[u8]) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(path));
    let mut upload = match Upload::begin(path) {
        Ok(upload) => upload,
        Err(failure) => return socket.write_all(&failure.to_frame()),
    };
    socket.write_all(&Reply::Ready.to_frame())?;
    loop {
        match receive(&mut socket)? {
            Input::Data(bytes) => {
                if let Err(error) = upload.file.write_all(&bytes) {
                    return socket.write_all(&failure(path, &error).to_frame());
                }
                upload.size += bytes.len() as u64;
            }
            Input::Resize(_) => return Err(io::ErrorKind::InvalidData.into()),
            Input::End => {
                let reply = upload.commit().unwrap_or_else(|error| failure(path, &error));
                return socket.write_all(&reply.to_frame());
            }
        }
    }
}

fn receive(socket: &mut UnixStream) -> io::Result<Input> {
    let mut header = [0; HEADER];
    socket.read_exact(&mut header)?;
    let (length, kind) = parse_header(header)?;
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload)?;
    Ok(Input::parse(kind, payload)?)
}

/// A file on its way; dropped before [`Upload::commit`], nothing of it stays.
struct Upload {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    size: u64,
    committed: bool,
}

impl Upload {
    fn begin(path: &Path) -> Result<Self, Reply> {
        let target = resolve_links(path).map_err(|error| failure(path, &error))?;
        let parent = match (target.file_name(), target.parent()) {
            (Some(_), Some(parent)) => parent,
            _ => return Err(bad_path(path, "is a directory")),
        };
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(bad_path(path, "names a directory"));
        }
        let existing = fs::metadata(&target).ok();
        if let Some(metadata) = &existing {
            require_regular(path, metadata)?;
        }
        fs::create_dir_all(parent).map_err(|error| failure(path, &error))?;
        let (file, partial) = create_partial(parent).map_err(|error| match error.kind() {
            // The directory is there, but of a kind that takes no files, such as /proc.
            io::ErrorKind::NotFound => Reply::Failed {
                kind: Failure::Refused,
                message: format!("no file can be made in {}", parent.display()),
            },
            _ => failure(path, &error),
        })?;
        let upload = Self { file, partial, target, size: 0, committed: false };
        upload.take_after(existing.as_ref()).map_err(|error| failure(path, &error))?;
        Ok(upload)
    }

    /// Overwriting keeps mode and owner, as writing into the file would.
    fn take_after(&self, existing: Option<&fs::Metadata>) -> io::Result<()> {
        let mode = existing.map_or(0o644, |metadata| metadata.mode() & 0o7777);
        if let Some(metadata) = existing {
            fchown(&self.file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        self.file.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn commit(mut self) -> io::Result<Reply> {
        fs::rename(&self.partial, &self.target)?;
        self.committed = true;
        Ok(Reply::Done(self.size))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn create_partial(parent: &Path) -> io::Result<(File, PathBuf)> {
    let process = std::process::id();
    let mut attempt = 0;
    loop {
        let partial = parent.join(format!(".createos-upload-{process}-{attempt}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial) {
            Ok(file) => return Ok((file, partial)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where a write through `path` would end up: renaming over a symbolic link would
/// replace the link instead of the file it stands for.
fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("/")).join(link),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

fn require_regular(path: &Path, metadata: &fs::Metadata) -> Result<(), Reply> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "is a directory" } else { "is not a regular file" };
    Err(bad_path(path, what))
}

fn bad_path(path: &Path, what: &str) -> Reply {
    Reply::Failed { kind: Failure::BadPath, message: format!("{} {what}", path.display()) }
}

fn failure(path: &Path, error: &io::Error) -> Reply {
    const ENXIO: i32 = 6;
    const ENAMETOOLONG: i32 = 36;
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Failure::NoSuchFile,
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Failure::BadPath,
        _ if matches!(error.raw_os_error(), Some(ENXIO | ENAMETOOLONG)) => Failure::BadPath,
        _ => Failure::Refused,
    };
    Reply::Failed { kind, message: format!("{}: {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("agent-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).expect("scratch directory");
            Self(dir)
        }
    }

    impl std::ops::Deref for Scratch {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Runs one transfer in a thread and returns the frames that came back.
    fn exchange(
        frames: &[Input],
        work: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
    ) -> Vec<Reply> {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let worker = std::thread::spawn(move || work(theirs));
        let mut ours = ours;
        for frame in frames {
            // The worker may have refused already; its reply says so.
            let _ = ours.write_all(&frame.to_frame());
        }
        ours.shutdown(std::net::Shutdown::Write).expect("half-close");
        let mut received = Vec::new();
        let _ = ours.read_to_end(&mut received);
        let _ = worker.join().expect("worker");
        let mut replies = Vec::new();
        let mut rest = &received[..];
        while let Some((header, tail)) = rest.split_first_chunk::<HEADER>() {
            let (length, kind) = parse_header(*header).expect("header");
            replies.push(Reply::parse(kind, tail[..length].to_vec()).expect("reply"));
            rest = &tail[length..];
        }
        replies
    }

    fn put(path: &Path, frames: &[Input]) -> Vec<Reply> {
        let path = path.as_os_str().as_bytes().to_owned();
        exchange(frames, move |socket| write(socket, &path))
    }

    fn get(path: &Path) -> Vec<Reply> {
        let path = path.as_os_str().as_bytes().to_owned();
        exchange(&[], move |socket| read(socket, &path))
    }

    #[test]
    fn upload_creates_parents_and_download_returns_it() {
        let dir = Scratch::new("roundtrip");
        let file = dir.join("a/b/c.txt");
        let replies =
            put(&file, &[Input::Data(b"hel".into()), Input::Data(b"lo".into()), Input::End]);
        assert_eq!(replies, [Reply::Ready, Reply::Done(5)]);
        assert_eq!(fs::metadata(&file).expect("file").mode() & 0o777, 0o644);
        assert_eq!(get(&file), [Reply::Size(5), Reply::Data(b"hello".into()), Reply::Done(5)]);
        let names = fs::read_dir(dir.join("a/b")).expect("directory").count();
        assert_eq!(names, 1, "no partial file stays");
    }

    #[test]
    fn upload_that_is_cut_leaves_the_old_file() {
        let dir = Scratch::new("cut");
        let file = dir.join("f");
        fs::write(&file, "old").expect("old file");
        let replies = put(&file, &[Input::Data(b"new".into())]);
        assert_eq!(replies, [Reply::Ready]);
        assert_eq!(fs::read_to_string(&file).expect("file"), "old");
        assert_eq!(fs::read_dir(&*dir).expect("directory").count(), 1);
    }

    #[test]
    fn upload_keeps_the_mode_and_writes_through_links() {
        let dir = Scratch::new("links");
        let file = dir.join("real");
        fs::write(&file, "old").expect("old file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).expect("mode");
        let link = dir.join("link");
        std::os::unix::fs::symlink("real", &link).expect("link");
        assert_eq!(put(&link, &[Input::End]), [Reply::Ready, Reply::Done(0)]);
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
        assert_eq!(fs::read(&file).expect("file"), b"");
        assert_eq!(fs::metadata(&file).expect("file").mode() & 0o777, 0o750);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = Scratch::new("special");
        let looped = dir.join("loop");
        std::os::unix::fs::symlink("loop", &looped).expect("link");
        let kind = |replies: Vec<Reply>| match replies.as_slice() {
            [Reply::Failed { kind, .. }] => *kind,
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(kind(get(&dir)), Failure::BadPath);
        assert_eq!(kind(get(Path::new("/dev/null"))), Failure::BadPath);
        assert_eq!(kind(get(&dir.join("missing"))), Failure::NoSuchFile);
        assert_eq!(kind(put(&dir, &[Input::End])), Failure::BadPath);
        assert_eq!(kind(put(Path::new("/dev/null"), &[Input::End])), Failure::BadPath);
        assert_eq!(kind(put(&looped, &[Input::End])), Failure::Refused);
        let below_file = dir.join("file/child");
        fs::write(dir.join("file"), "").expect("file");
        assert_eq!(kind(put(&below_file, &[Input::End])), Failure::BadPath);
        assert_eq!(kind(put(&dir.join("n".repeat(300)), &[Input::End])), Failure::BadPath);
    }

    #[test]
    fn files_that_lie_about_their_size_are_read_to_their_end() {
        for path in ["/proc/self/status", "/sys/class/net/lo/mtu"] {
            let replies = get(Path::new(path));
            assert!(matches!(replies[0], Reply::Size(size) if size > 0), "{replies:?}");
            assert!(matches!(replies.last(), Some(Reply::Done(_))), "{replies:?}");
        }
    }
}
