//! Stops a cluster and removes what it left, whatever state an `up` was killed in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cache::{self, Lock};
use crate::options::absolute;
use crate::{marked, node, site};

/// Stops the cluster in `dir` and deletes the directory. Nothing there is fine.
pub fn down(dir: &Path) -> Result<()> {
    let dir = absolute(dir)?;
    let lock = lock(&dir)?;
    clear(&dir)?;
    lock.remove();
    Ok(())
}

/// The directories of all clusters that have not been given a place of their own.
pub fn all() -> Result<Vec<PathBuf>> {
    let clusters = cache::root()?.join("clusters");
    let Ok(entries) = fs::read_dir(clusters) else { return Ok(Vec::new()) };
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// `up` and `down` of one directory take turns.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    // Not even a lock beside somebody else's directory.
    require_ours(dir)?;
    let mut path = dir.as_os_str().to_owned();
    path.push(".lock");
    Lock::take(Path::new(&path), || {
        eprintln!("          waiting: another up or down works on {}", dir.display());
    })
}

/// Under the lock. Everything hangs on processes (network and mount namespaces end with the last one in them), save
/// the directory and the cgroups.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    require_ours(dir)?;
    marked::end_all(dir)?;
    node::remove_cgroups(&site::cgroup(dir))?;
    remove(dir)
}

fn require_ours(dir: &Path) -> Result<()> {
    ensure!(
        site::is_ours(dir),
        "{} is not a cluster's directory (it has files, but no local-cluster.json): it stays as it is",
        dir.display()
    );
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    /// Mounts inside end with their namespace, a moment after its last process.
    const LIMIT: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if begun.elapsed() > LIMIT => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
