//! The stores' images, made of Debian's packages and Maven's artifacts.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use local_cluster::image::{self, Image};

use crate::rig::{root, say};

/// What the images are made by.
const MADE_BY: [&str; 2] = ["tests/stores/root", "tests/stores/infinispan-server/pom.xml"];

/// The archive of a store's image under the name that its example asks for. Made once for each state of what it is made
/// by, and kept beside the cluster's programs; may be deleted at any time.
pub(super) fn archive(store: &str, image: &Image) -> PathBuf {
    let made_by = MADE_BY.map(|path| root().join(path));
    let directory = cache().join(format!("{store}-{:016x}", state(&made_by, &image.name)));
    let archive = directory.join("image.tar");
    if !archive.exists() {
        say(&format!("making the image {} (once)", image.name));
        let (files, fresh) = (directory.join("root"), directory.join("fresh.tar"));
        let _ = std::fs::remove_dir_all(&files);
        std::fs::create_dir_all(&files).unwrap();
        run(Command::new(root().join("tests/stores/root")).arg(store).arg(&files));
        image::pack(&files, image, &fresh).unwrap();
        std::fs::rename(&fresh, &archive).unwrap();
        std::fs::remove_dir_all(&files).unwrap();
    }
    archive
}

/// What these files hold, for the name of the directory of what is made by them.
pub(super) fn state(files: &[PathBuf], name: &str) -> u64 {
    let mut state = DefaultHasher::new();
    for file in files {
        std::fs::read(file).unwrap().hash(&mut state);
    }
    name.hash(&mut state);
    state.finish()
}

/// Where what the stores' tests fetch and build is kept.
pub(super) fn cache() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    base.join("external-ip-controller/stores")
}

/// Runs it to its end; panics with what it said.
pub(super) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}\n{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}
