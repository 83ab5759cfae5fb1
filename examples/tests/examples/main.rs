//! Every example is run: on the engine of this machine, and on planes that follow a script.

#![allow(clippy::unwrap_used)]

mod interactive;
mod interrupted;
mod planes;
mod run;

use std::collections::BTreeSet;
use std::path::Path;

use crate::run::Engine::{Serves, ServesOnBucket};

/// One row per example: what the local engine needs for it, what the example says in this order,
/// and the scripted plane it also runs on.
macro_rules! examples {
    ($($name:ident: $engine:expr, $says:expr $(, $plane:expr)?;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            use super::*;

            #[tokio::test]
            async fn on_the_engine() {
                run::on_the_engine(stringify!($name), $engine, &$says).await;
            }

            $(#[tokio::test]
            async fn on_a_scripted_plane() {
                run::on_a_plane(stringify!($name), $plane.await, &$says).await;
            })?
        })*
    };
}

examples! {
    quickstart: Serves, ["sandbox sb-", "step 3", "exit code 0", "the same: true", "Nothing is left"];
    hello: Serves, ["hello from Linux", "FROM STANDARD", "exit code 3: no such luck", "it is gone"];
    streaming: Serves, ["out| compiling part 3", "err| warning", "exit code 2", "it is gone",
        "6", "[… 6888868 bytes left out …]", "1000000"];
    files: Serves, ["buy milk", "9 bytes", "done.txt", "not found now", "32 MiB went in",
        "the same: true", "2 files", "came out: 1 2 3"];
    agent: Serves, ["bytes left out …]", "not found", "NameError", "answer: 25"];
    tunnel: Serves, ["sandbox.http: <h1>hello from inside</h1>",
        "status 404", "a connection brought", "the listener, 0 ", "<h1>hello from inside</h1>"],
        planes::tunnel::start();
    terminal: Serves, ["from /dev/pts/", "size 40 120",
        "the shell has ended"], planes::terminal::start();
    network: Serves, ["has the address 10.64.",
        "has the address 10.64.", "hello from the other sandbox", "after one has left: 1", "network removed"],
        planes::network::start();
    disk: ServesOnBucket, ["the writer has s3 at /mnt/data: mounted",
        "found: written in one sandbox", "disk removed"], planes::disk::start();
    template: Serves, ["build| ", "built", "bytes",
        "says: hello from the template", "template removed"], planes::template::start();
    fork: Serves, ["prepared and paused", "gzip -1: ",
        "gzip -9: ", "xz -9: ", "the best is ", "came out: true"], planes::fork::start();
    process: Serves, [r#"heard "ready\n""#, "left it at",
        r#"heard "1\n2\n3\n""#, "missed nothing", "ended meanwhile: exit code 7", "lost: ",
        r#"at the end "done\n""#, "exit code 7"], planes::process::start();
    desktop: Serves, ["a desktop of ", "bytes of PNG", "a window: ",
        "come of it: typed by hand", "has changed: true"], planes::desktop::start();
}

#[test]
fn every_example_is_in_the_table_and_in_the_readme() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(package.join("examples")).unwrap();
    let name =
        |file: std::fs::DirEntry| file.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let found: BTreeSet<String> = files.map(|file| name(file.unwrap())).collect();
    assert_eq!(found, NAMES.iter().map(|name| (*name).to_owned()).collect());

    let readme = std::fs::read_to_string(package.join("README.md")).unwrap();
    for name in NAMES {
        let command = format!("cargo run -p examples --example {name}`");
        assert!(readme.contains(&command), "README.md lacks {command}");
    }
}
