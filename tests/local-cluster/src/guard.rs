//! Ends a cluster with the process that started it, even a killed one.

use std::io::{PipeWriter, pipe};
use std::path::Path;

use anyhow::{Context, Result};

use crate::launch::marked_command;
use crate::site;

/// Starts the guard. It acts when the returned end of its pipe closes, which the kernel does for a killed process.
pub(crate) fn watch(dir: &Path) -> Result<PipeWriter> {
    let (reader, writer) = pipe()?;
    marked_command(dir, "guard", Path::new("/bin/sh"))?
        .args(["-c", include_str!("guard.sh"), "guard"])
        .arg(dir)
        .arg(site::cgroup(dir))
        .stdin(reader)
        .current_dir("/")
        .spawn()
        .context("cannot start /bin/sh")?;
    Ok(writer)
}
