//! Everything a level needs that is not part of the machine, made on first use and kept in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::options::{Level, is_root};
use crate::progress::Progress;
use crate::{debian, go, launch, member};

/// Where the made things are. Paths of what the level does not need are empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    /// Go binaries, MetalLB's types, kwok's stages.
    pub(crate) bin: PathBuf,
    /// Root of the unpacked Debian packages.
    pub(crate) debian: PathBuf,
    /// The static test member, see `member/main.rs`.
    pub(crate) member: PathBuf,
    /// `pause.tar` and `member.tar`.
    pub(crate) images: PathBuf,
}

/// For whom things are made.
pub(crate) struct Maker<'a> {
    /// The directory of the cluster whose `up` needs them: its `down` ends what a killed `up` was making.
    pub(crate) owner: Option<&'a Path>,
    /// Where it is told how far.
    pub(crate) progress: &'a Progress,
}

impl Maker<'_> {
    /// A command that makes something.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(dir) = self.owner {
            launch::mark(&mut command, dir);
        }
        command
    }

    pub(crate) fn say(&self, what: &str) {
        self.progress.say(what);
    }
}

impl Tools {
    /// Makes what is missing.
    pub(crate) fn ensure(level: Level, maker: &Maker<'_>) -> Result<Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "the local cluster runs on Linux only: elsewhere start one with kind or k3d and set KUBECONFIG"
        );
        if level == Level::Node {
            require_node_machine()?;
        }
        let mut tools = Self { bin: go::binaries(level, maker)?, ..Self::default() };
        if level == Level::Node {
            tools.debian = debian::unpacked(maker)?;
            tools.member = member::binary(maker)?;
            tools.images = member::images(&tools.member)?;
        }
        Ok(tools)
    }
}

/// Says what is missing before anything is downloaded for it.
fn require_node_machine() -> Result<()> {
    ensure!(
        is_root(),
        "the node level needs root (namespaces, cgroups): run as root, or use LEVEL=control-plane"
    );
    for program in ["nsenter", "unshare", "mount", "ip"] {
        ensure!(
            on_path(program),
            "the node level needs the program '{program}': install util-linux and iproute2"
        );
    }
    Ok(())
}

/// Whether a program of that name can be executed.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
