//! Finding the examples' programs, running them, and reading what they say.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use createos_tests::s3::S3;
use tokio::process::Command;
use tokio::time::timeout;

use crate::planes::{KEY, Plane};

/// Far more than any of them takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the local engine needs to serve an example.
pub(crate) enum Engine {
    Serves,
    /// The bucket of a real S3 server.
    ServesOnBucket,
}

pub(crate) async fn on_the_engine(name: &str, engine: Engine, says: &[&str]) {
    let mut command = command(name);
    // It ends with the test.
    let mut _server = None;
    if let Engine::ServesOnBucket = engine {
        let s3 = _server.insert(S3::start());
        let (config, keys) = (s3.config(), s3.keys());
        command.env("S3_BUCKET", config.bucket).env("S3_ENDPOINT", config.endpoint);
        command.env("AWS_ACCESS_KEY_ID", keys.access_key.expose());
        command.env("AWS_SECRET_ACCESS_KEY", keys.secret_key.expose());
    }
    succeeded(name, &run(command).await, says);
}

pub(crate) async fn on_a_plane(name: &str, plane: Plane, says: &[&str]) {
    let output = run(command_on(name, &plane)).await;
    succeeded(name, &output, says);
    plane.is_empty_and_heard_nothing_odd();
}

/// A command that runs an example against this plane.
pub(crate) fn command_on(name: &str, plane: &Plane) -> Command {
    let mut command = command(name);
    command.env("CREATEOS_API_KEY", KEY).env("CREATEOS_SANDBOX_BASE_URL", plane.url());
    command
}

/// A command that runs an example, blind to the settings of whoever runs the tests.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    let set = std::env::vars_os().map(|(name, _)| name);
    for variable in set.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CREATEOS_") || name.starts_with("S3_") || name.starts_with("AWS_")
    }) {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Output {
    let ended = timeout(PATIENCE, command.output()).await;
    ended.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap()
}

/// Cargo builds the examples with the tests, beside this program's directory.
pub(crate) fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    assert!(
        changed(&program) >= changed(&source),
        "{} is not built, or older than its source: run `cargo test -p examples`, or name \
         `--examples` beside the test",
        program.display()
    );
    program
}

/// It ended well, and said all of this in this order.
fn succeeded(name: &str, output: &Output, says: &[&str]) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{stdout}\n{stderr}", output.status);
    let mut rest = &*stdout;
    for words in says {
        let Some((_, after)) = rest.split_once(words) else {
            panic!("{name} does not say {words:?} where it should:\n{stdout}\n{stderr}");
        };
        rest = after;
    }
}
