//! The README's table of endpoints names tests that are there.

use std::path::Path;

#[test]
fn every_test_named_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let rows: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with('|') && line.contains("` | `"))
        .filter_map(|line| line.trim_end_matches('|').rsplit('|').next())
        .collect();
    assert!(rows.len() >= 90, "{} rows", rows.len());
    for row in rows {
        for named in row.split('`').map(str::trim).filter(|name| name.contains("::")) {
            let (module, test) = named.split_once("::").unwrap();
            let file = root.join(format!("tests/wire/{module}.rs"));
            let source = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(source.contains(&format!("fn {test}()")), "{named} is named but not there");
        }
    }
}
