//! The map as a mounted ConfigMap: the key `mapping.json` of `CLUSTER-external-ips`.

use std::path::PathBuf;
use std::time::Duration;

use crate::known::Fault;
use crate::map::Map;

/// Between two looks. Reading some kilobytes costs nothing, and the kubelet takes up to a minute to change them; it
/// does so by swapping a link, which notifications of the file system do not tell about the file.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// A file as it was read last.
pub(crate) struct Mounted {
    path: PathBuf,
    last: Option<Vec<u8>>,
}

impl Mounted {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// The map, where it is not the same as before. A file that is gone, or half written, changes nothing.
    pub(crate) async fn look(&mut self) -> Result<Option<Map>, Fault> {
        let read = tokio::fs::read(&self.path).await;
        let text = read.map_err(|e| Fault::Unreachable(format!("{}: {e}", self.path.display())))?;
        if self.last.as_ref() == Some(&text) {
            return Ok(None);
        }
        let map = Map::parse(&text)?;
        self.last = Some(text);
        Ok(Some(map))
    }
}

#[cfg(test)]
mod tests;
