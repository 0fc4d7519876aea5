//! A replica's wall clock, to be stepped without touching the machine's. The C compiler is there: Rust links with it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds what is preloaded.
pub(crate) fn build(directory: &Path) -> PathBuf {
    let library = directory.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/clock.c");
    let status =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(status.expect("a C compiler").success(), "{source} does not build");
    library
}

/// The file a replica's clock follows.
pub(crate) struct Clock(pub(crate) PathBuf);

impl Clock {
    /// Not stepped.
    pub(crate) fn new(path: PathBuf) -> Self {
        std::fs::write(&path, 0_i64.to_ne_bytes()).unwrap();
        Self(path)
    }

    /// Shows this much more than the machine's from now on. The file is mapped, so it is written in place.
    pub(crate) fn step(&self, seconds: i64) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().write(true).open(&self.0).unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }
}
