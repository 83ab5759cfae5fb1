use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tar::{Builder, Header};

use super::*;

/// An archive under construction.
struct Pack(Builder<Vec<u8>>);

impl Pack {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn raw(
        mut self,
        path: &str,
        kind: EntryType,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        // The crate's own setters refuse what is hostile.
        let bytes = header.as_mut_bytes();
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).expect("entry");
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(path, EntryType::Regular, "", content.as_bytes(), |_| {})
    }

    fn dir(self, path: &str) -> Self {
        self.raw(path, EntryType::Directory, "", b"", |_| {})
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.raw(path, EntryType::Symlink, to, b"", |_| {})
    }

    fn hard(self, path: &str, to: &str) -> Self {
        self.raw(path, EntryType::Link, to, b"", |_| {})
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().expect("archive")
    }
}

/// Unpacks layers; the directory that the root is in has a file beside it.
fn unpack_all(layers: &[Vec<u8>], whiteouts: bool) -> (tempfile::TempDir, Result<u64, ImageError>) {
    let outside = tempfile::tempdir().expect("directory");
    fs::write(outside.path().join("secret"), "untouched").expect("file");
    let root = outside.path().join("root");
    fs::create_dir(&root).expect("directory");
    let mut unpacker = Unpacker::new(&root, 1 << 20).expect("unpacker");
    let done = layers.iter().try_for_each(|layer| unpacker.layer(&mut &layer[..], whiteouts));
    (outside, done.and_then(|()| unpacker.finish()))
}

fn unpacked(pack: Pack) -> (tempfile::TempDir, PathBuf) {
    let (outside, done) = unpack_all(&[pack.done()], false);
    done.expect("unpacked");
    let root = outside.path().join("root");
    (outside, root)
}

#[track_caller]
fn refused(pack: Pack) -> String {
    let (outside, done) = unpack_all(&[pack.done()], false);
    let secret = fs::read_to_string(outside.path().join("secret")).expect("secret");
    assert_eq!(secret, "untouched");
    let mut names: Vec<_> = fs::read_dir(outside.path())
        .expect("list")
        .map(|it| it.expect("entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["root", "secret"]);
    done.expect_err("it is hostile").to_string()
}

#[test]
fn files_directories_and_links_come_out_as_they_went_in() {
    let (_outside, root) = unpacked(
        Pack::new()
            .dir("./")
            .raw("./closed/", EntryType::Directory, "", b"", |header| header.set_mode(0o555))
            .file("closed/inner", "x")
            .file("deep/er/file", "text")
            .link("link", "/etc/passwd")
            .hard("hard", "deep/er/file")
            .raw("fifo", EntryType::Fifo, "", b"", |_| {})
            .raw("null", EntryType::Char, "", b"", |_| {})
            .raw("setuid", EntryType::Regular, "", b"s", |header| header.set_mode(0o4755)),
    );
    assert_eq!(fs::read_to_string(root.join("closed/inner")).expect("file"), "x");
    assert_eq!(fs::metadata(root.join("closed")).expect("dir").mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(root.join("link")).expect("link"), Path::new("/etc/passwd"));
    let (file, hard) = (root.join("deep/er/file"), root.join("hard"));
    let inode = |path: &Path| fs::metadata(path).expect("file").ino();
    assert_eq!(inode(&file), inode(&hard));
    assert_eq!(fs::metadata(&file).expect("file").mtime(), 1_000_000);
    assert_eq!(fs::metadata(root.join("setuid")).expect("file").mode() & 0o7777, 0o4755);
    assert!(!root.join("null").exists(), "devices are left out");
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o755)).expect("mode");
}

#[test]
fn nothing_leads_out() {
    for (path, why) in [("../secret", "leads out"), ("a/../../secret", "leads out")] {
        let text = refused(Pack::new().file(path, "x"));
        assert!(text.contains(why), "{text}");
    }
    refused(Pack::new().hard("x", "../secret"));
    refused(Pack::new().dir("d/../../new"));
    // Through links, everything stays below the root, which is where they lead.
    for to in ["/", "..", "../..", "/proc/self/root", "../../../../../../../.."] {
        let (outside, done) =
            unpack_all(&[Pack::new().link("out", to).file("out/secret", "inside").done()], false);
        let secret = fs::read_to_string(outside.path().join("secret")).expect("secret");
        assert_eq!(secret, "untouched", "{to}");
        if done.is_ok() {
            assert!(
                outside.path().join("root").join("secret").exists()
                    || outside.path().join("root/proc/self/root/secret").exists(),
                "{to}"
            );
        }
    }
    // A link is replaced, not followed.
    let (outside, root) = unpacked(Pack::new().link("f", "../secret").file("f", "mine"));
    assert_eq!(fs::read_to_string(root.join("f")).expect("file"), "mine");
    assert_eq!(fs::read_to_string(outside.path().join("secret")).expect("secret"), "untouched");
    let (outside, root) = unpacked(Pack::new().link("d", "..").dir("d").file("d/secret", "mine"));
    assert!(root.join("d").symlink_metadata().expect("dir").is_dir());
    assert_eq!(fs::read_to_string(outside.path().join("secret")).expect("secret"), "untouched");
    // A hard link to a link is one to the link itself.
    let (outside, _root) =
        unpacked(Pack::new().link("s", "../secret").hard("h", "s").file("h", "mine"));
    assert_eq!(fs::read_to_string(outside.path().join("secret")).expect("secret"), "untouched");
}

#[test]
fn what_is_broken_or_too_much_is_refused() {
    let text = refused(Pack::new().hard("a", "a"));
    assert!(text.contains("itself"), "{text}");
    let text = refused(Pack::new().hard("a", "missing"));
    assert!(text.contains("not there"), "{text}");
    let text = refused(Pack::new().link("a", ""));
    assert!(text.contains("links to nothing"), "{text}");
    let text = refused(Pack::new().file("proc", "x"));
    assert!(text.contains("/proc is no directory"), "{text}");
    let text = refused(Pack::new().link("dev", "tmp"));
    assert!(text.contains("/dev is no directory"), "{text}");
    let text = refused(Pack::new().raw("f", EntryType::Regular, "", b"x", |h| h.set_uid(65_536)));
    assert!(text.contains("not below 65536"), "{text}");
    let text = refused(Pack::new().file("big", &"x".repeat((1 << 20) + 1)));
    assert!(text.contains("too large"), "{text}");
    let text = refused(Pack::new().file("file", "x").file("file/under", "x"));
    assert!(text.contains("cannot unpack"), "{text}");
    let text = refused(Pack::new().raw("x", EntryType::new(b'Z'), "", b"", |_| {}));
    assert!(text.contains("not understood"), "{text}");
}

/// A record of an extended header.
fn record(name: &str, value: &str) -> String {
    let rest = format!(" {name}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

fn with_records(records: &[(&str, &str)], content: &[u8]) -> Pack {
    let pax: String = records.iter().map(|(name, value)| record(name, value)).collect();
    Pack::new()
        .raw("pax", EntryType::XHeader, "", pax.as_bytes(), |_| {})
        .raw("f", EntryType::Regular, "", content, |_| {})
        .file("after", "x")
}

#[test]
fn maps_of_files_with_holes_are_checked() {
    let whole = [
        with_records(
            &[("GNU.sparse.size", "12"), ("GNU.sparse.map", "1,2,10,1"), ("GNU.sparse.name", "g")],
            b"abc",
        ),
        with_records(
            &[
                ("GNU.sparse.size", "12"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.offset", "1"),
                ("GNU.sparse.numbytes", "2"),
                ("GNU.sparse.offset", "10"),
                ("GNU.sparse.numbytes", "1"),
                ("path", "g"),
            ],
            b"abc",
        ),
    ];
    for pack in whole {
        let (_outside, root) = unpacked(pack);
        let content = fs::read(root.join("g")).expect("file");
        assert_eq!(content, b"\0ab\0\0\0\0\0\0\0c\0");
        assert_eq!(fs::read_to_string(root.join("after")).expect("file"), "x");
    }
    let huge = u64::MAX.to_string();
    for (size, map) in [
        ("12", "1,2,10"),
        ("12", "1,2,10,2"),
        ("12", "10,1,1,2"),
        ("12", "1,2,2,1"),
        ("10", "1,2,10,1"),
        ("12", &format!("1,2,{huge},1")),
        ("12", "1,2,-1,1"),
        (&huge, "1,2,10,1"),
        ("", "1,2,10,1"),
        ("12", ""),
    ] {
        let records = [("GNU.sparse.size", size), ("GNU.sparse.map", map)];
        let text = refused(with_records(&records, b"abc"));
        assert!(text.contains("sparse") || text.contains("extended header"), "{map}: {text}");
    }
    let without_size = with_records(&[("GNU.sparse.map", "0,3")], b"abc");
    assert!(refused(without_size).contains("sparse"));
    // A map in front of the content, which has too little, too much or no numbers.
    for content in ["1\n", "9999999999999\n", "x\n", "1\n0\n9\n", &"1".repeat(600)] {
        let mut block = content.as_bytes().to_vec();
        block.resize(512, 0);
        let records = [("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")];
        let text = refused(with_records(&records, &block));
        assert!(text.contains("sparse") || text.contains("cut short"), "{content}: {text}");
    }
    // Of old: a header that says there is more, and nothing comes.
    let more = |header: &mut Header| header.as_gnu_mut().expect("gnu").set_is_extended(true);
    let pack = Pack::new().raw("x", EntryType::GNUSparse, "", b"", more);
    assert!(matches!(unpack_all(&[pack.done()], false).1, Err(ImageError::Damaged(_))));
}

#[test]
fn an_extended_header_says_how_long_a_file_is() {
    let (_outside, root) = unpacked(with_records(&[("size", "3")], b"abc"));
    assert_eq!(fs::read_to_string(root.join("f")).expect("file"), "abc");
    // As tar writes 9 GiB in POSIX's form: the header's own field has no room for it.
    let size: u64 = 9 << 30;
    let pax = record("size", &size.to_string());
    let head = Pack::new()
        .raw("pax", EntryType::XHeader, "", pax.as_bytes(), |_| {})
        .raw("big", EntryType::Regular, "", b"", |_| {})
        .done();
    let head = &head[..head.len() - 1024];
    let rest = Pack::new().file("after", "x").done();
    let mut source = head.chain(std::io::repeat(0).take(size)).chain(&rest[..]);
    let mut archive = Tarball::new(&mut source);
    let meta = archive.next().expect("readable").expect("an entry");
    assert_eq!((meta.path, meta.size), (b"big".to_vec(), size));
    let meta = archive.next().expect("readable").expect("an entry");
    assert_eq!((meta.path, meta.size), (b"after".to_vec(), 1));
    assert!(archive.next().expect("readable").is_none());
}

#[test]
fn long_names_and_extended_headers_are_read_and_bounded() {
    let long = "n".repeat(200);
    let pax = [record("path", &format!("dir/{long}")), record("mtime", "77.5")].concat();
    let (_outside, root) = unpacked(
        Pack::new()
            .raw(
                "././@LongLink",
                EntryType::GNULongName,
                "",
                format!("{long}\0").as_bytes(),
                |_| {},
            )
            .file("short", "gnu")
            .raw("pax", EntryType::XHeader, "", pax.as_bytes(), |_| {})
            .file("short", "pax"),
    );
    assert_eq!(fs::read_to_string(root.join(&long)).expect("file"), "gnu");
    let file = root.join("dir").join(&long);
    assert_eq!(fs::metadata(&file).expect("file").mtime(), 77);
    assert_eq!(fs::read_to_string(file).expect("file"), "pax");
    for bad in ["x", "5 a=b\n", "99 a=b\n", "0 a=b\n", "7 ab\n...", "-1 a=b\n"] {
        refused(
            Pack::new().raw("pax", EntryType::XHeader, "", bad.as_bytes(), |_| {}).file("f", ""),
        );
    }
    let huge = vec![b'x'; 2 << 20];
    refused(Pack::new().raw("l", EntryType::GNULongName, "", &huge, |_| {}).file("f", ""));
    refused(Pack::new().raw("l", EntryType::GNULongName, "", &[b'x'; 5000], |_| {}).file("f", ""));
}

#[test]
fn whiteouts_take_away_what_lower_layers_have() {
    let lower = Pack::new()
        .file("gone", "x")
        .file("stays", "x")
        .dir("tree")
        .file("tree/a", "x")
        .dir("open")
        .file("open/old", "x")
        .dir("open/sub")
        .file("open/sub/old", "x");
    let upper = Pack::new()
        .file(".wh.gone", "")
        .file(".wh.tree", "")
        .file(".wh.never-was", "")
        .file("open/new", "y")
        .dir("open/sub")
        .file("open/sub/new", "y")
        .file("open/.wh..wh..opq", "")
        .file("missing/.wh.x", "")
        .file(".wh..wh.plnk", "")
        .file("fresh", "y")
        .file(".wh.fresh", "");
    let (outside, done) = unpack_all(&[lower.done(), upper.done()], true);
    done.expect("unpacked");
    let root = outside.path().join("root");
    for there in ["stays", "open/new", "open/sub/new", "fresh"] {
        assert!(root.join(there).exists(), "{there}");
    }
    for gone in
        ["gone", "tree", "open/old", "open/sub/old", ".wh.gone", "open/.wh..wh..opq", "missing"]
    {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    let bad = Pack::new().file(".wh...", "");
    assert!(unpack_all(&[bad.done()], true).1.is_err());
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let whole = Pack::new().dir("d").file("d/f", &"text".repeat(500)).link("l", "d").done();
    for length in (0..whole.len()).step_by(97) {
        let _ = unpack_all(&[whole[..length].to_vec()], true);
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let (outside, _) = unpack_all(&[bytes], random.bool());
        let secret = fs::read_to_string(outside.path().join("secret")).expect("secret");
        assert_eq!(secret, "untouched");
    }
}
