//! Archives as `tar` itself writes them: files with holes, compressed in each way.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use createos_local::images::ImageError;
use createos_tests::{Fixture, sh};

use crate::pack::{busybox, left, sandbox_of};

/// Larger than the size field of old headers.
const SIZE: u64 = 9 << 30;

fn run(program: &str, dir: &Path, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).current_dir(dir).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// A system with a file of which three places are written and all else is a hole.
fn system(dir: &Path) {
    fs::create_dir(dir.join("root")).unwrap();
    fs::write(dir.join("base.tar"), busybox().done()).unwrap();
    run("tar", dir, &["-xf", "base.tar", "-C", "root"]);
    let mut file = File::create(dir.join("root/holes")).unwrap();
    for (offset, text) in [(0, "begin"), (5 << 30, "middle"), (SIZE - 3, "end")] {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    File::create(dir.join("root/nothing")).unwrap().set_len(1 << 20).unwrap();
}

#[tokio::test]
async fn files_with_holes_and_every_compression_of_tar_are_read() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let dir = tempfile::tempdir().unwrap();
    system(dir.path());
    for (name, form) in [
        ("old.tar.xz", &["--format=gnu", "-J"][..]),
        ("v00.tar.bz2", &["--format=posix", "--sparse-version=0.0", "-j"]),
        ("v01.tar.gz", &["--format=posix", "--sparse-version=0.1", "-z"]),
        ("v10.tar.xz", &["--format=posix", "--sparse-version=1.0", "-J"]),
    ] {
        let archive = dir.path().join(name);
        let to = archive.to_str().unwrap();
        run("tar", dir.path(), &[form, &["--sparse", "-cf", to, "-C", "root", "."]].concat());
        assert!(fs::metadata(&archive).unwrap().len() < 4 << 20, "{name} has the holes left out");
        let info = images.import(name, &archive).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(info.size_bytes < 8 << 20, "{name}: {}", info.size_bytes);

        let sandbox = sandbox_of(client, name).await;
        let piece = |at: u64, length: u64| {
            format!(
                "dd if=/holes bs=1024 skip={} count=1 2>/dev/null | head -c {length}; echo; ",
                at >> 10
            )
        };
        let script = format!(
            "{}{}tail -c 3 /holes; echo; stat -c %s /holes /nothing; cat /nothing | tr -d '\\0' | wc -c; \
             test $(du -k /holes | head -c 2) -lt 99 && echo small; cat /srv/own",
            piece(0, 5),
            piece(5 << 30, 6)
        );
        let wanted = format!("begin\nmiddle\nend\n{SIZE}\n{}\n0\nsmall\nweb's\n", 1 << 20);
        assert_eq!(sh(&sandbox, &script).await, wanted, "{name}");
        sandbox.destroy().await.unwrap();
        images.remove(name).await.unwrap();
    }
    fixture.end().await;
}

#[tokio::test]
async fn archives_that_are_cut_within_their_compression_leave_nothing() {
    let fixture = Fixture::start().await;
    let images = fixture.engine.images();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("base.tar"), busybox().done()).unwrap();
    run("xz", dir.path(), &["-k", "base.tar"]);
    run("bzip2", dir.path(), &["-k", "base.tar"]);
    for name in ["base.tar.xz", "base.tar.bz2"] {
        let whole = fs::read(dir.path().join(name)).unwrap();
        let cut = dir.path().join("cut");
        for length in [whole.len() / 2, whole.len() - 5] {
            fs::write(&cut, &whole[..length]).unwrap();
            let error = images.import("x", &cut).await.unwrap_err();
            assert!(matches!(error, ImageError::Damaged(_)), "{name} at {length}: {error}");
        }
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        fs::write(&cut, &flipped).unwrap();
        let error = images.import("x", &cut).await.unwrap_err();
        assert!(matches!(error, ImageError::Damaged(_)), "{name} with a flipped bit: {error}");
    }
    assert_eq!(left(fixture.engine.data_dir()), (vec![], 0));
    fixture.end().await;
}
