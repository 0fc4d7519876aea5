//! Where fetched and built things are kept between runs, keyed by what they were made from.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `${XDG_CACHE_HOME:-$HOME/.cache}/external-ip-controller`.
pub(crate) fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(
            std::env::var_os("HOME")
                .context("neither HOME nor XDG_CACHE_HOME is set: set one, the cache goes there")?,
        )
        .join(".cache"),
    };
    Ok(base.join("external-ip-controller"))
}

/// A short name for what was made from `inputs`: another input, another name.
pub(crate) fn key(inputs: &[&[u8]]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for input in inputs {
        hash.update(&(input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hex(&hash.finish().as_ref()[..8])
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An exclusive lock on a path, held by this process and, until they have executed their program, by the children it
/// is just starting: who holds the lock next sees every one of them under its final environment.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for whoever has it, after telling `busy`.
    pub(crate) fn take(path: &Path, mut busy: impl FnMut()) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        loop {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            if file.try_lock().is_err() {
                busy();
                file.lock()?;
            }
            // The holder before may have removed the file while we waited: then ours locks nothing.
            let same =
                fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
            if same {
                return Ok(Self { path: path.to_owned(), _file: file });
            }
        }
    }

    /// Gives it back and leaves no file behind.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes `path` once: `make` fills a fresh directory beside it, which takes the name only when complete. A second
/// process that needs the same waits.
pub(crate) fn once(path: &Path, what: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let lock = Lock::take(&path.with_extension("lock"), || {
        eprintln!("          waiting: another process makes {what}");
    })?;
    if !path.exists() {
        let fresh = path.with_extension("new");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh)?;
        make(&fresh).with_context(|| format!("could not make {what}"))?;
        fs::rename(&fresh, path)?;
    }
    lock.remove();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_where_one_input_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab", b"c"]).len(), 16);
    }
}
