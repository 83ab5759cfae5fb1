//! Builds the engine's helper programs, which are embedded in it.
//!
//! The warden and the agent must run from any root filesystem and start at once,
//! so they are static programs of `std` alone, and rustc can build each from its
//! sources without cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HELPERS: [(&str, &str); 2] = [("agent", "src/guest"), ("warden", "src/warden")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/sys");
    println!("cargo::rerun-if-changed=src/codec.rs");
    println!("cargo::rerun-if-changed=src/tree.rs");
    for (name, directory) in HELPERS {
        println!("cargo::rerun-if-changed={directory}");
        if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
            build(name, &Path::new(directory).join("main.rs"));
        }
    }
}

fn build(name: &str, source: &Path) {
    let target = env::var("TARGET").unwrap_or_default();
    let first = compile(name, source, &target);
    if first.status.success() {
        return;
    }
    // Where the C library has no static version, musl does, if rustup installed it.
    let musl = target.replace("-gnu", "-musl");
    if musl != target && compile(name, source, &musl).status.success() {
        return;
    }
    panic!(
        "cannot build the static helper program `{name}`. It needs a C compiler and the static \
         C library (Debian, Ubuntu: libc6-dev; Fedora: glibc-static), or the Rust target {musl} \
         (rustup target add {musl}).\n\n{}",
        String::from_utf8_lossy(&first.stderr)
    );
}

fn compile(name: &str, source: &Path, target: &str) -> Output {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "--crate-type=bin", "--cap-lints=allow", "--target", target])
        .args(["-Ctarget-feature=+crt-static", "-Cpanic=abort", "-Copt-level=s"])
        .args(["-Cstrip=symbols", "-Ccodegen-units=1"])
        .arg(format!("--crate-name=createos_{name}"))
        .arg("-o")
        .arg(out_dir.join(name))
        .arg(source);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        command.arg(option);
    }
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run rustc: {error}"),
    }
}
