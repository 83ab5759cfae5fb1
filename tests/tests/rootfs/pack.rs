//! Archives of root filesystems, made on the spot.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use createos_sdk::{Client, Sandbox};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

pub(crate) const SHAPE: &str = "s-1vcpu-256mb";
const APPLETS: [&str; 21] = [
    "sh", "ls", "cat", "echo", "id", "pwd", "sleep", "mkdir", "touch", "uname", "rm", "env",
    "head", "stty", "wc", "tr", "dd", "du", "stat", "tail", "test",
];

/// A tarball under construction.
pub(crate) struct Pack(Builder<Vec<u8>>);

impl Pack {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        mode: u32,
        uid: u64,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_ref(), 0o755, 0)
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"", 0o755, 0)
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A system of one program, without bash, in its own `/usr`.
pub(crate) fn busybox() -> Pack {
    let program = fs::read("/bin/busybox").expect("busybox (Debian: apt install busybox-static)");
    let mut pack = Pack::new()
        .dir("bin")
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/busybox", program)
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
        .file("etc/group", "root:x:0:\nweb:x:33:\n")
        .file("etc/os-release", "ID=tiny\n")
        .entry(EntryType::Directory, "srv", "", b"", 0o750, 33)
        .entry(EntryType::Regular, "srv/own", "", b"web's\n", 0o600, 33);
    for applet in APPLETS {
        pack = pack.entry(
            EntryType::Symlink,
            &format!("bin/{applet}"),
            "/usr/bin/busybox",
            b"",
            0o777,
            0,
        );
    }
    pack
}

pub(crate) fn write(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

pub(crate) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) async fn sandbox_of(client: &Client, rootfs: &str) -> Sandbox {
    let created = client.create_sandbox(SHAPE).rootfs(rootfs).env("STAGE", "test").await;
    created.unwrap_or_else(|error| panic!("no sandbox of {rootfs}: {error}"))
}

/// What is left of images, and of their layers, in a data directory.
pub(crate) fn left(data: &Path) -> (Vec<String>, usize) {
    let names = fs::read_dir(data.join("images")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
    names.sort();
    (names, fs::read_dir(data.join("layers")).unwrap().count())
}

/// Layers of a container image: the system, then what takes some of it away.
pub(crate) fn layers() -> [Vec<u8>; 2] {
    let lower = busybox().file("opt/old/file", "old").file("opt/gone", "x").done();
    let upper = Pack::new()
        .file("opt/.wh.gone", "")
        .file("opt/old/.wh..wh..opq", "")
        .file("opt/old/new", "new")
        .done();
    [lower, upper]
}

pub(crate) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let ids: Vec<_> = layers.iter().map(|layer| format!("\"sha256:{}\"", digest(layer))).collect();
    format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Env":["PATH=/bin","LANG=C"],
        "WorkingDir":"/app","User":"web","Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}
