//! Lists and watch events as they come over the wire.

use external_ip_core::state::Change;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{End, Watched};
use crate::client::call::{self, ApiStatus, CallError};

#[derive(Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: PageMeta,
    // an empty list may be null
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    pub(super) continue_token: Option<String>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl PageMeta {
    pub(super) fn version(&self) -> Option<u64> {
        self.resource_version.parse().ok()
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Named {
    pub(super) metadata: PageMeta,
}

/// A line of a watch. kube's `WatchEvent` buffers the object to look at its type first; borrowing it does not.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Reads one line; `None` for a type of event this version does not know.
pub(super) fn event<T: Watched>(line: &[u8]) -> Result<Option<Change<T>>, End> {
    fn read<'a, O: Deserialize<'a>>(text: &'a str) -> Result<O, End> {
        serde_json::from_str(text).map_err(|error| {
            let named: Named = serde_json::from_str(text).unwrap_or_default();
            End::Stale(format!(
                "the event of {}/{} cannot be read: {error}",
                named.metadata.namespace, named.metadata.name
            ))
        })
    }
    let line: Line<'_> =
        serde_json::from_slice(line).map_err(|e| End::Stale(format!("not a watch event: {e}")))?;
    let text = line.object.get();
    Ok(match line.kind {
        "ADDED" | "MODIFIED" => Some(Change::Applied(read(text)?)),
        "DELETED" => Some(Change::Deleted(read(text)?)),
        "BOOKMARK" => read::<Named>(text)?.metadata.version().map(Change::Progress),
        // 410 mostly; with any other, too, it is not known what was missed
        "ERROR" => return Err(End::Stale(CallError::Status(read::<ApiStatus>(text)?).to_string())),
        _ => None,
    })
}

/// The lines of a body, one at a time out of one buffer.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Where the next line begins, and up to where there is no end of line.
    start: usize,
    scanned: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, scanned: 0 }
    }

    /// The next line; `None` at the end of the body, whatever stands behind the last end of line.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, CallError> {
        loop {
            if let Some(length) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line = self.start..self.scanned + length;
                self.start = line.end + 1;
                self.scanned = self.start;
                return Ok(Some(&self.buffer[line]));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.scanned = self.buffer.len();
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(CallError::Transport(call::chain(&error))),
            }
        }
    }
}
