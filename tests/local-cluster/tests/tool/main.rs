//! Tests of the local cluster itself: what it promises to the tests that use it.
//!
//! They start clusters of their own, whatever `KUBECONFIG` says. Where the node level is not possible its tests say so
//! and pass, unless `REQUIRE_NODE=1`.

// The allowances of clippy.toml are for test functions; here their helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control_plane;
mod lifecycle;
mod node;
mod traces;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use local_cluster::Level;

/// One test at a time: each of them starts clusters, and two cores are few.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The node level, or `None` (after saying so) where it is neither possible nor required.
pub(crate) fn node_level() -> Option<Level> {
    if Level::best() == Level::Node || std::env::var("REQUIRE_NODE").as_deref() == Ok("1") {
        return Some(Level::Node);
    }
    eprintln!("SKIPPED: the node level needs root on Linux (REQUIRE_NODE=1 makes this a failure)");
    None
}

/// A directory of this test's own, not made yet.
pub(crate) fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("local-cluster-{name}-{}", std::process::id()))
}

/// Asks until the answer is there; panics with the last one.
pub(crate) fn eventually<T: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if begun.elapsed() > Duration::from_secs(60) => {
                panic!("not within 60 s: {what}: {last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
