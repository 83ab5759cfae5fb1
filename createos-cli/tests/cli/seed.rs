//! Every command line of the product's first page, by the script that a user can run too.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_lines_of_the_first_page_do_what_they_say() {
    let built = Path::new(env!("CARGO_BIN_EXE_createos")).parent().expect("a directory");
    let path = std::env::var("PATH").expect("PATH");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/seed.sh");
    let output = Command::new(script)
        .env("PATH", format!("{}:{path}", built.display()))
        .stderr(Stdio::inherit())
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let last = said.lines().last().unwrap_or_default();
    let passed = last.strip_suffix(" passed, 0 failed").and_then(|count| count.parse::<u32>().ok());
    assert!(output.status.success() && passed.is_some_and(|count| count > 100), "{last}\n{said}");
}
