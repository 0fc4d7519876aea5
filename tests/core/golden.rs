//! Golden files: outputs as people should see them in a review.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder of the golden files.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/core/golden")
}

/// Asserts that `actual` is what `file` (relative to [`folder`]) holds; `UPDATE_GOLDENS=1` writes it instead.
pub(crate) fn assert_golden(file: &str, actual: &str) {
    let path = folder().join(file);
    if std::env::var_os("UPDATE_GOLDENS").is_some_and(|v| v == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(&path, actual).unwrap();
    }
    let wanted = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_GOLDENS=1 writes it", path.display()));
    assert!(
        wanted == actual,
        "{} differs; UPDATE_GOLDENS=1 writes it anew\n--- golden\n{wanted}\n--- actual\n{actual}",
        path.display()
    );
}

/// Names of the files in `sub` (relative to [`folder`]) that end with `suffix`, without it, sorted.
pub(crate) fn cases(sub: &str, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder().join(sub))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(suffix)?.to_owned()))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no {suffix} in {sub}");
    names
}
