//! The README's table of endpoints is complete, and names methods and tests that are there.

use std::collections::BTreeSet;
use std::path::Path;

use super::signatures::sources;

/// Number, endpoint, methods and tests of every row.
fn rows(readme: &str) -> Vec<[&str; 4]> {
    let cells = |line| {
        let cells: Vec<&str> = str::split(line, '|').map(str::trim).collect();
        <[&str; 4]>::try_from(cells.get(1..5)?).ok()
    };
    readme
        .lines()
        .filter(|line| line.starts_with('|') && line.contains("` | `"))
        .filter_map(cells)
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_is_complete_and_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let sources: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let rows = rows(&readme);
    assert!(rows.len() >= 100, "{} rows", rows.len());

    // Every number of api.md section 2.
    let numbers: BTreeSet<u32> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
    assert_eq!(numbers, (1..=54).collect(), "every endpoint has its row");
    for [_, endpoint, methods, tests] in rows {
        assert!(quoted(methods).next().is_some(), "{endpoint} names no method");
        for method in quoted(methods) {
            let name = method.rsplit("::").next().unwrap();
            let definition = format!("pub fn {name}");
            let is_there = sources.iter().any(|source| {
                source.match_indices(&definition).any(|(at, _)| {
                    matches!(source.as_bytes().get(at + definition.len()), Some(b'(' | b'<'))
                })
            });
            assert!(is_there, "{endpoint}: {method} is named but not there");
        }
        assert!(quoted(tests).next().is_some(), "{endpoint} names no test");
        for test in quoted(tests) {
            let found = match test.split_once("::") {
                Some((module, test)) => {
                    let file = root.join(format!("tests/wire/{module}.rs"));
                    let source = std::fs::read_to_string(file).unwrap_or_default();
                    source.contains(&format!("fn {test}()"))
                }
                // A whole file: one of the tests here, or of a module.
                None => {
                    root.join(format!("tests/wire/{test}.rs")).is_file()
                        || root.join(test).is_file()
                }
            };
            assert!(found, "{endpoint}: {test} is named but not there");
        }
    }
}
