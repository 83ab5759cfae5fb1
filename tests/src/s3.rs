//! A real S3 server for one test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use createos_sdk::wire::{DiskConfig, DiskCredentials};

/// The bucket that it has.
pub const BUCKET: &str = "createos-test";
const ACCESS: &str = "AKTEST";
const SECRET: &str = "hunter2+/secret";

/// A running server. It checks signatures, and goes wrong when it is told to.
#[derive(Debug)]
pub struct S3 {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
    unguarded: u16,
}

impl S3 {
    /// Starts one with an empty bucket.
    ///
    /// # Panics
    ///
    /// Where it cannot be had, with what to do.
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = Command::new(root.join("../.ci/s3")).stderr(Stdio::inherit()).output();
        let python = python.expect("run .ci/s3");
        assert!(python.status.success(), "no S3 server to test with; run .ci/s3 to see why");
        let python = String::from_utf8(python.stdout).expect("a path");
        let mut process = Command::new(python.trim())
            .arg(root.join("s3/server.py"))
            .arg(BUCKET)
            .env_remove("AWS_CA_BUNDLE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the S3 server");
        let input = process.stdin.take().expect("its input");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its first line");
        let mut ports = line.split_whitespace().filter_map(|port| port.parse().ok());
        let (Some(port), Some(unguarded)) = (ports.next(), ports.next()) else {
            panic!("the S3 server does not start: {line:?}");
        };
        Self { process, input, output, port, unguarded }
    }

    /// The bucket, as a disk's configuration.
    pub fn config(&self) -> DiskConfig {
        DiskConfig::new(BUCKET, format!("http://127.0.0.1:{}", self.port))
            .in_region("us-east-1")
            .path_style()
    }

    /// Where it serves whoever asks, signed or not.
    pub fn unguarded(&self) -> u16 {
        self.unguarded
    }

    /// The keys that open it at first.
    pub fn keys(&self) -> DiskCredentials {
        DiskCredentials::new(ACCESS, SECRET)
    }

    /// Lets these keys in from now on, and no others.
    ///
    /// # Panics
    ///
    /// When the server is gone.
    pub fn set_keys(&mut self, access: &str, secret: &str) {
        self.tell(&format!("keys {access} {secret}"));
    }

    /// What goes wrong from now on; `none` nothing.
    ///
    /// # Panics
    ///
    /// When the server is gone.
    pub fn fault(&mut self, name: &str) {
        self.tell(&format!("fault {name}"));
    }

    /// How many requests it has had.
    ///
    /// # Panics
    ///
    /// When the server is gone.
    pub fn requests(&mut self) -> u64 {
        self.tell("count")
    }

    fn tell(&mut self, line: &str) -> u64 {
        writeln!(self.input, "{line}").expect("tell the S3 server");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("hear the S3 server");
        let count = answer.trim().strip_prefix("ok ").and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("the S3 server said {answer:?}"))
    }

    /// Kills it at once.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill the S3 server");
        self.process.wait().expect("its end");
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
