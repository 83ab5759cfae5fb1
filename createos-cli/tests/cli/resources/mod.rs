//! Networks, firewalls, disks and templates.

mod disks;
mod firewall;
mod neighbour;
mod networks;
mod prompts;
mod refusals;
mod templates;

use std::process::Output;

use crate::support::Answer;
use crate::support::home::Home;

const SHAPE: &str = "s-1vcpu-256mb";

fn text(home: &Home, line: &[&str]) -> String {
    home.ok(&[&["--output", "table"], line].concat())
}

fn answer(home: &Home, line: &[&str]) -> Answer {
    let output: Output = home.run(line);
    Answer::of(output)
}

/// A running sandbox; its id.
fn create(home: &Home, name: &str, more: &[&str]) -> String {
    let line = [&["sandbox", "create", "--shape", SHAPE, "--name", name], more].concat();
    home.json(&line)["id"].as_str().expect("an id").to_owned()
}

/// What a shell script prints in a sandbox, whether it succeeds or not.
fn sh(home: &Home, name: &str, script: &str) -> String {
    let output = home.run(&["sandbox", "exec", name, "-n", "--", "sh", "-c", script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
