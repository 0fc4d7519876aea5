//! What a caller chooses: the level, the name and the place of a cluster, and how long it lives.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};

use crate::cache;

/// How much of Kubernetes runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// API server and controllers; pods are only pretended to run (kwok). Any user.
    ControlPlane,
    /// One whole node in namespaces of its own: pods run, addresses lead to them. Needs root on Linux.
    Node,
}

impl Level {
    /// The most this machine and user can run: [`Level::Node`] for root on Linux.
    pub fn best() -> Self {
        if cfg!(target_os = "linux") && is_root() { Self::Node } else { Self::ControlPlane }
    }

    /// The name used on the command line and in state files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "control-plane" => Ok(Self::ControlPlane),
            "node" => Ok(Self::Node),
            other => bail!("no level '{other}': write control-plane or node"),
        }
    }
}

/// Until when a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until `down`, however the process that started it ends.
    UntilDown,
    /// Until the process that started it ends, killed or not: for tests.
    ThisProcess,
}

/// What to start and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells clusters that run side by side apart: a DNS label of at most 40 characters. Also the node's name.
    pub name: String,
    /// How much runs.
    pub level: Level,
    /// Where everything the cluster writes goes; `None` is `clusters/<name>` in the cache directory.
    pub dir: Option<PathBuf>,
    /// When it ends by itself.
    pub lifetime: Lifetime,
    /// etcd holds the objects as JSON instead of protobuf: whoever reads the history there needs no types.
    pub json_store: bool,
}

impl Options {
    /// A cluster that runs until `down`.
    pub fn new(name: &str, level: Level) -> Self {
        Self { name: name.to_owned(), level, dir: None, lifetime: Lifetime::UntilDown, json_store: false }
    }

    /// A cluster for this test process alone: the process id is part of its name, so that test binaries of
    /// several checkouts run side by side, and it ends with the process.
    pub fn for_tests(name: &str, level: Level) -> Self {
        let name = format!("{name}-{}", std::process::id());
        Self { lifetime: Lifetime::ThisProcess, ..Self::new(&name, level) }
    }

    /// The cluster's directory, absolute, whether it exists or not.
    pub fn resolved_dir(&self) -> Result<PathBuf> {
        check_name(&self.name)?;
        match &self.dir {
            Some(dir) => absolute(dir),
            None => absolute(&cache::root()?.join("clusters").join(&self.name)),
        }
    }
}

/// Symbolic links are resolved: the path marks the cluster's processes, so it must be one spelling only.
pub(crate) fn absolute(dir: &std::path::Path) -> Result<PathBuf> {
    let full = std::path::absolute(dir)?;
    if let Ok(real) = full.canonicalize() {
        return Ok(real);
    }
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(last)) => Ok(absolute(parent)?.join(last)),
        _ => Ok(full),
    }
}

/// Whether this process may create namespaces and cgroups.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn check_name(name: &str) -> Result<()> {
    let fits = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !fits {
        bail!("the cluster name '{name}' does not fit: use lower case letters, digits and '-', at most 40");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_back_as_written() {
        for level in [Level::ControlPlane, Level::Node] {
            assert_eq!(level.as_str().parse::<Level>().unwrap(), level);
        }
    }

    #[test]
    fn names_that_cannot_name_a_node_are_refused() {
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", &"x".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("lifecycle-4711").unwrap();
    }
}
