//! Root filesystems that are imported: tarballs and archives of container images (api.md 3.5).

#![allow(clippy::unwrap_used)]

#[path = "rootfs/debian.rs"]
mod debian;
#[path = "rootfs/formats.rs"]
mod formats;
#[path = "rootfs/pack.rs"]
mod pack;
#[path = "rootfs/pull.rs"]
mod pull;
#[path = "rootfs/registry.rs"]
mod registry;

use createos_local::images::ImageError;
use createos_sdk::ErrorKind;
use createos_tests::{Fixture, sh, until};
use tar::EntryType;

use pack::{Pack, SHAPE, busybox, config, digest, gzip, layers, left, sandbox_of, write, zstd};

#[tokio::test]
async fn a_tarball_becomes_a_root_filesystem_that_boots() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let dir = tempfile::tempdir().unwrap();
    let plain = busybox().done();
    for (name, content) in
        [("plain", plain.clone()), ("gzip", gzip(&plain)), ("zstd", zstd(&plain))]
    {
        let file = write(&dir, name, &content);
        let info = images.import(name, &file).await.unwrap();
        assert_eq!(
            (info.name, info.source),
            (format!("{name}:latest"), file.display().to_string())
        );
        assert!(info.size_bytes > 1 << 20);
    }
    let catalog = client.rootfs().await.unwrap();
    // A machine may have a desktop as well.
    let names = catalog.rootfs.iter().filter(|name| *name != "desktop:1");
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["devbox:1", "gzip:latest", "plain:latest", "zstd:latest"]
    );
    assert_eq!(catalog.default, "devbox:1");

    for rootfs in ["plain", "gzip:latest", "zstd"] {
        let sandbox = sandbox_of(client, rootfs).await;
        let script = "cat /etc/os-release; id -u; echo $STAGE $SHELL; pwd; ls -d /usr/share /bin/bash 2>&1 | wc -l";
        assert_eq!(sh(&sandbox, script).await, "ID=tiny\n0\ntest /bin/sh\n/root\n2\n", "{rootfs}");
        assert_eq!(
            sh(&sandbox, "cat /srv/own; ls -ld /srv | tr -s ' ' | head -c 10").await,
            "web's\ndrwxr-x---"
        );
        // Its own files can be changed, and /usr is its own.
        assert_eq!(sh(&sandbox, "rm /usr/bin/busybox /etc/group; ls /usr/bin 2>&1").await, "");
        let gone = sandbox.command("sh").args(["-c", ":"]).output().await.unwrap();
        assert_eq!(gone.status.code(), 127, "it has removed its only program");
        sandbox.destroy().await.unwrap();
    }
    let sandbox = sandbox_of(client, "plain").await;
    assert_eq!(sh(&sandbox, "cat /etc/group | wc -l").await, "2\n", "others are not concerned");
    sandbox.files().write("/srv/new", "text").await.unwrap();
    assert_eq!(sandbox.files().read("/srv/new").await.unwrap(), "text");
    fixture.end().await;
}

#[tokio::test]
async fn such_sandboxes_pause_fork_and_outlive_their_image() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let dir = tempfile::tempdir().unwrap();
    images.import("tiny:1", write(&dir, "tiny", &busybox().done())).await.unwrap();
    let sandbox = sandbox_of(client, "tiny:1").await;
    sh(&sandbox, "echo mine >/root/f; (while :; do echo x >>/root/ticks; sleep 0.1; done) >/dev/null 2>&1 </dev/null &").await;
    until(&sandbox, "ls /root/ticks 2>/dev/null", "/root/ticks\n").await;
    images.remove("tiny:1").await.unwrap();
    assert!(matches!(images.remove("tiny:1").await, Err(ImageError::NotFound(_))));
    let error = client.create_sandbox(SHAPE).rootfs("tiny:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");

    sandbox.pause().await.unwrap();
    let view = sandbox.refresh().await.unwrap();
    assert_eq!(view.status_reason, None, "its memory is on disk");
    let fork = sandbox.fork().await.unwrap();
    for one in [&sandbox, &fork] {
        if one.id() == sandbox.id() {
            one.resume().await.unwrap();
        }
        let before = sh(one, "wc -l </root/ticks").await;
        assert_eq!(sh(one, "cat /root/f; sleep 0.5").await, "mine\n");
        assert_ne!(sh(one, "wc -l </root/ticks").await, before, "its processes go on");
    }
    sandbox.destroy().await.unwrap();
    assert_eq!(sh(&fork, "cat /etc/os-release").await, "ID=tiny\n");
    fork.destroy().await.unwrap();
    assert_eq!(left(fixture.engine.data_dir()), (vec![], 0));
    fixture.end().await;
}

#[tokio::test]
async fn a_template_can_be_built_on_an_image() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let alpine = "FROM nodeops/sandbox:alpine\nRUN cat /etc/os-release >/root/base\n\
                  USER web\nWORKDIR /srv\nRUN [\"sh\", \"-c\", \"cat own >mine\"]\n";
    let error = client.create_template("t", alpine).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unsupported, Some(501)), "{error}");
    assert!(error.to_string().contains("createos local image import"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "alpine", &busybox().done());
    images.import("alpine:3.20", &file).await.unwrap();
    images.import("mine", &file).await.unwrap();
    let template = client.create_template("t", alpine).await.unwrap();
    template.wait_until_ready().await.unwrap();
    let debian = "FROM nodeops/sandbox:debian\nRUN cat /etc/os-release >/root/base\n";
    let other = client.create_template("u", debian).base("mine").await.unwrap();
    other.wait_until_ready().await.unwrap();
    // Neither needs its image any more.
    images.remove("alpine:3.20").await.unwrap();
    images.remove("mine").await.unwrap();
    let sandbox = sandbox_of(client, "t").await;
    assert_eq!(sh(&sandbox, "id -u; pwd; cat mine; echo $HOME").await, "33\n/srv\nweb's\n/srv\n");
    let sandbox = sandbox_of(client, "u").await;
    assert_eq!(sh(&sandbox, "cat /root/base").await, "ID=tiny\n");
    fixture.end().await;
}

/// As `docker save` has written it for long.
fn docker_archive() -> Vec<u8> {
    let layers = layers();
    let config = config(&layers);
    let [one, two] = layers;
    let manifest = format!(
        r#"[{{"Config":"{}.json","RepoTags":["x:1"],"Layers":["aa/layer.tar","bb/layer.tar"]}}]"#,
        digest(&config)
    );
    Pack::new()
        .file("aa/VERSION", "1.0")
        .file("cc/layer.tar", &one)
        .entry(EntryType::Symlink, "aa/layer.tar", "../cc/layer.tar", b"", 0o777, 0)
        .file("bb/layer.tar", &two)
        .file(&format!("{}.json", digest(&config)), &config)
        .file("manifest.json", manifest)
        .file("repositories", "{}")
        .done()
}

fn oci_layout(damage: bool) -> Vec<u8> {
    let layers = layers();
    let config = config(&layers);
    let packed = [gzip(&layers[0]), zstd(&layers[1])];
    let kinds = [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ];
    let described: Vec<_> = packed
        .iter()
        .zip(kinds)
        .map(|(blob, kind)| {
            format!(
                r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":{}}}"#,
                digest(blob),
                blob.len()
            )
        })
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",
        "digest":"sha256:{}","size":{}}},"layers":[{}]}}"#,
        digest(&config),
        config.len(),
        described.join(",")
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"sha256:{}","size":{}}}]}}"#,
        digest(manifest.as_bytes()),
        manifest.len()
    );
    let mut second = packed[1].clone();
    if damage {
        second = zstd(&Pack::new().file("opt/old/new", "evil").done());
    }
    let blob = |content: &[u8]| format!("blobs/sha256/{}", digest(content));
    Pack::new()
        .dir("blobs/sha256")
        .file(&blob(&packed[0]), &packed[0])
        .file(&blob(&packed[1]), second)
        .file(&blob(&config), &config)
        .file(&blob(manifest.as_bytes()), &manifest)
        .file("index.json", index)
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .done()
}

#[tokio::test]
async fn archives_of_container_images_are_unpacked_with_their_whiteouts_and_defaults() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("docker:1", docker_archive()), ("oci:1", gzip(&oci_layout(false)))] {
        images.import(name, write(&dir, "archive", &content)).await.unwrap();
        let sandbox = sandbox_of(client, name).await;
        let script =
            "id -u; pwd; echo $PATH $LANG $STAGE; cd /opt; echo *; cd old; echo *; cat new";
        let said = sh(&sandbox, script).await;
        assert_eq!(said, "33\n/app\n/bin C test\nold\nnew\nnew", "{name}");
        sandbox.destroy().await.unwrap();
    }
    let file = write(&dir, "archive", &oci_layout(true));
    let error = images.import("damaged:1", file).await.unwrap_err();
    assert!(
        matches!(error, ImageError::Damaged(_)) && error.to_string().contains("was asked for"),
        "{error}"
    );
    fixture.end().await;
}

#[tokio::test]
async fn what_cannot_be_imported_is_told_and_leaves_nothing() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let dir = tempfile::tempdir().unwrap();
    let error = images.import("x", dir.path().join("missing")).await.unwrap_err();
    assert!(matches!(error, ImageError::File { .. }), "{error}");
    let error = images.import("x", dir.path()).await.unwrap_err();
    assert!(matches!(error, ImageError::File { .. }), "{error}");
    let whole = gzip(&busybox().done());
    for (what, content, why) in [
        ("empty", vec![], "no tar archive"),
        ("text", b"hello\n".repeat(1000), "damaged"),
        ("xz", b"\xfd7zXZ\0 and so on".to_vec(), "damaged"),
        ("cut", whole[..whole.len() / 2].to_vec(), "damaged"),
        (
            "out",
            Pack::new()
                .file("etc/x", "")
                .entry(EntryType::Link, "a", "../../../etc/passwd", b"", 0o644, 0)
                .done(),
            "leads out",
        ),
        ("proc", Pack::new().file("etc/x", "").file("proc", "").done(), "/proc is no directory"),
        ("none", Pack::new().file("manifest.json", "[]").done(), "no image"),
        (
            "several",
            Pack::new()
                .file("manifest.json", r#"[{"Config":"c","Layers":[]},{"Config":"c","Layers":[]}]"#)
                .done(),
            "2 images",
        ),
        (
            "foreign",
            Pack::new()
                .file("c", r#"{"os":"windows","architecture":"amd64"}"#)
                .file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#)
                .done(),
            "for windows",
        ),
        (
            "loop",
            Pack::new()
                .entry(EntryType::Symlink, "c", "c", b"", 0o777, 0)
                .file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#)
                .done(),
            "not in the archive",
        ),
    ] {
        let error = images.import("x", write(&dir, "file", &content)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{what}: {error}");
    }
    for name in ["", "devbox:1", "Upper", "../x", "a b"] {
        let error = images.import(name, dir.path().join("file")).await.unwrap_err();
        assert!(matches!(error, ImageError::Name { .. }), "{name:?}: {error}");
    }
    assert_eq!(left(fixture.engine.data_dir()), (vec![], 0));
    let error = client.create_sandbox(SHAPE).rootfs("x").await.unwrap_err();
    assert!(error.to_string().contains("known are [devbox:1"), "{error}");

    // A system in which nothing runs still boots; what is asked of it fails by itself.
    images
        .import("bare", write(&dir, "file", &Pack::new().file("etc/x", "").done()))
        .await
        .unwrap();
    let sandbox = sandbox_of(client, "bare").await;
    let output = sandbox.command("sh").args(["-c", ":"]).output().await.unwrap();
    assert_eq!(output.status.code(), 127);
    assert!(!sandbox.files().read("/etc/hostname").await.unwrap().is_empty());
    fixture.end().await;
}
