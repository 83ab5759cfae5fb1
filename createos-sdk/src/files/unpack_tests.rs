//! Archives as a hostile sandbox would send them.

use std::os::unix::fs::{PermissionsExt, symlink};

use tar::{Builder, Header};

use super::*;

/// One entry, with a name that the library would refuse to write.
fn entry(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o7644);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, name, b"", b"evil")
}

fn link(name: &[u8], target: &[u8]) -> Vec<u8> {
    entry(EntryType::Symlink, name, target, b"")
}

/// Unpacks into `<dir>/root`, beside which nothing may appear.
fn try_unpack(dir: &Path, entries: &[Vec<u8>]) -> Result<DirectorySummary> {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    Unpacker {
        root,
        policy: Policy::directory(false),
        summary: DirectorySummary::default(),
        closed: vec![],
    }
    .run(&bytes[..])
}

#[track_caller]
fn refused(entries: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let error = try_unpack(dir.path(), entries).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["root"], "something was written outside");
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for name in [&b"../x"[..], b"/x", b"a/../../x", b"./../x", b"..", b"a/.."] {
        refused(&[file(name)]);
        refused(&[entry(EntryType::Directory, name, b"", b"")]);
        refused(&[entry(EntryType::GNULongName, b"././@LongLink", b"", name), file(b"a")]);
        let record = |key: &str| {
            let name = String::from_utf8_lossy(name);
            let length = key.len() + name.len() + 5;
            format!("{length} {key}={name}\n").into_bytes()
        };
        refused(&[entry(EntryType::XHeader, b"pax", b"", &record("path")), file(b"a")]);
    }
}

#[test]
fn links_that_lead_outside_are_refused() {
    for target in [&b"/etc"[..], b"..", b"../x", b"a/../..", b"a/../b", b"./../x", b"", b"/"] {
        refused(&[link(b"l", target)]);
    }
    refused(&[link(b"d/l", b"../../x")]);
    for target in [&b"../x"[..], b"/etc/passwd", b"missing"] {
        refused(&[entry(EntryType::Link, b"h", target, b"")]);
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    refused(&[link(b"l", b"."), file(b"l/x")]);
    refused(&[file(b"f"), file(b"f/x")]);
    refused(&[link(b"l", b"f"), file(b"f"), entry(EntryType::Link, b"h", b"l", b"")]);
    // One that was there before.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("root")).unwrap();
    fs::create_dir(dir.path().join("mine")).unwrap();
    symlink("../mine", dir.path().join("root/l")).unwrap();
    assert!(try_unpack(dir.path(), &[file(b"l/x")]).is_err());
    assert!(fs::read_dir(dir.path().join("mine")).unwrap().next().is_none());
    // A file that replaces a link replaces the link itself.
    fs::write(dir.path().join("kept"), "kept").unwrap();
    symlink("../kept", dir.path().join("root/k")).unwrap();
    try_unpack(dir.path(), &[file(b"k")]).unwrap();
    assert_eq!(fs::read(dir.path().join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read(dir.path().join("root/k")).unwrap(), b"evil");
}

#[test]
fn harmless_archives_keep_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let summary = try_unpack(
        dir.path(),
        &[
            entry(EntryType::Directory, b"./", b"", b""),
            file(b"./a/b/f"),
            link(b"a/b/up", b"../../a/b/f"),
            link(b"dangling", b"a/nothing"),
            entry(EntryType::Link, b"hard", b"./a/b/f", b""),
            entry(EntryType::Fifo, b"pipe", b"", b""),
        ],
    )
    .unwrap();
    let (files, symlinks, skipped) = (summary.files, summary.symlinks, summary.skipped);
    assert_eq!((files, symlinks, skipped, summary.bytes), (2, 2, 1, 4));
    let root = dir.path().join("root");
    assert_eq!(fs::read(root.join("a/b/up")).unwrap(), b"evil");
    let mode = fs::metadata(root.join("hard")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644, "without set-user-id");
    assert!(!root.join("pipe").exists());
}

#[test]
fn damaged_archives_are_errors_wherever_they_are_cut() {
    let mut good = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(600);
    header.set_mode(0o644);
    good.append_data(&mut header, "x".repeat(200), &[b'x'; 600][..]).unwrap();
    let good = good.into_inner().unwrap();
    let unpack = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let closed = vec![];
        Unpacker {
            root,
            policy: Policy::directory(false),
            summary: DirectorySummary::default(),
            closed,
        }
        .run(bytes)
        .map(|summary| summary.files)
    };
    assert_eq!(unpack(&good).unwrap(), 1);
    for cut in (1..2100).step_by(7).filter(|cut| cut % 512 != 0) {
        assert!(!matches!(unpack(&good[..cut]), Ok(1)), "{cut}");
    }
    assert!(unpack(&[b'x'; 4096]).is_err());
    let endless = entry(EntryType::GNULongName, b"n", b"", &vec![b'n'; 1 << 20]);
    assert!(unpack(&endless).is_err());
    for bad in [&b"5 a=b"[..], b"x a=b\n", b"99 path=a\n", b"0 \n", b"1", b"7 size=9\n"] {
        assert!(unpack(&entry(EntryType::XHeader, b"x", b"", bad)).is_err(), "{bad:?}");
    }
}

/// What comes when `out` was asked for.
fn try_results(dir: &Path, entries: &[Vec<u8>]) -> Result<DirectorySummary> {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    let policy = Policy::results(vec!["out".into(), "a/report".into()]);
    Unpacker { root, policy, summary: DirectorySummary::default(), closed: vec![] }.run(&bytes[..])
}

#[test]
fn of_results_nothing_is_taken_but_plain_files_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let entries = [
        entry(EntryType::Directory, b"./out/", b"", b""),
        file(b"./out/x"),
        link(b"out/in", b"x"),
        link(b"out/away", b"/etc/passwd"),
        entry(EntryType::Link, b"out/y", b"out/x", b""),
        file(b"a/report"),
    ];
    let summary = try_results(dir.path(), &entries).unwrap();
    assert_eq!((summary.files, summary.symlinks, summary.skipped), (3, 0, 2));
    assert!(root.join("out/in").symlink_metadata().is_err());
    assert_eq!(fs::read(root.join("out/y")).unwrap(), b"evil");
    let mode = fs::metadata(root.join("a/report")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    for hostile in [
        vec![file(b".git/hooks/pre-commit")],
        vec![file(b"output")],
        vec![file(b"a/other")],
        vec![entry(EntryType::Directory, b".", b"", b""), file(b"x")],
        vec![entry(EntryType::Link, b"out/z", b"secret", b"")],
    ] {
        fs::write(root.join("secret"), "s").unwrap();
        let error = try_results(dir.path(), &hostile).unwrap_err();
        assert!(error.message().contains("not asked for"), "{error}");
    }
}

#[test]
fn results_do_not_go_through_local_links_and_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", root.join("out")).unwrap();
    assert!(try_results(dir.path(), &[file(b"out/x")]).is_err());
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
    // A link of that very name is replaced, not followed.
    fs::remove_file(root.join("out")).unwrap();
    fs::create_dir(root.join("a")).unwrap();
    symlink("../../elsewhere/x", root.join("a/report")).unwrap();
    try_results(dir.path(), &[file(b"a/report")]).unwrap();
    assert_eq!(fs::read(root.join("a/report")).unwrap(), b"evil");
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);

    let mut huge = file(b"out/x");
    let mut header = Header::from_byte_slice(&huge[..512]).clone();
    header.set_size((2 << 30) + 1);
    header.set_cksum();
    huge.splice(..512, header.as_bytes().iter().copied());
    fs::create_dir_all(root.join("out")).unwrap();
    assert!(try_results(dir.path(), &[huge]).unwrap_err().message().contains("2 GiB"));
}
