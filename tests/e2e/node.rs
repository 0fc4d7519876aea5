//! The clusters of this binary, each held by one test at a time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use local_cluster::image::{self, Image};
use local_cluster::{Cluster, Level};

use crate::outside::Outside;
use crate::rig::{root, say};

/// Of our own. Tests wait most of the time, and two cores carry two nodes, not more.
const MOST: usize = 2;

/// What a test expects on a node; one that is in this state already is preferred, since installing takes seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Bare,
    Installed,
}

/// A cluster with the images loaded, and the client outside of it.
struct Place {
    cluster: Cluster,
    outside: Outside,
}

/// A place that nobody else has; given back when it is dropped.
pub(crate) struct Node {
    place: &'static Place,
    state: Mutex<State>,
}

#[derive(Default)]
struct Places {
    free: Vec<(&'static Place, State)>,
    /// Places there are, or are being started.
    count: usize,
    /// No pods can run here, and nobody requires it.
    none: bool,
}

static PLACES: Mutex<Places> = Mutex::new(Places { free: Vec::new(), count: 0, none: false });
static FREED: Condvar = Condvar::new();

fn places() -> MutexGuard<'static, Places> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Waits for one, or starts it. `None`, after saying why once, where no pods can run and nobody requires it.
    pub(crate) fn take(preferred: State) -> Option<Self> {
        let mut places = places();
        loop {
            if places.none {
                return None;
            }
            if !places.free.is_empty() {
                let which = places.free.iter().position(|(_, state)| *state == preferred).unwrap_or(0);
                let (place, state) = places.free.swap_remove(which);
                return Some(Self { place, state: Mutex::new(state) });
            }
            if places.count < most() {
                places.count += 1;
                drop(places);
                return Self::start();
            }
            places = FREED.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn start() -> Option<Self> {
        /// A start that fails fails its own test; the others try again.
        struct Attempt;
        impl Drop for Attempt {
            fn drop(&mut self) {
                places().count -= 1;
                FREED.notify_all();
            }
        }
        let attempt = Attempt;
        let Some(place) = Place::start() else {
            places().none = true;
            return None;
        };
        std::mem::forget(attempt);
        Some(Self { place: Box::leak(Box::new(place)), state: Mutex::new(State::Bare) })
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        &self.place.cluster
    }

    pub(crate) fn outside(&self) -> &'static Outside {
        &self.place.outside
    }

    /// Says what is on it now.
    pub(crate) fn is(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        places().free.push((self.place, state));
        FREED.notify_all();
    }
}

/// A cluster that is given is one.
fn most() -> usize {
    if matches!(Cluster::current(), Ok(None)) { MOST } else { 1 }
}

impl Place {
    /// `None` where the node level is neither possible nor required.
    fn start() -> Option<Self> {
        let required = std::env::var("REQUIRE_NODE").as_deref() == Ok("1");
        let current = Cluster::current().expect("the cluster that the environment names can be used");
        let level = current.as_ref().map_or(Some(Level::best()), Cluster::level);
        if level != Some(Level::Node) && !required {
            say(
                "SKIPPED: all of e2e but the old map's clients: it needs a node of `make cluster-up`, because it looks into \
                 the node and stands outside of it, and that needs root on Linux (REQUIRE_NODE=1 makes this a failure)",
            );
            return None;
        }
        let archive = std::env::var_os("IMAGE").map(PathBuf::from);
        let archive = archive.expect("IMAGE names the archive of the product's image: run `make test-e2e`");
        let cluster = current.unwrap_or_else(own);
        cluster.load_image(&archive).unwrap();
        cluster.load_image(&busybox(cluster.dir().unwrap())).unwrap();
        let outside = Outside::enter(&cluster);
        Some(Self { cluster, outside })
    }
}

fn own() -> Cluster {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let name = format!("e2e-{}", STARTED.fetch_add(1, Ordering::Relaxed));
    Cluster::for_tests(&name, Level::Node).expect("a node to test on")
}

/// Packs the stand-in for the image that the example names; see the script.
fn busybox(dir: &Path) -> PathBuf {
    let (files, archive) = (dir.join("busybox"), dir.join("busybox.tar"));
    let script = root().join("tests/support/busybox-root");
    let out = Command::new(script).arg(&files).output().expect("the script starts");
    assert!(out.status.success(), "busybox-root: {}", String::from_utf8_lossy(&out.stderr));
    image::pack(&files, &Image::new("busybox:1.37"), &archive).unwrap();
    archive
}
