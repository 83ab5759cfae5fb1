//! Other crates' types stay out of the public interface, so that their versions are ours to
//! choose.

use std::path::{Path, PathBuf};

const FOREIGN: &[&str] =
    &["reqwest", "hyper", "serde_json", "http", "tungstenite", "url", "jiff", "tar", "base64"];

pub(crate) fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names that a file imports from foreign crates.
fn imports(text: &str) -> Vec<String> {
    let mut names: Vec<String> = FOREIGN.iter().map(|name| format!("{name}::")).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("use ")) {
        let of =
            |name: &&&str| line.strip_prefix(**name).is_some_and(|rest| rest.starts_with("::"));
        if FOREIGN.iter().any(|name| of(&name)) {
            let parts = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(
                parts.filter(|part| part.starts_with(char::is_uppercase)).map(str::to_owned),
            );
        }
    }
    names
}

/// Every `pub` signature or field: from `pub` to the body, the value or the end of the item.
fn public_items(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines: Vec<&str> = code.lines().collect();
    let mut items = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        let is_item =
            ["pub fn", "pub async fn", "pub struct", "pub type", "pub trait", "pub const"]
                .iter()
                .any(|start| line.starts_with(start));
        // The fields of a tuple struct are private unless they say otherwise.
        let is_item = is_item
            && !(line.starts_with("pub struct") && !line.contains("(pub") && line.contains('('));
        let is_field = line.starts_with("pub ") && line.ends_with(',') && line.contains(": ");
        if is_field {
            items.push(line.to_owned());
        } else if is_item {
            let rest = lines[at..].iter().scan(false, |ended, line| {
                let before = *ended;
                *ended = line.contains('{') || line.trim_end().ends_with(';');
                (!before).then_some(*line)
            });
            items.push(rest.collect::<Vec<_>>().join(" "));
        }
    }
    items
}

#[test]
fn no_foreign_type_is_public() {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let mut seen = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let foreign = imports(&text);
        for item in public_items(&text) {
            seen += 1;
            let words = |name: &String| {
                let mut parts = item.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                parts.any(|part| part == name || (name.ends_with("::") && part.starts_with(name)))
            };
            let culprit = foreign.iter().find(|name| words(name));
            assert_eq!(culprit, None, "{}: {item}", file.display());
        }
    }
    assert!(seen > 300, "the search finds the interface: {seen}");
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let text = "use reqwest::{Client, Method};\npub fn a(\n    m: Method,\n) -> u8 {\n";
    let items = public_items(text);
    assert_eq!(items.len(), 1);
    assert!(imports(text).contains(&"Method".to_owned()) && items[0].contains("Method"));
}
