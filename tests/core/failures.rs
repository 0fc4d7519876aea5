//! docs/failures.md against what it names: tests that exist, and protections that can be taken out.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The columns of each failure's row.
fn rows() -> Vec<Vec<String>> {
    let page = read_to_string(root().join("docs/failures.md")).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|l| l.starts_with("| ")).map(cells);
    rows.filter(|r| r[0] != "failure" && r[0] != "---").collect()
}

/// What a cell has between backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// All Rust below a folder, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() && entry.file_name().is_some_and(|n| n != "target") {
            sources(&entry, text);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            text.push_str(&read_to_string(&entry).unwrap());
        }
    }
}

#[test]
fn each_failure_has_a_test_and_a_protection_that_can_be_taken_out() {
    let mut source = String::new();
    for folder in ["src", "core/src", "tests"] {
        sources(&root().join(folder), &mut source);
    }
    let patches: BTreeSet<String> = read_dir(root().join("tests/protections"))
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok()?.strip_suffix(".patch").map(str::to_owned))
        .collect();
    let rows = rows();
    assert!(rows.len() > 50, "the page was read");
    let mut named = BTreeSet::new();
    for row in &rows {
        let [failure, _, _, tests, protections] = row.as_slice() else { panic!("five columns: {row:?}") };
        let is_test = |name: &str| name.starts_with("make ") || source.contains(&format!("fn {name}("));
        let missing: Vec<_> = names(tests).filter(|name| !is_test(name)).collect();
        assert!(missing.is_empty(), "{failure}: no such tests: {missing:?}");
        assert!(!tests.is_empty() && names(protections).next().is_some(), "{failure}: without a protection");
        named.extend(names(protections).map(str::to_owned));
    }
    assert_eq!(named, patches, "the page and tests/protections name the same protections");
}
