//! Debian systems built from packages, by the real tool and from a real mirror.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use createos_local::images::{ImageError, Images};
use createos_tests::{Fixture, sh};

use crate::pack::{left, sandbox_of};

/// Harmless, and said to one of the builds only.
const MARK: &str = "--aptopt=Acquire::Retries \"7\"";

/// Processes of the tool that this one has started for that build.
fn running() -> usize {
    let own = std::process::id().to_string();
    let is_tool = |path: std::path::PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let words = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        words.contains(MARK) && parent == Some(&own)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| is_tool(entry.path())).count()
}

#[tokio::test]
async fn a_debian_is_built_from_packages_and_runs() {
    let fixture = Fixture::start().await;
    let (client, images) = (&fixture.client, fixture.engine.images());
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let build = images
        .build_debian("debian:13")
        .package("hello")
        // Packages are signed whatever the age of a mirror's index.
        .option("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .progress(move |line| log.lock().unwrap().push(line.to_owned()));
    let info =
        build.await.unwrap_or_else(|error| panic!("{error} (Debian: apt install mmdebstrap)"));
    assert_eq!((&*info.name, &*info.source), ("debian:13", "debian trixie"));
    assert!(info.size_bytes > 50 << 20, "{info:?}");
    assert!(said.lock().unwrap().iter().any(|line| line.contains("download")), "{said:?}");

    let sandbox = sandbox_of(client, "debian:13").await;
    let system = sh(&sandbox, "cut -d. -f1 /etc/debian_version; hello; id -u").await;
    assert_eq!(system, "13\nHello, world!\n0\n");
    // It is a whole system: its package manager knows itself, accounts can be made and used.
    assert_eq!(sh(&sandbox, "dpkg -s hello | grep Status").await, "Status: install ok installed\n");
    let user = "useradd -m ann && su ann -c 'id -un; echo mine >~/f; stat -c %U ~/f'";
    assert_eq!(sh(&sandbox, user).await, "ann\nann\n");
    assert_eq!(sh(&sandbox, "test -e /usr/bin/cargo || echo its own").await, "its own\n");
    sandbox.destroy().await.unwrap();

    // Built on: a template's own commands run in it.
    let dockerfile = "FROM nodeops/sandbox:debian\nRUN hello >/greeting\n";
    let template = client.create_template("t", dockerfile).base("debian:13").await.unwrap();
    template.wait_until_ready().await.unwrap();
    let sandbox = sandbox_of(client, "t").await;
    assert_eq!(sh(&sandbox, "cat /greeting").await, "Hello, world!\n");
    fixture.end().await;
}

#[tokio::test]
async fn a_build_that_fails_or_is_given_up_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let images = Images::of(data.path());
    let error = images.build_debian("x").mirror("http://127.0.0.1:1/debian").await.unwrap_err();
    let ImageError::Build { said, .. } = &error else { panic!("{error}") };
    assert!(said.contains("127.0.0.1"), "{said}");
    for (suite, package) in [("--hook", "a"), ("a b", "a"), ("trixie", "-x"), ("trixie", "a,b c")] {
        let error = images.build_debian("x").suite(suite).package(package).await.unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(_)), "{error}");
    }

    let (began, begins) = tokio::sync::oneshot::channel();
    let began = Mutex::new(Some(began));
    let build = images.build_debian("x").option(MARK).progress(move |_| {
        if let Some(began) = began.lock().unwrap().take() {
            let _ = began.send(());
        }
    });
    let build = tokio::spawn(build.into_future());
    begins.await.unwrap();
    assert_eq!(running(), 1);
    build.abort();
    let deadline = Instant::now() + Duration::from_secs(30);
    while running() > 0 || left(data.path()).1 > 0 {
        assert!(Instant::now() < deadline, "{} run, {:?} is left", running(), left(data.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(images.list().await.unwrap().is_empty());
}
