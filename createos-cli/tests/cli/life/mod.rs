//! The life of a sandbox: create, list, get, edit, pause, resume, fork, rm.

mod editing;
mod lines;
mod real;
mod refusals;
mod wizard;

use serde_json::Value;

use crate::support::Answer;
use crate::support::home::Home;

const SHAPE: &str = "s-1vcpu-256mb";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvLJ0kzjJ0YHb1q6xg3b1tq1c2QbVjvQkpo0cVJ0a1b me@here";
const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvLJ0kzjJ0YHb1q6xg3b1tq1c2QbVjvQkpo0cVJ0a1c you@there";

fn text(home: &Home, line: &[&str]) -> String {
    home.ok(&[&["--output", "table"], line].concat())
}

fn answer(home: &Home, line: &[&str]) -> Answer {
    Answer::of(home.run(line))
}

/// A running sandbox; what was said of it.
fn create(home: &Home, name: &str, more: &[&str]) -> Value {
    home.json(&[&["sandbox", "create", "--shape", SHAPE, "--name", name], more].concat())
}

fn id(document: &Value) -> String {
    document["id"].as_str().expect("an id").to_owned()
}

/// A file in the home; its path.
fn file(home: &Home, name: &str, content: &str) -> String {
    let path = home.dir.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(&path, content).expect("a file");
    path.display().to_string()
}

/// The first keys of a document, in their order.
fn first_keys(text: &str, count: usize) -> Vec<String> {
    let keys = text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next());
    keys.take(count).map(str::to_owned).collect()
}
